//! `test`: everything that proves something.

use std::fs;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use vmlinux::Kernel;

use crate::linux::guest::{Ending, Guest};
use crate::linux::{debian, files, host_root, module, victims};
use crate::progress::Progress;
use crate::tally::Tally;
use crate::verb::build;
use crate::workspace::Workspace;

/// What the files with the tests of a guest begin with.
const HARNESS: &str = "harness.sh";

/// The line of a file with tests that has what its guest's kernel is told beside the usual.
const APPEND: &str = "# Kernel command line: ";

/// The line of a file whose test is that the kernel panics, with how its message begins.
const PANICS: &str = "# The kernel panics with: ";

/// The line of a file whose guest is reset, with its memory as it is, when the kernel panics: its tests are those of the kernel that is booted then.
const RESETS: &str = "# The machine is reset then.";

/// The line of a file whose guest has two serial ports more, at 0x3e8 and 0x2e8: what is written to one arrives at the other.
const CABLE: &str = "# A cable from the third serial port to the fourth.";

/// The line of a file whose tests use programs of this machine, in the guest: with the packages that they are in, which are installed if they are missing. It
/// takes minutes, so that such a file is run only if it is asked for by its whole name.
const PEERS: &str = "# Programs of this machine, of the packages: ";

/// A guest with this machine's programs has more memory than others: they are large, and their libraries are read into it.
const ROOMY: [&str; 2] = ["-m", "1536M"];

/// A guest whose tests run longer than this hangs.
const GUEST_LIMIT: Duration = Duration::from_secs(420);

/// More guests than this are not run at a time: each has half a gigabyte of memory.
const MOST_GUESTS: usize = 8;

/// Run the tests: on the host, on bare metal in QEMU, on Linux in QEMU
#[derive(Args)]
#[command(after_help = "Examples:
  ./x test                everything
  ./x test host           the host tests
  ./x test host decode    host tests whose name contains \"decode\"
  ./x test metal fires    test kernels whose name contains \"fires\"
  ./x test linux unload   files of linux/tests whose name contains \"unload\"
  ./x test linux peers    beside bpftrace, perf, trace-cmd and gdb, which are installed if they are missing; only when it is asked for
  ./x test linux kdump    a crash kernel takes over after `exit_to dump`, and has the record; only when it is asked for
  ./x test linux --kernel 6.12 life users
                          the same for \"life\" or \"users\", on Debian's 6.12
  ./x test linux --kernel all
                          all of them on all kernels

The last line is `N passed, N failed`.")]
pub struct Arguments {
    /// Which tests; all of them by default
    #[arg(value_enum)]
    place: Option<Place>,

    /// Only tests whose name contains this; several are tests whose name contains one of them
    #[arg(requires = "place")]
    filter: Vec<String>,

