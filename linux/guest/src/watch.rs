//! Watchpoints through the kernel's hardware breakpoints: exact on all CPUs, shared with perf and debuggers, gone when they are to be gone.

mod others;
mod process;

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use dprobes::host::Prohibited;
use dprobes::wire::{ProbeStatus, Reason, State, WatchUnsupported};

use self::others::{Debugger, PerfWatch};
use crate::device::Device;
use crate::machine::{self, Module, symbol};
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[
    ("stores_on_two_cpus", stores_on_two_cpus),
    ("loads_and_stores", loads_and_stores),
    ("an_instruction", an_instruction),
    ("a_probed_store", a_probed_store),
    ("there_are_four", there_are_four),
    ("limits_are_exact", limits_are_exact),
    ("removed_under_load", removed_under_load),
    ("unloaded_under_load", unloaded_under_load),
    ("what_a_program_touches_is_missed", what_a_program_touches_is_missed),
    ("a_word_of_a_process", a_word_of_a_process),
    ("a_cpu_goes_and_comes", a_cpu_goes_and_comes),
    ("a_cpu_comes_without_a_register", a_cpu_comes_without_a_register),
    ("beside_perf", beside_perf),
    ("beside_a_debugger", beside_a_debugger),
    (
        "every_thread_of_a_process_and_no_child",
        process::every_thread_and_no_child,
    ),
    ("a_word_of_the_kernels_in_one_process", process::a_word_of_the_kernels),
    ("there_must_be_a_process", process::there_must_be_one),
    ("what_cannot_be_watched", what_cannot_be_watched),
    ("goes_and_comes_with_its_module", goes_and_comes_with_its_module),
];

const SOME: u64 = 2000;

/// The module with the word: see linux/testmod/watched.c.
struct Watched {
    _module: Module,
}

impl Watched {
    fn load() -> io::Result<Self> {
        let module = Module::load("dprobes_watched", "")?;
        Ok(Watched { _module: module })
    }

    fn get(&self, what: &str) -> u64 {
        let path = format!("/sys/module/dprobes_watched/parameters/{what}");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.trim().parse().expect("a number")
    }

    fn word(&self) -> u64 {
        self.words(0)
    }

    /// The words that are stored to one after the other. Each has a watchpoint of its own in what follows: QEMU's translator (7.2) reports one
    /// of several that one instruction hits.
    fn words(&self, number: u64) -> u64 {
        self.get("word") + 8 * number
    }

    fn work(&self, what: &str, times: u64) -> io::Result<()> {
        fs::write("/dev/dprobes_watched", format!("{what} {times}"))
    }

    /// The same, on every CPU at once.
    fn work_everywhere(&self, what: &str, times: u64) -> Outcome {
        let cpus = machine::cpus();
        ensure!(cpus >= 2, "this needs two CPUs");
        thread::scope(|scope| {
            let workers = Vec::from_iter((0..cpus).map(|cpu| {
                scope.spawn(move || {
                    machine::pin(cpu);
                    self.work(what, times)
                })
            }));
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().expect("a worker does not panic"))
        })?;
        Ok(())
    }

    /// Stores on every CPU for as long as this thread works.
    fn beside_stores<T>(
        &self,
        work: impl FnOnce() -> Result<T, libtest_mimic::Failed>,
    ) -> Result<T, libtest_mimic::Failed> {
        let working = AtomicBool::new(true);
        thread::scope(|scope| {
            let workers = Vec::from_iter((0..machine::cpus()).map(|cpu| {
                let working = &working;
                scope.spawn(move || -> io::Result<()> {
                    machine::pin(cpu);
                    while working.load(Ordering::Relaxed) {
                        self.work("store", 50)?;
                        thread::sleep(Duration::from_millis(1));
                    }
                    Ok(())
                })
            }));
            let result = work();
            working.store(false, Ordering::Relaxed);
            for worker in workers {
                worker.join().expect("a worker does not panic")?;
            }
            result
        })
    }
}

/// A program with one watchpoint.
fn watch(major: u16, address: u64, watch: &str, code: &str) -> Vec<u8> {
    program::with(major, &[address], &format!("watch = {watch}"), code)
}

/// The only probe of a program.
fn status(device: &Device, major: u16) -> Result<ProbeStatus, libtest_mimic::Failed> {
    let all = device.query()?;
    let mut of = all.iter().filter(|probe| probe.major == major);
    match (of.next(), of.next()) {
        (Some(probe), None) => Ok(*probe),
        _ => Err(format!("{all:?}").into()),
    }
}

