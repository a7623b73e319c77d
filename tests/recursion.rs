//! Probes on everything of the kernel itself, the code that a hit runs among it: counted as missed there, never lost, never fatal.
//!
//! What may not be probed is what the linker script has put into two sections, and nothing else.
//!
//! An ordinary run probes a part of the kernel. The whole of it takes minutes:
//!
//! ```text
//! DPROBES_QEMU_TIME_LIMIT=3600 cargo test --test recursion -- the_whole_kernel share=1
//! ```
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU64, AtomicUsize};

use bootimage::sync::IrqMutex;
use bootimage::trap::{self, Action};
use bootimage::{apic, clock, cpu_id, fault, heap, info, memory, println, smp, symbols};
use engine::host::Prohibited;
use engine::insn::Insn;
use engine::probe::{InsertError, PointError};
use engine::wire::ProbeStatus;
use test_support::attach::HANDLED;
use test_support::{engine_by_hooks, insert, records, remove};

bootimage::test_main! {
    requires: "cpus=2 memory_mib=512 time_limit_s=400",
    tests: [
        sections_are_what_is_excluded,
        what_a_hit_itself_runs,
        the_whole_kernel,
    ],
}

const ABSENT: u64 = 0xffff_c000_0000_0000;
const TIMER: u8 = trap::FIRST_INTERRUPT;
const MANY: usize = 1024;
const SOME: usize = 256;
/// Of the whole kernel, one batch in so many is probed in an ordinary run.
const SHARE: usize = 8;
/// The program that reads memory.
const TOUCH: u16 = 6;

static NMIS: AtomicUsize = AtomicUsize::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);

/// Uses as much of the kernel as it can: heap, locks, clock, faults with a fix-up, interrupts, NMIs, other CPUs, symbols, the console.
fn work(round: u64) {
    static LOCK: IrqMutex<u64> = IrqMutex::new(0);
    let numbers: Vec<u64> = (0..64).map(|number| number * round).collect();
    let boxed = Box::new(numbers.iter().sum::<u64>());
    assert_eq!(*boxed, 2_016 * round);
    *LOCK.lock() += 1;
    let before = clock::now_ns();
    let mut copy = [0; 64];
    fault::probe_read(numbers.as_ptr() as u64, &mut copy).expect("memory that is there");
    assert_eq!(copy[8..16], round.to_le_bytes());
    assert!(fault::probe_read(ABSENT, &mut copy).is_err());
    assert!(fault::probe_writable(copy.as_ptr() as u64) && !fault::probe_writable(ABSENT));
    let _ = fault::probe_msr(0xdead_beef);
    assert!(clock::now_ns() >= before);
    let there = AtomicU64::new(0);
    smp::call_on_all(|| _ = there.fetch_add(1, Relaxed));
    assert_eq!(there.into_inner(), smp::cpu_count() as u64);
    smp::run_on_all(|cpu| assert_eq!(cpu, cpu_id()));
    smp::sync_cores();
    let arrived = NMIS.load(Acquire);
    apic::send_nmi(1);
    while NMIS.load(Acquire) == arrived {
        core::hint::spin_loop();
    }
    let here = symbols::function_at(work as fn(u64) as usize as u64).expect("this function");
    assert!(here.name.contains("work") && heap::usage().0 > 0);
    assert!(memory::translate(here.code.start).is_some());
    bootimage::print!("{round}.");
}

fn prepare() {
    engine_by_hooks();
    trap::set_handler(
        trap::NMI,
        Some(|_, _| {
            NMIS.fetch_add(1, Release);
            Action::Resume
        }),
    );
    trap::set_handler(
        TIMER,
        Some(|_, _| {
            TICKS.fetch_add(1, Relaxed);
            Action::Resume
        }),
    );
}

fn sections_are_what_is_excluded() {
    prepare();
    for range in [memory::noinstr_text(), memory::dprobes_text()] {
        assert!(!range.is_empty());
        for function in symbols::functions()
            .iter()
            .filter(|function| range.contains(&function.code.start))
            .step_by(50)
        {
            let Err(InsertError::Point { error, .. }) = insert("every1", &[function.code.start]) else {
                panic!("{} can be probed", function.name);
            };
            assert_eq!(error, PointError::Prohibited(Prohibited::Excluded));
        }
    }
}

/// What a batch has counted: hits, and hits inside hits.
#[derive(Default)]
struct Counted {
    hits: u64,
    missed: u64,
    probes: usize,
    refused: usize,
}

/// How many breakpoints a probe has counted.
fn traps(probe: &ProbeStatus) -> u64 {
    probe.hits + probe.missed + probe.late + probe.faulted + probe.skipped
}

/// Breakpoints that another program has counted, at places that are not of this batch.
fn beside(batch: &[u64]) -> u64 {
    let mut all = 0;
    test_support::engine().query(&mut |probe| {
        if probe.major == TOUCH && !batch.contains(&probe.address) {
            all += traps(probe);
        }
    });
    all
}

