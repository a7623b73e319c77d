//! Maps: what a program has counted is exact on all CPUs, and read while it is counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dprobes::wire::{IOCTL_MAPS, IOCTL_READ_MAP, MapStatus, MapsRequest, ReadMapRequest};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::device::Device;
use crate::machine::{self, Module, Target, symbol};
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[
    ("a_histogram_of_system_calls", a_histogram_of_system_calls),
    ("totals_are_exact_and_never_go_back", totals_are_exact_and_never_go_back),
    ("a_map_is_read_piece_by_piece", a_map_is_read_piece_by_piece),
    ("wrong_requests_are_refused", wrong_requests_are_refused),
    ("memory_is_bounded", memory_is_bounded),
];

/// Every map.
fn maps(device: &Device) -> io::Result<Vec<MapStatus>> {
    let mut maps = vec![MapStatus::default(); 256];
    let mut request = MapsRequest {
        buffer: maps.as_mut_ptr().expose_provenance() as u64,
        capacity: maps.len() as u32,
        count: 0,
    };
    // SAFETY: the kernel writes the request and at most `capacity` states at `buffer`.
    unsafe { device.request::<IOCTL_MAPS, _>(&mut request) }?;
    maps.truncate(request.count as usize);
    Ok(maps)
}

/// The map of this name.
fn map(device: &Device, name: &str) -> Result<MapStatus, libtest_mimic::Failed> {
    let named = |map: &MapStatus| map.name.starts_with(name.as_bytes()) && map.name[name.len()] == 0;
    let found = maps(device)?.into_iter().find(named);
    found.ok_or_else(|| format!("there is no map {name}").into())
}

/// One request for entries of a map.
fn request(device: &Device, request: &mut ReadMapRequest, entries: &mut [u64]) -> Result<(), Errno> {
    request.buffer = entries.as_mut_ptr().expose_provenance() as u64;
    request.length = size_of_val(entries) as u64;
    // SAFETY: the kernel writes the request and at most `length` bytes at `buffer`.
    unsafe { device.request::<IOCTL_READ_MAP, _>(request) }
}

/// Values by their keys.
type Entries = BTreeMap<Vec<u64>, Vec<u64>>;

/// The entries of a map, and how many updates did not fit.
fn read(device: &Device, name: &str) -> Result<(Entries, u64), libtest_mimic::Failed> {
    let map = map(device, name)?;
    let words = map.entry_bytes as usize / 8;
    let mut entries = vec![0; words * 4096];
    let mut asked = ReadMapRequest {
        id: map.id,
        ..ReadMapRequest::default()
    };
    request(device, &mut asked, &mut entries)?;
    ensure!(asked.left == 0 && asked.entry_bytes == map.entry_bytes, "{asked:?}");
    let entries = entries.chunks(words).take(asked.count as usize);
    let split = |entry: &[u64]| {
        let (keys, value) = entry.split_at(map.keys as usize);
        (keys.to_vec(), value.to_vec())
    };
    Ok((entries.map(split).collect(), asked.dropped))
}

/// A program with maps for one place in the kernel.
fn with_maps(major: u16, maps: &str, address: u64, code: &str) -> Vec<u8> {
    program::assemble(&format!(
        "name = \"kernel\"\nmodtype = kernel\nmajor = {major}\n{maps}\naddress = {address:#x}\nminor = 1\n{code}\nabort\n"
    ))
}

/// The bucket of a power-of-two histogram that a value is in.
fn log2_bucket(value: i64) -> usize {
    if value < 0 {
        0
    } else {
        65 - value.leading_zeros() as usize
    }
}

