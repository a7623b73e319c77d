//! Booting a Linux guest in QEMU, and telling how it ended.
//!
//! The guest has two serial ports. The first carries what the guest's script reports, line by line; the second is the kernel's
//! console, so that kernel messages never run into a report. The script ends with a line of its own before the guest powers off: a
//! guest that goes away without it has failed, however quietly.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use runner::{Machine, Outcome};
use vmlinux::Kernel;

use super::initramfs::Initramfs;

/// The line by which a guest says that its kernel has booted.
const BEGUN: &str = "@begun";

/// The line by which a guest's script says that it came to its end, with its exit code behind it.
const ENDED: &str = "@ended ";

/// How often a guest is booted whose kernel does not come up: QEMU 7.2 may run a stale translation of code that the kernel patches while it starts, and the
/// kernel then hangs, or dies of a breakpoint of its own that is not there any more. Nothing of ours has been loaded by then.
const BOOTS: u32 = 3;

/// A guest whose kernel has not booted after so long never does.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// The first program of the guest: sets the usual file systems up, runs /script with its report going to the first serial port,
/// says how it ended and powers off.
const INIT: &str = "#!/bin/sh
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
stty -F /dev/ttyS0 raw
echo @begun >/dev/ttyS0
sh /script >/dev/ttyS0
code=$?
echo \"@ended $code\" >/dev/ttyS0
poweroff -f
";

/// A guest to boot.
pub struct Guest<'a> {
    /// The kernel to boot.
    pub kernel: &'a Kernel,
    /// Its file system; the script is added to it.
    pub files: Initramfs,
    /// What the guest runs, as busybox's shell reads it. Its standard output is the report, its standard error the console.
    pub script: &'a str,
    /// How many CPUs it has.
    pub cpus: u32,
    /// Counts instructions: each takes 2^N nanoseconds of the guest's time. One CPU only.
    pub icount: Option<u8>,
    /// More arguments for QEMU.
    pub qemu: &'a [&'a str],
    /// More of the kernel's command line.
    pub append: &'a str,
    /// A guest that runs longer than this hangs.
    pub limit: Duration,
}

/// How a guest ended and what it said.
pub struct Ending {
    /// What the script reported, without the lines that the guest begins and ends with.
    pub report: String,
    /// The kernel's console.
    pub console: String,
    /// Why this is a failure, if it is one.
    pub fault: Option<String>,
}

impl Guest<'_> {
    /// Boots the guest and waits until it is gone. Lines of the report are handed over as they come. The guest's file system and
    /// what it says are kept in `folder`.
    pub fn run(mut self, folder: &Path, mut on_line: impl FnMut(&str)) -> Result<Ending> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let (initrd, console) = (folder.join("initramfs.cpio"), folder.join("console.log"));
        self.files.file("init", INIT.as_bytes());
        self.files.file("script", self.script.as_bytes());
        fs::write(&initrd, self.files.finish()).with_context(|| format!("cannot write {}", initrd.display()))?;

        // The kernel tests the timer within ten ticks, which a busy machine may not give a guest.
        let append = format!(
            "console=ttyS1 panic=-1 oops=panic loglevel=5 no_timer_check {}",
            self.append
        );
        let mut machine = Machine::linux(&self.kernel.image, &initrd, append);
        machine.cpus = self.cpus;
        machine.icount = self.icount;
        machine.time_limit = self.limit;
        machine.silence_limit = self.icount.is_none().then_some(BOOT_LIMIT);
        machine.extra = vec!["-serial".into(), format!("file:{}", console.display()).into()];
        machine.extra.extend(self.qemu.iter().map(Into::into));
        let mut boot = || {
            machine.run(&mut Lines {
                line: Vec::new(),
                on_line: &mut on_line,
            })
        };
        let mut run = boot()?;
        for _ in 1..BOOTS {
            if !run.serial.is_empty() || matches!(run.outcome, Outcome::Qemu { .. }) {
                break;
            }
            eprintln!(
                "        the guest's kernel did not come up ({}): it is booted again",
                run.outcome
            );
            run = boot()?;
        }

        let console = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
        let ended = run.serial.lines().find_map(|line| line.strip_prefix(ENDED));
        let fault = match (trouble(&console), &run.outcome, ended) {
            (Some(trouble), ..) => Some(format!("the guest's kernel is in trouble: {trouble}")),
            (_, Outcome::Hang { .. }, _) => Some(format!("the guest did not end within {} s", self.limit.as_secs())),
            (_, Outcome::Qemu { .. }, _) => Some(format!("{}: {}", run.outcome, run.stderr.trim())),
            (_, Outcome::TripleFault | Outcome::Panic | Outcome::Reset, _) => Some(run.outcome.to_string()),
            // The guest powered off. Whether it counted tests is the caller's business.
            (_, _, Some("0")) => None,
            (_, _, Some(code)) => Some(format!("the guest's script ended with {code}")),
            (_, _, None) => Some("the guest went away before its script ended".into()),
        };
        let report: String = run
            .serial
            .lines()
            .filter(|line| !is_ours(line))
            .map(|line| format!("{line}\n"))
            .collect();
        let kept = folder.join("report.log");
        fs::write(&kept, &report).with_context(|| format!("cannot write {}", kept.display()))?;
        Ok(Ending { report, console, fault })
    }
}

