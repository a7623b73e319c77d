//! What passing a hook costs, and arming a thousand.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use vmlinux::Kernel;

use super::measured;
use crate::linux::guest::Guest;
use crate::linux::initramfs::Initramfs;
use crate::linux::module;
use crate::progress::Progress;
use crate::workspace::Workspace;

/// How many passes linux/bench/hooks_bench.c and benches/pass.rs add up.
const PASSES: f64 = 1000.0;

/// Measures in a guest and prints.
pub fn run(workspace: &Workspace, progress: &Progress, json: bool) -> Result<()> {
    bare_metal(workspace, progress, json)?;
    let kernel = Kernel::newest()?;
    let gkhi = module::build_gkhi(workspace, progress, &kernel)?;
    let bench = module::build_others(workspace, progress, &kernel, "bench", &[&gkhi])?;

    let folder = workspace.target.join("bench-hooks");
    let script = workspace.root.join("linux/bench/hooks.sh");
    let script = fs::read_to_string(&script).with_context(|| format!("cannot read {}", script.display()))?;
    let guest = |script| {
        let mut files = Initramfs::with_busybox()?;
        files.copy(&gkhi, "gkhi.ko")?;
        for name in ["hooks_bench.ko", "hooks_many.ko"] {
            files.copy(&bench.join(name), name)?;
        }
        Ok(Guest {
            kernel: &kernel,
            files,
            script,
            cpus: 1,
            icount: Some(0),
            qemu: &[],
            append: "",
            limit: Duration::from_secs(600),
        })
    };
    for (append, what) in [
        ("", "with the mitigations that this CPU gets"),
        ("spectre_v2=off", "without retpolines (spectre_v2=off)"),
    ] {
        let guest = Guest {
            append,
            ..guest(&script)?
        };
        measure(&folder, progress, guest, what, json)?;
    }
    super::arming::on_linux(workspace, progress, guest, json)?;
    super::arming::in_process(workspace, progress, json)
}

/// Runs a guest that counts instructions, and prints what it reports.
fn measure(folder: &Path, progress: &Progress, guest: Guest, what: &str, json: bool) -> Result<()> {
    let release = &guest.kernel.release;
    let ending = measured(
        progress,
        &format!("measuring hooks in the guest, {what}"),
        guest,
        folder,
    )?;
    show(&ending.report, release, what, json)
}

/// The test kernel measures by itself; the file benches/pass.rs says what its lines mean.
fn bare_metal(workspace: &Workspace, progress: &Progress, json: bool) -> Result<()> {
    let mut cargo = workspace.bare_metal_cargo("bench");
    let output = progress.step("measuring hooks on bare metal", cargo.args(["--bench", "pass"]))?;
    let passes = lines(&output.text, "@pass ")?;
    if passes.is_empty() {
        bail!("the test kernel measured nothing");
    }
    if !json {
        println!("Bare metal, exits entered directly, the return of an empty exit included. A function costs more by:");
    }
    show_passes(passes, "test", json);
    if !json {
        println!();
    }
    Ok(())
}

fn show_passes(passes: Vec<(u64, &str)>, kernel: &str, json: bool) {
    if !json {
        println!("{:<40} {:>20}", "", "instructions/pass");
    }
    for (ticks, name) in passes {
        let instructions = ticks as f64 / PASSES;
        if json {
            println!("{{\"kernel\":\"{kernel}\",\"pass\":\"{name}\",\"instructions\":{instructions}}}");
        } else {
            println!("{name:<40} {instructions:>20.2}");
        }
    }
}

fn show(report: &str, release: &str, what: &str, json: bool) -> Result<()> {
    let passes = lines(report, "@pass ")?;
    let arming = lines(report, "@arm ")?;
    if passes.is_empty() || arming.is_empty() {
        bail!("the guest measured nothing");
    }
    if !json {
        println!("Linux {release}, {what}. A function costs more by, the return of an empty exit included:");
    }
    let kernel = if what.contains("off") {
        format!("{release} spectre_v2=off")
    } else {
        release.to_owned()
    };
    show_passes(passes, &kernel, json);
    if !json {
        println!(
            "\nOf one exit without arguments, its own return is one. The call is five with retpolines, a load, the call and three in the kernel's\n\
                thunk, and three without: so that a hook costs 11 or 9 beside the exit's body."
        );
        println!("\nArming, on one CPU, each exit on a hook of its own:");
        println!("{:<40} {:>20}", "", "instructions");
    }
    for (ticks, name) in arming {
        if json {
            println!("{{\"kernel\":\"{kernel}\",\"arm\":\"{name}\",\"instructions\":{ticks}}}");
        } else {
            println!("{name:<40} {ticks:>20}");
        }
    }
    Ok(())
}

/// The numbers and names behind a mark in the report.
pub(super) fn lines<'r>(report: &'r str, mark: &str) -> Result<Vec<(u64, &'r str)>> {
    report
        .lines()
        .filter_map(|line| line.strip_prefix(mark))
        .map(|line| {
            let (number, name) = line.split_once(' ').with_context(|| format!("malformed: {line}"))?;
            let number = number.parse().with_context(|| format!("malformed: {line}"))?;
            Ok((number, name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn results_are_read() {
        let report = "noise\n@pass 1000 hook: dormant\n@arm 7 all\n";
        assert_eq!(lines(report, "@pass ").unwrap(), [(1000, "hook: dormant")]);
        assert!(lines("@pass x y\n", "@pass ").is_err());
    }
}
