//! Places and programs that the module refuses, with the reason.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};

use dprobes::host::Prohibited;
use dprobes::wire::{CHECKS_MAX, CheckRequest, IOCTL_CHECK, PointCheck, Reason};
use rustix::io::Errno;
use survey::ask::Module as Asking;
use survey::kcore::Kcore;

use crate::batch::tracers_nop;
use crate::device::Device;
use crate::machine::{Module, Target, find_symbol, symbol};
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[
    ("places_that_are_not_text", places_that_are_not_text),
    ("entry_code_and_the_module_itself", entry_code_and_the_module_itself),
    ("what_the_way_of_a_trap_runs", what_the_way_of_a_trap_runs),
    ("a_check_says_what_inserting_says", a_check_says_what_inserting_says),
    ("checks_that_are_wrong_in_form", checks_that_are_wrong_in_form),
    ("inside_an_instruction", inside_an_instruction),
    ("another_instruction_than_expected", another_instruction_than_expected),
    ("a_major_code_twice", a_major_code_twice),
    ("a_module_that_is_not_loaded", a_module_that_is_not_loaded),
    ("one_bad_point_refuses_the_program", one_bad_point_refuses_the_program),
    ("behind_the_function_tracers_nop", behind_the_function_tracers_nop),
    ("a_kprobes_place_and_it_ours", a_kprobes_place_and_it_ours),
    ("nearly_everything_is_accepted", nearly_everything_is_accepted),
];

fn prohibited(device: &Device, address: u64, expected: &[Prohibited]) -> Outcome {
    let refused = match device.insert(&program::at(1, &[address], program::COUNT)) {
        Err(refused) => refused,
        Ok(()) => return Err(format!("a probe at {address:#x} is allowed").into()),
    };
    let why = Prohibited::from_code(refused.reply.detail as i32);
    ensure!(
        refused.reason() == Reason::Prohibited && why.is_some_and(|why| expected.contains(&why)),
        "{address:#x}: {refused:?} {why:?} instead of {expected:?}"
    );
    ensure!(refused.errno == Errno::ACCESS, "{address:#x}: {refused:?}");
    ensure!(
        (refused.reply.point, refused.reply.address) == (0, address),
        "{address:#x}: {refused:?}"
    );
    Ok(())
}

fn places_that_are_not_text() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let here: fn() -> Outcome = places_that_are_not_text;
    let nowhere = [
        0,
        1,
        here as usize as u64,
        1 << 62,
        0xffff_8000_0000_0000,
        0xffff_ffff_ff60_0000,
        u64::MAX,
        symbol("init_mm"),
        symbol("__start_rodata"),
    ];
    for address in nowhere {
        prohibited(&device, address, &[Prohibited::NotText, Prohibited::NoFunction])?;
    }
    Ok(())
}

fn entry_code_and_the_module_itself() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let excluded = [
        "asm_exc_page_fault",
        "asm_exc_int3",
        "exc_int3",
        "exc_debug",
        "exc_nmi",
        "notify_die",
        "entry_SYSCALL_64",
        "dprobes_on_breakpoint",
        "dprobes_host_read",
        "dprobes_slots",
    ];
    for name in excluded {
        prohibited(&device, symbol(name), &[Prohibited::Excluded])?;
    }
    Ok(())
}

/// None of these is in noinstr text or on kprobes' blacklist: the module has found them by itself. A probe on one of them would be hit by its
/// own trap.
fn what_the_way_of_a_trap_runs() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    for name in ["__rcu_read_lock", "__rcu_read_unlock", "rcu_read_unlock_special"] {
        let Some(address) = find_symbol(name) else { continue };
        if device.insert(&program::at(1, &[address], program::COUNT)).is_err() {
            prohibited(&device, address, &[Prohibited::Excluded])?;
            continue;
        }
        // Another kernel's way may have it inline. Then it can be probed, and no hit of it is inside another.
        for _ in 0..1000 {
            fs::metadata("/proc/self/status")?;
        }
        let probe = device.query()?[0];
        ensure!(probe.missed == 0, "{name} is on the way of a trap: {probe:?}");
        println!("    {name} is not on the way: {} hits", probe.hits);
        device.remove_all()?;
    }
    // Nor what compilers and the kernel's patching put between code and the functions that it calls.
    prohibited(&device, symbol("__x86_indirect_thunk_rax"), &[Prohibited::Excluded])?;
    prohibited(&device, symbol("__x86_return_thunk"), &[Prohibited::Excluded])?;
    prohibited(&device, symbol("__SCT__cond_resched"), &[Prohibited::StaticCall])
}

