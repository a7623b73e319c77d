//! Real work, whose results are known by doing it: what a kernel with probes everywhere must do as if there were none.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// How often the workload makes a system call that nobody else in the guest makes.
pub const CALLS: u64 = 500;

/// What it did, in words, for comparison.
pub type Results = Vec<String>;

/// Does all of it once.
pub fn run() -> io::Result<Results> {
    let mut results = Results::new();
    let mut part = |name: &str, work: &mut dyn FnMut() -> io::Result<String>| -> io::Result<()> {
        let result = work().map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        results.push(format!("{name}: {result}"));
        Ok(())
    };
    part("files", &mut files)?;
    part("tree walk", &mut || walk(Path::new("/proc/sys")))?;
    part("processes", &mut processes)?;
    part("pipes", &mut pipes)?;
    part("sockets", &mut sockets)?;
    part("loopback", &mut loopback)?;
    part("signals", &mut signals)?;
    part("timers", &mut timers)?;
    part("memory", &mut memory)?;
    part("calls", &mut calls)?;
    Ok(results)
}

/// Order matters, values wrap.
fn digest(digest: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(digest, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn files() -> io::Result<String> {
    let root = Path::new("/tmp/workload");
    let _ = fs::remove_dir_all(root);
    for folder in 0..4 {
        let folder = root.join(format!("{folder}"));
        fs::create_dir_all(&folder)?;
        for file in 0..8 {
            let path = folder.join(format!("{file}"));
            fs::write(&path, vec![file as u8; 1000 * (file + 1)])?;
            fs::rename(&path, folder.join(format!("{file}.moved")))?;
        }
        std::os::unix::fs::symlink("0.moved", folder.join("link"))?;
        fs::hard_link(folder.join("1.moved"), folder.join("hard"))?;
    }
    let mut sum = 0;
    for folder in 0..4 {
        let mut entries = Vec::new();
        for entry in fs::read_dir(root.join(format!("{folder}")))? {
            entries.push(entry?.path());
        }
        entries.sort();
        for path in entries {
            sum = digest(sum, path.as_os_str().as_encoded_bytes());
            sum = digest(sum, &fs::read(&path)?);
            sum = digest(sum, &fs::metadata(&path)?.len().to_le_bytes());
        }
    }
    fs::remove_dir_all(root)?;
    Ok(format!("{sum:x}, gone: {}", !root.exists()))
}

/// The names of a tree that does not change; what is in it does.
fn walk(folder: &Path) -> io::Result<String> {
    fn visit(folder: &Path, count: &mut u32, sum: &mut u64) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            entries.push(entry?);
        }
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            *count += 1;
            *sum = digest(*sum, entry.path().as_os_str().as_encoded_bytes());
            if entry.file_type()?.is_dir() {
                visit(&entry.path(), count, sum)?;
            }
        }
        Ok(())
    }
    let (mut count, mut sum) = (0, 0);
    visit(folder, &mut count, &mut sum)?;
    Ok(format!("{count} entries, {sum:x}"))
}

fn shell(script: &str) -> io::Result<String> {
    let output = Command::new("/bin/busybox").args(["sh", "-c", script]).output()?;
    Ok(format!(
        "{:?} {}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).trim_end()
    ))
}

fn processes() -> io::Result<String> {
    let mut results = String::new();
    for number in 0..3 {
        results += &shell(&format!("busybox expr {number} + 40"))?;
        results += &shell("echo one two three | tr a-z A-Z | wc -c; exit 3")?;
    }
    Ok(results)
}

fn pipes() -> io::Result<String> {
    let (mut reader, mut writer) = io::pipe()?;
    let sum = thread::scope(|scope| -> io::Result<u64> {
        scope.spawn(move || {
            (0..300u64).for_each(|i| writer.write_all(&i.to_le_bytes()).expect("a pipe takes bytes"));
            // More than it holds, so that somebody waits.
            writer.write_all(&[1; 200_000]).expect("a pipe takes bytes");
        });
        let (mut sum, mut word) = (0, [0; 8]);
        for _ in 0..300 {
            reader.read_exact(&mut word)?;
            sum += u64::from_le_bytes(word);
        }
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest)?;
        Ok(sum * 1_000_000 + rest.iter().map(|byte| u64::from(*byte)).sum::<u64>())
    })?;
    Ok(sum.to_string())
}

fn echo(mut near: impl Read + Write, mut far: impl Read + Write + Send) -> io::Result<String> {
    thread::scope(|scope| {
        scope.spawn(move || -> io::Result<()> {
            let mut buffer = [0; 1000];
            loop {
                let length = far.read(&mut buffer)?;
                if length == 0 {
                    return Ok(());
                }
                far.write_all(&buffer[..length])?;
            }
        });
        let mut sum = 0;
        for round in 0..50u8 {
            let mut bytes = vec![round; 777];
            near.write_all(&bytes)?;
            bytes.fill(0);
            near.read_exact(&mut bytes)?;
            sum = digest(sum, &bytes);
        }
        drop(near);
        Ok(format!("{sum:x}"))
    })
}

fn sockets() -> io::Result<String> {
    let (near, far) = UnixStream::pair()?;
    echo(near, far)
}

fn loopback() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    near.set_nodelay(true)?;
    let (far, _) = listener.accept()?;
    far.set_nodelay(true)?;
    echo(near, far)
}

fn signals() -> io::Result<String> {
    shell(
        "n=0; trap 'n=$((n+1))' USR1; i=0; while [ $i -lt 40 ]; do kill -USR1 $$; i=$((i+1)); done; echo $n; (exec kill -SEGV $$) 2>/dev/null",
    )
}

fn timers() -> io::Result<String> {
    let begun = Instant::now();
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(format!("not early: {}", begun.elapsed() >= Duration::from_millis(20)))
}

/// As much memory as there is, but for a little: the kernel has to take back what it keeps for later.
fn memory() -> io::Result<String> {
    const LEFT: usize = 10 << 20;
    const PAGE: usize = 4096;
    let available = fs::read_to_string("/proc/meminfo")?
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemAvailable:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<usize>()
                .ok()
        })
        .unwrap_or(0)
        * 1024;
    let length = available.saturating_sub(LEFT).min(48 << 20) & !(PAGE - 1);
    // SAFETY: a mapping of its own, that nothing else refers to.
    let start = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            length,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }?
    .cast::<u8>();
    // SAFETY: the mapping, as long as it is.
    let bytes = unsafe { std::slice::from_raw_parts_mut(start, length) };
    let mut good = true;
    for (number, page) in bytes.chunks_exact_mut(PAGE).enumerate() {
        page[number % PAGE] = number as u8;
    }
    for (number, page) in bytes.chunks_exact(PAGE).enumerate() {
        good &= page[number % PAGE] == number as u8;
    }
    // SAFETY: nothing in the mapping is used any more but as bytes.
    unsafe { madvise(start.cast(), length / 2, Advice::LinuxDontNeed) }?;
    good &= bytes[..length / 2].iter().step_by(PAGE).all(|byte| *byte == 0);
    // SAFETY: `bytes` is used no more.
    unsafe { munmap(start.cast(), length) }?;
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    Ok(format!("as written: {good}, enough: {}", length >= 8 << 20))
}

fn calls() -> io::Result<String> {
    let priority = rustix::process::getpriority_process(None)?;
    let same = (1..CALLS).all(|_| rustix::process::getpriority_process(None) == Ok(priority));
    Ok(format!("always the same: {same}"))
}
