//! Bounds, commands that are killed, CPUs that go and come, and variables that are read meanwhile.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dprobes::wire::{IOCTL_VARS, Reason, State, VARS_LOCAL, VarsRequest, label};
use rustix::io::Errno;

use crate::device::Device;
use crate::machine::{Module, Target, symbol};
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[
    (
        "memory_is_bounded_wherever_it_runs_out",
        memory_is_bounded_wherever_it_runs_out,
    ),
    (
        "memory_that_runs_out_when_a_module_comes",
        memory_that_runs_out_when_a_module_comes,
    ),
    (
        "the_command_may_be_killed_at_any_point",
        the_command_may_be_killed_at_any_point,
    ),
    ("cpus_go_and_come", cpus_go_and_come),
    (
        "variables_are_read_and_reset_exactly",
        variables_are_read_and_reset_exactly,
    ),
    (
        "what_is_kept_can_be_read_to_the_end",
        what_is_kept_can_be_read_to_the_end,
    ),
];

const PARAMETERS: &str = "/sys/module/dprobes/parameters";

fn memory_used() -> Result<u64, libtest_mimic::Failed> {
    let text = fs::read_to_string(format!("{PARAMETERS}/memory_used"))?;
    Ok(text.trim().parse()?)
}

/// 0 is the bound that there is by itself.
fn permit(bytes: u64) -> Outcome {
    fs::write(format!("{PARAMETERS}/memory_max"), bytes.to_string())?;
    Ok(())
}

/// A program with everything that takes memory.
fn greedy(major: u16, place: &str, module: &str, kind: &str) -> Vec<u8> {
    program::assemble(&format!(
        "name = \"{module}\"\nmodtype = {kind}\nmajor = {major}\nvars = a, b, c\n\
         map m = count, keys = 1, entries = 32\n\
         {place}\nminor = 1\npush 1\nagg m\npush r, rip\nlog 1\nexit\n"
    ))
}

/// A small step finds every allocation, since each takes more.
const STEP: u64 = 16;

fn memory_is_bounded_wherever_it_runs_out() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let target = Target::load(1)?;
    let place = format!("address = {:#x}", target.middle());
    let object = program::assemble(&format!(
        "name = \"kernel\"\nmodtype = kernel\nmajor = 1\nvars = a, b, c\n{place}\nminor = 1\ninc lv, a\npush r, rip\nlog 1\nexit\n"
    ));
    // Whatever is made once is there after this. Removing all gives back also what waits for a grace period.
    device.insert(&object)?;
    device.remove_all()?;
    let before = memory_used()?;
    let mut refusals = 0;
    for more in (0..).step_by(STEP as usize) {
        permit(before + more + 1)?;
        let Err(refused) = device.insert(&object) else { break };
        ensure!(
            (refused.reason(), refused.errno) == (Reason::MemoryBound, Errno::NOMEM),
            "{refused:?}"
        );
        // What is in use then has a part of this program too.
        let [most, used] = refused.reply.facts;
        ensure!(
            most == before + more + 1 && (before..=most).contains(&used),
            "{refused:?}, {before}"
        );
        device.remove_all()?;
        ensure!(memory_used()? == before, "{} bytes are lost", memory_used()? - before);
        ensure!(device.query()?.is_empty(), "something stayed");
        refusals += 1;
    }
    ensure!(refusals > 10, "{refusals} refusals");
    permit(0)?;
    let taken = memory_used()? - before;
    ensure!(taken > 0 && device.query()?.len() == 1, "{taken}");
    device.remove_all()?;
    ensure!(memory_used()? == before, "{} bytes are lost", memory_used()? - before);
    let rounds = target.rounds();
    thread::sleep(Duration::from_millis(50));
    ensure!(target.rounds() > rounds, "the target does not run");
    Ok(())
}

