//! `bench insert`: what inserting 50,000 probes costs, beside `register_kprobes` at the same addresses in the same boot.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use vmlinux::Kernel;

use super::measured;
use crate::linux::guest::Guest;
use crate::linux::initramfs::Initramfs;
use crate::linux::module;
use crate::progress::Progress;
use crate::verb::build;
use crate::workspace::Workspace;

/// How many probes are inserted.
const PROBES: u32 = 50_000;

/// How many are where instructions are counted: thousands of kprobes take minutes there.
const COUNTED_PROBES: u32 = 2_000;

/// The kprobes are given up after five minutes (linux/bench/many_kprobes.c), and take as long to be removed.
const LIMIT: Duration = Duration::from_secs(3600);

/// What was measured of one mechanism: nanoseconds, or instructions.
struct Row {
    probes: u64,
    insert: u64,
    remove: u64,
    name: String,
}

/// Measures in guests and prints.
pub fn run(workspace: &Workspace, progress: &Progress, json: bool) -> Result<()> {
    let kernel = Kernel::newest()?;
    let module = module::build(workspace, progress, &kernel)?;
    let gkhi = module::build_gkhi(workspace, progress, &kernel)?;
    let bench = module::build_others(workspace, progress, &kernel, "bench", &[&gkhi])?;
    let tests = build::static_program(workspace, progress, "linux-guest", "linux-tests")?;
    let folder = workspace.target.join("bench-insert");
    // One CPU, for kprobes' sake: each of theirs would interrupt the others three times, for which they wait in QEMU until the host lets them run.
    let cpus = 1;
    for (icount, probes) in [(None, PROBES), (Some(0), COUNTED_PROBES)] {
        let mut files = Initramfs::with_busybox()?;
        files.copy(&module, "dprobes.ko")?;
        files.copy(&bench.join("many_kprobes.ko"), "many_kprobes.ko")?;
        files.copy(&tests, "bin/linux-tests")?;
        // Kprobes that become jumps later would go on to cost something.
        let script = format!(
            "insmod /dprobes.ko && insmod /many_kprobes.ko && echo 0 >/proc/sys/debug/kprobes-optimization && \
             linux-tests measure-insert {probes} && rmmod many_kprobes && rmmod dprobes\n"
        );
        let guest = Guest {
            kernel: &kernel,
            files,
            script: &script,
            cpus,
            icount,
            qemu: &[],
            append: "",
            limit: LIMIT,
        };
        let unit = if icount.is_some() {
            "instructions"
        } else {
            "nanoseconds"
        };
        let what = format!("inserting {probes} probes with one CPU, in {unit}");
        let ending = measured(progress, &what, guest, &folder)?;
        let rows = rows(&ending.report)?;
        if json {
            for row in &rows {
                let Row {
                    probes,
                    insert,
                    remove,
                    name,
                } = row;
                println!(
                    "{{\"kernel\":\"{}\",\"cpus\":{cpus},\"unit\":\"{unit}\",\"mechanism\":\"{name}\",\"probes\":{probes},\"insert\":{insert},\"remove\":{remove}}}",
                    kernel.release
                );
            }
        } else {
            show(&rows, &format!("Linux {}, one CPU, in {unit}", kernel.release));
        }
    }
    Ok(())
}

/// The results in a guest's report; the file linux/guest/src/inserting.rs says what its lines mean.
fn rows(report: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for line in report.lines() {
        let Some(result) = line.strip_prefix("@insert ") else {
            continue;
        };
        let mut words = result.splitn(4, ' ');
        let mut number = || {
            words
                .next()
                .and_then(|word| word.parse().ok())
                .with_context(|| format!("malformed: {line}"))
        };
        let (probes, insert, remove) = (number()?, number()?, number()?);
        let name = words.next().with_context(|| format!("malformed: {line}"))?.to_owned();
        rows.push(Row {
            probes,
            insert,
            remove,
            name,
        });
    }
    if rows.len() != 2 {
        bail!("the guest measured {} mechanisms, not two", rows.len());
    }
    Ok(rows)
}

fn show(rows: &[Row], title: &str) {
    println!("{title}:");
    println!(
        "{:<10} {:>8} {:>16} {:>12} {:>16}",
        "", "probes", "insert", "per probe", "remove"
    );
    for row in rows {
        println!(
            "{:<10} {:>8} {:>16} {:>12} {:>16}",
            row.name,
            row.probes,
            row.insert,
            row.insert / row.probes.max(1),
            row.remove
        );
    }
    if let [ours, theirs] = rows {
        let ratio = theirs.insert as f64 / ours.insert.max(1) as f64;
        if theirs.probes < ours.probes {
            println!("more than {ratio:.1} times as fast: kprobes were given up on the way");
        } else {
            println!("{ratio:.1} times as fast");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn both_mechanisms_are_found() {
        let rows = rows("noise\n@both 60000 52000\n@insert 50000 7 8 dprobes\n@insert 50000 140 9 kprobes\n").unwrap();
        assert_eq!(
            (rows[0].name.as_str(), rows[0].insert, rows[0].remove),
            ("dprobes", 7, 8)
        );
        assert_eq!(
            (rows[1].name.as_str(), rows[1].probes, rows[1].insert),
            ("kprobes", 50_000, 140)
        );
        assert!(super::rows("@insert 50000 7 8 dprobes\n").is_err());
        assert!(super::rows("@insert 50000 x 8 dprobes\n").is_err());
    }
}