/// Every byte of functions of all kinds, entry code and a place that is no text at all.
fn a_check_says_what_inserting_says() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, asking) = (Device::open()?, Asking::open()?);
    for name in [
        "do_sys_openat2",
        "copy_process",
        "exc_int3",
        "entry_SYSCALL_64",
        "init_mm",
    ] {
        let start = symbol(name);
        let addresses = Vec::from_iter(start..start + 150);
        let checks = asking.check(&addresses)?;
        for (address, check) in addresses.into_iter().zip(checks) {
            let inserted = device.insert(&program::at(1, &[address], program::COUNT));
            let (reason, detail, place) = match inserted {
                Ok(()) => {
                    let [probe] = device.query()?[..] else {
                        return Err("there is not one probe".into());
                    };
                    device.remove_all()?;
                    (0, probe.resume, probe.address)
                }
                Err(refused) => (refused.reply.reason, refused.reply.detail, 0),
            };
            ensure!(
                (check.asked, check.reason, check.detail, check.address) == (address, reason, detail, place),
                "{name}: {check:x?}, but inserting says {reason} {detail} {place:#x}"
            );
        }
    }
    Ok(())
}

fn checks_that_are_wrong_in_form() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let mut check = PointCheck::of(symbol("do_sys_openat2"));
    let good = (&raw mut check).expose_provenance() as u64;
    for (checks, count, reserved, expected) in [
        (good, 0, 0, Errno::INVAL),
        (good, 1, 1, Errno::INVAL),
        (good, CHECKS_MAX + 1, 0, Errno::INVAL),
        (good, u32::MAX, 0, Errno::INVAL),
        (0, 1, 0, Errno::FAULT),
        (0xffff_8000_0000_0000, 1, 0, Errno::FAULT),
    ] {
        let mut request = CheckRequest {
            checks,
            count,
            reserved,
        };
        // SAFETY: the kernel writes a check that is there, or nothing.
        let result = unsafe { device.request::<IOCTL_CHECK, _>(&mut request) };
        ensure!(
            result == Err(expected),
            "{count} checks at {checks:#x}: {result:?} instead of {expected}"
        );
    }
    Ok(())
}

fn inside_an_instruction() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    let middle = target.middle();
    for address in [middle + 1, middle + 2] {
        let refused = device
            .insert(&program::at(1, &[address], program::COUNT))
            .expect_err("inside an instruction");
        ensure!(
            (refused.reason(), refused.reply.facts[0]) == (Reason::NotBoundary, middle),
            "{address:#x}: {refused:?}; the instruction is at {middle:#x}"
        );
    }
    Ok(())
}

fn another_instruction_than_expected() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    let expecting = |opcode| program::with(1, &[target.middle()], &format!("opcode = {opcode}"), program::COUNT);
    let refused = device
        .insert(&expecting("0x48, 0x29"))
        .expect_err("another instruction");
    ensure!(
        (refused.reason(), refused.errno) == (Reason::Opcode, Errno::ILSEQ) && refused.reply.facts[0] == 0x2948,
        "{refused:?}"
    );
    // add, with a REX prefix
    device.insert(&expecting("0x48, 0x01"))?;
    Ok(())
}

fn a_major_code_twice() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    device.insert(&program::at(1, &[symbol("vfs_read")], program::COUNT))?;
    let refused = device
        .insert(&program::at(1, &[symbol("vfs_write")], program::COUNT))
        .expect_err("twice");
    ensure!(
        (refused.reason(), refused.errno) == (Reason::Exists, Errno::EXIST),
        "{refused:?}"
    );
    device.insert(&program::at(2, &[symbol("vfs_read")], program::COUNT))?;
    ensure!(device.query()?.len() == 2, "two programs on one module");
    Ok(())
}

