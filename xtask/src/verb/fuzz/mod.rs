//! `fuzz`: the targets of fuzz/ and the tests of the language under AddressSanitizer, and the CPU against itself.

mod insn;
mod requests;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::progress::Progress;
use crate::workspace::Workspace;

const CARGO_FUZZ: &str = "0.13.2";

/// Operations on the device, if nothing else is said.
const OPERATIONS: u64 = 1_000_000;

/// Seconds for each target of libFuzzer, if nothing else is said.
const SECONDS: u64 = 60;

/// Feed what is read from outside with inputs of libFuzzer's, and the CPU with random instructions, bare and probed
#[derive(Args)]
#[command(after_help = "Examples:
  ./x fuzz insn                             10 million instructions with a probe on each
  ./x fuzz insn --count 100000 --seed 7     fewer, and other ones
  ./x fuzz insn --seconds 600 --count 1000000000
  ./x fuzz insn --seed 4711 --blocks 1      one block again
  ./x fuzz requests                         a million operations on the module's device, in a guest
  ./x fuzz                                  all targets of libFuzzer, 60 seconds each
  ./x fuzz object --seconds 3600
  ./x fuzz sample

`insn` runs random blocks of all kinds of instructions in a process, on the real CPU: bare, then with a probe on every
instruction that can be probed. Registers, flags, memory, vector and x87 state, and signals must be the same; what
cannot be is in hosted/tests/differential/exempt.rs, with the reasons. It needs no nightly toolchain. A difference is
reduced and written to hosted/tests/differential/cases, where `cargo test` replays it each time. DPROBES_INSN_SHOW=1
prints each block before it runs.

`requests` has two threads do random ioctls, reads, writes and mappings on /dev/dprobes as root, with good objects, with
objects some bits of which are others, and with made-up arguments. The kernel must survive it, no breakpoint and no
memory may be left. CI does the same with 20,000.

For the others AddressSanitizer needs the nightly toolchain. cargo-fuzz is installed from crates.io the first time. What
a target has learnt is kept in target/fuzz/corpus, and an input that fails in target/fuzz/artifacts.

Exit status: 0 when nothing was found, 1 otherwise.")]
pub struct Arguments {
    /// Which target; all of libFuzzer's by default
    target: Option<Target>,

    /// For how long each is run; 60 for libFuzzer's
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,

    /// Only `insn` and `requests`: how many instructions are executed with a probe, or operations done [default: 10000000, 1000000]
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Only `insn` and `requests`: the first block, or what decides the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Only `insn`: how many blocks
    #[arg(long, value_name = "N")]
    blocks: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Random instructions on the CPU: bare and probed
    Insn,
    /// Random operations on the module's device, in a guest
    Requests,
    /// Objects and code: parsed, verified, run
    Object,
    /// Text: assembled, and disassembled again
    Text,
    /// Machine code: decoded, relocated
    Decoder,
    /// The stream of records: read
    Record,
    /// No fuzzing: a sample of the tests of dprobes/tests/rpn*.rs
    Sample,
}

/// Runs them.
pub fn run(workspace: &Workspace, progress: &Progress, arguments: &Arguments) -> Result<()> {
    let targets = match arguments.target {
        None => &[
            Target::Object,
            Target::Text,
            Target::Decoder,
            Target::Record,
            Target::Sample,
        ],
        Some(ref target) => std::slice::from_ref(target),
    };
    let seconds = arguments.seconds.unwrap_or(SECONDS);
    for target in targets {
        match target {
            Target::Insn => insn::run(workspace, progress, arguments)?,
            Target::Requests => requests::run(
                workspace,
                progress,
                arguments.count.unwrap_or(OPERATIONS),
                arguments.seed,
            )?,
            Target::Sample => sample(workspace, progress)?,
            Target::Object => fuzz(workspace, progress, "object", seconds)?,
            Target::Text => fuzz(workspace, progress, "text", seconds)?,
            Target::Decoder => fuzz(workspace, progress, "insn", seconds)?,
            Target::Record => fuzz(workspace, progress, "record", seconds)?,
        }
    }
    Ok(())
}

fn fuzz(workspace: &Workspace, progress: &Progress, target: &str, seconds: u64) -> Result<()> {
    install(workspace, progress)?;
    let folder = workspace.target.join("fuzz");
    let (corpus, artifacts) = (
        folder.join("corpus").join(target),
        folder.join("artifacts").join(target),
    );
    for folder in [&corpus, &artifacts] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut cargo = workspace.nightly_cargo("fuzz");
    cargo
        .args(["run", "--fuzz-dir"])
        .arg(workspace.root.join("fuzz"))
        .arg("--target-dir")
        .arg(&folder)
        .arg(target)
        .arg(&corpus)
        .args((target == "text").then(|| workspace.root.join("examples")))
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()));
    progress.step(&format!("{target}, {seconds} s"), &mut cargo).map(drop)
}

/// The tests of the language, with fewer programs than otherwise.
fn sample(workspace: &Workspace, progress: &Progress) -> Result<()> {
    let mut cargo = workspace.nightly_cargo("test");
    cargo
        .arg("--manifest-path")
        .arg(workspace.root.join("Cargo.toml"))
        .args(["--target", crate::workspace::HOST, "--package", "dprobes"])
        .arg("--target-dir")
        .arg(workspace.target.join("fuzz"))
        .args(["--test", "rpn_*"])
        .env("RUSTFLAGS", "-Zsanitizer=address")
        .env("DPROBES_RPN_PROGRAMS", "100000")
        .env("DPROBES_RPN_INPUTS", "500000");
    progress.step("tests of the language", &mut cargo).map(drop)
}

fn install(workspace: &Workspace, progress: &Progress) -> Result<()> {
    let version = workspace.nightly_cargo("fuzz").arg("--version").output()?;
    if version.status.success() {
        return Ok(());
    }
    let nightly = workspace.nightly_cargo("version").output()?;
    if !nightly.status.success() {
        bail!("there is no nightly toolchain, which AddressSanitizer needs: rustup toolchain install nightly");
    }
    let mut install = workspace.host_cargo("install");
    install.args(["--locked", "cargo-fuzz", "--version", CARGO_FUZZ]);
    progress.step("installing cargo-fuzz", &mut install).map(drop)
}
