//! `headers`: the C headers, generated from the Rust sources.

use std::fs;

use anyhow::{Context, Result, bail};
use cbindgen::{Builder, Config};
use clap::Args;

use crate::progress::Progress;
use crate::workspace::Workspace;

/// Generate include/dprobes.h from src/
#[derive(Args)]
#[command(
    after_help = "Examples:\n  ./x headers\n  ./x headers --check    fail if it is out of date, and change nothing"
)]
pub struct Arguments {
    /// Fail if it is out of date, and change nothing
    #[arg(long)]
    check: bool,
}

/// Generates or checks it.
pub fn run(workspace: &Workspace, progress: &mut Progress, arguments: &Arguments) -> Result<()> {
    let header = workspace.root.join("include/dprobes.h");
    progress.narrate("headers", |_| {
        let config = workspace.root.join("cbindgen.toml");
        let config = Config::from_file(&config).map_err(|error| anyhow::anyhow!("{}: {error}", config.display()))?;
        let bindings = Builder::new()
            .with_crate(&workspace.root)
            .with_config(config)
            .generate()
            .context("cbindgen failed")?;
        let mut text = Vec::new();
        bindings.write(&mut text);
        if fs::read(&header).is_ok_and(|now| now == text) {
            return Ok(((), true));
        }
        if arguments.check {
            bail!("include/dprobes.h is not what src/ says: run ./x headers and commit it");
        }
        fs::write(&header, text).with_context(|| format!("cannot write {}", header.display()))?;
        Ok(((), true))
    })
}

impl Arguments {
    /// As `./x headers --check` is.
    pub const CHECK: Self = Self { check: true };
}