/// Two threads make a known number of calls with known arguments, each on a CPU of its own. The argument is in the user's registers, which
/// the system call's function gets the address of.
fn a_histogram_of_system_calls() -> Outcome {
    const CALLS: u64 = 20_000;
    const CPUS: usize = 2;
    ensure!(machine::cpus() >= CPUS, "this needs two CPUs");
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    // lseek(fd, offset, whence): the offset is the second argument, RSI in struct pt_regs.
    let declared = "map offsets = log2, keys = 1\nmap ranges = linear, keys = 1, min = 0, max = 20000, step = 1000\n\
        map callers = count, keys = 2\nmap mean = avg, keys = 1\nmap few = count, keys = 1, entries = 16";
    let offset = "push r, rdi\npush 0x68\nadd\npush mem, u64";
    let code = format!(
        "push pid\n{offset}\nagg offsets\npush pid\n{offset}\nagg ranges\npush pid\npush cpu\nagg callers\n\
        push pid\n{offset}\nagg mean\n{offset}\nagg few"
    );
    device.insert(&with_maps(1, declared, symbol("__x64_sys_lseek"), &code))?;
    let offset_of = |call: u64| call.wrapping_mul(7) % 25_000;
    thread::scope(|scope| {
        let callers = Vec::from_iter((0..CPUS).map(|cpu| {
            scope.spawn(move || -> io::Result<()> {
                machine::pin(cpu);
                let file = File::open("/proc/self/exe")?;
                for call in 0..CALLS {
                    seek(&file, SeekFrom::Start(offset_of(call)))?;
                }
                Ok(())
            })
        }));
        callers
            .into_iter()
            .try_for_each(|caller| caller.join().expect("a caller does not panic"))
    })?;
    let status = device.query()?[0];
    ensure!(status.missed == 0 && status.exceptions == 0, "{status:?}");

    let pid = u64::from(std::process::id());
    let both = CPUS as u64;
    let mut offsets = vec![0; 65];
    let mut ranges = vec![0; 22];
    let mut sum = 0;
    for call in 0..CALLS {
        let offset = offset_of(call);
        offsets[log2_bucket(offset as i64)] += both;
        ranges[usize::try_from(offset / 1000 + 1)?.min(21)] += both;
        sum += offset * both;
    }
    let one =
        |name| -> Result<Option<Vec<u64>>, libtest_mimic::Failed> { Ok(read(&device, name)?.0.remove(&vec![pid])) };
    let found = one("offsets")?;
    ensure!(found.as_ref() == Some(&offsets), "{found:?} instead of {offsets:?}");
    let found = one("ranges")?;
    ensure!(found.as_ref() == Some(&ranges), "{found:?} instead of {ranges:?}");
    let found = one("mean")?;
    ensure!(found == Some(vec![CALLS * both, sum, 0]), "{found:?}, sum {sum}");
    let (callers, dropped) = read(&device, "callers")?;
    for cpu in 0..both {
        let found = callers.get(&vec![pid, cpu]);
        ensure!(found == Some(&vec![CALLS]), "on CPU {cpu}: {found:?}");
    }
    ensure!(dropped == 0, "{dropped} dropped");
    // Whatever other processes call, each call is in an entry or dropped.
    let (few, dropped) = read(&device, "few")?;
    let kept: u64 = few.values().map(|value| value[0]).sum();
    ensure!(
        kept + dropped == status.hits,
        "{kept} kept, {dropped} dropped, {} hits",
        status.hits
    );
    ensure!(
        few.len() <= 16 * CPUS && dropped > CALLS,
        "{} entries, {dropped} dropped",
        few.len()
    );
    println!(
        "    {} calls, {} entries of other processes",
        status.hits,
        callers.len() - CPUS
    );
    Ok(())
}

