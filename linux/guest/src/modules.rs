//! Programs that wait for their module, go in before its first instruction, and out with it.

use std::thread;
use std::time::{Duration, Instant};

use dprobes::host::Prohibited;
use dprobes::wire::{ProbeStatus, Reason, State};

use crate::device::Device;
use crate::machine::{Module, Target, find_symbol, symbol};
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[
    ("from_the_first_instruction_of_init", from_the_first_instruction_of_init),
    ("while_it_is_hit_on_two_cpus", while_it_is_hit_on_two_cpus),
    ("whose_init_fails", whose_init_fails),
    ("every_round_is_counted", every_round_is_counted),
    ("that_do_not_have_the_symbol", that_do_not_have_the_symbol),
    ("with_other_code", with_other_code),
    (
        "a_program_that_comes_while_init_runs",
        a_program_that_comes_while_init_runs,
    ),
    ("symbols_in_handlers", symbols_in_handlers),
    ("a_thousand_probes", a_thousand_probes),
    ("dprobes_itself_and_gkhi", dprobes_itself_and_gkhi),
    ("removed_while_it_waits", removed_while_it_waits),
];

const TIMES: u64 = 20;

/// Rounds that the target runs in its init.
const IN_INIT: u64 = 1000;

/// A program for a module.
fn program_for(module: &str, major: u16, points: &str) -> Vec<u8> {
    let head = format!("name = \"{module}\"\nmodtype = kmod\nmajor = {major}\nvars = count, at\n");
    program::assemble(&format!("{head}{points}"))
}

fn of_target(points: &str) -> Vec<u8> {
    program_for("dprobes_target", 1, points)
}

/// Init, work and exit, each counted.
const EVERYWHERE: &str = "
offset = target_init
minor = 1
push r, rip
log 1
exit

offset = dprobes_target_work
minor = 2
inc lv, count
abort

offset = target_exit
minor = 3
inc lv, count
abort
";

fn states(probes: &[ProbeStatus]) -> Vec<State> {
    let known = |probe: &ProbeStatus| State::from_code(probe.state).expect("a known state");
    probes.iter().map(known).collect()
}

fn expect(device: &Device, expected: &[State]) -> Result<Vec<ProbeStatus>, libtest_mimic::Failed> {
    let probes = device.query()?;
    ensure!(
        states(&probes) == expected,
        "{:?} instead of {expected:?}: {probes:?}",
        states(&probes)
    );
    Ok(probes)
}

fn from_the_first_instruction_of_init() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    device.insert(&of_target(EVERYWHERE))?;
    expect(&device, &[State::Waiting; 3])?;
    for time in 1..=TIMES {
        let target = Target::load(0)?;
        let probes = expect(&device, &[State::CodeFreed, State::Armed, State::Armed])?;
        ensure!(
            probes[0].hits == time && probes[1].hits == time && probes[2].hits == time - 1,
            "{probes:?}"
        );
        // The first place where there may be a probe: behind endbr64 and the function tracer's NOP.
        let records = device.records()?;
        ensure!(records.len() == 1, "{} records", records.len());
        let middle = target.middle();
        ensure!(
            records[0].0.address.abs_diff(middle) < 1 << 24,
            "{:#x}",
            records[0].0.address
        );
        drop(target);
        let probes = expect(&device, &[State::Waiting; 3])?;
        ensure!(probes.iter().all(|probe| probe.hits == time), "{probes:?}");
    }
    device.remove("dprobes_target", 1)?;
    Ok(())
}

