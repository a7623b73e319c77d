//! What programs keep and share: global variables, pools, suspended groups, maps, stack-trace records, exits.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use bootimage::memory::{self, Rights};
use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{NoAlloc, smp};
use engine::record::element::{Element, Elements};
use engine::rpn::exception::{DIV_BY_ZERO, HEAP_NOMEM, INVALID_OPERAND, operand};
use test_support::{FACILITY, engine, insert, instructions, records, remove, status};

bootimage::test_main! {
    requires: "cpus=3 time_limit_s=120",
    tests: [
        globals_are_shared_and_stay,
        allocated_variables_go_with_their_program,
        a_suspended_group_does_not_run,
        a_fault_while_suspended_is_counted_once,
        groups_change_on_several_cpus,
        a_stack_trace_follows_its_record,
        a_stack_trace_goes_with_its_record,
        exits_are_taken_or_counted,
        maps_are_written_by_each_cpu,
    ],
}

global_asm!(
    ".globl target_first",
    ".type target_first, @function",
    "target_first:",
    "    lea rax, [rdi + 1]",
    "    ret",
    ".size target_first, . - target_first",
    ".globl target_second",
    ".type target_second, @function",
    "target_second:",
    "    lea rax, [rdi + 2]",
    "    ret",
    ".size target_second, . - target_second",
    ".globl target_reads",
    ".type target_reads, @function",
    "target_reads:",
    "    mov rax, [rdi]",
    "    ret",
    ".size target_reads, . - target_reads",
);

unsafe extern "C" {
    fn target_first(a: u64) -> u64;
    fn target_second(a: u64) -> u64;
    fn target_reads(from: u64) -> u64;
}

fn first(a: u64) {
    // SAFETY: the function adds one.
    assert_eq!(unsafe { target_first(a) }, a + 1);
}

fn second(a: u64) {
    // SAFETY: the function adds two.
    assert_eq!(unsafe { target_second(a) }, a + 2);
}

fn place(name: &str) -> u64 {
    instructions(name)[0]
}

/// The words of every record, each in one list.
fn words() -> Vec<Vec<u64>> {
    records()
        .iter()
        .map(|record| {
            let mut all = Vec::new();
            for element in Elements::new(&record.elements) {
                match element.expect("an element") {
                    Element::Words(words) => all.extend(words.iter()),
                    other => panic!("{other:?}"),
                }
            }
            all
        })
        .collect()
}

fn global(name: &str) -> Option<u64> {
    let mut found = None;
    engine().globals(&mut |known, value| {
        if known == name {
            found = Some(value);
        }
    });
    found
}

fn globals_are_shared_and_stay() {
    insert("share1", &[place("target_first")]).unwrap();
    insert("share2", &[place("target_second")]).unwrap();
    {
        let _no_alloc = NoAlloc::new();
        smp::run_on_all(|_| (0..1000).for_each(first));
        second(0);
    }
    assert_eq!(words(), [[1, 3000]], "own, shared");
    remove(30);
    second(0);
    assert_eq!(
        words(),
        [[2, 3000]],
        "a variable stays when a program that names it goes"
    );
    remove(31);
    let names = [global("unrelated"), global("shared"), global("own"), global("another")];
    assert_eq!(names, [Some(0), Some(3000), Some(2), None]);
    insert("share1", &[place("target_first")]).unwrap();
    first(0);
    remove(30);
    insert("share2", &[place("target_second")]).unwrap();
    second(0);
    assert_eq!(words(), [[3, 3001]], "it stays when all programs are gone");
    remove(31);
}

fn allocated_variables_go_with_their_program() {
    const FIRST: u64 = 0x10000;
    for round in 0..3 {
        insert("pool", &[place("target_first"), place("target_second")]).unwrap();
        second(0);
        assert_eq!(words(), [[u64::from(INVALID_OPERAND), operand::LOCAL, FIRST + 255]]);
        for _ in 0..256 {
            first(0);
        }
        let found = words();
        assert_eq!(found.len(), 256);
        for (index, words) in (FIRST..).zip(&found) {
            assert_eq!(words[..], [1, index, index], "round {round}: value, global, local");
        }
        // Both pools are full.
        first(0);
        assert_eq!(words(), [[u64::from(HEAP_NOMEM), 1, 0]]);
        remove(32);
    }
}

fn a_suspended_group_does_not_run() {
    insert("suspend", &[place("target_first"), place("target_second")]).unwrap();
    {
        let _no_alloc = NoAlloc::new();
        for round in 1..=10 {
            // Suspended at first, and again after each hit.
            for _ in 0..round {
                second(0);
            }
            first(0);
            second(0);
        }
    }
    let found = words();
    assert_eq!(found, (1..=10).map(|n| vec![n]).collect::<Vec<_>>());
    assert_eq!(status(33, 1).suspended, 0);
    let last = remove(33);
    assert_eq!((last[1].hits, last[1].suspended), (10, 55));
    assert_eq!((last[0].hits, last[0].suspended), (10, 0));
    // It begins anew.
    insert("suspend", &[place("target_first"), place("target_second")]).unwrap();
    second(0);
    let last = remove(33);
    assert_eq!((last[1].hits, last[1].suspended), (0, 1));
}

const ABSENT: u64 = 0xffff_c200_0000_0000;

fn map_the_absent_page(_: u8, _: &mut TrapFrame) -> Action {
    memory::map(ABSENT, 4096, Rights::WRITE).unwrap();
    Action::Resume
}

