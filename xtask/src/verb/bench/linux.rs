//! `bench linux`: what a hit of each kind of probe costs on Linux, beside what else the kernel has for the same place, in one boot.

use anyhow::{Context, Result, bail};
use vmlinux::Kernel;

use super::counted::{self, Call};
use crate::linux::{files, module};
use crate::progress::Progress;
use crate::verb::build;
use crate::workspace::Workspace;

/// What is probed, by the words of linux/bench/kinds.sh.
const PLACES: [(&str, &str); 11] = [
    ("kernel-entry", "the entry of a function of the kernel"),
    ("kernel-copied", "its middle, an instruction that is copied"),
    ("kernel-emulated", "its middle, a call, which is emulated"),
    ("kernel-return", "its return"),
    ("module-entry", "the entry of a function of a module"),
    ("module-copied", "its middle, an instruction that is copied"),
    ("module-return", "its return"),
    (
        "user-emulated",
        "a program, an instruction that the kernel's uprobes emulate",
    ),
    ("user-stepped", "a program, an instruction that they step"),
    ("user-return", "the return of a function of a program"),
    ("watchpoint", "writes to a word of a module"),
];

/// What is done at a hit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Nothing, in a handler in C.
    Empty,
    Counts,
    /// A word.
    Logs,
}

/// What a hit costs, more than the same call without it.
struct Hit<'a> {
    place: &'a str,
    who: &'a str,
    work: Work,
    how: &'a str,
    instructions: u64,
    traps: f64,
}

/// Measures in a guest and prints.
pub fn run(workspace: &Workspace, progress: &Progress, json: bool) -> Result<()> {
    let meter = build::static_program(workspace, progress, "meter", "meter")?;
    build::tools(workspace, progress)?;
    let kernel = Kernel::newest()?;
    let module = module::build(workspace, progress, &kernel)?;
    let gkhi = module::build_gkhi(workspace, progress, &kernel)?;
    let bench = module::build_others(workspace, progress, &kernel, "bench", &[&gkhi])?;
    let targets = module::build_others(workspace, progress, &kernel, "testmod", &[&gkhi])?;

    let mut files = files(workspace, &module)?;
    files.copy(&meter, "bin/meter")?;
    for name in [
        "empty_kprobe.ko",
        "empty_kretprobe.ko",
        "empty_uprobe.ko",
        "empty_watch.ko",
    ] {
        files.copy(&bench.join(name), name)?;
    }
    for name in ["dprobes_target.ko", "dprobes_watched.ko"] {
        files.copy(&targets.join(name), name)?;
    }
    let calls = counted::run(workspace, progress, &kernel, files, "kinds.sh")?;
    let hits = hits(&calls)?;
    if json {
        for hit in &hits {
            println!(
                "{{\"kernel\":\"{}\",\"place\":\"{}\",\"probe\":\"{}\",\"work\":\"{}\",\"how\":\"{}\",\"instructions\":{},\"traps\":{}}}",
                kernel.release,
                hit.place,
                hit.who,
                hit.work.name(),
                hit.how,
                hit.instructions,
                hit.traps
            );
        }
    } else {
        println!(
            "Linux {}: what a hit adds to the call that passes the place.",
            kernel.release
        );
        show(&hits);
    }
    Ok(())
}

impl Work {
    fn named(name: &str) -> Option<Self> {
        [Self::Empty, Self::Counts, Self::Logs]
            .into_iter()
            .find(|work| work.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Counts => "counts",
            Self::Logs => "logs",
        }
    }
}

impl Hit<'_> {
    fn is_ours(&self) -> bool {
        self.who == "dprobes"
    }

    /// Does the other one do as much, or less? A program that counts is held against a handler that does nothing.
    fn compares_with(&self, other: &Self) -> bool {
        self.place == other.place && (self.work == Work::Logs) == (other.work == Work::Logs)
    }

    fn name(&self) -> String {
        let how = if self.how.is_empty() {
            String::new()
        } else {
            format!(", {}", self.how)
        };
        format!("{}, {}{how}", self.who, self.work.name())
    }
}

