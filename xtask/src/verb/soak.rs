//! `soak`: everything at once, on bare metal and on Linux, for as long as is asked.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::process::Stdio;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use vmlinux::Kernel;

use crate::linux::guest::Guest;
use crate::linux::{files, module};
use crate::progress::Progress;
use crate::run::dies_with_us;
use crate::verb::build;
use crate::workspace::Workspace;

/// A machine that takes twice as long as it is asked to, and this besides, hangs. The test kernel's clock, measured when it boots, runs
/// slow on a machine that is busy then.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often something is said where nobody watches a terminal.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Insert, remove, hit, fault, interrupt, load and unload at random, on bare metal and on Linux, for as long as you like
///
/// The test kernel runs tests/storm.rs on four CPUs, and Linux the soak of linux/guest on two, side by side. Both check all the time that counts
/// are exact, that nothing is lost uncounted, and that text is restored byte for byte; the test kernel also that slots and heap are as in the
/// beginning. The seed decides what is done. When it is done depends on the machine, so that a failure may take more than one run to come back.
#[derive(Args)]
#[command(after_help = "Examples:
  ./x soak                    two minutes
  ./x soak 30m                half an hour
  ./x soak 8h metal           the test kernel only
  ./x soak 10m --seed 77      with the random numbers of another run

Exit codes: 0 nothing was wrong, 1 something was, and the end of the output says what, 2 wrong usage.
Output is kept in target/soak. Everything runs in QEMU; interrupted, it ends with this command and leaves nothing behind.")]
pub struct Arguments {
    /// For how long: a number with s, m or h; seconds without
    #[arg(value_parser = duration, default_value = "2m")]
    time: Duration,

    /// Which of the two; both by default
    #[arg(value_enum)]
    place: Option<Place>,

    /// What decides the random numbers; made up if not given, and always shown
    #[arg(long)]
    seed: Option<u32>,

    /// One JSON object a line: what each has done
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Place {
    /// The test kernel, with four CPUs
    Metal,
    /// Linux, with two CPUs
    Linux,
}

/// What one of the two has done.
#[derive(Default, Debug, PartialEq, Eq)]
struct Done {
    rounds: u64,
    programs: u64,
    hits: u64,
    records: u64,
}

/// Reads a time such as `30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(format!("\"{unit}\" is no unit: s, m and h are")),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match seconds {
        Some(seconds @ 1..=2_592_000) => Ok(Duration::from_secs(seconds)),
        _ => Err("a time from 1 second to 720 hours, for instance 90s, 30m or 8h".into()),
    }
}

/// Runs it.
pub fn run(workspace: &Workspace, progress: &Progress, arguments: &Arguments) -> Result<()> {
    // The standard library's hash maps are seeded by the system.
    let seed = arguments
        .seed
        .unwrap_or_else(|| RandomState::new().build_hasher().finish() as u32);
    let wanted = |place| arguments.place.is_none_or(|only| only == place);
    let places = Vec::from_iter([Place::Metal, Place::Linux].into_iter().filter(|place| wanted(*place)));
    if wanted(Place::Metal) {
        let mut cargo = workspace.bare_metal_cargo("test");
        progress.step("the test kernel", cargo.args(["--no-run", "--test", "storm"]))?;
    }
    let linux = wanted(Place::Linux)
        .then(|| Linux::build(workspace, progress))
        .transpose()?;
    eprintln!("        seed {seed}");

    let (sender, lines) = mpsc::channel::<(Place, String)>();
    let mut done = [Done::default(), Done::default()];
    let time = arguments.time;
    let failures = progress.narrate(&format!("soak, {} s", time.as_secs()), |say| {
        let failures: Vec<String> = thread::scope(|scope| {
            let mut running = Vec::new();
            if wanted(Place::Metal) {
                let sender = sender.clone();
                running.push(scope.spawn(move || metal(workspace, time, seed, &sender)));
            }
            if let Some(linux) = linux {
                let sender = sender.clone();
                running.push(scope.spawn(move || linux.run(workspace, time, seed, &sender)));
            }
            drop(sender);
            follow(&lines, &mut done, time, say);
            running
                .into_iter()
                .filter_map(|running| running.join().expect("it does not panic").err())
                .map(|error| format!("{error:#}"))
                .collect()
        });
        let success = failures.is_empty();
        Ok((failures, success))
    })?;
    for place in places {
        show(place, &done[place as usize], seed, time, arguments.json);
    }
    if failures.is_empty() {
        return Ok(());
    }
    bail!(
        "{}\nagain: ./x soak {}s --seed {seed}",
        failures.join("\n"),
        time.as_secs()
    );
}

/// Says what is being done, as it is told, and adds it up.
fn follow(lines: &mpsc::Receiver<(Place, String)>, done: &mut [Done; 2], time: Duration, say: &mut dyn FnMut(&str)) {
    let begun = Instant::now();
    let mut next = SAY_EVERY;
    for (place, line) in lines {
        done[place as usize].add(&line);
        let elapsed = begun.elapsed();
        let name = name(place);
        say(&format!(
            "{} of {} s; {name}: {line}",
            elapsed.as_secs(),
            time.as_secs()
        ));
        if elapsed >= next && !io::stderr().is_terminal() {
            eprintln!("        {} of {} s; {name}: {line}", elapsed.as_secs(), time.as_secs());
            next = elapsed + SAY_EVERY;
        }
    }
}