fn while_it_is_hit_on_two_cpus() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    device.insert(&of_target(EVERYWHERE))?;
    let mut before = 0;
    for _ in 0..TIMES {
        let target = Target::load(2)?;
        let begun = Instant::now();
        loop {
            let hits = device.query()?[1].hits;
            if hits > before + 100 {
                before = hits;
                break;
            }
            ensure!(begun.elapsed() < Duration::from_secs(30), "{hits} hits");
            thread::sleep(Duration::from_millis(2));
        }
        drop(target);
        let probes = expect(&device, &[State::Waiting; 3])?;
        ensure!(probes[1].hits >= before, "counts are kept");
        before = probes[1].hits;
    }
    device.records()?;
    let last = device.remove("dprobes_target", 1)?;
    ensure!(last[0].hits == TIMES && last[2].hits == TIMES, "{last:?}");
    Ok(())
}

fn whose_init_fails() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    device.insert(&of_target(EVERYWHERE))?;
    for time in 1..=TIMES {
        ensure!(Target::load(17).is_err(), "17 threads are too many");
        let probes = expect(&device, &[State::Waiting; 3])?;
        let hits: Vec<_> = probes.iter().map(|probe| probe.hits).collect();
        ensure!(hits == [time, time, 0], "{hits:?}");
    }
    // It is not in the way of one that does not fail.
    drop(Target::load(0)?);
    expect(&device, &[State::Waiting; 3])?;
    Ok(())
}

/// Where the instruction that is executed once a round is, from its function.
fn middle() -> Result<u64, libtest_mimic::Failed> {
    let target = Target::load(0)?;
    Ok(target.middle() - symbol("dprobes_target_work"))
}

fn every_round_is_counted() -> Outcome {
    let middle = middle()?;
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let point = format!("offset = dprobes_target_work + {middle}\nminor = 1\ninc lv, count\nabort\n");
    device.insert(&of_target(&point))?;
    let mut rounds = 0;
    for _ in 0..TIMES {
        let target = Target::load(0)?;
        target.run(5000)?;
        rounds += IN_INIT + 5000;
        ensure!(target.rounds() == IN_INIT + 5000, "{} rounds", target.rounds());
        let probe = device.query()?[0];
        ensure!(probe.hits + probe.missed == rounds, "{rounds} rounds: {probe:?}");
        drop(target);
    }
    Ok(())
}

fn that_do_not_have_the_symbol() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let text = format!("{EVERYWHERE}\noffset = not_there\nminor = 4\ninc lv, count\nabort\n");
    device.insert(&of_target(&text))?;
    let refused = [State::Withheld, State::Withheld, State::Withheld, State::Refused];
    for _ in 0..3 {
        let target = Target::load(1)?;
        let probes = expect(&device, &refused)?;
        ensure!(probes[3].reason == Reason::NoSymbol as u32, "{probes:?}");
        ensure!(probes.iter().all(|probe| probe.hits == 0), "{probes:?}");
        drop(target);
        let probes = expect(&device, &[State::Waiting; 4])?;
        ensure!(probes[3].reason == Reason::NoSymbol as u32, "{probes:?}");
    }
    device.remove("dprobes_target", 1)?;
    // One that is loaded refuses it at once.
    let _target = Target::load(0)?;
    let refused = device.insert(&of_target(&text)).expect_err("it is not there");
    ensure!(
        refused.reason() == Reason::NoSymbol && refused.reply.point == 0,
        "{refused:?}"
    );
    Ok(())
}

fn with_other_code() -> Outcome {
    let middle = middle()?;
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let work = "dprobes_target_work";
    for (place, more, reason) in [
        (format!("{work} + {}", middle + 1), "", Reason::NotBoundary),
        (format!("{work} + {middle}"), "opcode = 0x90", Reason::Opcode),
        (format!("{work} + 0x10000"), "", Reason::OutsideSymbol),
        ("runners".to_owned(), "", Reason::Prohibited),
        ("__this_module".to_owned(), "", Reason::Prohibited),
    ] {
        let point = format!("offset = {place}\nminor = 1\n{more}\ninc lv, count\nabort\n");
        device.insert(&of_target(&point))?;
        let target = Target::load(1)?;
        let probes = expect(&device, &[State::Refused])?;
        ensure!(probes[0].reason == reason as u32, "{place}: {probes:?}");
        drop(target);
        device.remove("dprobes_target", 1)?;
    }
    Ok(())
}

