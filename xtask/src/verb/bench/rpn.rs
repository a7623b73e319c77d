//! `bench rpn`: what programs cost in the interpreter, beside rbpf. The package rpn-bench does the work.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress::Progress;
use crate::run::dies_with_us;
use crate::verb::build;
use crate::workspace::Workspace;

/// Builds and runs the benchmark, which prints its results as it goes.
pub fn run(workspace: &Workspace, progress: &Progress, json: bool) -> Result<()> {
    let program = build::static_program(workspace, progress, "rpn-bench", "rpn-bench")?;
    let mut command = Command::new(&program);
    command.args(json.then_some("--json"));
    let status = dies_with_us(&mut command)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !status.success() {
        bail!("the benchmark failed");
    }
    Ok(())
}
