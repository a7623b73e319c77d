//! A probe on every instruction of the kernel's routines that copy from and to user space, all at once, while they succeed, bring memory in, and
//! fail half way: see linux/testmod/copies.c.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::thread;

use dprobes::wire::{ProbeStatus, Reason};
use rustix::ioctl::{Updater, ioctl};
use rustix::mm::MprotectFlags;
use survey::ask::Module as Asking;
use survey::kcore::Kcore;
use survey::symbols::Symbols;

use super::area::{Area, PAGE};
use super::cases::Faults;
use super::paging::Pager;
use crate::device::Device;
use crate::machine::Module;
use crate::{Outcome, batch, ensure};

/// How the names of the routines begin, in Linux 6.1 and in those after it.
const ROUTINES: &[&str] = &[
    "copy_user_",
    "__copy_user_",
    ".Lcopy_user_",
    "copy_to_nontemporal",
    "rep_movs_alternative",
    "rep_stos_alternative",
    "_copy_from_user",
    "_copy_to_user",
    "clear_user",
    "__clear_user",
    "__get_user_",
    "__put_user_",
    "strncpy_from_user",
    "strnlen_user",
    "copy_from_user_nmi",
    "copy_from_user_nofault",
    "copy_to_user_nofault",
    "csum_and_copy_from_user",
    "csum_and_copy_to_user",
    "csum_partial_copy_generic",
    "fault_in_readable",
    "fault_in_writeable",
];

/// Others whose names begin so: they copy nothing from or to the memory of a process, or only what no case asks for.
const OTHERS: &[&str] = &[
    "__put_user_ns",
    "__get_user_pages",
    "__get_user_pages_remote",
    "copy_user_huge_page",
    "copy_user_large_folio",
    "strncpy_from_user_nofault",
    "strnlen_user_nofault",
];

/// Cases that call one routine once, and that routine. That of the CPU may do what others ask for as well, so that it is not here.
const ONE_CALL: &[(&str, &str)] = &[
    ("from_unrolled", "copy_user_generic_unrolled"),
    ("to_unrolled", "copy_user_generic_unrolled"),
    ("from_string", "copy_user_generic_string"),
    ("to_string", "copy_user_generic_string"),
    ("from_fast_string", "copy_user_enhanced_fast_string"),
    ("to_fast_string", "copy_user_enhanced_fast_string"),
    ("copy_user_nocache", "__copy_user_nocache"),
    ("clear_user_original", "clear_user_original"),
    ("clear_user_rep_good", "clear_user_rep_good"),
    ("clear_user_erms", "clear_user_erms"),
    ("get_user_4", "__get_user_4"),
    ("put_user_8", "__put_user_8"),
    ("strnlen_user", "strnlen_user"),
];

/// How far before the end of a page the memory begins, and how long it is.
const SPANS: &[(usize, usize)] = &[
    (64, 0),
    (64, 1),
    (1, 1),
    (3, 8),
    (8, 8),
    (9, 17),
    (64, 64),
    (60, 80),
    (127, 130),
    (100, 1000),
    (1000, 3000),
    (4000, 6000),
];

/// How the memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    There,
    /// In the page cache, or in none: the first access maps it.
    Dropped,
    /// Another thread brings it in when it is asked for; until then the task sleeps.
    Awaited,
    /// The second page may not be accessed.
    HalfThere,
    NotAccessible,
    NotMapped,
}

const STATES: [State; 6] = [
    State::There,
    State::Dropped,
    State::Awaited,
    State::HalfThere,
    State::NotAccessible,
    State::NotMapped,
];

/// `struct copies_run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Run {
    name: [u8; 32],
    user: u64,
    length: u64,
    result: u64,
    sum: u64,
}

/// What a routine has returned, what is in the kernel's memory then, and what is in the program's.
type Ending = (u64, u64, u64);

struct Copies {
    device: File,
    names: Vec<String>,
    of_file: Area,
    awaited: Area,
}

/// Zeros end strings, on both sides of the boundary between pages.
fn pattern() -> Vec<u8> {
    let mut pattern = Vec::from_iter((0..4 * PAGE).map(|at| b'a' + (at % 23) as u8));
    for zero in [2 * PAGE - 30, 2 * PAGE + 50, 3 * PAGE + 7] {
        pattern[zero] = 0;
    }
    pattern
}

