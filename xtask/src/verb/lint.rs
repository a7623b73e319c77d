//! `lint`: what a reviewer should not have to look for.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::progress::Progress;
use crate::workspace::Workspace;

/// The release of cargo-deny that deny.toml is written for.
const CARGO_DENY: &str = "0.20.2";

/// Check format, warnings, scripts and licences
#[derive(Args)]
#[command(
    after_help = "Examples:\n  ./x lint\n\ncargo-deny is installed from crates.io the first time (about three minutes on two \
    cores). Advisories are not checked: their database is no crate, and nothing but crates is downloaded."
)]
pub struct Arguments {}

/// Runs every check, all of them even when one fails.
pub fn run(workspace: &Workspace, progress: &mut Progress, _: &Arguments) -> Result<()> {
    let mut failed = 0;
    let mut check = |progress: &mut Progress, name: &str, command: &mut Command| -> Result<()> {
        failed += u32::from(!progress.attempt(name, command)?.success);
        Ok(())
    };

    check(
        progress,
        "rustfmt",
        workspace.host_cargo("fmt").args(["--all", "--check"]),
    )?;

    let mut clippy = workspace.host_cargo("clippy");
    clippy.arg("--all-targets");
    for package in workspace.host_packages() {
        clippy.args(["--package", &package.name]);
    }
    check(progress, "clippy, host", clippy.args(["--", "--deny", "warnings"]))?;

    let mut clippy = workspace.bare_metal_cargo("clippy");
    clippy.arg("--tests");
    for package in workspace.bare_metal_packages() {
        clippy.args(["--package", &package.name]);
    }
    check(
        progress,
        "clippy, bare metal",
        clippy.args(["--", "--deny", "warnings"]),
    )?;

    let mut documents = workspace.host_cargo("doc");
    documents
        .args(["--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "--deny warnings");
    for package in workspace.host_packages() {
        documents.args(["--package", &package.name]);
    }
    check(progress, "rustdoc", &mut documents)?;

    check(
        progress,
        "shellcheck",
        Command::new("shellcheck")
            .current_dir(&workspace.root)
            .args(["x", ".ci/run"]),
    )?;

    install_cargo_deny(workspace, progress)?;
    check(
        progress,
        "cargo deny",
        workspace
            .host_cargo("deny")
            .args(["check", "licenses", "bans", "sources"]),
    )?;

    if failed > 0 {
        bail!("{failed} of the checks failed");
    }
    Ok(())
}

fn install_cargo_deny(workspace: &Workspace, progress: &mut Progress) -> Result<()> {
    let version = workspace.host_cargo("deny").arg("--version").output()?;
    if version.status.success() && String::from_utf8_lossy(&version.stdout).trim() == format!("cargo-deny {CARGO_DENY}")
    {
        return Ok(());
    }
    let mut install = workspace.host_cargo("install");
    install.args(["--locked", "cargo-deny", "--version", CARGO_DENY]);
    progress.step("installing cargo-deny", &mut install)?;
    Ok(())
}
