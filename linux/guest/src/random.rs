//! Random operations on the device, as root, with two threads: requests with good, flipped and made-up arguments, reads, writes, maps. They must do
//! nothing worse than be refused. `DPROBES_OPERATIONS` says how many, and `DPROBES_SEED` which.
//!
//! Programs that may do anything if a bit of their code is another one are on functions that nobody calls; those whose other bytes are changed have
//! code that can do nothing.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::thread;

use dprobes::rpn::object::layout::{Header, Point};
use dprobes::rpn::object::seal;
use dprobes::wire::{
    CheckRequest, IOCTL_CHECK, IOCTL_INSERT, IOCTL_MAPS, IOCTL_QUERY, IOCTL_READ_MAP, IOCTL_REMOVE, IOCTL_VARS,
    InsertRequest, PointCheck, ReadMapRequest, label,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use survey::kcore::Kcore;

use crate::device::{Device, remove_request};
use crate::machine::{Module, symbol};
use crate::soak::Random;
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[(
    "operations_do_nothing_worse_than_fail",
    operations_do_nothing_worse_than_fail,
)];

/// How many there are if nothing is said.
const OPERATIONS: usize = 20_000;

/// After so many everything is taken out and looked at.
const ROUND: usize = 50_000;

const THREADS: usize = 2;

/// Nobody calls these while the machine runs.
const UNUSED: [&str; 3] = ["kernel_halt", "kernel_power_off", "emergency_restart"];

/// Memory that the kernel may have at the end and did not have before, in kilobytes: what it keeps for itself, in caches and per CPU.
const SLACK: u64 = 16 << 10;

/// Words that the kernel may write to: more than any answer has.
const ARENA: usize = 1 << 16;

const REQUESTS: [u32; 7] = [
    IOCTL_INSERT,
    IOCTL_REMOVE,
    IOCTL_QUERY,
    IOCTL_MAPS,
    IOCTL_READ_MAP,
    IOCTL_CHECK,
    IOCTL_VARS,
];

/// An object, and which of its bytes may be changed.
struct Sample {
    bytes: Vec<u8>,
    flips: Range<usize>,
}

/// Objects with everything that programs have. Each comes twice: its code may be changed, on a function that nobody calls, or all before it.
fn samples() -> Vec<Sample> {
    let quiet = |major: usize, place: &str, header: &str| {
        format!("name = \"kernel\"\nmodtype = kernel\nmajor = {major}\nvars = a, b\n{header}\n{place}\nminor = 1\n")
    };
    let address = |name: &str| format!("address = {:#x}", symbol(name));
    let mut texts = Vec::new();
    for (major, name) in (1..).zip(UNUSED) {
        let begin = quiet(major, &address(name), "map m = log2, keys = 1");
        let code = "push 7\npush r, rip\nagg m\npush r, rdi\nlog 1\npush 2\nx: dec lv, a\njlt x\nexit\n";
        texts.push((format!("{begin}group = 1\n{code}"), false));
        texts.push((format!("{begin}max_hits = 3\nopcode = 0x90\n{code}"), false));
    }
    for (major, name) in (4..).zip(["do_sys_openat2", "vfs_read", "__x64_sys_getpid"]) {
        texts.push((quiet(major, &address(name), "") + "inc lv, a\nabort\n", true));
        let watched = format!("address = {:#x}\nwatch = write 4", symbol("sysctl_max_threads"));
        texts.push((quiet(major, &watched, "") + "inc lv, b\nabort\n", true));
        let several = format!("{}\nminor = 2\nabort\n{}", address("vfs_write"), address(name));
        texts.push((
            quiet(major, &several, "map m = sum") + "group = 2\npass_count = 3\nabort\n",
            true,
        ));
    }
    let waits = "name = \"absent\"\nmodtype = kmod\nmajor = 7\nvars = a\noffset = somewhere + 4\nminor = 1\nabort\n";
    texts.push((waits.to_owned(), true));
    let user = "name = \"/bin/busybox\"\nmodtype = user\nmajor = 8\nvars = a\noffset = 0x1000\nminor = 1\nabort\n";
    texts.push((user.to_owned(), true));
    let samples = texts.into_iter().map(|(text, harmless)| {
        let bytes = program::assemble(&text);
        let strings = u32::from_le_bytes(bytes[68..72].try_into().expect("four bytes")) as usize;
        let code = u32::from_le_bytes(bytes[64..68].try_into().expect("four bytes")) as usize;
        let code = bytes.len() - strings - code..bytes.len() - strings;
        let flips = if harmless { 8..code.start } else { code };
        Sample { bytes, flips }
    });
    samples.collect()
}

/// What one thread does, and what has come of it.
struct Actor<'a> {
    device: Device,
    samples: &'a [Sample],
    random: Random,
    arena: Box<[u64]>,
    outcomes: BTreeMap<(&'static str, i32), u64>,
}

impl Actor<'_> {
    fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound)
    }

    /// A word: small, of all bits, an address of user space, or of the kernel.
    fn word(&mut self) -> u64 {
        let any = (self.below(1 << 32) as u64) << 32 | self.below(1 << 32) as u64;
        match self.below(6) {
            0 => any,
            1 => any % 100,
            2 => u64::MAX - any % 100,
            3 => 0xffff_ffff_8100_0000 + any % 0x100_0000,
            4 => 0xffff_8880_0000_0000 + any % 0x1_0000_0000,
            _ => self.arena.as_ptr().addr() as u64 + any % 4096,
        }
    }

    /// An object: as it is, with changed bits and the checksum that they have, shortened, or without sense.
    fn object(&mut self) -> Vec<u8> {
        let sample = self.below(self.samples.len());
        let Sample { bytes, flips } = &self.samples[sample];
        let mut bytes = bytes.clone();
        match self.below(10) {
            0..=1 => {}
            2..=7 => {
                for _ in 0..=self.below(3) {
                    let at = flips.start + self.below(flips.len());
                    bytes[at] ^= 1 << self.below(8);
                }
                let len = bytes.len();
                // What the header says of the length is made right again, so that the other checks are reached.
                if seal(&mut bytes).is_err() {
                    bytes.truncate(len);
                }
            }
            8 => bytes.truncate(self.below(bytes.len())),
            _ => {
                bytes.truncate(size_of::<Header>());
                bytes.resize(size_of::<Header>() + size_of::<Point>() * self.below(20), 0xa5);
                let _ = seal(&mut bytes);
            }
        }
        bytes
    }

    fn insert(&mut self) -> i32 {
        let object = self.object();
        let mut request = InsertRequest {
            object: object.as_ptr().expose_provenance() as u64,
            length: object.len() as u64,
            how: self.below(3) as u32,
            last: self.arena.as_mut_ptr().expose_provenance() as u64,
            capacity: self.below(8) as u32,
            ..InsertRequest::default()
        };
        match self.below(20) {
            0 => request.object = self.word(),
            1 => request.length = self.word(),
            2 => request.file = self.word() as i32,
            3 => request.how = self.word() as u32,
            4 => request.last = self.harmless(),
            _ => {}
        }
        // A file that is there may be a program's.
        if request.file == -1 && self.below(8) == 0 {
            request.file = self.device.file.as_raw_fd();
        }
        self.raw(IOCTL_INSERT, (&raw mut request).addr() as u64)
    }

    /// An address at which the kernel can write nothing that this program needs.
    fn harmless(&mut self) -> u64 {
        let arena = self.arena.as_mut_ptr().expose_provenance() as u64;
        let addresses = [0, 8, u64::MAX, 0xffff_ffff_8100_0000, 0x0000_8000_0000_0000, arena];
        addresses[self.below(addresses.len())]
    }

    fn remove(&mut self) -> i32 {
        let names = ["kernel", "absent", "/bin/busybox", ""];
        let mut request = remove_request(names[self.below(names.len())], self.below(9) as u16);
        request.capacity = self.below(10) as u32;
        request.last = self.harmless();
        if request.last != self.arena.as_ptr().addr() as u64 {
            request.capacity = self.word() as u32;
        }
        match self.below(40) {
            0 => request.all = self.below(4) as u16,
            1..=15 => request.keep = self.below(6) as u16,
            16 => request.module = label(&[0xff; 64]),
            _ => {}
        }
        request.number = if request.keep > 1 { self.below(4) as u16 } else { 0 };
        self.raw(IOCTL_REMOVE, (&raw mut request).addr() as u64)
    }

    /// A request with an argument of random words, in which nothing can be an address of ours but the arena's.
    fn made_up(&mut self) -> i32 {
        let number = REQUESTS[self.below(REQUESTS.len())];
        // Inserting random bytes is `insert`'s business; removing, `remove`'s.
        let number = match number {
            IOCTL_REMOVE | IOCTL_INSERT => number ^ 1 << (16 + self.below(12)),
            number if self.below(10) == 0 => number ^ 1 << self.below(32),
            number => number,
        };
        let mut words = [0_u64; 64];
        for word in &mut words[..16] {
            *word = match self.below(3) {
                0 => 0,
                1 => self.harmless(),
                _ => self.word() % 40,
            };
        }
        let argument = match self.below(10) {
            0 => self.harmless(),
            _ => words.as_mut_ptr().expose_provenance() as u64,
        };
        self.raw(number, argument)
    }

    fn check(&mut self) -> i32 {
        let mut checks: Vec<PointCheck> = (0..=self.below(16)).map(|_| PointCheck::of(self.word())).collect();
        let mut request = CheckRequest {
            checks: checks.as_mut_ptr().expose_provenance() as u64,
            count: checks.len() as u32,
            ..CheckRequest::default()
        };
        self.raw(IOCTL_CHECK, (&raw mut request).addr() as u64)
    }

    fn read_map(&mut self) -> i32 {
        let mut request = ReadMapRequest {
            id: self.below(600) as u64,
            buffer: self.arena.as_mut_ptr().expose_provenance() as u64,
            length: self.below(4097) as u64,
            resume: self.below(3) as u32,
            after: [self.below(3) as u64; 4],
            ..ReadMapRequest::default()
        };
        self.raw(IOCTL_READ_MAP, (&raw mut request).addr() as u64)
    }

    fn raw(&mut self, number: u32, argument: u64) -> i32 {
        let file = self.device.file.as_raw_fd();
        // SAFETY: the kernel writes the argument, and at places that it names: the arena, which is ours and holds words; vectors of the
        // caller's that are long enough; or addresses where nothing is mapped, as the callers take care of.
        let result = unsafe { libc::ioctl(file, number.into(), argument) };
        if result < 0 {
            io::Error::last_os_error().raw_os_error().unwrap_or(-1)
        } else {
            0
        }
    }

    /// What is no request: the file's other operations.
    fn other(&mut self) -> i32 {
        let file = self.device.file.as_raw_fd();
        let length = self.below(4097);
        let to = self.harmless();
        let arena = self.arena.as_mut_ptr();
        let code = |result: isize| match result {
            ..0 => io::Error::last_os_error().raw_os_error().unwrap_or(-1),
            _ => 0,
        };
        // SAFETY: the kernel reads or writes up to 4096 bytes of the arena, or at an address where nothing is mapped.
        unsafe {
            match self.below(6) {
                0 => code(libc::read(file, arena.cast(), length)),
                1 => code(libc::read(
                    file,
                    ptr::with_exposed_provenance_mut(to as usize),
                    length.min(8),
                )),
                2 => code(libc::write(file, arena.cast(), length)),
                3 => code(libc::lseek(file, length as i64, 0) as isize),
                4 => self.map(),
                _ => {
                    let borrowed = BorrowedFd::borrow_raw(file);
                    let mut waiting = [PollFd::from_borrowed_fd(borrowed, PollFlags::IN)];
                    let none = Timespec::default();
                    poll(&mut waiting, Some(&none)).map_or_else(|error| error.raw_os_error(), |_| 0)
                }
            }
        }
    }

    fn map(&mut self) -> i32 {
        let offset = [0, 4096, 1 << 20, 1 << 40][self.below(4)];
        let length = [1, 4096, 65536, 1 << 30][self.below(4)];
        let protection = [ProtFlags::READ, ProtFlags::WRITE, ProtFlags::READ | ProtFlags::EXEC][self.below(3)];
        let flags = [MapFlags::SHARED, MapFlags::PRIVATE][self.below(2)];
        // SAFETY: a new mapping, which nobody uses.
        unsafe {
            match mmap(ptr::null_mut(), length, protection, flags, &self.device.file, offset) {
                Ok(mapped) => munmap(mapped, length).map_or_else(|error| error.raw_os_error(), |()| 0),
                Err(error) => error.raw_os_error(),
            }
        }
    }

    fn act(&mut self, operations: usize) -> io::Result<()> {
        for _ in 0..operations {
            let (what, code) = match self.below(100) {
                0..=24 => ("insert", self.insert()),
                25..=36 => ("remove", self.remove()),
                37..=56 => ("made up", self.made_up()),
                57..=62 => ("check", self.check()),
                63..=69 => ("read map", self.read_map()),
                70..=71 => (
                    "open",
                    Device::open().map_or_else(|error| error.raw_os_error().unwrap_or(-1), |_| 0),
                ),
                _ => ("other", self.other()),
            };
            *self.outcomes.entry((what, code)).or_default() += 1;
        }
        Ok(())
    }
}

