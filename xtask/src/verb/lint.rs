//! `lint`: what a reviewer should not have to look for.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::progress::Progress;
use crate::verb::{headers, panic_check};
use crate::workspace::Workspace;

/// The release of cargo-deny that deny.toml is written for.
const CARGO_DENY: &str = "0.20.2";

/// Check format, warnings, documentation, scripts, licences, headers and panics
#[derive(Args)]
#[command(after_help = "Examples:
  ./x lint

cargo-deny is installed from crates.io the first time (about three minutes on two cores). Advisories are not checked: their
database is no crate, and nothing but crates is downloaded.")]
pub struct Arguments {}

/// Runs every check, all of them even when one fails.
pub fn run(workspace: &Workspace, progress: &Progress, _: &Arguments) -> Result<()> {
    let commands = [
        ("rustfmt", rustfmt(workspace)),
        ("clippy, host", host_clippy(workspace)),
        ("clippy, bare metal", bare_metal_clippy(workspace)),
        ("clippy, fuzz targets", fuzz_clippy(workspace)),
        ("rustdoc", documentation(workspace)),
        ("shellcheck", shellcheck(workspace)?),
    ];
    let mut failed = 0;
    for (name, mut command) in commands {
        failed += u32::from(!progress.attempt(name, &mut command)?.success);
    }
    install_cargo_deny(workspace, progress)?;
    let mut deny = workspace.host_cargo("deny");
    deny.args(["check", "licenses", "bans", "sources"]);
    failed += u32::from(!progress.attempt("cargo deny", &mut deny)?.success);

    for result in [
        headers::run(workspace, progress, &headers::Arguments::CHECK),
        panic_check::run(workspace, progress, &panic_check::Arguments::default()),
    ] {
        if let Err(error) = result {
            eprintln!("        {error:#}");
            failed += 1;
        }
    }
    match failed {
        0 => Ok(()),
        1 => bail!("one of the checks failed"),
        failed => bail!("{failed} of the checks failed"),
    }
}

fn rustfmt(workspace: &Workspace) -> Command {
    let mut command = workspace.host_cargo("fmt");
    command.args(["--all", "--check"]);
    command
}

fn host_clippy(workspace: &Workspace) -> Command {
    let mut command = workspace.host_cargo("clippy");
    command.arg("--all-targets");
    for package in workspace.host_packages() {
        command.args(["--package", &package.name]);
    }
    command.args(["--", "--deny", "warnings"]);
    command
}

fn bare_metal_clippy(workspace: &Workspace) -> Command {
    let mut command = workspace.bare_metal_cargo("clippy");
    // All targets but benches: a library without tests still counts as one.
    command.args(["--lib", "--bins", "--examples", "--tests"]);
    for package in workspace.bare_metal_packages() {
        command.args(["--package", &package.name]);
    }
    command.args(["--", "--deny", "warnings"]);
    command
}

/// The targets of fuzz/, without libFuzzer, which is C++.
fn fuzz_clippy(workspace: &Workspace) -> Command {
    let mut command = workspace.host_cargo_in("clippy", &workspace.root.join("fuzz/Cargo.toml"));
    command
        .args(["--no-default-features", "--target-dir"])
        .arg(workspace.target.join("fuzz"))
        .args(["--", "--deny", "warnings"]);
    command
}

/// The public documentation of every library.
fn documentation(workspace: &Workspace) -> Command {
    let mut command = workspace.host_cargo("doc");
    command
        .args(["--no-deps", "--lib"])
        .env("RUSTDOCFLAGS", "--deny warnings");
    for package in workspace
        .host_packages()
        .filter(|package| package.targets.iter().any(|target| target.is_lib()))
    {
        command.args(["--package", &package.name]);
    }
    command
}

/// Every script that git knows or would add: those that end in .sh or begin with a shell's name.
fn shellcheck(workspace: &Workspace) -> Result<Command> {
    let mut list = Command::new("git");
    list.current_dir(&workspace.root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let list = list.output().context("cannot run git")?;
    let mut command = Command::new("shellcheck");
    command.current_dir(&workspace.root);
    for file in String::from_utf8_lossy(&list.stdout).lines() {
        let start = fs::read(workspace.root.join(file)).unwrap_or_default();
        if file.ends_with(".sh") || start.starts_with(b"#!/bin/sh") || start.starts_with(b"#!/bin/bash") {
            command.arg(file);
        }
    }
    Ok(command)
}

fn install_cargo_deny(workspace: &Workspace, progress: &Progress) -> Result<()> {
    let version = workspace.host_cargo("deny").arg("--version").output()?;
    if version.status.success() && String::from_utf8_lossy(&version.stdout).trim() == format!("cargo-deny {CARGO_DENY}")
    {
        return Ok(());
    }
    let mut install = workspace.host_cargo("install");
    install.args(["--locked", "cargo-deny", "--version", CARGO_DENY]);
    progress.step("installing cargo-deny", &mut install).map(drop)
}