fn memory_that_runs_out_when_a_module_comes() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let object = greedy(1, "offset = dprobes_target_work", "dprobes_target", "kmod");
    device.insert(&object)?;
    drop(Target::load(0)?);
    device.remove_all()?;
    let empty = memory_used()?;
    device.insert(&object)?;
    let before = memory_used()?;
    let mut refusals = 0;
    for more in (0..).step_by(16 * STEP as usize) {
        permit(before + more + 1)?;
        let target = Target::load(0)?;
        let probe = device.query()?[0];
        drop(target);
        if probe.state == State::Armed as u32 {
            break;
        }
        ensure!(
            (probe.state, probe.reason) == (State::Refused as u32, Reason::NoMemory as u32),
            "{probe:?}"
        );
        refusals += 1;
    }
    ensure!(refusals > 2, "{refusals} refusals");
    permit(0)?;
    let last = device.remove("dprobes_target", 1)?;
    ensure!(last[0].hits == 1, "only the last load found memory: {last:?}");
    device.remove_all()?;
    ensure!(memory_used()? == empty, "{} bytes are lost", memory_used()? - empty);
    Ok(())
}

fn the_command_may_be_killed_at_any_point() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let target = Target::load(1)?;
    let text = format!(
        "name = \"kernel\"\nmodtype = kernel\nmajor = 1\nvars = a\nmap m = count\n\
         address = {:#x}\nminor = 1\ninc lv, a\nagg m\nexit\noffset = vfs_read\nminor = 2\ninc lv, a\nabort\n",
        target.middle()
    );
    fs::write("/tmp/killed.rpn", text)?;
    let mut seed = 1_u64;
    let mut finished = 0;
    let started = Instant::now();
    let full = ["insert /tmp/killed.rpn", "query", "remove 1", "remove --all --now"];
    for command in full.iter().cycle().take(60) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut child = Command::new("dprobes")
            .args(command.split(' '))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        thread::sleep(Duration::from_micros((seed >> 33) % 120_000));
        child.kill()?;
        finished += usize::from(child.wait()?.success());
        let probes = device.query()?;
        let whole = probes.len() == 2 && probes[0].state == probes[1].state;
        ensure!(probes.is_empty() || whole, "half of it: {probes:?}");
        ensure!(started.elapsed() < Duration::from_secs(200), "it takes too long");
    }
    ensure!((1..60).contains(&finished), "{finished} of 60 were not killed");
    device.remove_all()?;
    ensure!(memory_used()? == 0, "{} bytes are lost", memory_used()?);
    let rounds = target.rounds();
    thread::sleep(Duration::from_millis(50));
    ensure!(target.rounds() > rounds, "the target does not run");
    Ok(())
}

fn online(cpu: usize, on: bool) -> std::io::Result<()> {
    fs::write(
        format!("/sys/devices/system/cpu/cpu{cpu}/online"),
        if on { "1" } else { "0" },
    )
}

fn cpus_go_and_come() -> Outcome {
    const ROUNDS: u64 = 300_000;
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let target = Arc::new(Target::load(0)?);
    let begun = target.rounds();
    device.insert(&program::at(1, &[target.middle()], program::COUNT))?;
    // On the way of a CPU that goes or comes.
    let way = [
        "try_to_wake_up",
        "__schedule",
        "finish_task_switch.isra.0",
        "cpuhp_thread_fun",
    ]
    .into_iter()
    .filter_map(crate::machine::find_symbol)
    .collect::<Vec<_>>();
    device.insert(&program::at(2, &way, program::COUNT))?;
    let runners: Vec<_> = (0..2)
        .map(|_| {
            let target = Arc::clone(&target);
            thread::spawn(move || target.run(ROUNDS))
        })
        .collect();
    let mut turns = 0_u64;
    while runners.iter().any(|runner| !runner.is_finished()) || turns < 5 {
        online(1, false)?;
        device.insert(&program::at(3, &[symbol("vfs_read"), target.middle()], program::COUNT))?;
        online(1, true)?;
        device.remove("kernel", 3)?;
        turns += 1;
    }
    for runner in runners {
        runner.join().expect("it does not panic")?;
    }
    let rounds = target.rounds() - begun;
    let probe = device.remove("kernel", 1)?[0];
    ensure!(rounds == 2 * ROUNDS, "{rounds} rounds");
    ensure!(probe.hits + probe.missed == rounds, "{rounds} rounds: {probe:?}");
    device.remove("kernel", 2)?;
    // The CPU that came back has its hits counted.
    device.insert(&program::at(1, &[target.middle()], program::COUNT))?;
    thread::scope(|scope| {
        scope.spawn(|| {
            crate::machine::pin(1);
            target.run(1000)
        });
    });
    let probe = device.remove("kernel", 1)?[0];
    ensure!(probe.hits == 1000, "{probe:?}");
    Ok(())
}