/// The target's rounds are counted by the target too.
fn totals_are_exact_and_never_go_back() -> Outcome {
    const SOME: u64 = 1000;
    const TIMES: u64 = 100;
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    let declared =
        "map rounds = count\nmap mean = avg\nmap by_cpu = sum, keys = 1\nmap clock = count, keys = 1, entries = 100";
    // Half of a sum of these is no multiple of them: a torn one shows.
    let code = "agg rounds\npush 0x8000000000000005\nagg mean\npush cpu\npush 3\nagg by_cpu\npush clock\nagg clock";
    device.insert(&with_maps(1, declared, target.middle(), code))?;
    let before = target.rounds();
    let working = AtomicBool::new(true);
    let readings = thread::scope(|scope| -> Result<u64, libtest_mimic::Failed> {
        let runners = Vec::from_iter((0..machine::cpus()).map(|cpu| {
            let target = &target;
            scope.spawn(move || -> io::Result<()> {
                machine::pin(cpu);
                (0..TIMES).try_for_each(|_| target.run(SOME))
            })
        }));
        let reader = scope.spawn(|| -> Result<u64, libtest_mimic::Failed> {
            let (mut last, mut readings) = (0, 0);
            while working.load(Ordering::Relaxed) {
                for value in read(&device, "mean")?.0.into_values() {
                    let sum = (u128::from(value[1]) | u128::from(value[2]) << 64).cast_signed();
                    let each = i128::from(0x8000_0000_0000_0005_u64.cast_signed());
                    ensure!(sum == each * i128::from(value[0]), "torn: {value:x?}");
                    ensure!(value[0] >= last, "it went back from {last} to {}", value[0]);
                    last = value[0];
                }
                readings += 1;
            }
            Ok(readings)
        });
        let run = runners
            .into_iter()
            .try_for_each(|runner| runner.join().expect("a runner does not panic"));
        working.store(false, Ordering::Relaxed);
        run?;
        reader.join().expect("the reader does not panic")
    })?;
    let all = target.rounds() - before;
    let status = device.query()?[0];
    ensure!(
        status.hits == all && all == SOME * TIMES * machine::cpus() as u64,
        "{all} rounds, {status:?}"
    );
    println!("    {all} rounds, {readings} readings");
    ensure!(readings > 2, "nothing was read meanwhile");
    let total = |name| -> Result<u64, libtest_mimic::Failed> {
        Ok(read(&device, name)?.0.values().map(|value| value[0]).sum())
    };
    ensure!(total("rounds")? == all, "{} counted", total("rounds")?);
    ensure!(total("mean")? == all, "{} averaged", total("mean")?);
    ensure!(total("by_cpu")? == 3 * all, "{} summed up", total("by_cpu")?);
    // No two hits of a CPU are at the same time: the table is full soon.
    let (clock, dropped) = read(&device, "clock")?;
    let kept: u64 = clock.values().map(|value| value[0]).sum();
    ensure!(kept + dropped == all && dropped > 0, "{kept} kept, {dropped} dropped");
    Ok(())
}

fn a_map_is_read_piece_by_piece() -> Outcome {
    const ENTRIES: u64 = 5000;
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    machine::pin(0);
    let declared = "map many = count, keys = 2, entries = 8192\nmap next = sum";
    // A local variable is another key each time.
    let text = format!(
        "name = \"kernel\"\nmodtype = kernel\nmajor = 1\nvars = n\n{declared}\naddress = {:#x}\nminor = 1\n\
        inc lv, n\npush lv, n\npush 9\nagg many\nabort\n",
        target.middle()
    );
    device.insert(&program::assemble(&text))?;
    target.run(ENTRIES)?;
    let status = map(&device, "many")?;
    for room in [1, 7, 4096, 8192] {
        let mut asked = ReadMapRequest {
            id: status.id,
            ..ReadMapRequest::default()
        };
        let mut keys = Vec::new();
        loop {
            let mut entries = vec![0; room * 3];
            request(&device, &mut asked, &mut entries)?;
            ensure!(asked.count as usize <= room, "{asked:?}");
            for entry in entries.chunks(3).take(asked.count as usize) {
                ensure!(entry[1..] == [9, 1], "{entry:?}");
                keys.push(entry[0]);
            }
            ensure!(
                asked.left == ENTRIES - keys.len() as u64,
                "{asked:?} after {}",
                keys.len()
            );
            if asked.left == 0 {
                break;
            }
            ensure!(asked.count > 0, "no progress");
            asked.resume = 1;
            asked.after = [*keys.last().expect("there are some"), 9, 0, 0];
        }
        ensure!(
            keys == (1..=ENTRIES).collect::<Vec<_>>(),
            "{} keys by {room}",
            keys.len()
        );
    }
    Ok(())
}

