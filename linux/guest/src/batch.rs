//! Fifty thousand probes across the kernel's text, as one transaction.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use dprobes::insn::Instructions;
use dprobes::rpn::object::{self, layout};
use dprobes::wire::{ProbeStatus, State};
use survey::ask::Module as Asking;
use survey::kcore::Kcore;
use survey::symbols::{Function, Symbols};
use zerocopy::{FromBytes, IntoBytes};

use crate::device::Device;
use crate::machine::{Module, Target};
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[
    ("fifty_thousand_come_and_go", fifty_thousand_come_and_go),
    ("two_programs_share_them", two_programs_share_them),
    ("one_that_is_refused_leaves_nothing", one_that_is_refused_leaves_nothing),
    ("they_come_and_go_under_load", they_come_and_go_under_load),
];

/// How many probes are one batch.
pub const PROBES: usize = 50_000;

/// A program that counts, with a probe at each address.
pub fn count_at(major: u16, addresses: impl IntoIterator<Item = u64>) -> Vec<u8> {
    run_at(major, program::COUNT, addresses)
}

/// A program with a probe at each address. All have the one handler, so that it is verified once; minor codes count from 1.
pub fn run_at(major: u16, code: &str, addresses: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let one = program::at(major, &[0], code);
    let (header, rest) = layout::Header::read_from_prefix(&one).expect("an object");
    let (point, rest) = layout::Point::read_from_prefix(rest).expect("its point");
    let mut header = header;
    let mut object = header.as_bytes().to_vec();
    let mut count = 0_u32;
    for address in addresses {
        count += 1;
        let mut point = point;
        point.value.set(address);
        point.minor.set(count as u16);
        object.extend_from_slice(point.as_bytes());
    }
    header.points.set(count);
    object[..header.as_bytes().len()].copy_from_slice(header.as_bytes());
    object.extend_from_slice(rest);
    object::seal(&mut object).expect("an object of moderate length");
    object
}

/// Where in a function the NOP is in whose place the function tracer puts a call: at its beginning, or behind an `endbr64` or what the kernel has
/// in the place of one that nobody needs. `None` if the tracer does not know the function.
pub fn tracers_nop(function: &[u8]) -> Option<usize> {
    const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
    [0, 4]
        .into_iter()
        .find(|offset| function.get(*offset..).is_some_and(|from| from.starts_with(&NOP)))
}

/// So many addresses across the kernel's text where probes go: behind the entries of functions, and at instructions in the middle of others.
pub fn addresses(wanted: usize) -> Result<Vec<u64>, libtest_mimic::Failed> {
    let (asking, kcore, symbols) = (Asking::open()?, Kcore::open()?, Symbols::read()?);
    let text = symbols.between("_text", "_etext").ok_or("no text")?;
    let (mut entries, mut middles) = (Vec::new(), Vec::new());
    let mut traced = 0;
    for Function { range, .. } in symbols.functions(&text) {
        let bytes = kcore.read(range.clone())?;
        // One that the tracer knows is not in what nobody may probe, or only seldom.
        let Some(nop) = tracers_nop(&bytes) else { continue };
        traced += 1;
        if traced % 2 == 0 {
            entries.push(range.start);
            continue;
        }
        let instructions = Instructions::new(&bytes).map_while(Result::ok);
        // Behind the tracer's NOP, so that it is no other's entry.
        let some = instructions
            .skip_while(|(offset, _)| *offset <= nop)
            .skip(1)
            .step_by(5)
            .take(3);
        middles.extend(some.map(|(offset, _)| range.start + offset as u64));
    }
    let mut found = asking.accepted(&entries)?;
    found.truncate(wanted / 2);
    found.extend(asking.accepted(&middles)?);
    found.truncate(wanted);
    ensure!(
        found.len() == wanted,
        "{} of {wanted} addresses can be probed",
        found.len()
    );
    found.sort_unstable();
    Ok(found)
}

/// A little of everything: files, pipes, processes, page faults. Its results are known. Two at a time need a file each.
fn workload(file: &str) -> Outcome {
    fs::write(file, vec![7; 50_000])?;
    ensure!(fs::read(file)? == vec![7; 50_000], "a file changed");
    let (mut reader, mut writer) = std::io::pipe()?;
    writer.write_all(b"through a pipe")?;
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    ensure!(text == "through a pipe", "a pipe changed what went through it: {text}");
    let output = Command::new("/bin/busybox").args(["expr", "20", "+", "22"]).output()?;
    ensure!(output.stdout == b"42\n", "{output:?}");
    let mut memory = vec![0_u8; 1 << 20];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    ensure!(
        memory.iter().map(|byte| u64::from(*byte)).sum::<u64>() == 256,
        "memory changed"
    );
    Ok(())
}

/// KiB that the module has taken from the kernel for more than a page at once, and KiB of slabs that are in use.
fn memory() -> Result<(u64, u64), libtest_mimic::Failed> {
    let areas = fs::read_to_string("/proc/vmallocinfo")?;
    let ours = areas.lines().filter(|line| line.contains("[dprobes]"));
    let sizes = ours.filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    let slabs = fs::read_to_string("/proc/meminfo")?;
    let slabs = slabs.lines().find_map(|line| {
        line.strip_prefix("SUnreclaim:")?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    });
    Ok((
        sizes.sum::<u64>() / 1024,
        slabs.ok_or("no SUnreclaim in /proc/meminfo")?,
    ))
}