fn read_what_is_absent() {
    trap::set_handler(trap::PF, Some(map_the_absent_page));
    // SAFETY: the handler provides the page.
    assert_eq!(unsafe { target_reads(ABSENT) }, 0);
    trap::set_handler(trap::PF, None);
    // SAFETY: mapped by the handler, and nobody else knows it.
    unsafe { memory::unmap(ABSENT, 4096) }.unwrap();
}

fn a_fault_while_suspended_is_counted_once() {
    let place0 = place("target_first");
    insert("suspend", &[place0, place("target_reads")]).unwrap();
    read_what_is_absent();
    let found = status(33, 2);
    assert_eq!((found.hits, found.suspended, found.faulted), (0, 1, 1));
    // The program suspends its own group, and then the instruction faults: that was a hit, which is taken back; the group
    // stays suspended.
    first(0);
    read_what_is_absent();
    let found = remove(33)[1];
    assert_eq!((found.hits, found.suspended, found.faulted), (0, 2, 2));
    assert!(records().is_empty());
}

fn groups_change_on_several_cpus() {
    const ROUNDS: u64 = 2000;
    insert("suspend", &[place("target_first"), place("target_second")]).unwrap();
    smp::run_on_all(|cpu| {
        for _ in 0..ROUNDS {
            if cpu == 0 { first(0) } else { second(0) }
        }
    });
    let kept = words().len() as u64;
    let last = remove(33);
    assert_eq!(last[0].hits, ROUNDS);
    assert_eq!(
        last[1].hits + last[1].suspended,
        2 * ROUNDS,
        "each hit is in one of the counts"
    );
    assert!(
        last[1].hits >= 1 && last[1].hits == kept,
        "{} hits, {kept} records",
        last[1].hits
    );
}

fn a_stack_trace_follows_its_record() {
    let place = place("target_first");
    insert("trace", &[place]).unwrap();
    first(9);
    let found = records();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].header.major, found[0].header.minor), (34, 6));
    let header = found[1].header;
    assert_eq!((header.major, header.minor, header.address), (0, 0, place));
    assert_eq!((header.time, header.cpu), (found[0].header.time, found[0].header.cpu));
    let elements: Vec<Element<'_>> = Elements::new(&found[1].elements).map(Result::unwrap).collect();
    let [
        Element::String(module),
        Element::Words(facts),
        Element::Trace { code, handler, .. },
        frames @ ..,
    ] = &elements[..]
    else {
        panic!("{elements:?}")
    };
    assert_eq!(*module, b"kernel");
    assert_eq!(facts.iter().collect::<Vec<_>>(), [place, 77, 34, 5, 0]);
    assert_eq!(*code, u64::from(DIV_BY_ZERO));
    assert!(handler.is_some());
    let backs: Vec<bool> = frames
        .iter()
        .map(|frame| match frame {
            Element::Frame { back, .. } => back.is_some(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(backs, [true, true, false], "inner, outer, the handler itself");
    remove(34);
}

fn a_stack_trace_goes_with_its_record() {
    insert("trace", &[place("target_reads")]).unwrap();
    read_what_is_absent();
    let found = records();
    assert_eq!(found.len(), 2, "one completed execution, one record and its trace");
    let last = remove(34);
    assert_eq!((last[0].hits, last[0].faulted), (1, 1));
}

fn exits_are_taken_or_counted() {
    let (place0, place1) = (place("target_first"), place("target_second"));
    insert("exits", &[place0, place1]).unwrap();
    let before = engine().host().exits().0;
    first(55);
    second(0);
    second(0);
    let (count, last) = engine().host().exits();
    assert_eq!(count, before + 1);
    assert_eq!(last, [35 << 16 | 1, place0, 55]);
    assert_eq!(FACILITY, 16);
    assert_eq!(words(), [vec![55], vec![], vec![]], "each leaves its record");
    let last = remove(35);
    assert_eq!([last[0].unavailable, last[1].unavailable], [0, 2]);
}

/// The entries of a map, each with its keys and values as words.
fn map(name: &str) -> Vec<Vec<u64>> {
    let mut found = None;
    engine().maps(&mut |map| {
        if map.name.starts_with(name.as_bytes()) {
            found = Some(*map);
        }
    });
    let found = found.expect("a map of this name");
    assert_eq!(found.dropped, 0);
    let mut bytes = vec![0; 64 << 10];
    let reading = engine().read_map(found.id, None, &mut bytes).unwrap();
    bytes
        .chunks_exact(reading.entry_bytes)
        .take(reading.count)
        .map(|entry| {
            entry
                .as_chunks()
                .0
                .iter()
                .map(|word| u64::from_le_bytes(*word))
                .collect()
        })
        .collect()
}

fn maps_are_written_by_each_cpu() {
    insert("keyed", &[place("target_first")]).unwrap();
    let calls = AtomicU64::new(0);
    {
        let _no_alloc = NoAlloc::new();
        smp::run_on_all(|cpu| {
            for value in 0..100 * (cpu as u64 + 1) {
                first(value);
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    assert_eq!(calls.into_inner(), 600);
    assert_eq!(
        map("hits"),
        [
            [0, 0, 50],
            [0, 1, 50],
            [1, 0, 100],
            [1, 1, 100],
            [2, 0, 150],
            [2, 1, 150]
        ]
    );
    let sizes = &map("sizes")[0];
    // Negative, 0, 1, 2 to 3, 4 to 7, ..., up to 256 to 511.
    assert_eq!(sizes[..12], [0, 3, 3, 6, 12, 24, 48, 96, 164, 200, 44, 0]);
    assert_eq!(sizes.iter().sum::<u64>(), 600);
    remove(36);
}