impl Copies {
    fn open() -> io::Result<Self> {
        let pattern = pattern();
        fs::write("/tmp/pattern", &pattern)?;
        let awaited = Area::anonymous()?;
        let (pager, begin) = (Pager::of(&awaited)?, awaited.page(0));
        // It waits as long as this program runs.
        thread::spawn(move || {
            while let Ok(address) = pager.wait() {
                let page = (address - begin) as usize / PAGE;
                let content = pattern[page * PAGE..].first_chunk().expect("a page of the area");
                // Somebody else may have been faster.
                let _ = pager.resolve(begin + (page * PAGE) as u64, content);
            }
        });
        Ok(Copies {
            device: File::open("/dev/dprobes_copies")?,
            names: fs::read_to_string("/sys/module/dprobes_faults/parameters/routines")?
                .lines()
                .map(str::to_owned)
                .collect(),
            of_file: Area::of_file(File::open("/tmp/pattern")?)?,
            awaited,
        })
    }

    fn run_once(&self, name: &str, state: State, (before, length): (usize, usize)) -> io::Result<Ending> {
        let all = MprotectFlags::READ | MprotectFlags::WRITE;
        let area = if state == State::Awaited {
            &self.awaited
        } else {
            &self.of_file
        };
        area.drop_pages()?;
        match state {
            State::There => area.touch(),
            State::HalfThere => {
                area.touch();
                area.protect(2, MprotectFlags::empty())?;
            }
            State::NotAccessible => {
                for page in 1..4 {
                    area.protect(page, MprotectFlags::empty())?;
                }
            }
            State::Dropped | State::Awaited | State::NotMapped => {}
        }
        let end_of_page = match state {
            // The first page of every address space.
            State::NotMapped => PAGE as u64,
            _ => area.page(2),
        };
        let mut run = Run {
            name: [0; 32],
            user: end_of_page - before as u64,
            length: length as u64,
            result: 0,
            sum: 0,
        };
        run.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: the module reads the run and writes it back; the memory that it is told of is the area's, to which nothing refers.
        unsafe { ioctl(&self.device, Updater::<0, _>::new(&mut run)) }?;
        for page in 1..4 {
            area.protect(page, all)?;
        }
        Ok((run.result, run.sum, area.sum()))
    }

    /// Runs a routine with memory in one state, over all spans.
    fn run(&self, name: &str, state: State) -> io::Result<Vec<Ending>> {
        SPANS.iter().map(|span| self.run_once(name, state, *span)).collect()
    }
}

/// The hits and the faults of each probe in a time, in the order of the probes.
type Counts = Vec<(u64, u64)>;

/// What `run` returns, and what was counted meanwhile. Asking for the counts makes some itself, always the same.
fn counted<T>(device: &Device, run: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Counts)> {
    let before = device.query()?;
    let result = run()?;
    let after = device.query()?;
    let difference =
        |(before, after): (&ProbeStatus, &ProbeStatus)| (after.hits - before.hits, after.faulted - before.faulted);
    Ok((result, before.iter().zip(&after).map(difference).collect()))
}

pub fn every_instruction_of_the_copy_routines() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let _faults = Faults::load()?;
    let copies = Copies::open()?;
    let mut bare = BTreeMap::new();
    for name in &copies.names {
        for state in STATES {
            let first = copies.run(name, state)?;
            let again = copies.run(name, state)?;
            ensure!(again == first, "{name}, {state:?}: {first:x?}, then {again:x?}");
            bare.insert((name, state), first);
        }
    }

    let symbols = Symbols::read()?;
    let text = symbols.between("_stext", "_etext").ok_or("no text")?;
    let functions = symbols.functions(&text);
    // What compilers move elsewhere has the same name with something behind a full stop.
    let whole = |name: &str| OTHERS.contains(&name.split('.').next().unwrap_or(name));
    let is_one = |name: &str| !whole(name) && ROUTINES.iter().any(|begin| name.starts_with(begin));
    let routines = Vec::from_iter(functions.filter(|function| is_one(&function.name)));
    let asking = Asking::open()?;
    let (mut places, mut refused) = (Vec::new(), BTreeMap::<_, u32>::new());
    for routine in &routines {
        let checks = asking.check(&Vec::from_iter(routine.range.clone()))?;
        for check in &checks {
            match Reason::from_code(check.reason) {
                Some(Reason::None) => places.push(check.address),
                Some(Reason::NotBoundary) => {}
                reason => {
                    *refused
                        .entry(format!("{reason:?} {}", check.detail as i32))
                        .or_default() += 1
                }
            }
        }
    }
    places.sort_unstable();
    places.dedup();
    // Between functions there may be NOPs, which are part of what is in front of them.
    let code = Kcore::open()?;
    let mut padding = 0;
    for place in &places {
        padding += usize::from(is_nop(&code.read(*place..*place + 8)?));
    }
    device.insert(&batch::count_at(1, places.iter().copied()))?;
    println!(
        "    {} functions, {} instructions probed; refused: {refused:?}",
        routines.len(),
        places.len()
    );

    let result = compare(&copies, &device, &symbols, &bare);
    let last = device.query()?;
    device.remove_all()?;
    result?;
    for routine in &routines {
        let of = |what: fn(&ProbeStatus) -> bool| {
            let here = last.iter().filter(|probe| routine.range.contains(&probe.address));
            here.filter(|probe| what(probe)).count()
        };
        println!(
            "    {}: {} instructions, {} completed, {} faulted",
            routine.name,
            of(|_| true),
            of(|probe| probe.hits > 0),
            of(|probe| probe.faulted > 0)
        );
    }
    let some = |of: fn(&ProbeStatus) -> u64| last.iter().filter(|probe| of(probe) > 0).count();
    let (fired, faulted) = (some(|probe| probe.hits), some(|probe| probe.faulted));
    println!(
        "    {fired} of them completed, {faulted} faulted, {} times; {padding} are NOPs",
        last.iter().map(|probe| probe.faulted).sum::<u64>()
    );
    ensure!(
        last.iter().all(|probe| probe.missed + probe.late + probe.lost == 0),
        "missed, late or lost hits"
    );
    // Later kernels have fewer routines, with fewer accesses to memory, and ways through them that this CPU does not take.
    ensure!(
        places.len() > 600 && fired * 100 > (places.len() - padding) * 75 && faulted > 30,
        "too few"
    );
    Ok(())
}

