//! The device of the module on Linux with random operations: linux/guest/src/random.rs.

use std::time::Duration;

use anyhow::{Result, bail};
use vmlinux::Kernel;

use crate::linux::guest::Guest;
use crate::linux::{files, module};
use crate::progress::Progress;
use crate::verb::build;
use crate::workspace::Workspace;

/// A guest that does fewer operations than this in a second hangs.
const SLOWEST: u64 = 50;

/// Does them in a guest.
pub fn run(workspace: &Workspace, progress: &Progress, count: u64, seed: u64) -> Result<()> {
    build::tools(workspace, progress)?;
    let kernel = Kernel::newest()?;
    let module = module::build(workspace, progress, &kernel)?;
    let program = build::static_program(workspace, progress, "linux-guest", "linux-tests")?;
    let mut files = files(workspace, &module)?;
    files.copy(&program, "bin/linux-tests")?;
    let script = format!(
        "DPROBES_MODULES=/ DPROBES_OPERATIONS={count} DPROBES_SEED={seed} linux-tests --color never random:: || exit 1\n"
    );
    let guest = Guest {
        kernel: &kernel,
        files,
        script: &script,
        cpus: 2,
        icount: None,
        qemu: &[],
        append: "",
        limit: Duration::from_secs(600 + count / SLOWEST),
    };
    let folder = workspace.target.join("fuzz/requests");
    let ending = progress.narrate("random operations", |say| {
        let ending = guest.run(&folder, say)?;
        let passed = ending.fault.is_none();
        Ok((ending, passed))
    })?;
    print!("{}", ending.report);
    match ending.fault {
        None => Ok(()),
        Some(fault) => bail!("{fault}; the guest's console is in {}", folder.display()),
    }
}