fn name(place: Place) -> &'static str {
    match place {
        Place::Metal => "bare metal",
        Place::Linux => "Linux",
    }
}

fn show(place: Place, done: &Done, seed: u32, time: Duration, json: bool) {
    let Done {
        rounds,
        programs,
        hits,
        records,
    } = done;
    let (name, seconds) = (name(place), time.as_secs());
    if json {
        println!(
            "{{\"place\":\"{name}\",\"seed\":{seed},\"seconds\":{seconds},\"rounds\":{rounds},\"programs\":{programs},\
             \"hits\":{hits},\"records\":{records}}}"
        );
    } else {
        println!("{name}: {rounds} rounds, {programs} programs in and out, {hits} hits, {records} records");
    }
}

impl Done {
    /// Adds a line such as `round 3: 20 programs, 500 passes, 300 hits, 12 records`.
    fn add(&mut self, line: &str) {
        let Some((_, rest)) = line.split_once("round ") else {
            return;
        };
        let Some((_, rest)) = rest.split_once(": ") else { return };
        self.rounds += 1;
        for part in rest.split(", ") {
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "programs" => self.programs += number,
                "hits" => self.hits += number,
                "records" => self.records += number,
                _ => {}
            }
        }
    }
}

fn metal(workspace: &Workspace, time: Duration, seed: u32, lines: &Sender<(Place, String)>) -> Result<()> {
    let folder = workspace.target.join("soak");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut cargo = workspace.bare_metal_cargo("test");
    cargo
        .args(["--test", "storm", "--", "storm"])
        .args([format!("seconds={}", time.as_secs()), format!("seed={seed}")])
        .env("DPROBES_QEMU_TIME_LIMIT", (2 * time + PATIENCE).as_secs().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut child = dies_with_us(&mut cargo).spawn().context("cannot run cargo")?;
    let mut text = String::new();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line?;
        text.push_str(&line);
        text.push('\n');
        // Nobody reads any more when the other one has panicked.
        let _ = lines.send((Place::Metal, line));
    }
    let log = folder.join("metal.log");
    std::fs::write(&log, &text).with_context(|| format!("cannot write {}", log.display()))?;
    if child.wait()?.success() {
        return Ok(());
    }
    bail!(
        "bare metal failed; its output is in {}:\n{}",
        log.display(),
        end_of(&text)
    )
}

/// What a guest needs.
struct Linux {
    kernel: Kernel,
    module: std::path::PathBuf,
    target: std::path::PathBuf,
    program: std::path::PathBuf,
}

impl Linux {
    fn build(workspace: &Workspace, progress: &Progress) -> Result<Self> {
        build::tools(workspace, progress)?;
        let kernel = Kernel::newest()?;
        let module = module::build(workspace, progress, &kernel)?;
        let gkhi = module::build_gkhi(workspace, progress, &kernel)?;
        let testmod = module::build_others(workspace, progress, &kernel, "testmod", &[&gkhi])?;
        Ok(Linux {
            module,
            target: testmod.join("dprobes_target.ko"),
            program: build::static_program(workspace, progress, "linux-guest", "linux-tests")?,
            kernel,
        })
    }

    fn run(self, workspace: &Workspace, time: Duration, seed: u32, lines: &Sender<(Place, String)>) -> Result<()> {
        let mut files = files(workspace, &self.module)?;
        files.copy(&self.target, "dprobes_target.ko")?;
        files.copy(&self.program, "bin/linux-tests")?;
        let script = format!(
            "DPROBES_MODULES=/ DPROBES_SOAK_SECONDS={} DPROBES_SOAK_SEED={seed} linux-tests --color never soak || exit 1\n",
            time.as_secs()
        );
        let guest = Guest {
            kernel: &self.kernel,
            files,
            script: &script,
            cpus: 2,
            icount: None,
            qemu: &[],
            append: "",
            limit: 2 * time + PATIENCE,
        };
        let folder = workspace.target.join("soak/linux");
        let ending = guest.run(&folder, |line| {
            let _ = lines.send((Place::Linux, line.to_owned()));
        })?;
        match ending.fault {
            None => Ok(()),
            Some(fault) => bail!(
                "Linux failed: {fault}; its output is in {}:\n{}\n{}",
                folder.display(),
                end_of(&ending.report),
                end_of(&ending.console)
            ),
        }
    }
}

/// The last lines.
fn end_of(text: &str) -> String {
    const LINES: usize = 40;
    let lines = Vec::from_iter(text.lines());
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("30m"), Ok(Duration::from_secs(1_800)));
        assert_eq!(duration("8h"), Ok(Duration::from_secs(28_800)));
        for wrong in ["", "m", "0s", "5d", "-1m", "99999h", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rounds_are_added_up() {
        let mut done = Done::default();
        done.add("test storm ... seed=1, 12 s");
        done.add("round 1: 45 programs, 75850 passes, 44232 hits, 6097 records");
        done.add("round 2: 5 programs, 9 passes, 8 hits, 3 records, 2 missed, refused {\"NotBoundary\": 4}");
        let expected = Done {
            rounds: 2,
            programs: 50,
            hits: 44_240,
            records: 6_100,
        };
        assert_eq!(done, expected);
    }
}
