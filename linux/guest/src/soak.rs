//! Everything at once, for as long as is asked: random probes in random functions while programs run, modules that come and go with probes
//! armed, readers, queries. `DPROBES_SOAK_SECONDS` says for how long, and `DPROBES_SOAK_SEED` which random numbers decide what is done; when it
//! is done depends on the machine.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dprobes::record::header::RecordState;
use dprobes::wire::{ProbeStatus, Reason, State};
use survey::kcore::Kcore;

use crate::device::Device;
use crate::machine::{Module, Target};
use crate::sweep::workload;
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[("all_of_it", all_of_it)];

/// How long an ordinary run takes, in seconds.
const SECONDS: u64 = 60;

/// `int3`.
const INT3: u8 = 0xcc;

/// Between two times that everything is taken out and looked at.
const ROUND: Duration = Duration::from_secs(5);

/// Probes that are in at one time, at most.
const ARMED: usize = 200;

/// More than all rings hold, in bytes.
const RINGS: usize = 4 << 18;

/// What the random probes do: count; log; log once; a limit and a pass count; count, in a group that is suspended.
const CODE: [(&str, &str); 5] = [
    ("", program::COUNT),
    ("", "push r, rip\npush r, rsp\nlog 2\nexit"),
    ("", "push r, rip\nlog 1\nremove"),
    ("pass_count = 5\nmax_hits = 20", "push r, rip\nlog 1\nexit"),
    ("suspended = yes\ngroup = 1", "suspend 1\nabort"),
];

/// The program at the target module's function, of which every hit is accounted for.
const AT_TARGET: u16 = 9_999;

/// Numbers that look random (SplitMix64).
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// One below a bound.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) as usize % bound
    }
}

/// The byte at an address; `None` where `/proc/kcore` has none.
fn byte_at(text: &Kcore, address: u64) -> Option<u8> {
    text.read(address..address + 1).ok()?.first().copied()
}

/// The kernel's own functions.
fn functions() -> io::Result<Vec<u64>> {
    let list = fs::read_to_string("/proc/kallsyms")?;
    Ok(list
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (address, kind) = (fields.next()?, fields.next()?);
            // What a kernel with call depth tracking has in front of a function is padding.
            let is_function = !fields.next()?.starts_with("__pfx_");
            let in_kernel = fields.next().is_none();
            (is_function && in_kernel && matches!(kind, "t" | "T")).then(|| u64::from_str_radix(address, 16).ok())?
        })
        .collect())
}

/// What happened in a round.
#[derive(Default)]
struct Sums {
    programs: u64,
    refused: BTreeMap<String, u64>,
    hits: u64,
    missed: u64,
    /// By major code: hits that have logged less those whose record did not fit, and records read.
    logged: BTreeMap<u16, (u64, u64)>,
}

/// The module, its device, and what is in it.
struct Session {
    device: Device,
    module: Module,
    /// By major code: where, what was there before, which of [`CODE`].
    armed: BTreeMap<u16, (u64, u8, usize)>,
    sums: Sums,
}

impl Session {
    fn begin() -> Result<Self, libtest_mimic::Failed> {
        let module = Module::dprobes()?;
        Ok(Session {
            device: Device::open()?,
            module,
            armed: BTreeMap::new(),
            sums: Sums::default(),
        })
    }

    fn insert(&mut self, text: &Kcore, major: u16, address: u64, code: usize) -> Outcome {
        let Some(before) = byte_at(text, address) else {
            return Ok(());
        };
        let (settings, handler) = CODE[code];
        match self.device.insert(&program::with(major, &[address], settings, handler)) {
            Ok(()) => {
                // A probe at a function's entry is behind what the kernel keeps there for itself.
                let found = self.device.query()?.into_iter().find(|probe| probe.major == major);
                let placed = found.map_or(address, |probe| probe.address);
                // A breakpoint that was there is the kernel's, with which it rewrites a jump label or a static call, and goes by itself.
                let known = placed == address && before != INT3;
                let before = if known { before } else { 0 };
                self.armed.insert(major, (placed, before, code));
                self.sums.programs += 1;
            }
            Err(refused) => {
                ensure!(
                    !matches!(refused.reason(), Reason::NoMemory | Reason::Exists),
                    "{refused:?}"
                );
                *self.sums.refused.entry(format!("{:?}", refused.reason())).or_default() += 1;
            }
        }
        Ok(())
    }

    fn remove(&mut self, text: &Kcore, major: u16) -> Outcome {
        let Some((address, before, code)) = self.armed.remove(&major) else {
            return Ok(());
        };
        let last = self.device.remove("kernel", major)?;
        let [last] = last[..] else {
            return Err(format!("{last:?}").into());
        };
        self.account(&last, code)?;
        let shared = self.armed.values().any(|(other, ..)| *other == address);
        if before != 0 && !shared {
            let now = byte_at(text, address);
            ensure!(
                now == Some(before),
                "{address:#x}: {before:#x} has become {now:x?} with {last:?}"
            );
        }
        Ok(())
    }

    fn account(&mut self, last: &ProbeStatus, code: usize) -> Outcome {
        match code {
            2 => ensure!(last.hits == 0 || last.state == State::RemovedItself as u32, "{last:?}"),
            3 => ensure!(last.hits <= 20 && last.skipped <= 5, "{last:?}"),
            4 => ensure!(last.hits == 0, "{last:?}"),
            _ => ensure!(last.skipped == 0 && last.suspended == 0, "{last:?}"),
        }
        self.sums.hits += last.hits;
        self.sums.missed += last.missed;
        Ok(())
    }

