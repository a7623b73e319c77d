//! `runner KERNEL`: boots a test kernel in QEMU; cargo calls it for `cargo test`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use runner::{Acceleration, Machine, Outcome, Requirements};

/// Boots a test kernel in QEMU, shows its serial output and says how it ended
///
/// Without options the machine is what the kernel asks for in its section .runner, or else 2 CPUs of model max, 256 MiB and 60 s.
#[derive(Parser)]
#[command(after_help = "\
examples:
  runner target/x86_64-target/debug/deps/runtime-*    all tests of one kernel
  runner --cpus 4 KERNEL fault                        tests with `fault` in their name, on 4 CPUs
  cargo test --test runtime -- fault                  the same through cargo
  DPROBES_QEMU_CPUS=4 cargo test                      every kernel on 4 CPUs

exit codes: 0 all tests passed, 1 they did not (the reason is printed), 2 wrong usage, 3 QEMU or the kernel file could not be used")]
struct Options {
    /// Number of CPUs
    #[arg(long, env = "DPROBES_QEMU_CPUS", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: Option<u32>,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", env = "DPROBES_QEMU_MEMORY", value_parser = clap::value_parser!(u32).range(16..))]
    memory: Option<u32>,
    /// CPU model, as QEMU names it
    #[arg(long, value_name = "MODEL", env = "DPROBES_QEMU_CPU_MODEL")]
    cpu_model: Option<String>,
    /// A run that takes longer is a hang
    #[arg(long, value_name = "SECONDS", env = "DPROBES_QEMU_TIME_LIMIT", value_parser = clap::value_parser!(u64).range(1..))]
    time_limit: Option<u64>,
    /// What executes the guest: tcg or kvm
    #[arg(long, value_name = "NAME", env = "DPROBES_QEMU_ACCEL", default_value_t)]
    accel: Acceleration,
    /// A further argument for QEMU; may be repeated
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    qemu_arg: Vec<String>,
    /// Ignored: output is always shown
    #[arg(long, alias = "show-output", hide = true)]
    nocapture: bool,
    /// Ignored: what cargo says to benchmarks
    #[arg(long, hide = true)]
    bench: bool,
    /// The kernel, an ELF file
    kernel: PathBuf,
    /// Run only tests whose name contains one of these
    tests: Vec<String>,
}

impl Options {
    fn machine(self) -> Result<Machine, runner::RequirementsError> {
        let mut machine = Machine::new(&self.kernel);
        Requirements::of(&self.kernel)?.apply(&mut machine);
        Requirements {
            cpus: self.cpus,
            memory_mib: self.memory,
            cpu_model: self.cpu_model,
            time_limit: self.time_limit.map(Duration::from_secs),
            icount: None,
        }
        .apply(&mut machine);
        machine.acceleration = self.accel;
        machine.extra = self.qemu_arg.into_iter().map(Into::into).collect();
        machine.command_line = self.tests.join(" ");
        Ok(machine)
    }
}

fn main() -> ExitCode {
    let cannot = |error: &dyn std::error::Error| {
        eprintln!("runner: {error}");
        ExitCode::from(3)
    };
    let machine = match Options::parse().machine() {
        Ok(machine) => machine,
        Err(error) => return cannot(&error),
    };
    let report = match machine.run(&mut std::io::stdout().lock()) {
        Ok(report) => report,
        Err(error) => return cannot(&error),
    };
    if report.outcome.is_success() {
        return ExitCode::SUCCESS;
    }
    eprintln!("runner: {}: {}", machine.kernel.display(), report.outcome);
    match report.outcome {
        Outcome::Qemu { .. } => eprintln!("{}", report.stderr.trim_end()),
        _ => {
            if let Some(registers) = report.triple_fault_registers() {
                eprintln!("{registers}");
            }
        }
    }
    ExitCode::FAILURE
}
