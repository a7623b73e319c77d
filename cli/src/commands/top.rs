//! `dprobes top`.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::thread;
use std::time::Instant;

use comfy_table::{Table, presets};
use dprobes::wire::ProbeStatus;
use serde::Serialize;

use crate::args::{Global, Top};
use crate::device::Device;
use crate::error::Error;
use crate::output;
use crate::render::escape::{Charset, name, trim};
use crate::render::status::{self, When};
use crate::render::{columns, json};

/// Shows rates, again and again.
pub fn run(args: &Top, global: &Global) -> Result<(), Error> {
    let device = Device::open(&global.device)?;
    let in_place = !args.json && std::io::stdout().is_terminal();
    let mut before = Sample::take(&device)?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        thread::sleep(args.interval);
        let now = Sample::take(&device)?;
        let rates = rates(&before, &now);
        if args.json {
            rates
                .iter()
                .try_for_each(|rate| output::print(&json::line(&rate.line())))?;
        } else {
            // To the first line, and what is below it is cleared.
            let begin = if in_place { "\x1b[H\x1b[J" } else { "" };
            let text = table(&rates, now.at.duration_since(before.at).as_secs_f64());
            output::print(&format!("{begin}{text}\n"))?;
        }
        before = now;
        left -= 1;
        if left > 0 && !args.json && !in_place {
            output::print("\n")?;
        }
    }
    Ok(())
}

/// All probes at one moment.
struct Sample {
    at: Instant,
    probes: Vec<ProbeStatus>,
}

impl Sample {
    fn take(device: &Device) -> Result<Self, Error> {
        let probes = device.query()?;
        Ok(Sample {
            at: Instant::now(),
            probes,
        })
    }
}

/// How often a probe has fired between two samples.
struct Rate<'p> {
    probe: &'p ProbeStatus,
    seconds: f64,
    hits: f64,
    missed: f64,
    lost: f64,
}

/// What tells a probe from all others, whatever its module's address.
fn identity(probe: &ProbeStatus) -> ([u8; 64], u16, u16, [u8; 64]) {
    (probe.module, probe.major, probe.minor, probe.label)
}

/// The highest first. A probe that was not there before has had all of its hits since.
fn rates<'p>(before: &Sample, now: &'p Sample) -> Vec<Rate<'p>> {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-9);
    let known: HashMap<_, _> = before.probes.iter().map(|probe| (identity(probe), probe)).collect();
    let mut rates: Vec<_> = status::sorted(&now.probes)
        .into_iter()
        .map(|probe| {
            let was = known.get(&identity(probe));
            // A program that was removed and inserted again begins anew.
            let was = was.filter(|was| was.hits <= probe.hits);
            let rate = |count: fn(&ProbeStatus) -> u64| {
                let more = count(probe).saturating_sub(was.map_or(0, |was| count(was)));
                more as f64 / seconds
            };
            Rate {
                probe,
                seconds,
                hits: rate(|probe| probe.hits),
                missed: rate(|probe| probe.missed),
                lost: rate(|probe| probe.lost),
            }
        })
        .collect();
    rates.sort_by(|one, other| other.hits.total_cmp(&one.hits));
    rates
}

#[derive(Serialize)]
struct Line<'a> {
    module: std::borrow::Cow<'a, str>,
    major: u16,
    minor: u16,
    label: std::borrow::Cow<'a, str>,
    state: String,
    seconds: f64,
    hits_per_second: f64,
    missed_per_second: f64,
    lost_per_second: f64,
    hits: u64,
}

impl Rate<'_> {
    fn line(&self) -> Line<'_> {
        // More digits than a clock has would pretend something.
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        Line {
            module: String::from_utf8_lossy(trim(&self.probe.module)),
            major: self.probe.major,
            minor: self.probe.minor,
            label: String::from_utf8_lossy(trim(&self.probe.label)),
            state: status::state(self.probe.state, When::Now),
            seconds: rounded(self.seconds),
            hits_per_second: rounded(self.hits),
            missed_per_second: rounded(self.missed),
            lost_per_second: rounded(self.lost),
            hits: self.probe.hits,
        }
    }
}

fn table(rates: &[Rate<'_>], seconds: f64) -> String {
    let charset = Charset::from_env();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "HITS/S", "MISSED/S", "LOST/S", "HITS", "PROBE", "MODULE", "LABEL", "STATE",
    ]);
    for rate in rates {
        let probe = rate.probe;
        table.add_row([
            format!("{:.1}", rate.hits),
            format!("{:.1}", rate.missed),
            format!("{:.1}", rate.lost),
            probe.hits.to_string(),
            format!("{}.{}", probe.major, probe.minor),
            name(&probe.module, charset),
            name(&probe.label, charset),
            status::state(probe.state, When::Now),
        ]);
    }
    let total: f64 = rates.iter().map(|rate| rate.hits).sum();
    let probes = if rates.len() == 1 { "probe" } else { "probes" };
    let table = columns::text(table, |index| index < 4);
    format!(
        "{} {probes}, {total:.1} hits a second in the last {seconds:.1} s\n{table}",
        rates.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use dprobes::wire::{State, label};
    use pretty_assertions::assert_eq;
    use std::time::Duration;

    fn probe(minor: u16, hits: u64, missed: u64) -> ProbeStatus {
        ProbeStatus {
            major: 1,
            minor,
            hits,
            missed,
            state: State::Armed as u32,
            label: label(b"vfs_read"),
            module: label(b"kernel"),
            ..ProbeStatus::default()
        }
    }

    fn samples() -> (Sample, Sample) {
        let at = Instant::now();
        let probes = vec![probe(1, 100, 0), probe(2, 50, 7), probe(4, 10, 0)];
        let before = Sample { at, probes };
        let after = Sample {
            at: at + Duration::from_secs(2),
            // The third is new; the fourth was removed and inserted again.
            probes: vec![probe(1, 104, 0), probe(2, 1050, 8), probe(3, 3, 0), probe(4, 6, 0)],
        };
        (before, after)
    }

    #[test]
    fn the_highest_rate_is_first() {
        let (before, after) = samples();
        assert_eq!(
            table(&rates(&before, &after), 2.0),
            "\
4 probes, 506.5 hits a second in the last 2.0 s
HITS/S  MISSED/S  LOST/S  HITS  PROBE  MODULE  LABEL     STATE
 500.0       0.5     0.0  1050  1.2    kernel  vfs_read  armed
   3.0       0.0     0.0     6  1.4    kernel  vfs_read  armed
   2.0       0.0     0.0   104  1.1    kernel  vfs_read  armed
   1.5       0.0     0.0     3  1.3    kernel  vfs_read  armed"
        );
    }

    #[test]
    fn json_has_a_line_for_each() {
        let (before, after) = samples();
        assert_eq!(
            json::line(&rates(&before, &after)[0].line()),
            r#"{"module":"kernel","major":1,"minor":2,"label":"vfs_read","state":"armed","seconds":2.0,"hits_per_second":500.0,"missed_per_second":0.5,"lost_per_second":0.0,"hits":1050}
"#
        );
    }
}