/// What each hit adds to the bare call at its place.
fn hits(calls: &[Call]) -> Result<Vec<Hit<'_>>> {
    let mut hits = Vec::new();
    let mut bare = Vec::new();
    for call in calls {
        let words: Vec<&str> = call.what.split('|').collect();
        let &[place, who, work, how] = words.as_slice() else {
            bail!("malformed: {}", call.what);
        };
        if !PLACES.iter().any(|(known, _)| *known == place) {
            bail!("{place} is no place");
        }
        if who == "bare" {
            bare.push((place, call.ticks));
            continue;
        }
        let ticks = bare.iter().find(|(known, _)| *known == place);
        let (_, ticks) = ticks.with_context(|| format!("{place} was not measured bare"))?;
        hits.push(Hit {
            place,
            who,
            work: Work::named(work).with_context(|| format!("{work} is no work"))?,
            how,
            instructions: call.ticks.saturating_sub(*ticks),
            traps: call.traps,
        });
    }
    let missing = PLACES.iter().find(|(place, _)| {
        let at = |ours| hits.iter().any(|hit| hit.place == *place && hit.is_ours() == ours);
        !at(true) || !at(false)
    });
    if let Some((place, _)) = missing {
        bail!("{place} was not measured, or with nobody beside us");
    }
    Ok(hits)
}

fn show(hits: &[Hit<'_>]) {
    println!("{:<44} {:>16} {:>10}", "", "instructions/hit", "traps/hit");
    for (place, what) in PLACES {
        println!("{place}: {what}");
        for hit in hits.iter().filter(|hit| hit.place == place) {
            println!("  {:<42} {:>16} {:>10.1}", hit.name(), hit.instructions, hit.traps);
        }
    }
    println!(
        "\nWhere DProbes is slower (a program that counts against an empty handler, one that logs against an event with the same word):"
    );
    for ours in hits.iter().filter(|hit| hit.is_ours()) {
        let faster = |theirs: &&Hit<'_>| {
            !theirs.is_ours() && ours.compares_with(theirs) && theirs.instructions < ours.instructions
        };
        for theirs in hits.iter().filter(faster) {
            println!(
                "  {:<16} {:<26} than {:<26} by {:>5} instructions{}",
                ours.place,
                ours.name(),
                theirs.name(),
                ours.instructions - theirs.instructions,
                match ours.traps - theirs.traps {
                    more if more > 0.0 => format!(" and {more:.1} traps"),
                    _ => String::new(),
                }
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(ticks: u64, what: &str) -> Call {
        Call {
            ticks,
            traps: 1.0,
            offset: 0,
            what: what.to_owned(),
        }
    }

    fn complete() -> Vec<Call> {
        let of_a_place = |(place, _): (&str, _)| {
            [
                call(1000, &format!("{place}|bare||")),
                call(1400, &format!("{place}|dprobes|counts|idt")),
                call(1500, &format!("{place}|kprobe event|logs|")),
            ]
        };
        PLACES.into_iter().flat_map(of_a_place).collect()
    }

    #[test]
    fn a_hit_is_what_it_adds_to_the_bare_call() {
        let calls = complete();
        let hits = hits(&calls).unwrap();
        assert_eq!(hits.len(), 2 * PLACES.len());
        assert_eq!((hits[0].instructions, hits[1].instructions), (400, 500));
        assert_eq!(
            (hits[0].name(), hits[1].name()),
            ("dprobes, counts, idt".to_owned(), "kprobe event, logs".to_owned())
        );
        assert!(!hits[0].compares_with(&hits[1]));
    }

    #[test]
    fn a_place_that_is_missing_is_an_error() {
        let mut calls = complete();
        let last = calls.pop().unwrap();
        assert!(hits(&calls).is_err());
        calls.push(last);
        assert!(hits(&calls).is_ok());
        calls.push(call(7, "moon|dprobes|counts|"));
        assert!(hits(&calls).is_err());
        calls.pop();
        calls.push(call(7, "watchpoint|dprobes"));
        assert!(hits(&calls).is_err());
    }
}