fn a_module_that_is_not_loaded() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    // An address is one of a single load; a program without any waits.
    let object = program::assemble(
        "name = \"dprobes_target\"\nmodtype = kmod\nmajor = 1\nvars = 1\naddress = 0xffffffffc0000000\nminor = 1\ninc lv, 0\nabort\n",
    );
    let refused = device.insert(&object).expect_err("the module is not loaded");
    ensure!(
        (refused.reason(), refused.errno) == (Reason::NoModule, Errno::NOENT),
        "{refused:?}"
    );
    Ok(())
}

fn one_bad_point_refuses_the_program() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let places = [
        symbol("vfs_read"),
        symbol("vfs_write"),
        symbol("asm_exc_page_fault"),
        symbol("do_sys_openat2"),
    ];
    let refused = device
        .insert(&program::at(1, &places, program::COUNT))
        .expect_err("entry code");
    ensure!(
        (refused.reason(), refused.reply.point, refused.reply.address) == (Reason::Prohibited, 2, places[2]),
        "{refused:?}"
    );
    ensure!(device.query()?.is_empty(), "nothing is left of it");
    Ok(())
}

fn behind_the_function_tracers_nop() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let entry = symbol("vfs_read");
    let text = Kcore::open()?.read(entry..entry + 16)?;
    let nop = tracers_nop(&text).ok_or_else(|| format!("the tracer does not know the function: {text:x?}"))?;
    let nop = entry + nop as u64;
    device.insert(&program::at(1, &[nop], program::COUNT))?;
    let armed = device.query()?[0].address;
    ensure!(armed == nop + 5, "armed at {armed:#x} for a NOP at {nop:#x}");
    device.remove_all()?;
    prohibited(&device, nop + 1, &[Prohibited::Ftrace])
}

/// Makes a kprobe with the kernel's own interface.
fn kprobe(command: &str) -> io::Result<()> {
    let events = "/sys/kernel/tracing/kprobe_events";
    OpenOptions::new()
        .append(true)
        .open(events)?
        .write_all(command.as_bytes())
}

fn enable_kprobe(on: bool) -> io::Result<()> {
    fs::write(
        "/sys/kernel/tracing/events/kprobes/theirs/enable",
        if on { "1" } else { "0" },
    )
}

fn a_kprobes_place_and_it_ours() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    let place = target.middle();
    let offset = place - find_symbol("dprobes_target_work").ok_or("no dprobes_target_work")?;
    let event = format!("p:theirs dprobes_target:dprobes_target_work+{offset}\n");

    kprobe(&event)?;
    enable_kprobe(true)?;
    let theirs = prohibited(&device, place, &[Prohibited::ForeignBreakpoint]);
    enable_kprobe(false)?;
    kprobe("-:theirs\n")?;
    theirs?;

    device.insert(&program::at(1, &[place], program::COUNT))?;
    let refused = kprobe(&event).and_then(|()| enable_kprobe(true));
    let _ = kprobe("-:theirs\n");
    ensure!(refused.is_err(), "a kprobe was put on our breakpoint");
    target.run(100)?;
    let hits = device.query()?[0].hits;
    ensure!(hits == 100, "{hits} hits instead of 100");
    Ok(())
}

/// What `./x coverage` tells of all functions, for one of so many.
fn nearly_everything_is_accepted() -> Outcome {
    const EVERY: usize = 12;
    /// Of 6.12 more is on the way of a trap in the sample, and more are trampolines of static calls.
    const GOALS: [(&str, f64); 2] = [("6.12.", 99.3), ("", 99.5)];
    let release = rustix::system::uname();
    let release = release.release().to_str()?;
    let goal = GOALS.iter().find(|(of, _)| release.starts_with(of));
    let goal = goal.map_or(100.0, |(_, goal)| *goal);
    let _module = Module::dprobes()?;
    let report = survey::survey::run(survey::survey::Options { every: EVERY }, &mut |_, _| ())?;
    println!("    {:.3} % of {} instructions", report.percent(), report.rest);
    let missed = report.percent() < goal;
    ensure!(!missed, "less than {goal} %:\n{report}");
    ensure!(report.wrongly_accepted.is_empty(), "{:?}", report.wrongly_accepted);
    ensure!(report.accepted.reported > 100, "BUG and WARN are refused:\n{report}");
    Ok(())
}
