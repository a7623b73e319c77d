//! Every hit is counted, exactly, on all CPUs, whatever else goes on.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use dprobes::wire::ProbeStatus;

use crate::device::Device;
use crate::machine::{self, Module, Target, symbol};
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[
    ("a_million_while_others_come_and_go", a_million_while_others_come_and_go),
    ("a_million_while_it_comes_and_goes", a_million_while_it_comes_and_goes),
    ("pass_count_and_max_hits", pass_count_and_max_hits),
];

const ROUNDS: u64 = 1_000_000;
const TIMES: u16 = 250;

/// Runs rounds on every CPU for as long as this thread works, and at least so many on all together. Returns what the work returns
/// and how many were run.
fn beside_rounds<T>(
    target: &Target,
    rounds: u64,
    work: impl FnOnce() -> Result<T, libtest_mimic::Failed>,
) -> Result<(T, u64), libtest_mimic::Failed> {
    const SOME: u64 = 1000;
    let cpus = machine::cpus();
    ensure!(cpus >= 2, "this needs two CPUs");
    let working = AtomicBool::new(true);
    let before = target.rounds();
    let result = thread::scope(|scope| {
        let runners = Vec::from_iter((0..cpus).map(|cpu| {
            let working = &working;
            scope.spawn(move || -> io::Result<()> {
                machine::pin(cpu);
                let mut left = rounds.div_ceil(SOME * cpus as u64);
                while left > 0 || working.load(Ordering::Relaxed) {
                    target.run(SOME)?;
                    left = left.saturating_sub(1);
                    // The worker is to have its turn.
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            })
        }));
        let result = work();
        working.store(false, Ordering::Relaxed);
        for runner in runners {
            runner.join().expect("a runner does not panic")?;
        }
        result
    })?;
    Ok((result, target.rounds() - before))
}

/// All hits of a probe, whatever became of them.
fn all(status: &ProbeStatus) -> u64 {
    status.hits + status.skipped + status.missed + status.late
}

fn a_million_while_others_come_and_go() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    let middle = target.middle();
    device.insert(&program::at(1, &[middle], program::COUNT))?;
    // One in another function, and one at the same address.
    let others = [
        program::at(2, &[symbol("do_sys_openat2")], program::COUNT),
        program::at(3, &[middle], program::COUNT),
    ];
    let ((), rounds) = beside_rounds(&target, ROUNDS, || {
        for time in 0..TIMES {
            let other = usize::from(time % 2);
            device.insert(&others[other])?;
            device.remove("kernel", 2 + other as u16)?;
        }
        Ok(())
    })?;
    let status = device.query()?[0];
    println!("    {rounds} rounds, {} hits", status.hits);
    ensure!(rounds >= ROUNDS, "{rounds} rounds were run");
    ensure!(
        status.hits == rounds && all(&status) == rounds,
        "{rounds} rounds: {status:?}"
    );
    ensure!(
        (status.faulted, status.exceptions, status.lost) == (0, 0, 0),
        "{status:?}"
    );
    Ok(())
}

/// Nobody knows how many rounds find it in place. Every hit must be in its final counts and have left its record, neither more nor
/// less.
fn a_million_while_it_comes_and_goes() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    let object = program::at(1, &[target.middle()], "push r, rip\nlog 1\nexit");
    let (mut hits, mut lost, mut records, mut fired, mut times) = (0, 0, 0, 0, 0);
    let ((), rounds) = beside_rounds(&target, ROUNDS, || {
        while times < TIMES || hits < ROUNDS {
            times += 1;
            device.insert(&object)?;
            thread::sleep(Duration::from_millis(u64::from(times % 8)));
            let last = device.remove("kernel", 1)?;
            let [last] = last[..] else {
                return Err(format!("{last:?}").into());
            };
            ensure!(all(&last) == last.hits, "{last:?}");
            hits += last.hits;
            lost += last.lost;
            fired += u64::from(last.hits > 0);
            records += device.records()?.iter().filter(|(header, _)| header.major == 1).count() as u64;
        }
        Ok(())
    })?;
    println!(
        "    {rounds} rounds, inserted {times} times, fired {fired} times, {hits} hits, {records} records, {lost} lost"
    );
    ensure!(rounds >= hits, "{rounds} rounds, {hits} hits");
    ensure!(records + lost == hits, "{hits} hits, {records} records, {lost} lost");
    ensure!(fired > u64::from(TIMES) / 2, "it fired {fired} of {times} times");
    ensure!(device.query()?.is_empty(), "it is still there");
    Ok(())
}

fn pass_count_and_max_hits() -> Outcome {
    const SOME: u64 = 100_000;
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    let settings = "pass_count = 777\nmax_hits = 12345";
    device.insert(&program::with(1, &[target.middle()], settings, "push 1\nlog 1\nexit"))?;
    beside_rounds(&target, SOME, || Ok(()))?;
    let status = device.query()?[0];
    ensure!((status.skipped, status.hits) == (777, 12345), "{status:?}");
    let records = device.records()?.iter().filter(|(header, _)| header.major == 1).count() as u64;
    ensure!(records + status.lost == 12345, "{records} records, {status:?}");
    Ok(())
}
