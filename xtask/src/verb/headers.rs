//! `headers`: the C headers, generated from the Rust sources.

use std::fs;

use anyhow::{Context, Result, bail};
use cbindgen::{Builder, Config};
use clap::Args;

use crate::progress::Progress;
use crate::workspace::Workspace;

/// A header, and what it is made from.
struct Header {
    /// The package's folder.
    package: &'static str,
    /// How to make it.
    config: &'static str,
    /// Where it goes.
    path: &'static str,
}

const HEADERS: [Header; 2] = [
    Header {
        package: ".",
        config: "cbindgen.toml",
        path: "include/dprobes.h",
    },
    Header {
        package: "gkhi/capi",
        config: "gkhi/capi/cbindgen.toml",
        path: "include/gkhi_abi.h",
    },
];

/// Generate include/dprobes.h and include/gkhi_abi.h from the Rust sources
#[derive(Args)]
#[command(
    after_help = "Examples:\n  ./x headers\n  ./x headers --check    fail if one is out of date, and change nothing"
)]
pub struct Arguments {
    /// Fail if one is out of date, and change nothing
    #[arg(long)]
    check: bool,
}

/// Generates or checks them.
pub fn run(workspace: &Workspace, progress: &Progress, arguments: &Arguments) -> Result<()> {
    progress.narrate("headers", |_| {
        for header in HEADERS {
            generate(workspace, &header, arguments.check)?;
        }
        Ok(((), true))
    })
}

fn generate(workspace: &Workspace, header: &Header, check: bool) -> Result<()> {
    let path = workspace.root.join(header.path);
    let config = workspace.root.join(header.config);
    let config = Config::from_file(&config).map_err(|error| anyhow::anyhow!("{}: {error}", config.display()))?;
    let bindings = Builder::new()
        .with_crate(workspace.root.join(header.package))
        .with_config(config)
        .generate()
        .context("cbindgen failed")?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    if fs::read(&path).is_ok_and(|now| now == text) {
        return Ok(());
    }
    if check {
        bail!(
            "{} is not what the sources say: run ./x headers and commit it",
            header.path
        );
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

impl Arguments {
    /// As `./x headers --check` is.
    pub const CHECK: Self = Self { check: true };
}