/// The first words of the elements of a record.
fn words(elements: &[u8]) -> Vec<u64> {
    elements[3..]
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
        .collect()
}

fn stores_on_two_cpus() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    device.insert(&watch(1, watched.word(), "write 8", program::COUNT))?;
    // A rare one, with a condition in its program.
    let rare = format!(
        "push {:#x}\npush mem, u64\npush {}\nsub\njz rare%\nabort\nrare%: push r, rip\nlog 1\nexit",
        watched.word(),
        SOME - 1
    );
    device.insert(&watch(2, watched.word(), "write 8", &rare))?;
    watched.work_everywhere("store", SOME)?;
    watched.work("load", SOME)?;
    let (stores, counted) = (watched.get("stores"), status(&device, 1)?);
    println!("    {stores} stores, {} hits", counted.hits);
    ensure!(stores == SOME * machine::cpus() as u64, "{stores} stores");
    ensure!(
        counted.hits == stores && (counted.missed, counted.late, counted.skipped) == (0, 0, 0),
        "{stores} stores: {counted:?}"
    );
    let records = device.records()?;
    // One CPU may read what the other has just stored.
    ensure!(!records.is_empty(), "no record of the last value");
    for (header, elements) in &records {
        let behind = watched.get("behind");
        ensure!(
            header.address == behind && words(elements) == [behind],
            "{header:?} {:x?}, the instruction behind the store is at {behind:#x}",
            words(elements)
        );
    }
    Ok(())
}

fn loads_and_stores() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    device.insert(&watch(1, watched.word(), "rw 8", program::COUNT))?;
    device.insert(&watch(2, watched.words(3), "write 4", program::COUNT))?;
    watched.work_everywhere("load", SOME)?;
    watched.work_everywhere("store", SOME)?;
    let (stores, loads) = (watched.get("stores"), watched.get("loads"));
    let (both, written) = (status(&device, 1)?, status(&device, 2)?);
    let each = SOME * machine::cpus() as u64;
    ensure!(
        (stores, loads) == (each, each) && both.hits == stores + loads && written.hits == stores,
        "{stores} stores, {loads} loads: {both:?} {written:?}"
    );
    Ok(())
}

/// Before the instruction, which is carried out once.
fn an_instruction() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    let run = symbol("dprobes_watched_run");
    device.insert(&watch(1, run, "execute", program::COUNT))?;
    device.insert(&program::with(
        2,
        &[run],
        "watch = execute\nmax_hits = 1",
        "push r, rip\nlog 1\nexit",
    ))?;
    // The module itself fails the request when a run does not do what it does.
    watched.work_everywhere("run", SOME)?;
    let (runs, counted) = (watched.get("runs"), status(&device, 1)?);
    ensure!(
        runs == SOME * machine::cpus() as u64 && counted.hits == runs,
        "{runs} runs: {counted:?}"
    );
    let records = device.records()?;
    let [(header, elements)] = &records[..] else {
        return Err(format!("{} records", records.len()).into());
    };
    ensure!(
        header.address == run && words(elements) == [run],
        "{header:?} {:x?}, not {run:#x}",
        words(elements)
    );
    Ok(())
}

/// The store itself has a breakpoint, and is executed out of line: both see every one, and the original's address.
fn a_probed_store() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    device.insert(&program::at(1, &[watched.get("store")], program::COUNT))?;
    device.insert(&watch(2, watched.word(), "write 8", program::COUNT))?;
    device.insert(&program::with(
        3,
        &[watched.word()],
        "watch = write 8\nmax_hits = 1",
        "push r, rip\nlog 1\nexit",
    ))?;
    watched.work_everywhere("store", SOME)?;
    let (stores, breakpoint, data) = (watched.get("stores"), status(&device, 1)?, status(&device, 2)?);
    ensure!(
        breakpoint.hits == stores && data.hits == stores && data.missed == 0,
        "{stores} stores: {breakpoint:?} {data:?}"
    );
    let records = device.records()?;
    let behind = watched.get("behind");
    ensure!(
        records.len() == 1 && words(&records[0].1) == [behind],
        "{records:x?}, not {behind:#x}"
    );
    Ok(())
}

