//! `coverage`: how much of a kernel's text can be probed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use vmlinux::Kernel;

use crate::linux::guest::Guest;
use crate::linux::initramfs::Initramfs;
use crate::linux::module;
use crate::progress::Progress;
use crate::verb::build;
use crate::workspace::Workspace;

/// Ask about every instruction of Debian's kernel whether it can be probed, and if not why
///
/// Boots the newest kernel in /boot in QEMU, loads the module, finds the instructions of all functions in the text as it is in memory, and asks
/// the module about each: the answer is the one that inserting a probe would get. Beside it, what kprobes' published rules say of the
/// same instructions. Where instructions begin is compared with another decoder and with the kernel's own lists.
#[derive(Args)]
#[command(after_help = "Examples:
  ./x coverage                       all of the kernel's text, as tables
  ./x coverage --json >coverage.json
  ./x coverage --goal 99.5           fail below 99.5 % of the text outside entry and noinstr code
  ./x coverage --every 100           one function of a hundred, for a quick look

Exit codes: 0 done; 1 the goal is missed, an address in entry or noinstr text would be accepted, or the guest failed; 2 wrong usage.
What was found is kept in target/coverage, with the guest's console.")]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Only one function of so many
    #[arg(long, value_name = "N", default_value_t = 1)]
    every: u32,

    /// Fail when less of the text outside entry and noinstr code can be probed, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    goal: f64,

    /// More of the guest kernel's command line, such as a mitigation that changes its text
    #[arg(long, value_name = "TEXT", default_value = "")]
    append: String,

    /// The bootable image of another kernel than the newest in /boot; its headers must be installed
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
}

/// Boots the guest and prints what the survey has found.
pub fn run(workspace: &Workspace, progress: &Progress, arguments: &Arguments) -> Result<()> {
    let kernel = match &arguments.kernel {
        None => Kernel::newest()?,
        Some(image) => Kernel::all()?
            .into_iter()
            .find(|kernel| kernel.image == *image)
            .with_context(|| format!("{} is no /boot/vmlinuz-RELEASE", image.display()))?,
    };
    let module = module::build(workspace, progress, &kernel)?;
    let survey = build::static_program(workspace, progress, "survey", "dprobes-survey")?;
    let mut files = Initramfs::with_busybox()?;
    files.copy(&module, "dprobes.ko")?;
    files.copy(&survey, "bin/dprobes-survey")?;
    let json = if arguments.json { "--json" } else { "" };
    let guest = Guest {
        kernel: &kernel,
        files,
        script: &format!(
            "\
insmod /dprobes.ko || exit 3
dprobes-survey --progress --every {} --goal {} {json}
code=$?
rmmod dprobes || exit 3
exit $code
",
            arguments.every, arguments.goal
        ),
        cpus: 1,
        icount: None,
        qemu: &[],
        append: &arguments.append,
        limit: Duration::from_secs(900),
    };
    let folder = workspace.target.join("coverage");
    let name = format!("survey of Linux {}", kernel.release);
    let ending = progress.narrate(&name, |say| {
        let ending = guest.run(&folder, |line| {
            if let Some(done) = line.strip_prefix('@') {
                say(done);
            }
        })?;
        let success = ending.fault.is_none();
        Ok((ending, success))
    })?;
    let found: String = ending
        .report
        .lines()
        .filter(|line| !line.starts_with('@'))
        .map(|line| format!("{line}\n"))
        .collect();
    print!("{found}");
    let kept = folder.join(if arguments.json {
        "coverage.json"
    } else {
        "coverage.txt"
    });
    fs::write(&kept, &found).with_context(|| format!("cannot write {}", kept.display()))?;
    match ending.fault {
        None => Ok(()),
        Some(fault) if found.is_empty() => {
            progress.show_end(&ending.console, &folder.join("console.log"));
            bail!("{fault}")
        }
        Some(fault) => bail!("the goal is missed, or more is wrong: {fault}"),
    }
}
