//! Halting: every hit does nothing but carry its instruction out, until everything is removed.

use dprobes::probe::Selection;
use dprobes::wire::State;

use crate::support::{address, instructions, point, session};
use crate::victims::*;

const COUNTS: &str = "inc lv, a\nabort";
const LOGS: &str = "inc lv, b\npush 1\nlog 1\nexit";

#[test]
fn halted_hits_are_suspended_and_carried_out() {
    let session = session();
    let expected = victim_branches(3, 9);
    let start = instructions(&session, address(victim_branches as *const ()))[1];
    session.insert_text(1, &point(start, 1, "", COUNTS));
    assert_eq!(victim_branches(3, 9), expected);
    session.halt();
    assert_eq!(victim_branches(3, 9), expected);
    // What comes now is halted as well, and goes the long way.
    session.insert_text(2, &point(start, 1, "max_hits = 1", LOGS));
    for _ in 0..10 {
        assert_eq!(victim_branches(3, 9), expected);
    }
    let probes = session.status();
    assert_eq!((probes[0].hits, probes[0].suspended), (1, 11));
    assert_eq!((probes[1].hits, probes[1].suspended), (0, 10));
    assert_eq!(probes[1].state, State::Armed as u32);
    assert_eq!(
        (session.variables(1, 1), session.variables(2, 2)),
        (vec![1], vec![0, 0])
    );
    assert!(session.records().is_empty());
    session.remove_all().unwrap();
    assert_eq!(session.status(), []);
    // From then on it is as if nothing had been.
    session.insert_text(1, &point(start, 1, "", COUNTS));
    assert_eq!(victim_branches(3, 9), expected);
    assert_eq!(session.variables(1, 1), [1]);
}

#[test]
fn a_program_that_goes_alone_does_not_end_it() {
    let session = session();
    let at = instructions(&session, address(victim_branches as *const ()))[1];
    session.insert_text(1, &point(at, 1, "", COUNTS));
    session.halt();
    // Twice is as once.
    session.halt();
    victim_branches(1, 1);
    session.remove_program(1);
    session.insert_text(1, &point(at, 1, "", COUNTS));
    victim_branches(1, 1);
    // A program that goes alone does not end it: others may be there.
    assert_eq!(session.only_probe().suspended, 1);
    session.remove_all().unwrap();
}

#[test]
fn what_was_disarmed_keeps_what_it_has() {
    let session = session();
    let at = instructions(&session, address(victim_branches as *const ()))[1];
    session.insert_text(1, &point(at, 1, "", COUNTS));
    victim_branches(1, 1);
    session.disarm(b"kernel", 1, Selection::All).unwrap();
    victim_branches(1, 1);
    session.insert_text(2, &point(at, 1, "", COUNTS));
    victim_branches(1, 1);
    let probes = session.status();
    assert_eq!((probes[0].state, probes[0].hits), (State::Disarmed as u32, 1));
    assert_eq!(probes[1].hits, 1);
    assert_eq!(session.variables(1, 1), [1]);
    // Twice is as once.
    session.disarm(b"kernel", 1, Selection::All).unwrap();
    assert_eq!(session.remove_program(1)[0].hits, 1);
    victim_branches(1, 1);
    assert_eq!(session.only_probe().hits, 2);
}