/// Is an instruction that begins so a NOP?
fn is_nop(code: &[u8]) -> bool {
    let behind_prefixes = code.iter().position(|byte| ![0x66, 0x2e].contains(byte));
    let code = &code[behind_prefixes.unwrap_or(0)..];
    code.starts_with(&[0x90]) || code.starts_with(&[0x0f, 0x1f])
}

/// How often each probed instruction has completed.
fn completed(counts: &Counts) -> Vec<u64> {
    counts.iter().map(|(hits, _)| *hits).collect()
}

/// How often a count is taken before it is believed.
const TRIES: u32 = 5;

/// Runs every routine in every state once more, with the probes in place.
fn compare(
    copies: &Copies,
    device: &Device,
    symbols: &Symbols,
    bare: &BTreeMap<(&String, State), Vec<Ending>>,
) -> Outcome {
    let probes = device.query()?;
    let (_, around) = counted(device, || copies.run("nothing", State::There))?;
    let (mut brought_in, mut calls) = (0, 0);
    for name in &copies.names {
        let mut there = Counts::new();
        for state in STATES {
            let what = format!("{name}, {state:?}");
            let (results, counts) = counted(device, || copies.run(name, state))?;
            let bare_results = &bare[&(name, state)];
            ensure!(
                results == *bare_results,
                "{what}: bare {bare_results:x?}\nprobed {results:x?}"
            );
            if state == State::There {
                there = counts;
                continue;
            }
            let faults = |counts: &Counts| counts.iter().map(|(_, faulted)| faulted).sum::<u64>();
            // Bringing memory in is nothing that shows in what is done with it: each instruction completes as often.
            if state == State::Dropped && bare_results == &bare[&(name, State::There)] {
                // Somebody else may have called the routine meanwhile.
                let mut counts = counts;
                for _ in 1..TRIES {
                    if completed(&counts) == completed(&there) {
                        break;
                    }
                    (_, there) = counted(device, || copies.run(name, State::There))?;
                    (_, counts) = counted(device, || copies.run(name, state))?;
                }
                for ((probe, now), before) in probes.iter().zip(completed(&counts)).zip(completed(&there)) {
                    ensure!(
                        now == before,
                        "{what}: {:#x} was completed {now} times, with the memory there {before} times",
                        probe.address
                    );
                }
                brought_in += faults(&counts).saturating_sub(faults(&there));
            }
        }
        let called = ONE_CALL.iter().find(|(case, _)| case == name);
        let Some((routine, address)) = called.and_then(|(_, routine)| Some((routine, symbols.address(routine)?)))
        else {
            continue;
        };
        let index = probes
            .iter()
            .position(|probe| probe.address >= address)
            .ok_or("no probe")?;
        let entered = there[index].0 - around[index].0;
        ensure!(
            entered == SPANS.len() as u64,
            "{routine}, called {} times, was entered {entered} times",
            SPANS.len()
        );
        calls += entered;
    }
    println!(
        "    {calls} calls counted at the entry, {brought_in} faults brought memory in without a trace in the counts"
    );
    ensure!(brought_in > 100, "too few faults");
    Ok(())
}
