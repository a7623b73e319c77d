//! What programs log, and what they cannot read.

use std::fs;
use std::io::Read;
use std::ptr;
use std::thread;
use std::time::Duration;

use dprobes::record::element::{Element, Elements};
use dprobes::record::header::{Header, RecordState};
use dprobes::wire::ProbeStatus;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::process::getpid;
use rustix::thread::gettid;

use crate::device::{self, Device};
use crate::machine::{self, Module, Target, symbol};
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[
    ("they_say_who_and_what", they_say_who_and_what),
    ("every_one_arrives_in_order", every_one_arrives_in_order),
    ("those_that_do_not_fit_are_counted", those_that_do_not_fit_are_counted),
    ("reading_keeps_them_whole", reading_keeps_them_whole),
    ("reading_waits_for_them", reading_waits_for_them),
    ("bad_addresses_are_named_exactly", bad_addresses_are_named_exactly),
    ("bad_addresses_do_no_harm", bad_addresses_do_no_harm),
    ("read_only_memory_stays_as_it_is", read_only_memory_stays_as_it_is),
];

const PAGE: usize = 4096;

/// The elements of a record.
pub fn elements(bytes: &[u8]) -> Vec<Element<'_>> {
    Elements::new(bytes)
        .map(|element| element.expect("an element"))
        .collect()
}

fn they_say_who_and_what() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let code = "push 255\npush r, rsi\nlog str\npush r, rdi\nlog 1\nexit";
    device.insert(&program::with(3, &[symbol("do_sys_openat2")], "", code))?;
    let name = format!("/nowhere/{:x}", std::process::id());
    let _ = fs::read(&name);
    let records = device.records()?;
    let of_the_file = |bytes: &[u8]| elements(bytes).contains(&Element::String(name.as_bytes()));
    let (header, bytes) = records
        .iter()
        .find(|(_, bytes)| of_the_file(bytes))
        .ok_or("no record of the file")?;
    let (pid, tid) = (getpid().as_raw_pid() as u32, gettid().as_raw_pid() as u32);
    ensure!(
        (header.pid, header.tid, header.uid) == (pid, tid, 0),
        "{header:?}; pid {pid}, tid {tid}"
    );
    let comm = fs::read_to_string("/proc/thread-self/comm")?;
    ensure!(header.name.starts_with(comm.trim().as_bytes()), "{header:?}, {comm}");
    ensure!((header.major, header.minor) == (3, 1), "{header:?}");
    let words: Vec<u64> = match elements(bytes).as_slice() {
        [Element::String(_), Element::Words(words)] => words.iter().collect(),
        other => return Err(format!("{other:?}").into()),
    };
    ensure!(words == [0xffff_ff9c], "{words:x?}");
    Ok(())
}

/// Logs the round it is in: the loop's counter is in a register that the compiler chose, so that all are logged.
pub const ROUND: &str = "inc lv, 0\npush lv, 0\nlog 1\nexit";

fn numbers(records: &[(Header, Vec<u8>)]) -> Vec<u64> {
    let number = |bytes: &[u8]| match elements(bytes).as_slice() {
        [Element::Words(words)] => words.iter().next(),
        _ => None,
    };
    records.iter().filter_map(|(_, bytes)| number(bytes)).collect()
}

fn every_one_arrives_in_order() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    device.insert(&program::at(1, &[target.middle()], ROUND))?;
    // On one CPU: each has a ring of its own, which keeps the order.
    thread::scope(|scope| {
        let rounds = scope.spawn(|| {
            machine::pin(0);
            for round in 0..20 {
                target.run(1000)?;
                let found = numbers(&device.records()?);
                let expected = Vec::from_iter(round * 1000 + 1..=(round + 1) * 1000);
                ensure!(found == expected, "round {round}: {found:?}");
            }
            Ok(())
        });
        rounds.join().expect("the thread does not panic")
    })
}

