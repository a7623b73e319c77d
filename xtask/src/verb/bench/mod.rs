//! `bench`: what things cost.

mod arming;
mod counted;
mod hit;
mod hooks;
mod insert;
mod linux;
mod rpn;

use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::linux::guest::{Ending, Guest};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// Measure what a hit costs, also beside the kernel's own probes, what passing a hook costs, what inserting probes costs, or what a probe program costs
#[derive(Args)]
#[command(after_help = "Examples:
  ./x bench             guest instructions and traps of a hit
  ./x bench hooks       guest instructions of a pass through a hook, beside tracepoints and static keys
  ./x bench linux       every kind of probe on Linux, beside kprobes, uprobes, kretprobes and hardware breakpoints
  ./x bench linux --json | jq 'select(.probe == \"dprobes\")'
  ./x bench insert      50,000 probes as one transaction, beside register_kprobes at the same addresses
  ./x bench rpn         nanoseconds of five programs, beside rbpf
  ./x bench rpn --json  one object a line

Results go to standard output, progress to standard error. What a guest said is kept in target/bench*.

Exit codes: 0 done, 1 something failed, 2 wrong usage.")]
pub struct Arguments {
    /// What to measure
    #[arg(default_value = "hit")]
    what: What,

    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// A hit: its guest instructions and traps on bare metal, and on Linux beside kprobes in one boot. The guests run under `qemu -icount
    /// shift=0`, where the time stamp counter counts instructions: the numbers are the same on every machine. Traps are taken from QEMU's
    /// log of exceptions
    Hit,
    /// Passing a hook, dormant and armed, beside a tracepoint, a static key and a function pointer in one boot of Linux under `qemu -icount
    /// shift=0`; and arming a thousand hooks one by one and in one transaction
    Hooks,
    /// Inserting and removing 50,000 probes, beside kprobes at the same addresses in one boot of Linux, with one CPU and with two: times
    /// under QEMU's translator, of which the ratio says more than the seconds. And a smaller number in instructions, under `qemu -icount
    /// shift=0`
    Insert,
    /// A hit of each kind of probe on Linux: of the kernel, of a module, of a program, of returns, and of a watchpoint, with a program that
    /// counts and one that logs, beside what else the kernel has for the same place: kprobes, kretprobes, uprobes and hardware breakpoints with
    /// empty handlers, and their trace events. Guest instructions and traps, in one boot. It says where the others are faster
    Linux,
    /// The interpreter: nanoseconds of five programs on this machine, side by side with the same in eBPF under rbpf's interpreter and JIT.
    /// All take turns in one run; what they leave behind is compared first
    Rpn,
}

/// Runs a benchmark.
pub fn run(workspace: &Workspace, progress: &Progress, arguments: &Arguments) -> Result<()> {
    match arguments.what {
        What::Hit => hit::run(workspace, progress, arguments.json),
        What::Hooks => hooks::run(workspace, progress, arguments.json),
        What::Insert => insert::run(workspace, progress, arguments.json),
        What::Linux => linux::run(workspace, progress, arguments.json),
        What::Rpn => rpn::run(workspace, progress, arguments.json),
    }
}

/// Runs a guest that measures; its console is kept in `folder`, and shown if it fails.
fn measured(progress: &Progress, what: &str, guest: Guest, folder: &Path) -> Result<Ending> {
    let ending = progress.narrate(what, |say| {
        let ending = guest.run(folder, say)?;
        let success = ending.fault.is_none();
        Ok((ending, success))
    })?;
    if let Some(fault) = ending.fault {
        progress.show_end(&ending.console, &folder.join("console.log"));
        bail!("{fault}");
    }
    Ok(ending)
}
