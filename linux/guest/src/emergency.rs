//! Getting rid of all probes at once, by the key and by the request, while they fire.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::machine::{Module, Target, symbol};
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[
    ("by_the_key", by_the_key),
    (
        "by_the_key_while_programs_come_and_go",
        by_the_key_while_programs_come_and_go,
    ),
    ("at_once_by_request", at_once_by_request),
    ("without_any_probe", without_any_probe),
];

const TIMES: usize = 3;

/// What runs all the time, on the way of the key too.
const HOT: [&str; 8] = [
    "vfs_read",
    "vfs_write",
    "do_sys_openat2",
    "try_to_wake_up",
    "__handle_sysrq",
    "queue_work_on",
    "process_one_work",
    "mutex_lock",
];

fn press() -> std::io::Result<()> {
    fs::write("/proc/sysrq-trigger", "y")
}

/// Programs at hot places and in the target: that count, and that log.
fn insert(device: &Device, target: &Target) -> Outcome {
    let hot = HOT.map(symbol);
    device.insert(&program::at(1, &hot, program::COUNT))?;
    device.insert(&program::at(2, &hot, "push r, rip\nlog 1\nexit"))?;
    device.insert(&program::at(3, &[target.middle()], program::COUNT))?;
    Ok(())
}

/// Waits until there are no probes.
fn until_none(device: &Device) -> Outcome {
    let begun = Instant::now();
    while !device.query()?.is_empty() {
        ensure!(
            begun.elapsed() < Duration::from_secs(60),
            "there are still {:?}",
            device.query()?
        );
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The target's threads run, and no breakpoint is where there was one.
fn goes_on(target: &Target) -> Outcome {
    let before = target.rounds();
    let begun = Instant::now();
    while target.rounds() == before {
        ensure!(
            begun.elapsed() < Duration::from_secs(30),
            "the threads do not run any more"
        );
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Programs can be inserted again, and count.
fn nothing_stays_halted(device: &Device, target: &Target) -> Outcome {
    device.insert(&program::at(9, &[target.middle()], program::COUNT))?;
    target.run(1000)?;
    let last = device.remove("kernel", 9)?[0];
    ensure!(last.hits >= 1000 && last.suspended == 0, "{last:?}");
    Ok(())
}

/// Has probes come and go, again and again, by this way of removing them.
fn by(remove: impl Fn(&Device) -> Outcome) -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let target = Target::load(2)?;
    for _ in 0..TIMES {
        insert(&device, &target)?;
        goes_on(&target)?;
        remove(&device)?;
        goes_on(&target)?;
        nothing_stays_halted(&device, &target)?;
        device.records()?;
    }
    Ok(())
}

fn by_the_key() -> Outcome {
    by(|device| {
        press()?;
        until_none(device)
    })
}

fn by_the_key_while_programs_come_and_go() -> Outcome {
    static STOP: AtomicBool = AtomicBool::new(false);
    STOP.store(false, Ordering::Relaxed);
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let target = Target::load(1)?;
    let changes = thread::spawn(|| {
        let device = Device::open().expect("the device opens");
        let object = program::at(20, &HOT.map(symbol), program::COUNT);
        let mut gone = 0;
        while !STOP.load(Ordering::Relaxed) {
            // It may have gone before it is removed.
            gone += usize::from(device.insert(&object).is_ok() && device.remove("kernel", 20).is_err());
        }
        gone
    });
    for _ in 0..TIMES {
        insert(&device, &target)?;
        press()?;
        let begun = Instant::now();
        while device.query()?.iter().any(|probe| probe.major != 20) {
            ensure!(begun.elapsed() < Duration::from_secs(60), "they stay");
            thread::sleep(Duration::from_millis(5));
        }
    }
    STOP.store(true, Ordering::Relaxed);
    changes.join().expect("it does not panic");
    device.remove_all()?;
    goes_on(&target)?;
    nothing_stays_halted(&device, &target)
}

fn at_once_by_request() -> Outcome {
    by(|device| {
        device.remove_all_now()?;
        ensure!(device.query()?.is_empty(), "they are gone");
        Ok(())
    })
}

fn without_any_probe() -> Outcome {
    let module = Module::dprobes()?;
    press()?;
    press()?;
    // The worker may not have run yet.
    module.unload()?;
    Ok(())
}