/// The fifth is refused, and is told whose the four are.
fn there_are_four() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    for (major, (what, address)) in (1..).zip([
        ("write 8", watched.words(0)),
        ("write 4", watched.words(1) + 4),
        ("write 2", watched.words(2) + 6),
        ("rw 1", watched.words(3)),
    ]) {
        device.insert(&watch(major, address, what, program::COUNT))?;
    }
    let fifth = watch(5, watched.words(1), "write 2", program::COUNT);
    let refused = device.insert(&fifth).expect_err("there are four");
    ensure!(
        refused.reason() == Reason::WatchInUse && refused.reply.facts == [0, 0b1111],
        "{refused:?}"
    );
    // What there is already can be shared.
    device.insert(&watch(6, watched.words(0), "write 8", program::COUNT))?;
    watched.work_everywhere("store", SOME)?;
    let stores = watched.get("stores");
    for major in [1, 2, 3, 4, 6] {
        let probe = status(&device, major)?;
        ensure!(probe.hits == stores, "{stores} stores: {probe:?}");
    }
    device.remove("kernel", 2)?;
    device.insert(&fifth)?;
    Ok(())
}

fn limits_are_exact() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    let settings = "watch = write 8\npass_count = 77\nmax_hits = 1234";
    device.insert(&program::with(1, &[watched.word()], settings, "push 1\nlog 1\nexit"))?;
    watched.work_everywhere("store", SOME)?;
    let probe = status(&device, 1)?;
    ensure!(
        (probe.skipped, probe.hits, probe.state) == (77, 1234, State::Exhausted as u32),
        "{probe:?}"
    );
    let records = device.count_records()?;
    ensure!(records + probe.lost == 1234, "{records} records, {probe:?}");
    // Its register is given back by itself, if not at once.
    let others: Vec<_> = (0..4)
        .map(|n| watch(10 + n, watched.word() + u64::from(n), "write 1", program::COUNT))
        .collect();
    for _ in 0..100 {
        if others.iter().all(|other| device.insert(other).is_ok()) {
            return Ok(());
        }
        for n in 0..4 {
            let _ = device.remove("kernel", 10 + n);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err("a register is not given back".into())
}

/// Nobody knows how many stores find it in place: but every hit is in its final counts, and has left its record.
fn removed_under_load() -> Outcome {
    const TIMES: u16 = 100;
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    let object = watch(1, watched.word(), "write 8", "push r, rip\nlog 1\nexit");
    let (mut hits, mut records, mut lost, mut fired) = (0, 0, 0, 0);
    watched.beside_stores(|| {
        for time in 0..TIMES {
            device.insert(&object)?;
            thread::sleep(Duration::from_millis(u64::from(time % 8)));
            let last = device.remove("kernel", 1)?;
            let [last] = last[..] else {
                return Err(format!("{last:?}").into());
            };
            hits += last.hits;
            lost += last.lost;
            fired += u64::from(last.hits > 0);
            records += device.count_records()?;
        }
        Ok(())
    })?;
    let stores = watched.get("stores");
    println!(
        "    {stores} stores, inserted {TIMES} times, fired {fired} times, {hits} hits, {records} records, {lost} lost"
    );
    ensure!(hits <= stores, "{stores} stores, {hits} hits");
    ensure!(records + lost == hits, "{hits} hits, {records} records, {lost} lost");
    ensure!(fired > u64::from(TIMES) / 4, "it fired {fired} times");
    Ok(())
}

fn unloaded_under_load() -> Outcome {
    let watched = Watched::load()?;
    watched.beside_stores(|| {
        for _ in 0..10 {
            let module = Module::dprobes()?;
            let device = Device::open()?;
            device.insert(&watch(1, watched.word(), "write 8", program::COUNT))?;
            device.insert(&watch(2, symbol("dprobes_watched_store"), "execute", program::COUNT))?;
            thread::sleep(Duration::from_millis(10));
            drop(device);
            module.unload()?;
        }
        Ok(())
    })?;
    // All registers are free: perf gets them.
    let _all: Vec<_> = (0..4)
        .map(|n| PerfWatch::on_all_cpus(watched.words(n), 1))
        .collect::<io::Result<_>>()?;
    Ok(())
}

/// What is touched in the hit of a breakpoint is a hit inside a hit, which is counted.
fn what_a_program_touches_is_missed() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    let word = watched.word();
    device.insert(&watch(1, word, "rw 8", program::COUNT))?;
    let touch = format!("push {word:#x}\npush mem, u64\nabort");
    device.insert(&program::at(2, &[symbol("dprobes_watched_run")], &touch))?;
    watched.work_everywhere("run", SOME)?;
    watched.work_everywhere("load", SOME)?;
    let (data, code) = (status(&device, 1)?, status(&device, 2)?);
    let (runs, loads) = (watched.get("runs"), watched.get("loads"));
    ensure!(code.hits == runs, "{runs} runs: {code:?}");
    ensure!(
        (data.hits, data.missed) == (loads, runs),
        "{loads} loads, {runs} runs that read it in a hit: {data:?}"
    );
    Ok(())
}

