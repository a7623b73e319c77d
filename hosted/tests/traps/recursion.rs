//! A hit inside a hit is counted and does nothing.

use std::cell::Cell;

use crate::support::{address, point, session_with};
use crate::victims::*;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The clock of the host, and so a part of every hit that leaves a record.
#[inline(never)]
pub fn clock() -> u64 {
    CALLS.set(CALLS.get() + 1);
    victim_branches(CALLS.get(), 3)
}

#[test]
fn hits_inside_a_hit_are_counted_as_missed() {
    let session = session_with(|process| process.with_clock(clock));
    let inner = address(victim_branches as *const ());
    let outer = address(victim_add as *const ());
    // At the start, behind `endbr64`: copied. The last instruction: emulated.
    let places = crate::support::instructions(&session, inner);
    let (first, last) = (places[1], *places.last().unwrap());
    let code = "inc lv, a\npush r, rip\nlog 1\nexit";
    session.insert_text(1, &(point(first, 1, "", code) + &point(last, 2, "", code)));
    session.insert_text(2, &point(outer, 3, "", code));
    let expected: Vec<u64> = (0..100).map(|n| n + 3).collect();
    CALLS.set(0);
    let results: Vec<u64> = (0..100).map(|n| victim_add(n, 2)).collect();
    assert_eq!(results, expected);
    assert_eq!(CALLS.get(), 100);
    let status = session.status();
    for inner in &status[..2] {
        assert_eq!((inner.hits, inner.missed), (0, 100), "{inner:?}");
    }
    assert_eq!((status[2].hits, status[2].missed), (100, 0));
    assert_eq!(session.records().len(), 100);

    // Outside a hit they are hits as any others: each of them calls the clock, where both are missed again.
    victim_branches(1, 3);
    let status = session.status();
    for inner in &status[..2] {
        assert_eq!((inner.hits, inner.missed), (1, 102), "{inner:?}");
    }
    assert_eq!(session.variables(1, 1), [2]);
}