fn those_that_do_not_fit_are_counted() -> Outcome {
    const ROUNDS: u64 = 100_000;
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    device.insert(&program::at(1, &[target.middle()], ROUND))?;
    target.run(ROUNDS)?;
    let records = device.records()?;
    let told: u64 = records
        .iter()
        .filter(|(header, _)| header.state == RecordState::Lost as u32)
        .map(|(header, _)| header.facts)
        .sum();
    let ProbeStatus { hits, lost, .. } = device.query()?[0];
    let arrived = numbers(&records).len() as u64;
    ensure!(hits == ROUNDS, "{hits} hits");
    ensure!(
        arrived + lost == ROUNDS && told == lost && lost > 0,
        "{arrived} arrived, {lost} lost, {told} told"
    );
    Ok(())
}

fn reading_keeps_them_whole() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    device.insert(&program::at(1, &[target.middle()], ROUND))?;
    target.run(5)?;
    let mut small = [0; Header::SIZE];
    let result = (&device.file).read(&mut small);
    let errno = result.as_ref().err().and_then(Errno::from_io_error);
    ensure!(
        errno == Some(Errno::MSGSIZE),
        "a buffer that is too small for a record: {result:?}"
    );
    // Room for one and a half.
    let length = Header::SIZE + 16;
    let mut buffer = vec![0; length + length / 2];
    let mut found = Vec::new();
    for _ in 0..5 {
        let read = (&device.file).read(&mut buffer)?;
        ensure!(read == length, "{read} bytes instead of one record of {length}");
        found.extend(numbers(&device::parse(&buffer[..read])));
    }
    ensure!(found == [1, 2, 3, 4, 5], "{found:?}");
    let nothing = (&device.file).read(&mut buffer);
    let errno = nothing.as_ref().err().and_then(Errno::from_io_error);
    ensure!(errno == Some(Errno::AGAIN), "an empty stream: {nothing:?}");
    Ok(())
}

fn reading_waits_for_them() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open_blocking()?, Target::load(0)?);
    device.insert(&program::at(1, &[target.middle()], ROUND))?;
    let mut fds = [PollFd::new(&device.file, PollFlags::IN)];
    let short = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    ensure!(
        poll(&mut fds, Some(&short))? == 0,
        "there are records before there was a hit"
    );
    for wait_by_poll in [false, true] {
        let found = thread::scope(|scope| {
            let reader = scope.spawn(|| -> std::io::Result<Vec<u64>> {
                if wait_by_poll {
                    poll(&mut [PollFd::new(&device.file, PollFlags::IN)], None)?;
                }
                let mut buffer = [0; PAGE];
                let length = (&device.file).read(&mut buffer)?;
                Ok(numbers(&device::parse(&buffer[..length])))
            });
            thread::sleep(Duration::from_millis(200));
            target.run(1)?;
            reader.join().expect("the reader does not panic")
        })?;
        ensure!(found == [1 + u64::from(wait_by_poll)], "{found:?}");
    }
    Ok(())
}

/// Two pages, of which the second cannot be read.
struct Pages(*mut u8);

impl Pages {
    fn new() -> rustix::io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: new memory, wherever there is room; the second page is given back and nobody uses it.
        unsafe {
            let start = mmap_anonymous(ptr::null_mut(), 2 * PAGE, access, MapFlags::PRIVATE)?.cast::<u8>();
            start.write_bytes(0x5a, 2 * PAGE);
            munmap(start.add(PAGE).cast(), PAGE)?;
            Ok(Pages(start))
        }
    }

    fn end(&self) -> u64 {
        self.0.expose_provenance() as u64 + PAGE as u64
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: this page is ours.
        let _ = unsafe { munmap(self.0.cast(), PAGE) };
    }
}

/// Runs a program once, in this process, and returns its record's elements and its state.
fn once(code: &str) -> Result<(Vec<u8>, ProbeStatus), libtest_mimic::Failed> {
    let (device, target) = (Device::open()?, Target::load(0)?);
    device.insert(&program::at(1, &[target.middle()], code))?;
    target.run(1)?;
    let status = device.query()?[0];
    ensure!(status.hits == 1, "{status:?}");
    let mut records = device.records()?;
    device.remove_all()?;
    Ok((records.pop().map(|(_, bytes)| bytes).unwrap_or_default(), status))
}

