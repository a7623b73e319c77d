//! `fuzz insn`: the campaign of hosted/tests/differential.

use std::fs;

use anyhow::{Context, Result, bail};

use super::Arguments;
use crate::progress::Progress;
use crate::workspace::Workspace;

/// Instructions with a probe, if nothing else is said.
const INSTRUCTIONS: u64 = 10_000_000;

/// What the campaign's last lines begin with: what was run, and how.
const SUMMARY: &str = "kinds of instructions";

/// Runs it, and shows its summary, or where to look.
pub(super) fn run(workspace: &Workspace, progress: &Progress, arguments: &Arguments) -> Result<()> {
    let last = workspace.target.join("fuzz-insn-last");
    let _ = fs::remove_file(&last);
    let mut cargo = workspace.host_cargo("test");
    cargo
        .args(["--release", "--package", "hosted", "--test", "differential"])
        .args(["--", "--ignored", "--exact", "campaign", "--nocapture"])
        .env(
            "DPROBES_INSN_COUNT",
            arguments.count.unwrap_or(INSTRUCTIONS).to_string(),
        )
        .env("DPROBES_INSN_SEED", arguments.seed.to_string())
        .env("DPROBES_INSN_LAST", &last);
    if let Some(seconds) = arguments.seconds {
        cargo.env("DPROBES_INSN_SECONDS", seconds.to_string());
    }
    if let Some(blocks) = arguments.blocks {
        cargo.env("DPROBES_INSN_BLOCKS", blocks.to_string());
    }
    let output = progress.attempt("instructions, bare and probed", &mut cargo)?;
    if let Some(at) = output.text.find(SUMMARY) {
        let summary = output.text[at..].split("\n\n").take(2).collect::<Vec<_>>().join("\n");
        println!("{}", summary.trim_end());
    } else if let Ok(blocks) = fs::read_to_string(&last) {
        // The process did not live to say what it had found.
        let (first, count) = blocks.trim().split_once(' ').context("a first block and a count")?;
        bail!(
            "the process has died in one of these: DPROBES_INSN_SHOW=1 ./x fuzz insn --seed {first} --blocks {count}"
        );
    }
    if !output.success {
        bail!(
            "cases were written to hosted/tests/differential/cases; `cargo test -p hosted --test differential` replays them"
        );
    }
    Ok(())
}