    /// The kernels for the Linux tests: 6.12, 7 or all, downloaded from this machine's mirror when they are first asked for
    #[arg(long, requires = "place", value_name = "KERNEL")]
    kernel: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Place {
    /// Ordinary tests, on this machine
    Host,
    /// Kernels of their own, in QEMU
    Metal,
    /// The Linux module, in QEMU
    Linux,
}

/// Runs the tests and prints how many passed.
pub fn run(workspace: &Workspace, progress: &Progress, arguments: &Arguments) -> Result<()> {
    let wanted = |place| arguments.place.is_none_or(|only| only == place);
    let filter = arguments.filter.as_slice();
    let mut tally = Tally::default();
    // Beside each other: most of the test kernels have one CPU.
    let both = thread::scope(|scope| {
        let metal = wanted(Place::Metal).then(|| scope.spawn(|| bare_metal(workspace, progress, filter)));
        let host = wanted(Place::Host).then(|| host(workspace, progress, filter));
        let metal = metal.map(|metal| metal.join().unwrap_or_else(|panic| resume_unwind(panic)));
        [host, metal]
    });
    for part in both.into_iter().flatten() {
        tally += part?;
    }
    if wanted(Place::Linux) {
        for kernel in debian::wanted(workspace, progress, arguments.kernel.as_deref())? {
            tally += linux(workspace, progress, &kernel, filter)?;
        }
    }
    println!("{tally}");
    if tally.failed > 0 {
        bail!("tests failed");
    }
    if tally.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

fn host(workspace: &Workspace, progress: &Progress, filter: &[String]) -> Result<Tally> {
    // All packages in one command: cargo would build what they share anew for each, with the features that each asks for.
    let tests = || {
        let mut cargo = workspace.host_cargo("test");
        cargo.arg("--no-fail-fast");
        for package in workspace.host_packages() {
            cargo.args(["--package", &package.name]);
        }
        cargo
    };
    let built = progress.attempt("building the host tests", tests().arg("--no-run"))?;
    if !built.success {
        return Ok(Tally::of_run("", false));
    }
    let output = progress.attempt("host tests", tests().arg("--").args(filter))?;
    Ok(Tally::of_run(&output.text, output.success))
}

/// The kernels in tests/, each booted by the runner that `.cargo/config.toml` names.
fn bare_metal(workspace: &Workspace, progress: &Progress, filter: &[String]) -> Result<Tally> {
    let mut cargo = workspace.bare_metal_cargo("test");
    cargo.arg("--no-fail-fast");
    for filter in filter {
        cargo.args(["--test", &format!("*{filter}*")]);
    }
    let output = progress.attempt("bare-metal tests", &mut cargo)?;
    Ok(Tally::of_run(&output.text, output.success))
}

/// The files of linux/tests, each in a guest of its own.
fn linux(workspace: &Workspace, progress: &Progress, kernel: &Kernel, filter: &[String]) -> Result<Tally> {
    build::tools(workspace, progress)?;
    let module = module::build(workspace, progress, kernel)?;
    let gkhi = module::build_gkhi(workspace, progress, kernel)?;
    let samples = module::build_others(workspace, progress, kernel, "samples", &[&gkhi])?;
    let testmod = module::build_others(workspace, progress, kernel, "testmod", &[&gkhi])?;
    let bench = module::build_others(workspace, progress, kernel, "bench", &[&gkhi])?;
    let conformance = module::build_conformance(workspace, progress, kernel)?;
    let others = [
        conformance,
        gkhi,
        samples.join("sample_queue.ko"),
        samples.join("sample_watch.ko"),
        samples.join("sample_facility.ko"),
        testmod.join("dprobes_target.ko"),
        testmod.join("dprobes_faults.ko"),
        testmod.join("dprobes_watched.ko"),
        testmod.join("dprobes_patched.ko"),
        testmod.join("gkhi_exits.ko"),
        bench.join("empty_kprobe.ko"),
    ];
    let requests = build::static_program(workspace, progress, "linux-guest", "linux-tests")?;
    let victims = victims::build(workspace, progress)?;
    let folder = workspace.root.join("linux/tests");
    let harness = read(&folder.join(HARNESS))?;
    let mut names: Vec<String> = fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".sh") && name != HARNESS && has_any(name, filter))
        .collect();
    names.sort_unstable();
    let mut peers = Vec::new();
    for name in &names {
        let script = read(&folder.join(name))?;
        if let Some(packages) = line_of(&script, PEERS) {
            if filter.iter().any(|filter| filter == stem(name)) {
                host_root::install(progress, &packages.split(' ').collect::<Vec<_>>())?;
            } else {
                eprintln!("        {} are run only if they are asked for by that name", stem(name));
                peers.push(name.clone());
            }
        }
    }
    names.retain(|name| !peers.contains(name));

