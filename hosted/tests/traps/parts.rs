//! Programs that take the place of others, parts that are merged into them, and probes that are taken out one by one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dprobes::probe::{InsertError, InsertOptions, Insertion, MergeError, PointError, RemoveError, Selection};
use dprobes::wire::{ProbeStatus, State};

use crate::support::{Session, address, instructions, object, point, session};
use crate::victims::*;

/// Counted on the express way, and on the long one.
const EXPRESS: &str = "inc lv, a\nabort";
const LOGS: &str = "inc lv, b\npush 1\nlog 1\nexit";

fn insert_as(session: &Session, insertion: Insertion, object: &[u8]) -> Result<Vec<ProbeStatus>, InsertError> {
    let mut last = Vec::new();
    let options = InsertOptions {
        insertion,
        ..InsertOptions::default()
    };
    session
        .insert_as(object, options, &mut |status| last.push(*status))
        .map(|()| last)
}

fn hits(states: &[ProbeStatus]) -> Vec<(u16, u64)> {
    states.iter().map(|state| (state.minor, state.hits)).collect()
}

#[test]
fn a_program_takes_the_place_of_another() {
    let session = session();
    let places = instructions(&session, address(victim_branches as *const ()));
    let text = |at: u64, minor| point(at, minor, "", EXPRESS);
    // Nothing is there to be replaced.
    let first = object(1, &(text(places[1], 1) + &text(places[2], 2)));
    assert_eq!(insert_as(&session, Insertion::Replace, &first).unwrap(), []);
    victim_branches(3, 9);
    let second = object(1, &(point(places[2], 7, "", LOGS) + &text(places[3], 8)));
    let last = insert_as(&session, Insertion::Replace, &second).unwrap();
    assert_eq!(hits(&last), [(1, 1), (2, 1)]);
    victim_branches(3, 9);
    // The one that only the first had does not fire, and variables begin anew.
    assert_eq!(hits(&session.status()), [(7, 1), (8, 1)]);
    assert_eq!(session.variables(1, 2), [1, 1]);
    assert_eq!(hits(&session.remove_program(1)), [(7, 1), (8, 1)]);
    victim_branches(3, 9);
    session.insert_text(1, &text(places[1], 1));
    victim_branches(3, 9);
    assert_eq!(hits(&session.remove_program(1)), [(1, 1)]);
}

#[test]
fn what_cannot_be_inserted_replaces_nothing() {
    let session = session();
    let places = instructions(&session, address(victim_branches as *const ()));
    session.insert_text(1, &point(places[2], 1, "", EXPRESS));
    let twice = point(places[2], 1, "", "exit") + &point(places[2] + 1, 2, "", "exit");
    assert!(insert_as(&session, Insertion::Replace, &object(1, &twice)).is_err());
    let wrong = point(places[2], 1, "opcode = 0xcc", "exit");
    assert!(insert_as(&session, Insertion::Replace, &object(1, &wrong)).is_err());
    victim_branches(3, 9);
    assert_eq!(hits(&session.status()), [(1, 1)]);
}

#[test]
fn an_exhausted_probe_is_replaced_by_one_that_fires() {
    let session = session();
    let at = instructions(&session, address(victim_branches as *const ()))[1];
    session.insert_text(1, &point(at, 1, "max_hits = 1", LOGS));
    victim_branches(1, 1);
    session.reap();
    victim_branches(1, 1);
    assert_eq!(session.only_probe().state, State::Exhausted as u32);
    let last = insert_as(&session, Insertion::Replace, &object(1, &point(at, 1, "", LOGS))).unwrap();
    assert_eq!(hits(&last), [(1, 1)]);
    victim_branches(1, 1);
    assert_eq!(session.only_probe().hits, 1);
}

/// While threads run through a place, programs there replace each other: each hit is one of exactly one of them. Beside them is a probe that
/// came before them, or one that came after.
#[test]
fn no_hit_is_lost_and_none_is_counted_twice() {
    for neighbour in [None, Some(true), Some(false)] {
        let session = session();
        let at = instructions(&session, address(victim_branches as *const ()))[1];
        let other = || session.insert_text(2, &point(at, 1, "", LOGS));
        if neighbour == Some(true) {
            other();
        }
        session.insert_text(1, &point(at, 1, "", EXPRESS));
        if neighbour == Some(false) {
            other();
        }
        let (stop, calls, found) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        victim_branches(3, 9);
                        calls.fetch_add(1, Ordering::Relaxed);
                        // Whoever changes something waits until no thread is in a trap.
                        (0..1000).for_each(|_| std::hint::spin_loop());
                    }
                });
            }
            for round in 0..100 {
                let code = if round % 2 == 0 { LOGS } else { EXPRESS };
                let last = insert_as(&session, Insertion::Replace, &object(1, &point(at, 1, "", code))).unwrap();
                found.fetch_add(last[0].hits + last[0].missed, Ordering::Relaxed);
                let _ = session.records();
            }
            stop.store(true, Ordering::Relaxed);
        });
        let last = session.remove_program(1);
        let found = found.into_inner() + last[0].hits + last[0].missed;
        assert_eq!(found, calls.into_inner(), "beside {neighbour:?}");
    }
}

