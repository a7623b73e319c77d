//! Guests that count: instructions by the time stamp counter, under `qemu -icount shift=0`, and traps by QEMU's log of exceptions.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context, Result};
use vmlinux::Kernel;

use super::measured;
use crate::linux::guest::Guest;
use crate::linux::initramfs::Initramfs;
use crate::progress::Progress;
use crate::workspace::Workspace;

/// How many calls linux/bench/metering.sh makes between two marks.
const MARKED_CALLS: u64 = 100;

/// A call with something in its way, or nothing.
#[derive(Debug)]
pub struct Call {
    /// Instructions.
    pub ticks: u64,
    /// Breakpoints and debug exceptions.
    pub traps: f64,
    /// Where in its function the probe is, in bytes.
    pub offset: u64,
    /// What it was, as the script says it.
    pub what: String,
}

/// Runs a script of linux/bench, behind metering.sh, and returns the calls that it has measured.
pub fn run(
    workspace: &Workspace,
    progress: &Progress,
    kernel: &Kernel,
    files: Initramfs,
    script: &str,
) -> Result<Vec<Call>> {
    let read = |name: &str| {
        let path = workspace.root.join("linux/bench").join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let folder = workspace.target.join("bench").join(script.trim_end_matches(".sh"));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let log = folder.join("exceptions.log");
    let guest = Guest {
        kernel,
        files,
        script: &(read("metering.sh")? + &read(script)?),
        cpus: 1,
        icount: Some(0),
        qemu: &["-d", "int", "-D", &log.display().to_string()],
        append: "",
        limit: Duration::from_secs(1200),
    };
    let ending = measured(progress, "measuring in the guest", guest, &folder);
    let traps = File::open(&log)
        .context("QEMU wrote no log of exceptions")
        .and_then(|log| traps_between_marks(BufReader::new(log)));
    // Hundreds of megabytes that nobody reads.
    let _ = fs::remove_file(&log);
    calls(&ending?.report, &traps?)
}

/// The results in a guest's report, with the traps between each pair of marks.
fn calls(report: &str, traps: &[u64]) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
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
        let what = words.next().with_context(|| format!("malformed: {line}"))?.to_owned();
        let traps = traps
            .get(calls.len())
            .with_context(|| format!("no marks for {what} in the log of exceptions"))?;
        calls.push(Call {
            ticks,
            traps: *traps as f64 / MARKED_CALLS as f64,
            offset,
            what,
        });
    }
    Ok(calls)
}

/// QEMU's log of exceptions (`-d int`) has a line for each, such as `  17: v=03 e=0000 i=1 cpl=0 IP=...`. Counts breakpoints and
/// debug exceptions (vectors 3 and 1) from every odd mark to the next, a mark being an invalid opcode in a program.
fn traps_between_marks(log: impl BufRead) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    let mut counting = None;
    for line in log.split(b'\n') {
        let line = line.context("cannot read QEMU's log of exceptions")?;
        let line = String::from_utf8_lossy(&line);
        let Some((_, event)) = line.split_once(": v=") else {
            continue;
        };
        let (vector, program) = (event.get(..2), event.contains(" cpl=3 "));
        match (vector, program, counting) {
            (Some("06"), true, None) => counting = Some(0),
            (Some("06"), true, Some(count)) => {
                counts.push(count);
                counting = None;
            }
            (Some("03" | "01"), _, Some(count)) => counting = Some(count + 1),
            _ => {}
        }
    }
    Ok(counts)
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
     7: v=06 e=0000 i=0 cpl=0 IP=0010:ffffffff81000000 pc=ffffffff81000000 SP=0018:0 env->regs[R_EAX]=0
     8: v=06 e=0000 i=0 cpl=3 IP=0033:0000000000401000 pc=0000000000401000 SP=002b:0 env->regs[R_EAX]=0
     9: v=03 e=0000 i=1 cpl=0 IP=0010:ffffffff81000000 pc=ffffffff81000000 SP=0018:0 env->regs[R_EAX]=0
    10: v=06 e=0000 i=0 cpl=3 IP=0033:0000000000401000 pc=0000000000401000 SP=002b:0 env->regs[R_EAX]=0
    11: v=06 e=0000 i=0 cpl=3 IP=0033:0000000000401000 pc=0000000000401000 SP=002b:0 env->regs[R_EAX]=0
";

    #[test]
    fn traps_count_between_marks() {
        assert_eq!(traps_between_marks(LOG.as_bytes()).unwrap(), [3, 0]);
    }

    #[test]
    fn results_are_joined_with_their_traps() {
        let calls = calls(
            "noise\n@result 900 0 bare call\n@hits 3\n@result 1400 14 kprobe, empty: int3\n",
            &[0, 200],
        )
        .unwrap();
        assert_eq!(
            (calls[1].ticks, calls[1].offset, calls[1].what.as_str()),
            (1400, 14, "kprobe, empty: int3")
        );
        assert!((calls[1].traps - 2.0).abs() < f64::EPSILON);
        assert!(super::calls("@result 900 0 bare call\n", &[]).is_err());
        assert!(super::calls("@result x 0 bare call\n", &[0]).is_err());
    }
}