/// Is a line none of the report's, but said by the guest itself?
fn is_ours(line: &str) -> bool {
    line == BEGUN || line.starts_with(ENDED)
}

/// Hands over what is written to it line by line, but for the guest's own lines.
struct Lines<F: FnMut(&str)> {
    line: Vec<u8>,
    on_line: F,
}

impl<F: FnMut(&str)> Write for Lines<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line);
            if !is_ours(&line) {
                (self.on_line)(&line);
            }
            self.line.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first line of a console that tells of a kernel in trouble, even one that went on.
fn trouble(console: &str) -> Option<&str> {
    // In 7.2 a warning is `WARNING: FILE:LINE at FUNCTION, CPU#N: COMMAND/PID`.
    const SIGNS: [&str; 9] = [
        "Kernel panic",
        "Oops:",
        "BUG:",
        "kernel BUG at",
        "general protection fault",
        "unable to handle",
        "soft lockup",
        "self-detected stall",
        "blocked for more than",
    ];
    let warns = |line: &str| {
        line.split_once("WARNING: ")
            .is_some_and(|(_, what)| what.starts_with("CPU: ") || what.contains(", CPU#"))
    };
    console
        .lines()
        .find(|line| warns(line) || SIGNS.iter().any(|sign| line.contains(sign)))
        .map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// One guest at a time: several would only slow each other down.
    static ONE: Mutex<()> = Mutex::new(());

    fn boot(name: &str, script: &str, limit: u64) -> Ending {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let kernel = Kernel::newest().unwrap();
        let folder = std::env::temp_dir().join(format!("dprobes-guest-{name}-{}", std::process::id()));
        let guest = Guest {
            kernel: &kernel,
            files: Initramfs::with_busybox().unwrap(),
            script,
            cpus: 2,
            icount: None,
            qemu: &[],
            append: "",
            limit: Duration::from_secs(limit),
        };
        let ending = guest.run(&folder, |_| {}).unwrap();
        fs::remove_dir_all(folder).unwrap();
        ending
    }

    #[test]
    fn a_script_reports_and_ends() {
        let ending = boot("ends", "echo cpus $(nproc)\nuname -r\n", 120);
        assert_eq!(ending.fault, None, "{}", ending.console);
        let release = Kernel::newest().unwrap().release;
        assert_eq!(ending.report, format!("cpus 2\n{release}\n"));
    }

    #[test]
    fn a_script_that_fails_is_a_fault() {
        assert_eq!(
            boot("fails", "exit 7\n", 120).fault.unwrap(),
            "the guest's script ended with 7"
        );
    }

    #[test]
    fn a_panic_is_a_fault() {
        let ending = boot("panic", "echo c >/proc/sysrq-trigger\n", 120);
        assert!(
            ending.fault.as_ref().unwrap().contains("kernel is in trouble"),
            "{:?}",
            ending.fault
        );
        assert!(ending.console.contains("sysrq"), "{}", ending.console);
    }

    #[test]
    fn a_guest_that_hangs_is_a_fault() {
        let ending = boot("hang", "while :; do :; done\n", 15);
        assert_eq!(ending.fault.unwrap(), "the guest did not end within 15 s");
    }

    #[test]
    fn a_guest_that_goes_away_is_a_fault() {
        let ending = boot("away", "poweroff -f\n", 120);
        assert_eq!(ending.fault.unwrap(), "the guest went away before its script ended");
    }

    #[test]
    fn trouble_is_recognised() {
        assert_eq!(
            trouble("[ 1.0] fine\n[ 2.0] BUG: unable to handle page fault\r\n"),
            Some("[ 2.0] BUG: unable to handle page fault")
        );
        assert_eq!(trouble("[    0.1] Spectre V2 : WARNING: Unprivileged eBPF\n"), None);
        for warning in [
            "[    1.0] WARNING: CPU: 1 PID: 7 at kernel/fork.c:9 wait+0x1/0x2",
            "[    1.0] WARNING: kernel/fork.c:9 at wait+0x1/0x2, CPU#1: sh/7",
        ] {
            assert_eq!(trouble(warning), Some(warning));
        }
    }
}