/// An address in user space is one of every process; which one it is the program can ask.
fn a_word_of_a_process() -> Outcome {
    static WORD: AtomicU64 = AtomicU64::new(0);
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let address = (&raw const WORD).expose_provenance() as u64;
    let code = format!(
        "push pid\npush {}\nsub\njnz other%\ninc lv, 0\npush r, rip\nlog 1\nexit\nother%: abort",
        std::process::id()
    );
    device.insert(&program::with(1, &[address], "watch = write 8", &code))?;
    for n in 1..=SOME {
        WORD.store(n, Ordering::Relaxed);
    }
    let probe = status(&device, 1)?;
    ensure!(probe.hits >= SOME, "{SOME} stores: {probe:?}");
    let records = device.records()?;
    // Beside them there are the engine's own, which tell of lost ones.
    let records: Vec<_> = records.into_iter().filter(|(header, _)| header.major == 1).collect();
    ensure!(
        records.len() as u64 + probe.lost == SOME,
        "{SOME} stores of this process, {} records and {} lost",
        records.len(),
        probe.lost
    );
    ensure!(
        records
            .iter()
            .all(|(header, _)| header.pid == std::process::id() && header.address < 1 << 47 && header.address != 0),
        "{:?}",
        records.first()
    );
    Ok(())
}

fn switch_cpu(on: bool) -> io::Result<()> {
    fs::write("/sys/devices/system/cpu/cpu1/online", if on { "1" } else { "0" })
}

/// What the CPU does that has come back is watched, and so is what was inserted while it was away.
fn a_cpu_goes_and_comes() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    device.insert(&watch(1, watched.word(), "write 8", program::COUNT))?;
    watched.work_everywhere("store", 1000)?;
    for round in 2..=5 {
        switch_cpu(false)?;
        watched.work("store", 1000)?;
        device.insert(&watch(round, watched.words(2), "rw 2", program::COUNT))?;
        let before = watched.get("stores");
        switch_cpu(true)?;
        watched.work_everywhere("store", 1000)?;
        let stores = watched.get("stores");
        let (first, second) = (status(&device, 1)?, status(&device, round)?);
        ensure!(first.hits == stores, "{stores} stores: {first:?}");
        ensure!(second.hits == stores - before, "{} stores: {second:?}", stores - before);
        // Removed while it is away.
        switch_cpu(false)?;
        device.remove("kernel", round)?;
        switch_cpu(true)?;
    }
    watched.work_everywhere("store", 1000)?;
    let (stores, probe) = (watched.get("stores"), status(&device, 1)?);
    ensure!(probe.hits == stores, "{stores} stores: {probe:?}");
    Ok(())
}

/// perf keeps the registers of a CPU that is away, so that it has none for us when it comes: it comes, and the probe says that something is missed.
fn a_cpu_comes_without_a_register() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    let perf = (0..4)
        .map(|word| PerfWatch::on_cpu(1, watched.words(word), 8))
        .collect::<io::Result<Vec<_>>>()?;
    switch_cpu(false)?;
    device.insert(&watch(1, watched.word(), "write 8", program::COUNT))?;
    watched.work("store", SOME)?;
    let before = status(&device, 1)?;
    ensure!(before.hits == SOME && before.missed == 0, "{before:?}");
    switch_cpu(true)?;
    let after = status(&device, 1)?;
    ensure!(
        after.state == State::Armed as u32 && after.hits == SOME && after.missed == 1,
        "{after:?}"
    );
    // They are free again, and the next time it comes it watches.
    drop(perf);
    switch_cpu(false)?;
    switch_cpu(true)?;
    let before = watched.get("stores");
    watched.work_everywhere("store", SOME)?;
    let (stores, probe) = (watched.get("stores") - before, status(&device, 1)?);
    ensure!(
        probe.hits == SOME + stores && probe.missed == 1,
        "{stores} stores: {probe:?}"
    );
    Ok(())
}

