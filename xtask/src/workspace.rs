//! Where things are, and which cargo builds what.
//!
//! Two compilers build this workspace. Host tools take a release toolchain as it is; bare-metal code takes the one that rustup
//! (an override or rust-toolchain.toml) or Debian provides for building `core` from source. Cargo and rustup hand their choice
//! down in the environment, so every child is given its own explicitly. `.cargo/config.toml` is for bare metal, and cargo finds it
//! from the folder it is started in: bare metal is built from inside the checkout, host tools from outside of it. (A release
//! cargo would ignore the settings that matter; Debian's, and a nightly, do not.)

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand, Package};

/// The target of host tools and host tests.
pub const HOST: &str = "x86_64-unknown-linux-gnu";

/// The target of the library and the test kernels, by the name of its folder.
pub const BARE_METAL: &str = "x86_64-target";

/// The packages that build for bare metal only; all others build and are tested on the host.
const BARE_METAL_PACKAGES: [&str; 6] = [
    "dprobes-capi",
    "gkhi-capi",
    "bootimage",
    "test-support",
    "loadable",
    "conformance-linux",
];

/// The checkout.
pub struct Workspace {
    /// Its folder.
    pub root: PathBuf,
    /// What is built goes here.
    pub target: PathBuf,
    metadata: Metadata,
}

impl Workspace {
    /// The workspace that this program was built from.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("xtask is in a folder of the workspace");
        let metadata = MetadataCommand::new()
            .current_dir(root)
            .no_deps()
            .exec()
            .context("cargo metadata failed")?;
        Ok(Self {
            root: root.into(),
            target: metadata.target_directory.clone().into(),
            metadata,
        })
    }

    /// The packages that build on the host.
    pub fn host_packages(&self) -> impl Iterator<Item = &Package> {
        self.packages(false)
    }

    /// The packages that build for bare metal only.
    pub fn bare_metal_packages(&self) -> impl Iterator<Item = &Package> {
        self.packages(true)
    }

    fn packages(&self, bare_metal: bool) -> impl Iterator<Item = &Package> {
        let members = self.metadata.workspace_packages().into_iter();
        members.filter(move |package| BARE_METAL_PACKAGES.contains(&package.name.as_str()) == bare_metal)
    }

    /// A cargo command for host tools and host tests.
    pub fn host_cargo(&self, command: &str) -> Command {
        self.host_cargo_in(command, &self.root.join("Cargo.toml"))
    }

    /// The same, for another workspace.
    pub fn host_cargo_in(&self, command: &str, manifest: &Path) -> Command {
        let mut cargo = match rustup_host_toolchain() {
            Some(toolchain) => {
                let mut cargo = self.clean("cargo".into());
                cargo.env("RUSTUP_TOOLCHAIN", toolchain);
                cargo
            }
            None => self.clean(running_cargo()),
        };
        cargo.current_dir("/").arg(command);
        if command != "install" {
            cargo.arg("--manifest-path").arg(manifest);
        }
        if !["fmt", "deny"].contains(&command) {
            cargo.args(["--target", HOST]);
        }
        cargo
    }

    /// A cargo command for bare metal: `.cargo/config.toml` names the target.
    pub fn bare_metal_cargo(&self, command: &str) -> Command {
        let mut cargo = match rustup_host_toolchain() {
            Some(_) => self.clean("cargo".into()),
            None => {
                let mut cargo = self.clean(running_cargo());
                cargo.env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        };
        cargo.current_dir(&self.root).arg(command);
        cargo
    }

    /// A cargo command of the nightly toolchain, for what no other has; out of the checkout, whose configuration is for bare metal.
    pub fn nightly_cargo(&self, command: &str) -> Command {
        let mut cargo = self.clean("cargo".into());
        cargo.env("RUSTUP_TOOLCHAIN", "nightly").current_dir("/").arg(command);
        cargo
    }

    fn clean(&self, cargo: OsString) -> Command {
        let mut command = Command::new(cargo);
        command
            .current_dir(&self.root)
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_TERM_PROGRESS_WHEN", "never");
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(chooses_a_toolchain) {
                command.env_remove(name);
            }
        }
        // `cargo run` puts the libraries of its own toolchain first; another toolchain's compiler must not load them.
        command.env_remove("LD_LIBRARY_PATH");
        command
    }
}

/// Is this a variable by which cargo and rustup tell a child what they chose?
fn chooses_a_toolchain(name: &str) -> bool {
    const EXACT: [&str; 9] = [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTC_BOOTSTRAP",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "RUST_RECURSION_COUNT",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
    ];
    const PREFIXES: [&str; 5] = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
        "RUSTUP_TOOLCHAIN_",
    ];
    EXACT.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The rustup toolchain for host tools, where rustup runs this program.
fn rustup_host_toolchain() -> Option<OsString> {
    env::var_os("DPROBES_HOST_TOOLCHAIN").or_else(|| env::var_os("RUSTUP_TOOLCHAIN").map(|_| "stable".into()))
}

/// The cargo that runs this program.
fn running_cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_toolchain_is_not_inherited() {
        for name in [
            "CARGO",
            "RUSTUP_TOOLCHAIN",
            "RUSTC_BOOTSTRAP",
            "CARGO_PKG_NAME",
            "CARGO_MANIFEST_DIR",
        ] {
            assert!(chooses_a_toolchain(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_TARGET_DIR",
            "RUSTUP_HOME",
            "RUSTUP_AUTO_INSTALL",
            "PATH",
        ] {
            assert!(!chooses_a_toolchain(name), "{name}");
        }
    }
}
