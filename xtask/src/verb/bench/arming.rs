//! Arming a thousand hooks in time, where other CPUs run: each transaction makes all of them wait. And hooks in a process.

use std::time::Duration;

use anyhow::{Result, bail};

use super::hooks::lines;
use super::measured;
use crate::linux::guest::Guest;
use crate::progress::Progress;
use crate::workspace::Workspace;

/// How many CPUs run.
const CPUS: [u32; 3] = [1, 2, 4];

/// Measures in guests without an instruction counter, whose other CPUs are busy. `guest` makes one, and gets its script.
pub fn on_linux<'a>(
    workspace: &Workspace,
    progress: &Progress,
    guest: impl Fn(&'a str) -> Result<Guest<'a>>,
    json: bool,
) -> Result<()> {
    if !json {
        println!("\nArming on Linux in time, all CPUs busy (QEMU interprets them: only the ratio says something):");
    }
    for cpus in CPUS {
        let script = match cpus {
            1 => "insmod /gkhi.ko && insmod /hooks_many.ko && cat /sys/module/hooks_many/parameters/report",
            2 => {
                "(while :; do :; done) & insmod /gkhi.ko && insmod /hooks_many.ko && cat /sys/module/hooks_many/parameters/report"
            }
            _ => {
                "for i in 1 2 3; do (while :; do :; done) & done
                insmod /gkhi.ko && insmod /hooks_many.ko && cat /sys/module/hooks_many/parameters/report"
            }
        };
        let guest = Guest {
            cpus,
            icount: None,
            limit: Duration::from_secs(300),
            ..guest(script)?
        };
        let folder = workspace.target.join("bench-arming");
        let ending = measured(progress, &format!("arming with {cpus} CPUs"), guest, &folder)?;
        show(&lines(&ending.report, "@arm ")?, &format!("{cpus} CPUs"), json);
    }
    Ok(())
}

/// Measures in a process: the file gkhi/benches/process.rs says what its lines mean.
pub fn in_process(workspace: &Workspace, progress: &Progress, json: bool) -> Result<()> {
    let mut cargo = workspace.host_cargo("bench");
    let output = progress.step(
        "measuring hooks in a process",
        cargo.args(["--package", "gkhi", "--bench", "process"]),
    )?;
    let passes = lines(&output.text, "@time ")?;
    let arming = lines(&output.text, "@arm ")?;
    if passes.is_empty() || arming.is_empty() {
        bail!("the process measured nothing");
    }
    if !json {
        println!(
            "\nIn a process, exits behind a thunk and counters shared by all CPUs, best of many rounds. A pass takes more by:"
        );
    }
    for (picoseconds, name) in passes {
        let nanoseconds = picoseconds as f64 / 1000.0;
        if json {
            println!("{{\"host\":\"process\",\"pass\":\"{name}\",\"nanoseconds\":{nanoseconds}}}");
        } else {
            println!("{name:<40} {nanoseconds:>17.2} ns");
        }
    }
    if !json {
        println!("\nArming in a process, in time:");
    }
    show(&arming, "process", json);
    Ok(())
}

/// The times of arming, and how they compare to the one before.
fn show(arming: &[(u64, &str)], host: &str, json: bool) {
    let mut before = None;
    for &(nanoseconds, name) in arming {
        if json {
            println!("{{\"host\":\"{host}\",\"arm\":\"{name}\",\"nanoseconds\":{nanoseconds}}}");
            continue;
        }
        let ratio = before
            .take_if(|_| name.ends_with("hooks, in one transaction") && !name.starts_with("disarming"))
            .map_or(String::new(), |before: u64| {
                format!("{:.1} times as fast", before as f64 / nanoseconds.max(1) as f64)
            });
        let microseconds = nanoseconds as f64 / 1000.0;
        println!("{:<40} {microseconds:>17.1} us  {ratio}", format!("{host}: {name}"));
        before = Some(nanoseconds);
    }
}
