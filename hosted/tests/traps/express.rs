//! A handler that is one addition goes a shorter way through the engine. What it counts is what it counts on the long one.

use crate::recursion::clock;
use crate::support::{Session, address, instructions, object, point, session, session_with};
use crate::victims::*;

const COUNTS: &str = "inc lv, a\nabort";
/// Does the same, but a limit has to be looked at in every hit.
const LIMITED: &str = "max_hits = 1000000000";

fn run() -> Vec<u64> {
    (0..50)
        .flat_map(|n| [victim_branches(n, n * 3), victim_flags(n, 7), victim_arithmetic(n, 5)])
        .collect()
}

/// The hits of every probe and the program's variable, with a counting probe on every instruction of some victims.
fn counted(attributes: &str) -> (Vec<u64>, Vec<u64>, u64) {
    let session = session();
    let victims = [
        victim_branches as *const (),
        victim_callee as *const (),
        victim_tail as *const (),
        victim_flags as *const (),
        victim_arithmetic as *const (),
    ];
    let mut places: Vec<u64> = victims
        .iter()
        .flat_map(|victim| instructions(&session, address(*victim)))
        .collect();
    // `endbr64` moves its probe to the next instruction.
    places.remove(0);
    places.retain(|place| {
        let insertable = session.insert(&object(9, &point(*place, 1, "", COUNTS))).is_ok();
        if insertable {
            session.remove_program(9);
        }
        insertable
    });
    let points: String = places
        .iter()
        .map(|place| point(*place, 1, attributes, COUNTS))
        .collect();
    session.insert_text(1, &points);
    let results = run();
    let hits = session.status().iter().map(|probe| probe.hits).collect();
    let sum = session.variables(1, 1)[0];
    session.remove_program(1);
    (results, hits, sum)
}

#[test]
fn both_ways_do_and_count_the_same() {
    let bare = {
        // The probes of other tests are not to count it.
        let _session = session();
        run()
    };
    let (short, long) = (counted(""), counted(LIMITED));
    assert_eq!(short.0, bare);
    assert_eq!(short, long);
    assert_eq!(short.1.iter().sum::<u64>(), short.2);
}

#[test]
fn inside_a_hit_it_is_missed() {
    let session = session_with(|process| process.with_clock(clock));
    let inner = instructions(&session, address(victim_branches as *const ()))[1];
    session.insert_text(1, &point(inner, 1, "", COUNTS));
    session.insert_text(
        2,
        &point(address(victim_add as *const ()), 1, "", "push 1\nlog 1\nexit"),
    );
    for n in 0..20 {
        victim_add(n, 1);
    }
    let status = session.status();
    assert_eq!((status[0].hits, status[0].missed), (0, 20));
    assert_eq!(session.variables(1, 1), [0]);
    victim_branches(0, 0);
    assert_eq!((session.status()[0].hits, session.variables(1, 1)), (1, vec![1]));
}

/// Programs come to a site and go from it, which changes the way of those that stay.
#[test]
fn every_program_at_the_site_counts_whoever_came_first() {
    let session = session();
    let place = address(victim_add as *const ());
    let hit = |session: &Session| {
        victim_add(1, 2);
        session.status().iter().map(|probe| probe.hits).collect::<Vec<_>>()
    };
    session.insert_text(1, &point(place, 1, "", COUNTS));
    assert_eq!(hit(&session), [1]);
    session.insert_text(2, &point(place, 1, "", COUNTS));
    assert_eq!(hit(&session), [2, 1]);
    session.remove_program(1);
    assert_eq!(hit(&session), [2]);
    session.insert_text(3, &point(place, 1, "pass_count = 1", "inc lv, b\nabort"));
    assert_eq!(hit(&session), [3, 0]);
    assert_eq!(hit(&session), [4, 1]);
    session.remove_program(2);
    assert_eq!(hit(&session), [2]);
    assert_eq!(session.variables(3, 2), [0, 2]);
}

/// A program that is suspended by another of its handlers must be asked in every hit.
#[test]
fn a_suspended_group_does_not_count() {
    let session = session();
    let stop = address(victim_add as *const ());
    let counts = address(victim_callee as *const ());
    let text = point(counts, 1, "group = 5", COUNTS) + &point(stop, 2, "group = 6", "suspend 5\nabort");
    session.insert_text(1, &text);
    victim_callee(1, 1);
    victim_add(1, 1);
    victim_callee(1, 1);
    let status = session.status();
    assert_eq!((status[0].hits, status[0].suspended), (1, 1), "{:?}", status[0]);
}