/// The kernel's own text.
fn text() -> io::Result<Vec<u8>> {
    Kcore::open()?.read(symbol("_stext")..symbol("_etext"))
}

/// Kilobytes of a line of /proc/meminfo.
fn kilobytes(of: &str) -> io::Result<u64> {
    let all = fs::read_to_string("/proc/meminfo")?;
    let line = all.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(':'));
    Ok(line
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0))
}

fn memory_used() -> io::Result<String> {
    fs::read_to_string("/sys/module/dprobes/parameters/memory_used")
}

/// A number that the environment may have.
fn setting(name: &str, otherwise: usize) -> usize {
    env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

fn operations_do_nothing_worse_than_fail() -> Outcome {
    let (operations, seed) = (setting("DPROBES_OPERATIONS", OPERATIONS), setting("DPROBES_SEED", 1));
    println!("{operations} operations, seed {seed}");
    let module = Module::dprobes()?;
    let device = Device::open()?;
    let samples = samples();
    for sample in &samples {
        // Whatever is made once is there after this.
        let _ = device.insert(&sample.bytes);
        device.remove_all()?;
    }
    let (text_before, used_before) = (text()?, memory_used()?);
    let memory = || Ok::<_, io::Error>(kilobytes("Slab")? + kilobytes("VmallocUsed")? + kilobytes("Percpu")?);
    let memory_before = memory()?;
    let mut outcomes = BTreeMap::new();
    let mut done = 0;
    while done < operations {
        let round = ROUND.min(operations - done);
        let actor = |thread: usize| {
            Ok::<_, io::Error>(Actor {
                device: Device::open()?,
                samples: &samples,
                random: Random::new((seed << 32 | done << 1 | thread) as u64),
                arena: vec![0; ARENA].into_boxed_slice(),
                outcomes: BTreeMap::new(),
            })
        };
        let run = |thread| {
            let mut actor = actor(thread)?;
            actor.act(round / THREADS)?;
            Ok::<_, io::Error>(actor.outcomes)
        };
        let all: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || run(thread))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a thread that ends"))
                .collect()
        });
        for (what, count) in all.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
            *outcomes.entry(what).or_insert(0) += count;
        }
        done += round;
        device.remove_all()?;
        ensure!(device.query()?.is_empty(), "something is inserted");
        ensure!(
            memory_used()? == used_before,
            "{} instead of {used_before} bytes",
            memory_used()?
        );
        println!("{done} operations done");
    }
    for ((what, code), count) in &outcomes {
        let how = match code {
            0 => "done".to_owned(),
            code => io::Error::from_raw_os_error(*code).to_string(),
        };
        println!("{what}: {count} times {how}");
    }
    let inserted = outcomes.get(&("insert", 0)).copied().unwrap_or(0);
    ensure!(
        inserted > 0 && outcomes.len() > 15,
        "too little was tried: {outcomes:?}"
    );
    // Jump labels and static calls may have changed; breakpoints must not be anywhere.
    let text_after = text()?;
    let armed = text_before
        .iter()
        .zip(&text_after)
        .filter(|(before, after)| before != after && **after == 0xcc);
    ensure!(armed.count() == 0, "breakpoints are left in the kernel's text");
    let memory_after = memory()?;
    ensure!(
        memory_after < memory_before + SLACK,
        "the kernel has {memory_after} kB in use, and had {memory_before}"
    );
    drop(device);
    module.unload()?;
    Ok(())
}
