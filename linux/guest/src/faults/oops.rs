//! A fault that nobody recovers from: the kernel reports it, and kills the task.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

use super::cases::{Faults, RECORD, Run};
use crate::device::Device;
use crate::machine::Module;
use crate::{Outcome, ensure, kernel_log, program};
use libtest_mimic::Failed;

/// Set in the environment of the child that is to die: the address that it has the kernel read.
const ADDRESS: &str = "FAULTS_ADDRESS";

/// What this program does when the test has started it to be killed in the kernel.
pub fn as_a_child() -> Option<ExitCode> {
    let address = std::env::var(ADDRESS).ok()?.parse().expect("an address");
    let device = Faults::already_loaded().expect("the module is loaded");
    let run = device.run(Run {
        rsi: address,
        ..Run::of("oops")
    });
    println!("survived: {run:?}");
    Some(ExitCode::SUCCESS)
}

/// What the kernel says while a child has it read at this address, and the signal that the child dies of.
fn report_of(address: u64) -> Result<(String, Option<i32>), Failed> {
    let run = || {
        Command::new("/proc/self/exe")
            .env(ADDRESS, address.to_string())
            .status()
    };
    let (report, status) = kernel_log::during(run)?;
    let status = status?;
    ensure!(status.signal().is_some(), "the child ended with {status}");
    Ok((report, status.signal()))
}

/// What must be the same in each report of the same mistake: the kind of fault, its error code, its address, its place, and the registers
/// that the case sets.
fn facts(report: &str) -> Vec<String> {
    let first = |of: &str| report.lines().find(|line| line.contains(of)).unwrap_or("");
    let faults = ["BUG: ", "general protection fault"].map(first);
    let fault = faults.concat();
    let fault = fault.split(": 0000 [#").next().unwrap_or("").to_owned();
    // It belongs to page faults only.
    let cr2 = if report.contains("#PF: ") { first("CR2: ") } else { "" };
    let registers = first("RAX: ").split(" RBX: ").next().unwrap_or("");
    let rest = [
        first("#PF: supervisor"),
        first("#PF: error_code"),
        cr2.split(" CR3: ").next().unwrap_or(""),
        first("RIP: 0010:"),
        registers,
        first("RDX: "),
    ];
    [fault].into_iter().chain(rest.map(str::to_owned)).collect()
}

pub fn an_oops_names_the_instruction() -> Outcome {
    let module = Module::dprobes()?;
    let (device, faults) = (Device::open()?, Faults::load()?);
    let place = faults.instruction("oops");
    for address in [faults.page + 4096, 0x10, 0x8000_0000_0000_0000] {
        let (bare, bare_signal) = report_of(address)?;
        ensure!(bare.contains("RIP: 0010:faults_oops+0x"), "{bare}");
        device.insert(&program::at(1, &[place], RECORD))?;
        let (probed, signal) = report_of(address)?;
        let last = device.remove("kernel", 1)?[0];
        println!("    {}", facts(&probed).join("; "));
        ensure!(!probed.contains("dprobes_slots"), "the slot is named:\n{probed}");
        ensure!(
            facts(&bare)[1..] == facts(&probed)[1..],
            "bare:\n{bare}\nprobed:\n{probed}"
        );
        // By the code, which it decodes, the kernel guesses at the address of a general protection fault, and says so. Since 6.11 the line begins
        // with `Oops: `.
        let fault = |report: &str| {
            let line = facts(report).swap_remove(0);
            match line.split_once(", ") {
                Some((fault, _)) if fault.ends_with("general protection fault") => fault.to_owned(),
                _ => line,
            }
        };
        ensure!(fault(&bare) == fault(&probed), "bare:\n{bare}\nprobed:\n{probed}");
        ensure!(signal == bare_signal, "{signal:?} instead of {bare_signal:?}");
        ensure!(
            probed.contains("is probed; without the breakpoint it is 48 8b 16"),
            "{probed}"
        );
        ensure!((last.hits, last.faulted) == (0, 1), "{last:?}");
        ensure!(device.records()?.is_empty(), "an attempt that failed left a record");
    }
    // The machine goes on, and so does the module.
    device.insert(&program::at(1, &[faults.instruction("fault")], RECORD))?;
    let run = faults.run(Run {
        rsi: faults.page,
        ..Run::of("fault")
    })?;
    ensure!(run.outcome == super::cases::COMPLETED, "{run:?}");
    ensure!(device.remove("kernel", 1)?[0].hits == 1, "it does not fire any more");
    drop(device);
    module.unload()?;
    // The tasks that died were in it.
    faults.abandon();
    Ok(())
}
