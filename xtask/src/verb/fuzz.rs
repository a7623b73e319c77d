//! `fuzz`: the targets of fuzz/, and the tests of the language, under AddressSanitizer.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::progress::Progress;
use crate::workspace::Workspace;

const CARGO_FUZZ: &str = "0.13.2";

/// Feed what is read from outside with inputs of libFuzzer's, under AddressSanitizer
#[derive(Args)]
#[command(after_help = "Examples:
  ./x fuzz
  ./x fuzz object --seconds 3600
  ./x fuzz sample

AddressSanitizer needs the nightly toolchain. cargo-fuzz is installed from crates.io the first time. What a target
has learnt is kept in target/fuzz/corpus, and an input that fails in target/fuzz/artifacts.")]
pub struct Arguments {
    /// Which target; all of them by default
    target: Option<Target>,

    /// For how long each is run
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Objects and code: parsed, verified, run
    Object,
    /// Text: assembled, and disassembled again
    Text,
    /// Machine code: decoded, relocated
    Insn,
    /// The stream of records: read
    Record,
    /// No fuzzing: a sample of the tests of dprobes/tests/rpn*.rs
    Sample,
}

/// Runs them.
pub fn run(workspace: &Workspace, progress: &mut Progress, arguments: &Arguments) -> Result<()> {
    let targets = match arguments.target {
        None => Target::value_variants(),
        Some(ref target) => std::slice::from_ref(target),
    };
    for target in targets {
        let name = target.to_possible_value().expect("no target is hidden");
        match target {
            Target::Sample => sample(workspace, progress)?,
            _ => fuzz(workspace, progress, name.get_name(), arguments.seconds)?,
        }
    }
    Ok(())
}

fn fuzz(workspace: &Workspace, progress: &mut Progress, target: &str, seconds: u32) -> Result<()> {
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
fn sample(workspace: &Workspace, progress: &mut Progress) -> Result<()> {
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

fn install(workspace: &Workspace, progress: &mut Progress) -> Result<()> {
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