fn a_program_that_comes_while_init_runs() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let loading = thread::spawn(|| Module::load("dprobes_target", "threads=1 delay=700"));
    let begun = Instant::now();
    while find_symbol("dprobes_target_work").is_none() {
        ensure!(begun.elapsed() < Duration::from_secs(30), "it does not come");
    }
    thread::sleep(Duration::from_millis(50));
    let point = "offset = dprobes_target_work\nminor = 1\ninc lv, count\nabort\n";
    device.insert(&of_target(point))?;
    let waiting = states(&device.query()?);
    let module = loading.join().expect("it does not panic")?;
    expect(&device, &[State::Armed])?;
    ensure!(waiting == [State::Waiting], "{waiting:?}: init had been over");
    drop(module);
    expect(&device, &[State::Waiting])?;
    Ok(())
}

fn symbols_in_handlers() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let code = "offset = dprobes_target_work\nminor = 1\npush runners\npush vfs_read\nlog 2\nexit\n";
    device.insert(&of_target(code))?;
    for _ in 0..3 {
        let target = Target::load(0)?;
        let expected = [symbol("vfs_read"), symbol("runners")];
        let records = device.records()?;
        ensure!(records.len() == 1, "{} records", records.len());
        let elements = &records[0].1;
        for word in expected {
            let bytes = word.to_le_bytes();
            ensure!(
                elements.windows(8).any(|window| window == bytes),
                "{word:#x} is not in {elements:x?}"
            );
        }
        drop(target);
    }
    Ok(())
}

/// On every instruction of the function, and many programs: the limits of one load.
fn a_thousand_probes() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let free = |device: &Device| device.query().map(|probes| probes.len());
    for major in 1..=200 {
        let points = EVERYWHERE.replace("push r, rip\nlog 1\nexit", "inc lv, count\nabort");
        device.insert(&program_for("dprobes_target", major, &points))?;
    }
    ensure!(free(&device)? == 600, "{} probes", free(&device)?);
    for _ in 0..3 {
        let target = Target::load(2)?;
        let probes = device.query()?;
        let armed = probes.iter().filter(|probe| probe.state == State::Armed as u32).count();
        ensure!(armed == 400, "{armed} are armed");
        drop(target);
    }
    let probes = device.query()?;
    for probe in &probes {
        let expected = probe.minor != 2;
        ensure!(!expected || probe.hits == 3, "{probe:?}");
        ensure!(probe.state == State::Waiting as u32, "{probe:?}");
    }
    device.remove_all()?;
    Ok(())
}

fn dprobes_itself_and_gkhi() -> Outcome {
    let excluded = |probe: (u32, u32)| probe == (Reason::Prohibited as u32, Prohibited::Excluded as u32);
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let point = "offset = dprobes_on_breakpoint\nminor = 1\ninc lv, count\nabort\n";
    let refused = device.insert(&program_for("dprobes", 1, point)).expect_err("excluded");
    ensure!(excluded((refused.reply.reason, refused.reply.detail)), "{refused:?}");
    let point = "offset = gkhi_on_breakpoint\nminor = 1\ninc lv, count\nabort\n";
    device.insert(&program_for("gkhi", 1, point))?;
    let gkhi = Module::load("gkhi", "")?;
    let probe = expect(&device, &[State::Refused])?[0];
    ensure!(excluded((probe.reason, probe.detail)), "{probe:?}");
    gkhi.unload()?;
    Ok(())
}

fn removed_while_it_waits() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    for _ in 0..TIMES {
        device.insert(&of_target(EVERYWHERE))?;
        ensure!(device.insert(&of_target(EVERYWHERE)).is_err(), "twice");
        device.remove("dprobes_target", 1)?;
    }
    let target = Target::load(1)?;
    ensure!(device.query()?.is_empty(), "nothing is inserted");
    drop(target);
    Ok(())
}
