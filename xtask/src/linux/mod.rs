//! Linux in QEMU: the module, the guest's first file system, the boot.

pub mod debian;
pub mod guest;
pub mod host_root;
pub mod initramfs;
pub mod module;
pub mod victims;

use std::path::Path;

use anyhow::Result;

use self::initramfs::Initramfs;
use crate::workspace::{HOST, Workspace};

/// The file system of a guest that is to try DProbes: busybox, the `dprobes` command, the module and the examples.
pub fn files(workspace: &Workspace, module: &Path) -> Result<Initramfs> {
    let mut files = Initramfs::with_busybox()?;
    files.copy(&workspace.target.join(HOST).join("release/dprobes"), "bin/dprobes")?;
    files.copy(module, "dprobes.ko")?;
    for entry in std::fs::read_dir(workspace.root.join("examples"))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .expect("an entry of a folder has a name")
            .to_string_lossy()
            .into_owned();
        files.copy(&path, &format!("examples/{name}"))?;
    }
    Ok(files)
}
