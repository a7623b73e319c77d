//! `bench hit`: what a hit costs on bare metal, and on Linux beside the kernel's own probes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use vmlinux::Kernel;

use super::measured;
use crate::linux::guest::Guest;
use crate::linux::{files, module};
use crate::progress::Progress;
use crate::verb::build;
use crate::workspace::Workspace;

/// How many reads linux/bench/bench.sh makes between two marks.
const MARKED_READS: u64 = 100;

struct Row {
    name: String,
    offset: u64,
    /// Of one read, with the probe.
    ticks: u64,
    traps: f64,
}

/// Runs the benchmark.
pub fn run(workspace: &Workspace, progress: &Progress, json: bool) -> Result<()> {
    bare_metal(workspace, progress, json)?;
    let meter = build::static_program(workspace, progress, "meter", "meter")?;
    build::tools(workspace, progress)?;
    let kernel = Kernel::newest()?;
    let module = module::build(workspace, progress, &kernel)?;
    let gkhi = module::build_gkhi(workspace, progress, &kernel)?;
    let kprobe = module::build_others(workspace, progress, &kernel, "bench", &[&gkhi])?.join("empty_kprobe.ko");

    let folder = workspace.target.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let log = folder.join("exceptions.log");
    let script = workspace.root.join("linux/bench/bench.sh");
    let mut files = files(workspace, &module)?;
    files.copy(&meter, "bin/meter")?;
    files.copy(&kprobe, "empty_kprobe.ko")?;
    let guest = Guest {
        kernel: &kernel,
        files,
        script: &fs::read_to_string(&script).with_context(|| format!("cannot read {}", script.display()))?,
        cpus: 1,
        icount: Some(0),
        qemu: &["-d", "int", "-D", &log.display().to_string()],
        append: "",
        limit: Duration::from_secs(600),
    };
    let ending = measured(progress, "measuring in the guest", guest, &folder)?;
    let traps = traps_between_marks(BufReader::new(
        File::open(&log).context("QEMU wrote no log of exceptions")?,
    ))?;
    // Hundreds of megabytes that nobody reads.
    fs::remove_file(&log)?;
    show(&rows(&ending.report, &traps)?, json, &kernel)
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

/// The rows of the table: the results in the guest's report, with the traps between each pair of marks.
fn rows(report: &str, traps: &[u64]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for line in report.lines() {
        let Some(result) = line.strip_prefix("@result ") else {
            continue;
        };
        let mut words = result.splitn(3, ' ');
        let mut number = || {
            words
                .next()
                .and_then(|word| word.parse().ok())
                .with_context(|| format!("malformed: {line}"))
        };
        let (ticks, offset) = (number()?, number()?);
        let name = words.next().with_context(|| format!("malformed: {line}"))?.to_owned();
        let traps = traps
            .get(rows.len())
            .with_context(|| format!("no marks for {name} in the log of exceptions"))?;
        rows.push(Row {
            name,
            offset,
            ticks,
            traps: *traps as f64 / MARKED_READS as f64,
        });
    }
    Ok(rows)
}

/// QEMU's log of exceptions (`-d int`) has a line for each, such as `  17: v=03 e=0000 i=1 cpl=0 IP=...`. Counts breakpoints and
/// debug exceptions (vectors 3 and 1) in the kernel from every odd mark to the next, a mark being an invalid opcode in a program.
fn traps_between_marks(log: impl BufRead) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    let mut counting = None;
    for line in log.split(b'\n') {
        let line = line.context("cannot read QEMU's log of exceptions")?;
        let line = String::from_utf8_lossy(&line);
        let Some((_, event)) = line.split_once(": v=") else {
            continue;
        };
        let (vector, kernel) = (event.get(..2), event.contains(" cpl=0 "));
        match (vector, kernel, counting) {
            (Some("06"), false, None) => counting = Some(0),
            (Some("06"), false, Some(count)) => {
                counts.push(count);
                counting = None;
            }
            (Some("03" | "01"), true, Some(count)) => counting = Some(count + 1),
            _ => {}
        }
    }
    Ok(counts)
}

fn show(rows: &[Row], json: bool, kernel: &Kernel) -> Result<()> {
    let (bare, rest) = rows.split_first().context("the guest measured nothing")?;
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
    for row in rest {
        let instructions = row.ticks.saturating_sub(bare.ticks);
        if json {
            println!(
                "{{\"kernel\":\"{}\",\"probe\":\"{}\",\"offset\":{},\"instructions\":{instructions},\"traps\":{}}}",
                kernel.release, row.name, row.offset, row.traps
            );
        } else {
            println!(
                "{:<32} {:>6} {instructions:>20} {:>14.1}",
                row.name,
                format!("+{:#x}", row.offset),
                row.traps
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
     1: v=03 e=0000 i=1 cpl=0 IP=0010:ffffffff81000000 pc=ffffffff81000000 SP=0018:0 env->regs[R_EAX]=0
RAX=0000000000000000 RBX=0000000000000000
     2: v=06 e=0000 i=0 cpl=3 IP=0033:0000000000401000 pc=0000000000401000 SP=002b:0 env->regs[R_EAX]=0
     3: v=03 e=0000 i=1 cpl=0 IP=0010:ffffffff81000000 pc=ffffffff81000000 SP=0018:0 env->regs[R_EAX]=0
     4: v=01 e=0000 i=0 cpl=0 IP=0010:ffffffff81000000 pc=ffffffff81000000 SP=0018:0 env->regs[R_EAX]=0
     5: v=0e e=0000 i=0 cpl=3 IP=0033:0000000000401000 pc=0000000000401000 SP=002b:0 CR2=0
     6: v=03 e=0000 i=1 cpl=3 IP=0033:0000000000401000 pc=0000000000401000 SP=002b:0 env->regs[R_EAX]=0
     7: v=06 e=0000 i=0 cpl=3 IP=0033:0000000000401000 pc=0000000000401000 SP=002b:0 env->regs[R_EAX]=0
     8: v=03 e=0000 i=1 cpl=0 IP=0010:ffffffff81000000 pc=ffffffff81000000 SP=0018:0 env->regs[R_EAX]=0
     9: v=06 e=0000 i=0 cpl=3 IP=0033:0000000000401000 pc=0000000000401000 SP=002b:0 env->regs[R_EAX]=0
    10: v=06 e=0000 i=0 cpl=3 IP=0033:0000000000401000 pc=0000000000401000 SP=002b:0 env->regs[R_EAX]=0
";

    #[test]
    fn traps_in_the_kernel_count_between_marks() {
        assert_eq!(traps_between_marks(LOG.as_bytes()).unwrap(), [2, 0]);
    }

    #[test]
    fn results_are_joined_with_their_traps() {
        let rows = rows(
            "noise\n@result 900 0 bare call\n@hits 3\n@result 1400 14 kprobe, empty: int3\n",
            &[0, 200],
        )
        .unwrap();
        assert_eq!(
            (rows[1].ticks, rows[1].offset, rows[1].name.as_str()),
            (1400, 14, "kprobe, empty: int3")
        );
        assert!((rows[1].traps - 2.0).abs() < f64::EPSILON);
        assert!(super::rows("@result 900 0 bare call\n", &[]).is_err());
    }
}
