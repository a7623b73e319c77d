//! `bench`: what things cost.

mod arming;
mod hit;
mod hooks;
mod insert;
mod rpn;

use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::linux::guest::{Ending, Guest};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// Measure what a hit costs, what passing a hook costs, what inserting probes costs, or what a probe program costs
#[derive(Args)]
#[command(after_help = "Examples:
  ./x bench             guest instructions and traps of a hit
  ./x bench hooks       guest instructions of a pass through a hook, beside tracepoints and static keys
  ./x bench insert      50,000 probes as one transaction, beside register_kprobes at the same addresses
  ./x bench rpn         nanoseconds of five programs, beside rbpf
  ./x bench rpn --json  one object a line")]
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