/// Nothing happened to a probe that should not.
fn sound(status: &ProbeStatus) -> bool {
    status.state == State::Armed as u32 && (status.exceptions, status.lost, status.late) == (0, 0, 0)
}

fn fifty_thousand_come_and_go() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    let mut addresses = addresses(PROBES - 1)?;
    addresses.push(target.middle());
    let object = count_at(1, addresses.iter().copied());
    println!("    {} bytes of object", object.len());
    for _ in 0..3 {
        let before = memory()?;
        let begun = Instant::now();
        device.insert(&object)?;
        let inserted = begun.elapsed();
        let after = memory()?;
        let rounds = target.rounds();
        target.run(1000)?;
        workload("/tmp/batch")?;
        let begun = Instant::now();
        let probes = device.query()?;
        let queried = begun.elapsed();
        ensure!(probes.len() == PROBES, "{} probes", probes.len());
        if let Some(wrong) = probes.iter().find(|status| !sound(status)) {
            return Err(format!("{wrong:?}").into());
        }
        let counted = probes.last().map_or(0, |status| status.hits + status.missed);
        ensure!(
            counted == target.rounds() - rounds,
            "{counted} hits of {} rounds",
            target.rounds() - rounds
        );
        let begun = Instant::now();
        let last = device.remove("kernel", 1)?;
        let removed = begun.elapsed();
        ensure!(last.len() == PROBES, "{} probes were removed", last.len());
        let hits: u64 = last.iter().map(|status| status.hits + status.missed).sum();
        let fired = last.iter().filter(|status| status.hits > 0).count();
        println!(
            "    inserted in {inserted:?}, queried in {queried:?}, removed in {removed:?}; {fired} fired, {hits} hits; \
             {} KiB, and {} KiB of slabs",
            after.0 - before.0,
            after.1.saturating_sub(before.1)
        );
        ensure!(fired > 500, "{fired} of {PROBES} fired");
        ensure!(device.query()?.is_empty(), "something is left");
        workload("/tmp/batch")?;
        ensure!(
            memory()?.0 == before.0,
            "{} KiB before, {} KiB after",
            before.0,
            memory()?.0
        );
    }
    Ok(())
}

fn two_programs_share_them() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let addresses = addresses(PROBES)?;
    device.insert(&count_at(1, addresses.iter().copied()))?;
    // In the other order, so that nothing hangs on it.
    device.insert(&count_at(2, addresses.iter().rev().copied()))?;
    // From here on both are armed: what the first counts, the second does.
    let alone = Vec::from_iter(device.query()?.into_iter().filter(|status| status.major == 1));
    workload("/tmp/batch")?;
    let first = device.remove("kernel", 1)?;
    workload("/tmp/batch")?;
    let second = device.remove("kernel", 2)?;
    ensure!(
        (first.len(), second.len()) == (PROBES, PROBES),
        "{} and {}",
        first.len(),
        second.len()
    );
    let all = |status: &ProbeStatus| status.hits + status.missed;
    for ((alone, first), second) in alone.iter().zip(&first).zip(second.iter().rev()) {
        let both = all(first) - all(alone);
        ensure!(
            alone.address == first.address && first.address == second.address && both <= all(second),
            "{alone:?} {first:?} {second:?}"
        );
    }
    let workload = first.iter().zip(&alone).map(|(first, alone)| first.hits - alone.hits);
    ensure!(workload.sum::<u64>() > 1000, "hardly anything fired");
    Ok(())
}

fn one_that_is_refused_leaves_nothing() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let addresses = addresses(PROBES)?;
    let before = memory()?;
    for bad in [0, addresses[PROBES / 2]] {
        let points = addresses.iter().copied().chain([bad]);
        let Err(refused) = device.insert(&count_at(1, points)) else {
            return Err("a bad point was inserted".into());
        };
        ensure!(refused.reply.point as usize == PROBES, "{refused:?}");
        ensure!(device.query()?.is_empty(), "something is left");
    }
    let after = memory()?;
    ensure!(before.0 == after.0, "{} KiB before, {} KiB after", before.0, after.0);
    ensure!(
        after.1 < before.1 + 2048,
        "{} KiB of slabs before, {} KiB after",
        before.1,
        after.1
    );
    // The slots are all free again.
    device.insert(&count_at(1, addresses.iter().copied()))?;
    device.remove("kernel", 1)?;
    Ok(())
}

fn they_come_and_go_under_load() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let object = count_at(1, addresses(PROBES)?);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers = Vec::from_iter(["/tmp/batch-a", "/tmp/batch-b"].map(|file| {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    workload(file).map_err(|error| error.message().unwrap_or_default().to_owned())?;
                }
                Ok::<(), String>(())
            })
        }));
        let work = || -> Outcome {
            for _ in 0..4 {
                device.insert(&object)?;
                let last = device.remove("kernel", 1)?;
                ensure!(last.len() == PROBES, "{} probes were removed", last.len());
            }
            Ok(())
        };
        let result = work();
        done.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("a worker does not panic")?;
        }
        result
    })
}
