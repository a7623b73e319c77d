//! Several programs at one address: each runs, in the order of insertion, with its own limits and counts, whatever the others do.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64};

use bootimage::smp;
use engine::record::header::RecordState;
use engine::trap::{TrapFrame, Verdict};
use engine::wire::State;
use spin::Once;
use test_support::{engine, insert, instructions, records, remove, status};

bootimage::test_main! {
    requires: "cpus=4 time_limit_s=600",
    tests: [
        they_run_in_the_order_of_insertion,
        the_last_that_writes_rip_decides,
        one_that_is_removed_leaves_the_others_armed,
        one_that_ends_with_remove_leaves_the_others_armed,
        a_suspended_one_is_passed_over,
        limits_that_are_reached_in_the_same_hit,
        a_fault_is_counted_by_those_that_were_hit,
        all_of_it_on_four_cpus,
        they_come_and_go_under_four_cpus,
    ],
}

global_asm!(
    ".globl target_busy",
    ".type target_busy, @function",
    "target_busy:",
    "    xor r10d, r10d",
    "1:  lea r10, [r10 + 1]",
    "    dec rdi",
    "    jnz 1b",
    "    mov rax, r10",
    "    ret",
    ".size target_busy, . - target_busy",
    ".globl target_switch",
    ".type target_switch, @function",
    "target_switch:",
    "    nop",
    "    ret",
    ".size target_switch, . - target_switch",
    ".type target_load, @function",
    "target_load:",
    "    mov rax, [rdi]",
    "    ret",
    ".size target_load, . - target_load",
);

unsafe extern "C" {
    fn target_busy(passes: u64) -> u64;
    fn target_switch();
}

const LOG: u16 = 40;
const SKIP: u16 = 41;
const ONCE: u16 = 42;
const GROUP: u16 = 43;
const MAX: u16 = 44;

/// How many of the passes have carried out the probed instruction.
fn busy(passes: u64) -> u64 {
    // SAFETY: the function uses scratch registers only.
    unsafe { target_busy(passes) }
}

fn place() -> u64 {
    static PLACE: Once<u64> = Once::new();
    *PLACE.call_once(|| instructions("target_busy")[1])
}

fn switch() -> u64 {
    static SWITCH: Once<u64> = Once::new();
    *SWITCH.call_once(|| instructions("target_switch")[0])
}

fn put(major: u16) {
    match major {
        LOG => insert("chain_log", &[place()]),
        SKIP => insert("chain_skip", &[place()]),
        ONCE => insert("chain_once", &[place()]),
        GROUP => insert("chain_group", &[place(), switch()]),
        _ => insert("chain_max", &[place()]),
    }
    .unwrap();
}

/// Who has left records, in their order, and what each has seen in rip.
fn logged() -> Vec<(u16, u64)> {
    records()
        .iter()
        .inspect(|record| assert_ne!(record.header.state, RecordState::Lost as u32))
        .map(|record| (record.header.major, record.words()[0]))
        .collect()
}

fn they_run_in_the_order_of_insertion() {
    for order in [[LOG, ONCE, MAX], [MAX, LOG, ONCE], [ONCE, MAX, LOG]] {
        order.into_iter().for_each(put);
        assert_eq!(busy(12), 12);
        let mut expected = Vec::new();
        for hit in 0..12 {
            let fires = |major: &u16| match *major {
                LOG => hit >= 10,
                ONCE => hit == 0,
                _ => true,
            };
            expected.extend(order.into_iter().filter(fires).map(|major| (major, place())));
        }
        assert_eq!(logged(), expected);
        let last = remove(LOG)[0];
        assert_eq!((last.skipped, last.hits), (10, 2));
        let last = remove(ONCE)[0];
        assert_eq!((last.hits, last.late, last.state), (1, 11, State::RemovedItself as u32));
        assert_eq!(remove(MAX)[0].hits, 12);
        engine().host().take_reap_request();
    }
}

