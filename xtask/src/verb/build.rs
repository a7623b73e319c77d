//! `build`: host tools and libdprobes.a.

use anyhow::Result;
use clap::Args;

use crate::progress::Progress;
use crate::workspace::{HOST, Workspace};

/// Build the host tools and libdprobes.a
#[derive(Args)]
#[command(
    after_help = "Examples:\n  ./x build\n\nWhat is built:\n  target/x86_64-unknown-linux-gnu/release/  host tools\n  \
    target/x86_64-target/release/libdprobes.a  the engine behind its C ABI"
)]
pub struct Arguments {}

/// Builds all.
pub fn run(workspace: &Workspace, progress: &mut Progress, _: &Arguments) -> Result<()> {
    let mut tools = workspace.host_cargo();
    tools.args(["build", "--release", "--target", HOST, "--bins"]);
    for package in workspace.host_packages().filter(|package| package.name != "xtask") {
        tools.args(["--package", &package.name]);
    }
    progress.step("host tools", &mut tools)?;
    progress.step(
        "libdprobes.a",
        workspace
            .bare_metal_cargo()
            .args(["build", "--release", "--package", "dprobes-capi"]),
    )?;
    Ok(())
}