fn bad_addresses_are_named_exactly() -> Outcome {
    let _module = Module::dprobes()?;
    let pages = Pages::new()?;
    let end = pages.end();
    let text = symbol("_text");
    let cases = [
        (end - 16, 64, end),
        (end - 1, 2, end),
        (end, 1, end),
        (end + 5, 3, end + 5),
        (0, 8, 0),
        (8, 8, 8),
        (1 << 47, 8, 1 << 47),
        ((1 << 47) - 8, 16, (1 << 47) - PAGE as u64),
        (1 << 62, 8, 1 << 62),
        (0xffff_8000_0000_0000 - 8, 16, 0xffff_8000_0000_0000 - 8),
        (0xffff_ffff_ff60_0000, 8, 0xffff_ffff_ff60_0000),
        (text - 8, 16, text - 8),
    ];
    for (address, length, bad) in cases {
        let (record, _) = once(&format!("push {length}\npush {address:#x}\nlog mrf\nexit"))?;
        let found = elements(&record);
        // The last page below the user's limit is never mapped; what is there may be told by its first byte that was asked for.
        let bad = bad.max(address);
        ensure!(
            found == [Element::Fault(bad)],
            "{length} bytes at {address:#x}: {found:x?} instead of a fault at {bad:#x}"
        );
    }
    for (address, length) in [(end - 64, 64), (text, 64)] {
        let (record, _) = once(&format!("push {length}\npush {address:#x}\nlog mrf\nexit"))?;
        ensure!(
            matches!(elements(&record)[..], [Element::Memory(bytes)] if bytes.len() == length),
            "{address:#x}"
        );
    }
    Ok(())
}

fn bad_addresses_do_no_harm() -> Outcome {
    let _module = Module::dprobes()?;
    let pages = Pages::new()?;
    for address in [
        0,
        8,
        pages.end(),
        1 << 47,
        1 << 62,
        0xffff_8000_0000_0000,
        0xffff_ffff_ff60_0000,
        u64::MAX - 3,
    ] {
        for code in [
            "push %\npush mem, u64\nlog 1\nexit",
            "push %\npush 1\npop mem, u64\nexit",
        ] {
            let (record, status) = once(&code.replace('%', &format!("{address:#x}")))?;
            ensure!(status.exceptions == 1, "{code}, {address:#x}: {status:?} {record:x?}");
        }
    }
    Ok(())
}

fn read_only_memory_stays_as_it_is() -> Outcome {
    let _module = Module::dprobes()?;
    let pages = Pages::new()?;
    // SAFETY: the page is ours, and nobody writes to it.
    unsafe { mprotect(pages.0.cast(), PAGE, MprotectFlags::READ) }?;
    for address in [pages.end() - 64, symbol("vfs_read"), symbol("__start_rodata")] {
        let read = format!("push 8\npush {address:#x}\nlog mrf\nexit");
        let (before, _) = once(&read)?;
        let (_, status) = once(&format!("push {address:#x}\npush 0x1234\npop mem, u64\nexit"))?;
        ensure!(status.exceptions == 1, "written to {address:#x}: {status:?}");
        let (after, _) = once(&read)?;
        ensure!(before == after, "{address:#x} was {before:x?} and is {after:x?}");
    }
    // SAFETY: the page is ours.
    unsafe { mprotect(pages.0.cast(), PAGE, MprotectFlags::READ | MprotectFlags::WRITE) }?;
    let address = pages.end() - 64;
    let (_, status) = once(&format!("push {address:#x}\npush 0x1234\npop mem, u64\nexit"))?;
    // SAFETY: the page is ours, and the probe that wrote there has run.
    let written = unsafe { pages.0.add(PAGE - 64).cast::<u64>().read_volatile() };
    ensure!((status.exceptions, written) == (0, 0x1234), "{status:?}, {written:#x}");
    Ok(())
}