#[test]
fn a_part_counts_in_what_the_program_has() {
    let session = session();
    let places = instructions(&session, address(victim_branches as *const ()));
    session.insert_text(1, &point(places[1], 1, "", EXPRESS));
    let part = object(1, &point(places[2], 2, "", "inc lv, a\ninc lv, d\nabort"));
    insert_as(&session, Insertion::Merge, &part).unwrap();
    victim_branches(3, 9);
    assert_eq!(hits(&session.status()), [(1, 1), (2, 1)]);
    assert_eq!(session.variables(1, 4), [2, 0, 0, 1]);
    // It is one program: it goes as one, and a third part finds both.
    let third = object(1, &point(places[3], 3, "", EXPRESS));
    insert_as(&session, Insertion::Merge, &third).unwrap();
    victim_branches(3, 9);
    assert_eq!(session.variables(1, 1), [5]);
    assert_eq!(hits(&session.remove_program(1)), [(1, 2), (2, 2), (3, 1)]);
    assert_eq!(session.status(), []);
    victim_branches(3, 9);
    // And is replaced as one.
    session.insert_text(1, &point(places[1], 1, "", EXPRESS));
    insert_as(&session, Insertion::Merge, &part).unwrap();
    let last = insert_as(&session, Insertion::Replace, &third).unwrap();
    assert_eq!(hits(&last), [(1, 0), (2, 0)]);
    victim_branches(3, 9);
    assert_eq!(hits(&session.status()), [(3, 1)]);
}

#[test]
fn what_does_not_fit_is_not_merged() {
    let session = session();
    let places = instructions(&session, address(victim_branches as *const ()));
    let merge = |text: &str| {
        let object = rpn_asm::assemble("test.rpn", text, &rpn_asm::Options::default()).unwrap();
        insert_as(&session, Insertion::Merge, &object.object).unwrap_err()
    };
    let program = |header: &str, at: u64, minor: u16| {
        let head = "name = \"kernel\"\nmodtype = kernel\nmajor = 1\n";
        format!("{head}{header}\n{}", point(at, minor, "", "exit"))
    };
    let refused = |point, error| InsertError::Merge { point, error };
    assert_eq!(merge(&program("", places[2], 2)), InsertError::NotFound);
    let first = program("vars = a, b\nmap m = count, keys = 1", places[1], 1);
    let first = rpn_asm::assemble("test.rpn", &first, &rpn_asm::Options::default()).unwrap();
    session.insert(&first.object).unwrap();
    for (header, minor, point, error) in [
        ("vars = b", 2, None, MergeError::Variables),
        ("vars = a, b, c", 2, None, MergeError::Variables),
        ("map m = count", 2, None, MergeError::Maps),
        ("map n = count, keys = 1", 2, None, MergeError::Maps),
        ("suspended = yes", 2, None, MergeError::Groups),
        ("", 1, Some(0), MergeError::Minor),
    ] {
        assert_eq!(
            merge(&program(header, places[2], minor)),
            refused(point, error),
            "{header}"
        );
    }
    let there = merge(&program("vars = a", places[1], 2));
    assert_eq!(
        there,
        InsertError::Point {
            point: 0,
            address: places[1],
            error: PointError::Twice
        }
    );
    victim_branches(3, 9);
    assert_eq!(hits(&session.status()), [(1, 1)]);
}

#[test]
fn probes_are_taken_out_by_what_they_have() {
    let session = session();
    let places = instructions(&session, address(victim_branches as *const ()));
    let attributes = ["group = 1\ntype = 5", "group = 2\ntype = 5", "group = 2\ntype = 6"];
    let text: String = (1..)
        .zip(attributes)
        .map(|(minor, attributes)| point(places[usize::from(minor)], minor, attributes, EXPRESS))
        .collect();
    let groups = [(1, 5), (2, 5), (2, 6)];
    for (selection, stay) in [
        (Selection::Minor(2), [true, false, true]),
        (Selection::Group(2), [true, false, false]),
        (Selection::Type(5), [false, false, true]),
    ] {
        session.insert_text(1, &text);
        victim_branches(3, 9);
        session.disarm(b"kernel", 1, selection).unwrap();
        victim_branches(3, 9);
        for (probe, (stays, group)) in session.status().iter().zip(stay.iter().zip(groups)) {
            let state = if *stays { State::Armed } else { State::Disarmed };
            assert_eq!(probe.state, state as u32, "{selection:?}");
            assert_eq!(probe.hits, 1 + u64::from(*stays), "{selection:?}");
            assert_eq!((probe.group, probe.type_), group);
        }
        session.remove_program(1);
    }
    session.insert_text(1, &text);
    for absent in [Selection::Minor(9), Selection::Group(3), Selection::Type(2)] {
        assert_eq!(session.disarm(b"kernel", 1, absent), Err(RemoveError::NotFound));
    }
    assert_eq!(
        session.disarm(b"kernel", 2, Selection::Minor(1)),
        Err(RemoveError::NotFound)
    );
}