fn the_last_that_writes_rip_decides() {
    put(MAX);
    put(SKIP);
    put(GROUP);
    // SAFETY: does nothing.
    unsafe { target_switch() };
    assert_eq!(busy(5), 0, "the instruction is not carried out");
    let expected = vec![[(MAX, place()), (SKIP, place() + 4), (GROUP, place() + 4)]; 5].concat();
    assert_eq!(logged(), expected, "who runs later sees what was written");
    remove(SKIP);
    assert_eq!(busy(5), 5);
    logged();
    for major in [MAX, GROUP] {
        assert_eq!(remove(major)[0].hits, 10);
    }
}

fn one_that_is_removed_leaves_the_others_armed() {
    let all = [LOG, MAX, SKIP];
    for gone in all {
        all.into_iter().for_each(put);
        busy(3);
        remove(gone);
        assert_eq!(busy(3), if gone == SKIP { 3 } else { 0 });
        for stays in all.into_iter().filter(|major| *major != gone) {
            let last = remove(stays)[0];
            assert_eq!(last.hits + last.skipped, 6);
        }
        assert_eq!(busy(3), 3, "with the last one the breakpoint goes");
        logged();
    }
}

fn one_that_ends_with_remove_leaves_the_others_armed() {
    put(ONCE);
    put(MAX);
    assert_eq!(busy(4), 4);
    assert!(engine().host().take_reap_request());
    engine().reap();
    assert_eq!(busy(4), 4);
    assert_eq!(status(ONCE, 1).hits, 1);
    assert_eq!(remove(MAX)[0].hits, 8);
    assert_eq!(busy(1), 1);
    let late = remove(ONCE)[0].late;
    assert_eq!(late, 7, "the breakpoint was there for the other one");
    assert_eq!(logged().len(), 9);
}

fn a_suspended_one_is_passed_over() {
    put(GROUP);
    put(MAX);
    assert_eq!(busy(3), 3);
    assert_eq!(logged(), [(MAX, place()); 3]);
    // SAFETY: does nothing.
    unsafe { target_switch() };
    busy(2);
    assert_eq!(logged(), [(GROUP, place()), (MAX, place())].repeat(2));
    let last = remove(GROUP)[0];
    assert_eq!((last.suspended, last.hits), (3, 2));
    assert_eq!(remove(MAX)[0].hits, 5);
}

fn limits_that_are_reached_in_the_same_hit() {
    // The twenty-fifth hit is the last of the one, the first and last of the other, and the fifteenth of the third.
    put(MAX);
    put(LOG);
    busy(24);
    put(ONCE);
    busy(1);
    for (major, state) in [
        (MAX, State::Exhausted),
        (ONCE, State::RemovedItself),
        (LOG, State::Armed),
    ] {
        assert_eq!(status(major, 1).state, state as u32);
    }
    assert!(engine().host().take_reap_request());
    engine().reap();
    busy(5);
    let counts = |major| {
        let last = remove(major)[0];
        (last.skipped, last.hits, last.late)
    };
    assert_eq!(
        (counts(MAX), counts(ONCE), counts(LOG)),
        ((0, 25, 5), (0, 1, 5), (10, 20, 0))
    );
    logged();
}

const CPUS: u64 = 4;

/// A task is held up in the slot: of the probes that come to the place meanwhile none knows of the attempt, and those that have gone are no
/// concern of the others.
fn a_fault_is_counted_by_those_that_were_hit() {
    const SHARE: [(&str, u16); 3] = [("entry", 2), ("log", 3), ("every1", 100)];
    let place = instructions("target_load")[0];
    // The express way, and the long one.
    for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
        let put = |which: usize| insert(SHARE[which].0, &[place]).unwrap();
        let faulted = |which: usize| {
            let last = remove(SHARE[which].1)[0];
            (last.hits, last.faulted, last.missed)
        };
        let mut task = TrapFrame {
            rip: place + 1,
            cs: 8,
            rsp: 0xffff_8000_1234_5678,
            rflags: 2,
            ..TrapFrame::default()
        };
        put(order[0]);
        assert_eq!(engine().on_breakpoint(&mut task), Verdict::Handled);
        assert_ne!(task.rip, place);
        put(order[1]);
        put(order[2]);
        assert!(engine().on_fault(&mut task));
        assert_eq!(task.rip, place);
        assert_eq!(faulted(order[1]), (0, 0, 0), "it came later");
        // Once more, with both.
        task.rip = place + 1;
        assert_eq!(engine().on_breakpoint(&mut task), Verdict::Handled);
        assert!(engine().on_fault(&mut task));
        assert_eq!(faulted(order[0]), (0, 2, 0));
        assert_eq!(faulted(order[2]), (0, 1, 0));
        assert!(logged_by(SHARE[1].1) == 0, "records of attempts that were taken back");
    }
}

