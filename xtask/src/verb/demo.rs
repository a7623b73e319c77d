//! `demo`: a probe on Debian's kernel, from insert to remove.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use vmlinux::Kernel;

use crate::linux::guest::Guest;
use crate::linux::{files, module};
use crate::progress::Progress;
use crate::verb::build;
use crate::workspace::Workspace;

/// How many files the workload opens.
const FILES: usize = 6;

/// Boot Debian's kernel in QEMU and watch a probe log every file it opens
///
/// Builds everything, loads the module, inserts examples/openat.rpn, opens files whose names are made up anew each time, shows the
/// records as they arrive, and takes everything out again. It fails, and shows the guest's console, if a file that was opened is not
/// in the records.
#[derive(Args)]
#[command(after_help = "Examples:\n  ./x demo\n\nThe guest's console is kept in target/demo/console.log.")]
pub struct Arguments {}

/// Runs the demonstration.
pub fn run(workspace: &Workspace, progress: &Progress, _: &Arguments) -> Result<()> {
    build::tools(workspace, progress)?;
    let kernel = Kernel::newest()?;
    let module = module::build(workspace, progress, &kernel)?;

    let names: Vec<String> = (0..FILES).map(|n| format!("/tmp/{:08x}-{n}", made_up())).collect();
    println!("Linux {} boots in QEMU, with two CPUs:", kernel.release);
    let guest = Guest {
        kernel: &kernel,
        files: files(workspace, &module)?,
        script: &script(&names),
        cpus: 2,
        icount: None,
        qemu: &[],
        append: "",
        limit: Duration::from_secs(180),
    };
    let folder = workspace.target.join("demo");
    let ending = guest.run(&folder, |line| println!("  {line}"))?;

    let missing: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !ending.report.lines().any(|line| is_record_of(line, name)))
        .collect();
    let fault = ending.fault.or_else(|| {
        (!missing.is_empty()).then(|| format!("no record of {}, which the guest opened", missing.join(", ")))
    });
    if let Some(fault) = fault {
        progress.show_end(&ending.console, &folder.join("console.log"));
        bail!("{fault}");
    }
    println!("All {FILES} files that the guest opened are in the records.");
    Ok(())
}

/// What the guest does. Each command is shown before what it prints, as on a terminal.
fn script(names: &[String]) -> String {
    format!(
        "\
run() {{ echo \"# $*\"; \"$@\" 2>&1; }}
for name in {names}; do echo made up >$name; done
run insmod /dprobes.ko || exit 1
run dprobes insert /examples/openat.rpn || exit 1
echo '# dprobes log --follow &'
dprobes log --follow 2>&1 &
follower=$!
for name in {names}; do
    sleep 0.3
    run cat $name
done
sleep 1
run dprobes query || exit 1
run dprobes remove 1 || exit 1
kill -INT $follower
wait $follower
run rmmod dprobes || exit 1
",
        names = names.join(" ")
    )
}

/// Is this a line of `dprobes log` by which probe 1.1 tells that `cat` opened the file?
fn is_record_of(line: &str, file: &str) -> bool {
    line.starts_with("1.1 ") && line.contains(" cat ") && line.contains(&format!("\"{file}\""))
}

/// A number that nobody can have known: the standard library's hash maps are seeded by the system.
fn made_up() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_record_of_the_file_counts() {
        let line = "1.1     cpu 1        4.200000  77 cat  \"/tmp/0badcafe-1\" 0xffffff9c";
        assert!(is_record_of(line, "/tmp/0badcafe-1"));
        assert!(!is_record_of(line, "/tmp/0badcafe"));
        assert!(!is_record_of("# cat /tmp/0badcafe-1", "/tmp/0badcafe-1"));
        assert!(!is_record_of(&line.replace("1.1 ", "1.2 "), "/tmp/0badcafe-1"));
    }
}
