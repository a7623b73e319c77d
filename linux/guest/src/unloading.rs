//! Modules that go away with probes armed, while they fire.

use std::thread;
use std::time::{Duration, Instant};

use dprobes::wire::State;

use crate::device::Device;
use crate::machine::{Module, Target};
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[
    ("of_the_probed_module", of_the_probed_module),
    ("of_dprobes_itself", of_dprobes_itself),
];

const TIMES: u16 = 20;

/// Waits until all probes have fired.
fn until_hit(device: &Device) -> Outcome {
    let begun = Instant::now();
    loop {
        let probes = device.query()?;
        if probes
            .iter()
            .all(|probe| probe.state != State::Armed as u32 || probe.hits > 0)
        {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(30),
            "some do not fire: {probes:?}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

fn of_the_probed_module() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    for time in 1..=TIMES {
        let target = Target::load(2)?;
        device.insert(&program::at(time, &[target.middle()], "push r, rip\nlog 1\nexit"))?;
        until_hit(&device)?;
        drop(target);
        let probes = device.query()?;
        let gone = probes
            .iter()
            .filter(|probe| probe.state == State::ModuleGone as u32)
            .count();
        ensure!(gone == usize::from(time), "{gone} of {time} are gone: {probes:?}");
    }
    device.records()?;
    for time in 1..=TIMES {
        device.remove("kernel", time)?;
    }
    Ok(())
}

fn of_dprobes_itself() -> Outcome {
    let target = Target::load(2)?;
    for _ in 0..TIMES {
        let module = Module::dprobes()?;
        let device = Device::open()?;
        device.insert(&program::at(1, &[target.middle()], "push r, rip\nlog 1\nexit"))?;
        until_hit(&device)?;
        drop(device);
        module.unload()?;
        // The function goes on as if nothing had been.
        let before = target.rounds();
        thread::sleep(Duration::from_millis(20));
        ensure!(target.rounds() > before, "the threads do not run any more");
    }
    Ok(())
}