/// perf watches beside us: both count all. When it has the registers that are left, it is named.
fn beside_perf() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    let mut perf = vec![
        PerfWatch::on_all_cpus(watched.words(0), 8)?,
        PerfWatch::on_all_cpus(watched.words(1) + 4, 4)?,
    ];
    device.insert(&watch(1, watched.words(2), "write 8", program::COUNT))?;
    device.insert(&watch(2, watched.words(3), "write 2", program::COUNT))?;
    let third = watch(3, watched.words(1), "write 1", program::COUNT);
    let refused = device.insert(&third).expect_err("perf has two");
    let [others, ours] = refused.reply.facts;
    ensure!(
        refused.reason() == Reason::WatchInUse
            && refused.reply.detail == std::process::id()
            && others.count_ones() == 2
            && ours.count_ones() == 2
            && others & ours == 0,
        "{refused:?}, and this is process {}",
        std::process::id()
    );
    watched.work_everywhere("store", SOME)?;
    let stores = watched.get("stores");
    let counts = [
        perf[0].count()?,
        perf[1].count()?,
        status(&device, 1)?.hits,
        status(&device, 2)?.hits,
    ];
    println!("    {stores} stores, counted by perf and by us: {counts:?}");
    ensure!(counts == [stores; 4], "{stores} stores: {counts:?}");
    // It cannot have what we have.
    ensure!(
        PerfWatch::on_all_cpus(watched.word(), 1).is_err(),
        "perf got a fifth register"
    );
    perf.clear();
    device.insert(&third)?;
    Ok(())
}

/// A debugger's registers are kept for its process, also while that does not run.
fn beside_a_debugger() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    let debugger = Debugger::watching()?;
    for n in 1..=3 {
        device.insert(&watch(n, watched.words(n.into()), "write 1", program::COUNT))?;
    }
    let fourth = watch(4, watched.words(0), "write 1", program::COUNT);
    let refused = device.insert(&fourth).expect_err("a debugger has one");
    ensure!(
        refused.reason() == Reason::WatchInUse && refused.reply.detail == std::process::id(),
        "{refused:?}, and this is process {}",
        std::process::id()
    );
    drop(debugger);
    device.insert(&fourth)?;
    watched.work_everywhere("store", SOME)?;
    let (stores, probe) = (watched.get("stores"), status(&device, 4)?);
    ensure!(probe.hits == stores, "{stores} stores: {probe:?}");
    Ok(())
}

fn what_cannot_be_watched() -> Outcome {
    /// Where the kernel maps what a CPU needs to enter it (arch/x86/include/asm/pgtable_64_types.h).
    const CPU_ENTRY_AREA: u64 = 0xffff_fe00_0000_0000;
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let ports = device
        .insert(&watch(1, 0x64, "io 1", program::COUNT))
        .expect_err("a port");
    ensure!(
        ports.reason() == Reason::WatchUnsupported && ports.reply.detail == WatchUnsupported::Ports as u32,
        "{ports:?}"
    );
    for (address, what) in [(CPU_ENTRY_AREA, "rw 8"), (symbol("exc_page_fault"), "execute")] {
        let refused = device
            .insert(&watch(1, address, what, program::COUNT))
            .expect_err("the way of a trap");
        ensure!(
            refused.reason() == Reason::Prohibited && refused.reply.detail == Prohibited::Excluded as u32,
            "{address:#x}: {refused:?}"
        );
    }
    ensure!(device.query()?.is_empty(), "something was inserted");
    Ok(())
}

/// What a program for a module watches is taken out when that is unloaded, and its register is free; it is in again when the module is back,
/// wherever that is then.
fn goes_and_comes_with_its_module() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let watched = Watched::load()?;
    device.insert(&program::assemble(
        "name = \"dprobes_watched\"\nmodtype = kmod\nmajor = 1\nvars = 1\n\
         offset = dprobes_watched_word\nwatch = write 8\nminor = 1\ninc lv, 0\nabort\n",
    ))?;
    watched.work("store", SOME)?;
    drop(watched);
    let probe = status(&device, 1)?;
    ensure!(
        (probe.hits, probe.state) == (SOME, State::Waiting as u32),
        "without the module: {probe:?}"
    );
    // perf gets all four registers.
    let all: Vec<_> = (0..4)
        .map(|n| PerfWatch::on_all_cpus(symbol("jiffies") + n, 1))
        .collect::<io::Result<_>>()?;
    drop(all);
    let watched = Watched::load()?;
    watched.work("store", SOME)?;
    let probe = status(&device, 1)?;
    ensure!(
        (probe.hits, probe.state, probe.address) == (2 * SOME, State::Armed as u32, watched.word()),
        "with it again: {probe:?}"
    );
    Ok(())
}
