//! This machine's root, shown to a guest over 9p, read-only: with it come programs that the distribution packages, which are installed here if they are missing.
//! In the guest it is mounted by the file with the tests, `mount -t 9p -o trans=virtio host ...`, after the modules in /9p are loaded in their order.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use vmlinux::Kernel;

use super::initramfs::Initramfs;
use crate::progress::Progress;

/// What QEMU is told. Files of several file systems of this machine may have one number, and are told apart all the same.
pub const QEMU: [&str; 2] = [
    "-virtfs",
    "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
];

/// The modules of the kernel's that a guest needs for it; those that they need come first.
const MODULES: [&str; 3] = [
    "kernel/drivers/virtio/virtio_pci.ko",
    "kernel/net/9p/9pnet_virtio.ko",
    "kernel/fs/9p/9p.ko",
];

/// Installs what is missing of some packages.
pub fn install(progress: &Progress, packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| !is_installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "missing: {0}. Run this, then try again: sudo apt-get install --no-install-recommends {0}",
            missing.join(" ")
        );
    }
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-o", "DPkg::Lock::Timeout=300"])
            .args(arguments);
        apt
    };
    // Old lists name packages that are gone. Installing says what is wrong if they cannot be had.
    progress.attempt("apt's lists", &mut apt(&["update"]))?;
    let mut install = apt(&["install", "--yes", "--no-install-recommends"]);
    progress.step(&format!("installing {}", missing.join(" ")), install.args(&missing))?;
    Ok(())
}

fn is_installed(package: &str) -> bool {
    let status = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output();
    status.is_ok_and(|status| status.stdout == b"installed")
}

/// Adds the kernel's modules for it to a guest's files, as /9p/0.ko and so on, in the order in which they are loaded.
pub fn add_to(files: &mut Initramfs, kernel: &Kernel) -> Result<()> {
    let folder = Path::new("/lib/modules").join(&kernel.release);
    let needs = folder.join("modules.dep");
    let needs = fs::read_to_string(&needs).with_context(|| {
        format!(
            "cannot read {}: a guest with this machine's root needs a kernel that is installed",
            needs.display()
        )
    })?;
    files.directory("9p");
    for (number, module) in in_order(&needs)?.into_iter().enumerate() {
        files.copy(&folder.join(module), &format!("9p/{number}.ko"))?;
    }
    Ok(())
}

/// The modules and what they need, each once. A line of modules.dep has a module, and what it needs, the last first.
fn in_order(needs: &str) -> Result<Vec<&str>> {
    let mut order = Vec::new();
    for module in MODULES {
        let line = needs
            .lines()
            .find_map(|line| line.strip_prefix(module)?.strip_prefix(':'));
        let needed = line.with_context(|| format!("the kernel has no module {module}"))?;
        for module in needed.split_whitespace().rev().chain([module]) {
            if !order.contains(&module) {
                order.push(module);
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_comes_before_it() {
        let needs = "kernel/fs/9p/9p.ko: net/9p.ko fs/fscache.ko fs/netfs.ko\n\
            kernel/net/9p/9pnet_virtio.ko: net/9p.ko virtio.ko\n\
            kernel/drivers/virtio/virtio_pci.ko: virtio.ko virtio_ring.ko\n";
        assert_eq!(
            in_order(needs).unwrap(),
            [
                "virtio_ring.ko",
                "virtio.ko",
                MODULES[0],
                "net/9p.ko",
                MODULES[1],
                "fs/netfs.ko",
                "fs/fscache.ko",
                MODULES[2]
            ]
        );
        assert!(in_order("kernel/fs/9p/9p.ko:\n").is_err());
    }

    #[test]
    fn installed_packages_are_known() {
        assert!(is_installed("dpkg"));
        assert!(!is_installed("no-such-package"));
    }
}
