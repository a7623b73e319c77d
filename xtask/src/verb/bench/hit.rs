//! `bench hit`: what a hit costs on bare metal, and on Linux beside the kernel's own probes.

use anyhow::{Context, Result, bail};
use vmlinux::Kernel;

use super::counted::{self, Call};
use crate::linux::{files, module};
use crate::progress::Progress;
use crate::verb::build;
use crate::workspace::Workspace;

/// Runs the benchmark.
pub fn run(workspace: &Workspace, progress: &Progress, json: bool) -> Result<()> {
    bare_metal(workspace, progress, json)?;
    let meter = build::static_program(workspace, progress, "meter", "meter")?;
    build::tools(workspace, progress)?;
    let kernel = Kernel::newest()?;
    let module = module::build(workspace, progress, &kernel)?;
    let gkhi = module::build_gkhi(workspace, progress, &kernel)?;
    let kprobe = module::build_others(workspace, progress, &kernel, "bench", &[&gkhi])?.join("empty_kprobe.ko");

    let mut files = files(workspace, &module)?;
    files.copy(&meter, "bin/meter")?;
    files.copy(&kprobe, "empty_kprobe.ko")?;
    show(
        &counted::run(workspace, progress, &kernel, files, "hit.sh")?,
        json,
        &kernel,
    )
}

/// The test kernel measures by itself; the file benches/hit.rs says what its lines mean.
fn bare_metal(workspace: &Workspace, progress: &Progress, json: bool) -> Result<()> {
    let mut cargo = workspace.bare_metal_cargo("bench");
    let output = progress.step("measuring on bare metal", cargo.args(["--bench", "hit"]))?;
    let results: Vec<(&str, &str, &str)> = output
        .text
        .lines()
        .filter_map(|line| {
            let (instructions, rest) = line.strip_prefix("@hit ")?.split_once(' ')?;
            let (traps, name) = rest.split_once(' ')?;
            Some((instructions, traps, name))
        })
        .collect();
    if results.is_empty() {
        bail!("the test kernel measured nothing");
    }
    if !json {
        println!("Bare metal, through the engine's own gate, a program that counts. A hit costs:");
        println!("{:<35} {:>20} {:>14}", "", "instructions/hit", "traps/hit");
    }
    for (instructions, traps, name) in results {
        if json {
            println!("{{\"kernel\":\"test\",\"probe\":\"{name}\",\"instructions\":{instructions},\"traps\":{traps}}}");
        } else {
            println!("{name:<35} {instructions:>20} {traps:>14}");
        }
    }
    Ok(())
}

fn show(calls: &[Call], json: bool, kernel: &Kernel) -> Result<()> {
    let (bare, rest) = calls.split_first().context("the guest measured nothing")?;
    if !json {
        println!(
            "Linux {}, one read of /dev/zero: {} instructions. With a probe on ksys_read, more by:",
            kernel.release, bare.ticks
        );
        println!(
            "{:<32} {:>6} {:>20} {:>14}",
            "", "offset", "instructions/hit", "traps/hit"
        );
    }
    for call in rest {
        let instructions = call.ticks.saturating_sub(bare.ticks);
        if json {
            println!(
                "{{\"kernel\":\"{}\",\"probe\":\"{}\",\"offset\":{},\"instructions\":{instructions},\"traps\":{}}}",
                kernel.release, call.what, call.offset, call.traps
            );
        } else {
            println!(
                "{:<32} {:>6} {instructions:>20} {:>14.1}",
                call.what,
                format!("+{:#x}", call.offset),
                call.traps
            );
        }
    }
    Ok(())
}