fn wrong_requests_are_refused() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    device.insert(&with_maps(
        1,
        "map one = sum, keys = 1",
        target.middle(),
        "push 1\npush 2\nagg one",
    ))?;
    target.run(10)?;
    let id = map(&device, "one")?.id;
    let good = ReadMapRequest {
        id,
        ..ReadMapRequest::default()
    };
    let mut entries = [0; 16];
    for (mut wrong, errno) in [
        (ReadMapRequest { id: 0, ..good }, Errno::NOENT),
        (ReadMapRequest { id: id + 1, ..good }, Errno::NOENT),
        (ReadMapRequest { resume: 2, ..good }, Errno::INVAL),
        (ReadMapRequest { reserved: 1, ..good }, Errno::INVAL),
        (
            ReadMapRequest {
                after: [1, 0, 0, 0],
                ..good
            },
            Errno::INVAL,
        ),
        (
            ReadMapRequest {
                resume: 1,
                after: [0, 1, 0, 0],
                ..good
            },
            Errno::INVAL,
        ),
    ] {
        let result = request(&device, &mut wrong, &mut entries);
        ensure!(result == Err(errno), "{result:?} instead of {errno} for {wrong:?}");
    }
    for (buffer, length, expected) in [
        (0, 64, Err(Errno::FAULT)),
        (0xffff_8000_0000_0000, 64, Err(Errno::FAULT)),
        (0x0000_8000_0000_0000, u64::MAX, Err(Errno::FAULT)),
        // Nothing is written where nothing fits.
        (0, 0, Ok(())),
        (0, 15, Ok(())),
    ] {
        let mut asked = ReadMapRequest { buffer, length, ..good };
        // SAFETY: the kernel writes the request, and finds no other place that it could write to.
        let result = unsafe { device.request::<IOCTL_READ_MAP, _>(&mut asked) };
        ensure!(
            result == expected,
            "{result:?} instead of {expected:?} for {length} bytes at {buffer:#x}"
        );
        ensure!(
            expected.is_err() || (asked.count, asked.left, asked.entry_bytes) == (0, 1, 16),
            "{asked:?}"
        );
    }
    for (buffer, capacity, expected) in [
        (0, 1, Err(Errno::FAULT)),
        (8, u32::MAX, Err(Errno::FAULT)),
        (0, 0, Ok(())),
    ] {
        let mut asked = MapsRequest {
            buffer,
            capacity,
            count: 0,
        };
        // SAFETY: as above.
        let result = unsafe { device.request::<IOCTL_MAPS, _>(&mut asked) };
        ensure!(
            result == expected,
            "{result:?} instead of {expected:?} for {capacity} at {buffer:#x}"
        );
    }
    device.remove("kernel", 1)?;
    let mut late = good;
    let result = request(&device, &mut late, &mut entries);
    ensure!(result == Err(Errno::NOENT), "{result:?} after the program was removed");
    Ok(())
}

/// Programs with as much memory as they may have come and go, and what they took is given back.
fn memory_is_bounded() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    // 65536 entries of 3 words and an index are 2 MiB on each CPU.
    let large: String = (0..7)
        .map(|n| format!("map m{n} = count, keys = 2, entries = 65536\n"))
        .collect();
    let object = with_maps(1, &large, target.middle(), "push 1\npush 2\nagg m3");
    let free = || -> Result<u64, libtest_mimic::Failed> {
        let text = std::fs::read_to_string("/proc/meminfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kilobytes = line.and_then(|line| line.split_ascii_whitespace().next());
        Ok(kilobytes.ok_or("no MemAvailable")?.parse()?)
    };
    let before = free()?;
    for _ in 0..20 {
        device.insert(&object)?;
        target.run(100)?;
        let all: u64 = maps(&device)?.iter().map(|map| map.bytes).sum();
        ensure!(all > 10 << 20, "{all} bytes");
        device.remove("kernel", 1)?;
    }
    let after = free()?;
    // One map that is not given back takes 4 MiB each time, on two CPUs. The kernel itself gives some of what was mapped back later.
    ensure!(after + (16 << 10) > before, "{before} kB were free, {after} kB are");
    Ok(())
}