fn logged_by(major: u16) -> usize {
    records().iter().filter(|record| record.header.major == major).count()
}

fn all_of_it_on_four_cpus() {
    const PASSES: u64 = 200;
    const ALL: u64 = CPUS * PASSES;
    for with_skip in [false, true] {
        for major in [LOG, ONCE, GROUP, MAX] {
            put(major);
        }
        if with_skip {
            put(SKIP);
        }
        let carried_out = AtomicU64::new(0);
        smp::run_on_all(|cpu| {
            for _ in 0..PASSES / 10 {
                carried_out.fetch_add(busy(10), Relaxed);
                if cpu == 2 {
                    // SAFETY: does nothing.
                    unsafe { target_switch() };
                }
            }
        });
        assert_eq!(carried_out.into_inner(), if with_skip { 0 } else { ALL });
        let left = logged();
        let left_by = |major| left.iter().filter(|(by, _)| *by == major).count() as u64;

        let log = remove(LOG)[0];
        assert_eq!((log.skipped, log.hits, log.late, log.missed), (10, ALL - 10, 0, 0));
        assert_eq!(left_by(LOG), ALL - 10);
        let once = remove(ONCE)[0];
        assert_eq!((once.hits + once.late, once.missed, left_by(ONCE)), (ALL, 0, 1));
        assert!((1..=CPUS).contains(&once.hits), "those that were under way");
        let max = remove(MAX)[0];
        assert_eq!((max.hits, max.late, max.missed, left_by(MAX)), (25, ALL - 25, 0, 25));
        let group = remove(GROUP);
        assert_eq!((group[0].hits + group[0].suspended, group[0].missed), (ALL, 0));
        assert!(group[0].suspended >= 10, "the first of the CPU that ends it");
        assert_eq!((left_by(GROUP), group[1].hits), (group[0].hits, PASSES / 10));
        if with_skip {
            assert_eq!(remove(SKIP)[0].hits, ALL);
        }
        assert!(left.iter().all(|(_, rip)| [place(), place() + 4].contains(rip)));
        engine().host().take_reap_request();
    }
}

fn they_come_and_go_under_four_cpus() {
    const ROUNDS: usize = 40;
    // It stays, and has every hit; the others come and go behind it and in front of what comes after them.
    insert("entry", &[place()]).unwrap();
    let (passes, carried_out) = (AtomicU64::new(0), AtomicU64::new(0));
    let skipped = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    smp::run_on_all(|cpu| {
        if cpu > 0 {
            while !done.load(Relaxed) {
                carried_out.fetch_add(busy(20), Relaxed);
                passes.fetch_add(20, Relaxed);
            }
            return;
        }
        let mut buffer = vec![0; 1 << 16];
        for round in 0..ROUNDS {
            let others = [LOG, SKIP, ONCE, GROUP, MAX];
            others.into_iter().for_each(put);
            for turn in 0..others.len() {
                let last = remove(others[(round + turn) % others.len()])[0];
                assert_eq!((last.missed, last.faulted), (0, 0));
                if last.major == SKIP {
                    skipped.fetch_add(last.hits, Relaxed);
                }
                for cpu in 0..smp::cpu_count() {
                    engine().read_records(cpu, &mut buffer);
                }
            }
        }
        done.store(true, Relaxed);
    });
    let passes = passes.into_inner();
    assert_eq!(remove(2)[0].hits, passes);
    assert_eq!(carried_out.into_inner() + skipped.into_inner(), passes);
    records();
    engine().host().take_reap_request();
}