/// Probes these places, has the kernel work, and takes the probes out again. Places that are refused are left out.
fn probed(places: &mut Vec<u64>, round: u64, counted: &mut Counted) {
    while !places.is_empty() {
        // A program has as many points as its name says; what is left over comes with the next.
        let size = match places.len() {
            MANY.. => MANY,
            SOME.. => SOME,
            few => few.min(32),
        };
        let batch = places[..size].to_vec();
        let before = HANDLED.load(Acquire) - beside(&batch);
        match insert(&format!("every{size}"), &batch) {
            Ok(()) => {}
            Err(InsertError::Point { address, .. }) => {
                counted.refused += 1;
                places.retain(|place| *place != address);
                continue;
            }
            Err(error) => panic!("{error:?}"),
        }
        apic::start_timer(TIMER, 20_000);
        work(round);
        apic::stop_timer();
        let last = remove(100);
        let handled = HANDLED.load(Acquire) - beside(&batch) - before;
        let mut all = 0;
        for probe in &last {
            counted.hits += probe.hits;
            counted.missed += probe.missed;
            all += traps(probe);
        }
        assert_eq!(
            all, handled,
            "breakpoints that were hit, and hits that are in some count"
        );
        counted.probes += size;
        places.drain(..size);
    }
}

/// The clock that a hit reads, the page fault's fix-ups, locks, the heap, the console: some of it runs inside hits.
fn what_a_hit_itself_runs() {
    prepare();
    let mut places = Vec::new();
    for part in [
        "5clock",
        "6serial",
        "4sync",
        "4heap",
        "6fix_up",
        "9fix_up_of",
        "8built_in",
        "16handle_interrupt",
    ] {
        let functions = symbols::functions().iter().filter(|function| {
            function.name.contains("9bootimage") && function.name.contains(part) && !is_excluded(function.code.start)
        });
        for function in functions {
            places.extend(boundaries(function));
        }
    }
    // The kernel's own copies, though not those that are made for an emulation.
    for name in ["fault_copy", "fault_or_zero", "fault_rdmsr"] {
        places.extend(boundaries(symbols::function_named(name).expect("a routine")));
    }
    let reading = symbols::functions()
        .iter()
        .filter(|function| function.name.contains("5fault10probe_read") && !is_excluded(function.code.start));
    places.extend(reading.flat_map(boundaries));
    places.sort_unstable();
    places.dedup();
    // Its hits read memory, which is there or not, and the clock: at the clock itself.
    let clock = symbols::functions()
        .iter()
        .find(|function| function.name.contains("5clock6now_ns"));
    insert("touch", &[clock.expect("the clock").code.start]).unwrap();
    let mut counted = Counted::default();
    probed(&mut places, 1, &mut counted);
    println!(
        "{} probes, {} hits, {} missed, {} refused",
        counted.probes, counted.hits, counted.missed, counted.refused
    );
    let touch = remove(TOUCH)[0];
    assert!(touch.hits > 0 && touch.missed > 0, "{touch:?}");
    assert!(counted.hits > 0 && counted.missed > 0);
    records();
}

fn is_excluded(address: u64) -> bool {
    memory::noinstr_text().contains(&address) || memory::dprobes_text().contains(&address)
}

/// The addresses of a function's instructions, as far as they are known.
fn boundaries(function: &symbols::Function) -> Vec<u64> {
    let mut code = vec![0; (function.code.end - function.code.start) as usize];
    fault::probe_read(function.code.start, &mut code).expect("text");
    let mut at = 0;
    let mut all = Vec::new();
    while let Ok(insn) = Insn::decode(&code[at..]) {
        // What cannot be resumed is refused by name; here it is in the way.
        if insn.resume().is_ok() {
            all.push(function.code.start + at as u64);
        }
        at += insn.len();
        if at >= code.len() {
            break;
        }
    }
    all
}

fn option(name: &str) -> Option<usize> {
    info::boot_info()
        .command_line()
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .map(|number| number.parse().expect("a number"))
}

fn the_whole_kernel() {
    prepare();
    let text = memory::text();
    let mut places: Vec<u64> = symbols::functions()
        .iter()
        .filter(|function| text.contains(&function.code.start) && !is_excluded(function.code.start))
        .flat_map(boundaries)
        .collect();
    places.sort_unstable();
    places.dedup();
    // Batch by batch; a part of them in an ordinary run.
    let share = option("share").unwrap_or(SHARE);
    let places: Vec<u64> = places
        .into_iter()
        .enumerate()
        .filter(|(index, _)| (index / MANY).is_multiple_of(share))
        .map(|(_, place)| place)
        .collect();
    let mut places = places;
    let all = places.len();
    let mut counted = Counted::default();
    work(0);
    probed(&mut places, 2, &mut counted);
    println!(
        "{all} instructions: {} probes, {} hits, {} missed, {} refused",
        counted.probes, counted.hits, counted.missed, counted.refused
    );
    assert!(
        counted.probes > 1_000 && counted.hits > 500,
        "the kernel was hardly probed"
    );
}