fn of_program(major: u16) -> VarsRequest {
    VarsRequest {
        scope: VARS_LOCAL,
        major,
        module: label(b"kernel"),
        ..VarsRequest::default()
    }
}

fn variables_are_read_and_reset_exactly() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let target = Arc::new(Target::load(0)?);
    device.insert(&program::at(1, &[target.middle()], "inc lv, 0\ninc lv, 3\nabort"))?;
    let rounds = target.rounds();
    let runner = {
        let target = Arc::clone(&target);
        thread::spawn(move || target.run(200_000))
    };
    let reset = VarsRequest {
        reset: 1,
        number: 1,
        ..of_program(1)
    };
    let mut sum = 0;
    while !runner.is_finished() {
        let (vars, count) = device.vars(reset, 4)?;
        ensure!(count == 1 && vars[0].index == 0, "{vars:?}");
        sum += vars[0].value;
    }
    runner.join().expect("it does not panic")?;
    sum += device.vars(reset, 4)?.0[0].value;
    let (vars, count) = device.vars(of_program(1), 16)?;
    ensure!(count == 4 && vars[0].value == 0, "{vars:?}");
    let missed = device.query()?[0].missed;
    ensure!(target.rounds() - rounds == sum + missed, "{sum}, {missed}");
    ensure!(vars[3].value == sum, "{} and {sum}", vars[3].value);
    // What does not fit is not reset.
    let all = VarsRequest {
        reset: 1,
        ..of_program(1)
    };
    ensure!(device.vars(all, 3) == Err(Errno::NOSPC), "there are four");
    ensure!(device.vars(of_program(1), 16)?.0[3].value == sum, "nothing is reset");
    let from = VarsRequest {
        first: 2,
        number: 1,
        ..of_program(1)
    };
    ensure!(device.vars(from, 16)?.0[0].index == 2, "the third");
    for (request, errno) in [
        (of_program(2), Errno::NOENT),
        (
            VarsRequest {
                first: 4,
                ..of_program(1)
            },
            Errno::NOENT,
        ),
        (
            VarsRequest {
                scope: 3,
                ..of_program(1)
            },
            Errno::INVAL,
        ),
        (
            VarsRequest {
                reset: 2,
                ..of_program(1)
            },
            Errno::INVAL,
        ),
        (VarsRequest { scope: 0, ..all }, Errno::INVAL),
    ] {
        let found = device.vars(request, 16);
        ensure!(found == Err(errno), "{found:?} instead of {errno:?}");
    }
    let mut bad = VarsRequest {
        buffer: 8,
        capacity: 4,
        ..of_program(1)
    };
    // SAFETY: nothing is at the address that the kernel is to write to.
    let found = unsafe { device.request::<IOCTL_VARS, _>(&mut bad) };
    ensure!(found == Err(Errno::FAULT), "{found:?}");
    Ok(())
}

fn what_is_kept_can_be_read_to_the_end() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let target = Target::load(2)?;
    device.insert(&program::at(1, &[target.middle()], program::COUNT))?;
    thread::sleep(Duration::from_millis(100));
    device.disarm("kernel", 1)?;
    let first = (device.vars(of_program(1), 4)?.0[0].value, device.query()?[0]);
    thread::sleep(Duration::from_millis(50));
    let second = (device.vars(of_program(1), 4)?.0[0].value, device.query()?[0]);
    ensure!(first == second, "{first:?}, {second:?}");
    ensure!(first.0 > 0 && first.0 == first.1.hits, "{first:?}");
    ensure!(first.1.state == State::Disarmed as u32, "{first:?}");
    // Another program at the place is not disturbed, and does not wake it.
    device.insert(&program::at(2, &[target.middle()], program::COUNT))?;
    thread::sleep(Duration::from_millis(50));
    let third = device.query()?;
    ensure!(third[0] == first.1 && third[1].hits > 0, "{third:?}");
    let last = device.remove("kernel", 1)?;
    ensure!(last == [first.1], "{last:?}");
    let refused = device.disarm("kernel", 1).expect_err("it is gone");
    ensure!(refused.reason() == Reason::NotFound, "{refused:?}");
    Ok(())
}
