//! `kernel-run`: one test kernel in QEMU.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use runner::{Machine, Requirements};

/// Boot one test kernel in QEMU and show its serial port
#[derive(Args)]
#[command(
    after_help = "Examples:\n  ./x kernel-run target/x86_64-target/debug/deps/runtime-0123456789abcdef\n  \
    ./x kernel-run --cpus 4 --seconds 10 KERNEL"
)]
pub struct Arguments {
    /// The kernel, an ELF file
    kernel: PathBuf,

    /// How many CPUs the machine has; by default what the kernel asks for
    #[arg(long)]
    cpus: Option<u32>,

    /// A kernel that runs longer than this hangs; by default what the kernel asks for
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

/// Boots it.
pub fn run(arguments: &Arguments) -> Result<()> {
    // ./x starts us elsewhere and says where it was called.
    let kernel = env::var_os("DPROBES_FOLDER")
        .map_or_else(PathBuf::new, PathBuf::from)
        .join(&arguments.kernel);
    let mut machine = machine(&kernel)?;
    machine.cpus = arguments.cpus.unwrap_or(machine.cpus);
    machine.time_limit = arguments.seconds.map_or(machine.time_limit, Duration::from_secs);
    let report = machine.run(&mut io::stdout().lock())?;
    if report.outcome.is_success() {
        return Ok(());
    }
    if let Some(registers) = report.triple_fault_registers() {
        eprintln!("{registers}");
    }
    bail!("{}", report.outcome);
}

fn machine(kernel: &Path) -> Result<Machine> {
    let mut machine = Machine::new(kernel);
    Requirements::of(kernel)?.apply(&mut machine);
    Ok(machine)
}