    fn read(&mut self) -> Outcome {
        for (header, _) in self.device.records_up_to(RINGS)? {
            if header.state != RecordState::Lost as u32 {
                self.sums.logged.entry(header.major).or_default().1 += 1;
            }
        }
        Ok(())
    }

    fn all_out(&mut self, text: &Kcore) -> Outcome {
        for major in Vec::from_iter(self.armed.keys().copied()) {
            self.remove(text, major)?;
        }
        Ok(())
    }
}

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn all_of_it() -> Outcome {
    let seconds = setting("DPROBES_SOAK_SECONDS").unwrap_or(SECONDS);
    let seed = setting("DPROBES_SOAK_SEED").unwrap_or(1);
    println!("seed={seed}, {seconds} s");
    let functions = functions()?;
    let text = Kcore::open()?;
    let (done, works) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let workers = Vec::from_iter((0..2).map(|worker| {
            let (done, works) = (&done, &works);
            scope.spawn(move || -> Result<(), String> {
                while !done.load(Ordering::Relaxed) {
                    workload(&format!("/tmp/workload{worker}")).map_err(|failed| format!("{failed:?}"))?;
                    works.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        }));
        let end = Instant::now() + Duration::from_secs(seconds);
        let result = rounds(&functions, &text, &mut Random(seed), end, &works);
        done.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("a worker does not panic")?;
        }
        result
    })
}

fn rounds(functions: &[u64], text: &Kcore, random: &mut Random, end: Instant, works: &AtomicU64) -> Outcome {
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        let mut session = Session::begin()?;
        let round_end = (Instant::now() + ROUND).min(end);
        let mut target = Some(Target::load(2)?);
        while Instant::now() < round_end {
            act(&mut session, &mut target, functions, text, random)?;
        }
        session.all_out(text)?;
        at_target(&mut session, &target, random)?;
        // Of the other programs' records some may belong to instructions that were still to be completed; those are read now.
        session.read()?;
        ensure!(session.device.query()?.is_empty(), "something is still there");
        let Sums {
            programs,
            hits,
            missed,
            logged,
            refused,
        } = std::mem::take(&mut session.sums);
        println!(
            "round {round}: {programs} programs, {} passes, {hits} hits, {} records, {missed} missed, refused {refused:?}",
            works.swap(0, Ordering::Relaxed),
            logged.values().map(|(_, read)| read).sum::<u64>(),
        );
        if random.below(2) == 0 {
            // It goes with probes armed.
            for _ in 0..50 {
                let address = functions[random.below(functions.len())];
                session
                    .insert(text, 1 + random.below(5_000) as u16 * 2, address, 0)
                    .ok();
            }
            let left = Vec::from_iter(session.armed.values().copied());
            let Session { device, module, .. } = session;
            drop(device);
            module.unload()?;
            for (address, before, _) in left.into_iter().filter(|(_, before, _)| *before != 0) {
                ensure!(byte_at(text, address) == Some(before), "{address:#x} is not as it was");
            }
        }
    }
    Ok(())
}

/// One thing or another.
fn act(
    session: &mut Session,
    target: &mut Option<Target>,
    functions: &[u64],
    text: &Kcore,
    random: &mut Random,
) -> Outcome {
    match random.below(32) {
        0 => {
            session.device.query()?;
        }
        1 => {
            // The target module goes and comes, with a probe in it.
            *target = None;
            let new = Target::load(2)?;
            if !session.armed.contains_key(&AT_TARGET) {
                session
                    .device
                    .insert(&program::at(AT_TARGET, &[new.middle()], program::COUNT))?;
                thread::sleep(Duration::from_millis(random.below(5) as u64));
                drop(new);
                let last = session.device.remove("kernel", AT_TARGET)?;
                ensure!(last.len() == 1 && last[0].state == State::ModuleGone as u32, "{last:?}");
                *target = Some(Target::load(2)?);
            } else {
                *target = Some(new);
            }
        }
        2 => at_target(session, target, random)?,
        3..=5 => session.read()?,
        6 => thread::sleep(Duration::from_millis(random.below(20) as u64)),
        7..=12 => {
            let majors = Vec::from_iter(session.armed.keys().copied());
            if let Some(major) = majors.get(random.below(majors.len().max(1))) {
                session.remove(text, *major)?;
            }
        }
        _ if session.armed.len() >= ARMED => session.all_out(text)?,
        _ => {
            for _ in 0..8 {
                let major = 1 + random.below(9_000) as u16;
                let function = functions[random.below(functions.len())];
                // Its entry, or some byte behind it.
                let address = function
                    + if random.below(2) == 0 {
                        0
                    } else {
                        random.below(64) as u64
                    };
                let code = random.below(CODE.len());
                if !session.armed.contains_key(&major) {
                    session.insert(text, major, address, code)?;
                }
            }
        }
    }
    Ok(())
}

/// A logging program at a function that two threads run all the time: each hit has left one record, or is told as lost.
fn at_target(session: &mut Session, target: &Option<Target>, random: &mut Random) -> Outcome {
    let Some(target) = target else { return Ok(()) };
    session.read()?;
    session.sums.logged.remove(&AT_TARGET);
    let object = program::at(AT_TARGET, &[target.middle()], "push r, rip\nlog 1\nexit");
    session.device.insert(&object)?;
    thread::sleep(Duration::from_millis(1 + random.below(5) as u64));
    let last = session.device.remove("kernel", AT_TARGET)?[0];
    session.read()?;
    let (_, read) = session.sums.logged.get(&AT_TARGET).copied().unwrap_or_default();
    ensure!(
        read + last.lost == last.hits && last.late + last.skipped + last.faulted == 0,
        "{read} records with {last:?}"
    );
    Ok(())
}
