//! `build`: host tools, libdprobes.a and the Linux module.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vmlinux::Kernel;

use crate::linux::module;
use crate::progress::Progress;
use crate::workspace::{HOST, Workspace};

/// Build the host tools, libdprobes.a and the Linux module
#[derive(Args)]
#[command(after_help = "Examples:
  ./x build

What is built, in target/:
  x86_64-unknown-linux-gnu/release/dprobes  the command
  x86_64-target/release/libdprobes.a        the engine behind its C ABI
  linux/RELEASE/dprobes/dprobes.ko          the module for the newest kernel in /boot
  linux/RELEASE/gkhi/gkhi.ko                the registry of hooks, and linux/RELEASE/samples, two modules that use it")]
pub struct Arguments {}

/// Builds all.
pub fn run(workspace: &Workspace, progress: &Progress, _: &Arguments) -> Result<()> {
    tools(workspace, progress)?;
    let mut library = workspace.bare_metal_cargo("build");
    progress.step("libdprobes.a", library.args(["--release", "--package", "dprobes-capi"]))?;
    let kernel = Kernel::newest()?;
    module::build(workspace, progress, &kernel)?;
    let gkhi = module::build_gkhi(workspace, progress, &kernel)?;
    module::build_others(workspace, progress, &kernel, "samples", &[&gkhi])?;
    Ok(())
}

/// Builds the `dprobes` command.
pub fn tools(workspace: &Workspace, progress: &Progress) -> Result<()> {
    static_program(workspace, progress, "dprobes-cli", "dprobes").map(drop)
}

/// Builds a host program and returns it. It is linked statically, so that one and the same file runs here and in a guest, which
/// has no libraries.
pub fn static_program(workspace: &Workspace, progress: &Progress, package: &str, program: &str) -> Result<PathBuf> {
    let mut cargo = workspace.host_cargo("build");
    cargo
        .args(["--release", "--package", package])
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    progress.step(program, &mut cargo)?;
    Ok(workspace.target.join(HOST).join("release").join(program))
}