    let test = |name: &String| {
        let mut files = files(workspace, &module)?;
        for module in &others {
            let name = module.file_name().expect("a module is a file").to_string_lossy();
            files.copy(module, &name)?;
        }
        files.copy(&requests, "bin/linux-tests")?;
        victims.add_to(&mut files)?;
        let script = read(&folder.join(name))?;
        let resets = script.lines().any(|line| line == RESETS);
        let mut qemu = Vec::new();
        if resets {
            // What is said last counts: the runner says that a reset is the end.
            qemu.extend(["-action", "reboot=reset"]);
        }
        // A name that no other guest's has: of the kernel's, not of a file.
        let cable = format!(
            "path=dprobes-{}-{}-{name},abstract=on",
            std::process::id(),
            kernel.release
        );
        let ends = [
            format!("socket,id=third,{cable},server=on,wait=off"),
            format!("socket,id=fourth,{cable}"),
        ];
        if script.lines().any(|line| line == CABLE) {
            let [third, fourth] = &ends;
            qemu.extend(["-chardev", third, "-serial", "chardev:third"]);
            qemu.extend(["-chardev", fourth, "-serial", "chardev:fourth"]);
        }
        if line_of(&script, PEERS).is_some() {
            host_root::add_to(&mut files, kernel)?;
            qemu.extend(host_root::QEMU);
            qemu.extend(ROOMY);
        }
        let guest = Guest {
            kernel,
            files,
            script: &format!("{harness}\n{script}\nfinish\n"),
            cpus: 2,
            icount: None,
            qemu: &qemu,
            append: line_of(&script, APPEND).unwrap_or(""),
            limit: GUEST_LIMIT,
        };
        let name = stem(name);
        let panics = line_of(&script, PANICS);
        in_guest(
            progress,
            name,
            guest,
            panics.map(|message| (message, resets)),
            &workspace.target.join("tests").join(&kernel.release).join(name),
        )
    };
    beside_each_other(&names, test)
}

/// What a line of a script says that begins so.
fn line_of<'a>(script: &'a str, begins: &str) -> Option<&'a str> {
    script.lines().find_map(|line| line.strip_prefix(begins))
}

/// The name of a file's tests.
fn stem(name: &str) -> &str {
    name.trim_end_matches(".sh")
}

/// Is it asked for? Everything is where nothing is.
fn has_any(name: &str, filter: &[String]) -> bool {
    filter.is_empty() || filter.iter().any(|filter| name.contains(filter.as_str()))
}

/// Does tests beside each other, as many as this machine has CPUs: a guest with two spends half of its time waiting.
fn beside_each_other(names: &[String], test: impl Fn(&String) -> Result<Tally> + Sync) -> Result<Tally> {
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Tally> {
        let mut tally = Tally::default();
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            tally += test(name)?;
        }
        Ok(tally)
    };
    thread::scope(|scope| {
        let workers = Vec::from_iter((0..cpus.min(MOST_GUESTS)).map(|_| scope.spawn(worker)));
        let mut tally = Tally::default();
        for worker in workers {
            tally += worker.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        }
        Ok(tally)
    })
}

/// Runs a guest. `panics` is how the message begins with which its kernel panics, and whether the machine is reset then.
fn in_guest(
    progress: &Progress,
    name: &str,
    guest: Guest<'_>,
    panics: Option<(&str, bool)>,
    folder: &Path,
) -> Result<Tally> {
    let (Ending { report, console, fault }, tally) =
        progress.narrate(&format!("Linux {}, {name}", guest.kernel.release), |say| {
            let mut ending = guest.run(folder, say)?;
            if let Some((message, resets)) = panics {
                // The first trouble there was, or none.
                let panicked = |fault: &String| fault.contains(&format!("Kernel panic - not syncing: {message}"));
                if ending.fault.as_ref().is_some_and(panicked) {
                    let came_back = Tally::of(&ending.report).passed > 0;
                    ending.fault = (resets && !came_back).then(|| "no test has passed after the reset".to_owned());
                    ending.report.push_str("1 passed, 0 failed\n");
                } else {
                    let fault = ending.fault.unwrap_or_default();
                    ending.fault = Some(format!("the kernel did not panic as it should: {fault}"));
                }
            }
            let tally = Tally::of_run(&ending.report, ending.fault.is_none());
            Ok(((ending, tally), tally.failed == 0))
        })?;
    if tally.failed > 0 {
        progress.show_end(&report, &folder.join("report.log"));
    }
    if let Some(fault) = fault {
        eprintln!("        {fault}; the guest's console:");
        progress.show_end(&console, &folder.join("console.log"));
    }
    Ok(tally)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
