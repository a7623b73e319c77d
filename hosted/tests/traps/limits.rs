//! pass_count, max_hits, remove, full rings: nothing is lost uncounted.

use std::thread;

use dprobes::host::Host as _;
use dprobes::wire::State;

use crate::support::{address, point, session, session_with};
use crate::victims::*;

#[test]
fn pass_count_and_max_hits_are_exact_on_many_threads() {
    let session = session();
    let at = address(victim_add as *const ());
    session.insert_text(
        1,
        &point(at, 1, "pass_count = 1000\nmax_hits = 5000", "inc lv, a\nabort"),
    );
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5000).for_each(|n| assert_eq!(victim_add(n, 1), n + 2)));
        }
    });
    let probe = session.only_probe();
    assert_eq!((probe.skipped, probe.hits, probe.late), (1000, 5000, 14_000));
    assert_eq!(probe.state, State::Exhausted as u32);
    assert_eq!(session.variables(1, 1), [5000]);

    session.reap_if_requested();
    victim_add(1, 1);
    assert_eq!(session.only_probe().late, 14_000, "the breakpoint is out");
    let mut byte = [0];
    session.host().read(at, &mut byte).unwrap();
    assert_ne!(byte[0], 0xcc);
}

#[test]
fn a_program_removes_its_probe_once() {
    let session = session();
    session.insert_text(
        1,
        &point(address(victim_add as *const ()), 1, "", "push r, rdi\nlog 1\nremove"),
    );
    thread::scope(|scope| {
        for n in 0..4 {
            scope.spawn(move || (0..100).for_each(|_| assert_eq!(victim_add(n, 1), n + 2)));
        }
    });
    assert_eq!(session.records().len(), 1);
    let probe = session.only_probe();
    assert_eq!(probe.state, State::RemovedItself as u32);
    // Programs on other CPUs may have been under way.
    assert!((1..=4).contains(&probe.hits), "{}", probe.hits);
    assert_eq!(probe.hits + probe.late, 400);
    assert!(session.host().take_reap_request());
    session.reap();
    victim_add(1, 1);
    assert_eq!(session.only_probe().late, probe.late);
}

#[test]
fn the_last_hit_that_is_wanted_may_remove_its_probe() {
    let session = session();
    let at = address(victim_add as *const ());
    session.insert_text(1, &point(at, 1, "max_hits = 1", "push r, rdi\nlog 1\nremove"));
    assert_eq!(victim_add(5, 1), 7);
    let records = session.records();
    assert_eq!(records.len(), 1, "the record of the hit is there");
    assert_eq!(records[0].words(), [5]);
    let probe = session.only_probe();
    assert_eq!(
        (probe.state, probe.hits, probe.late),
        (State::RemovedItself as u32, 1, 0)
    );
}

#[test]
fn lost_records_are_counted_exactly() {
    const HITS: u64 = 20_000;
    let session = session_with(|process| process.with_cpus(1));
    session.insert_text(
        1,
        &point(address(victim_add as *const ()), 1, "", "push r, rdi\nlog 1\nexit"),
    );
    (0..HITS).for_each(|n| assert_eq!(victim_add(n, 1), n + 2));
    let lost = session.only_probe().lost;
    assert!(lost > 0 && lost < HITS);
    let records = session.records();
    let kept: Vec<u64> = records
        .iter()
        .filter(|record| record.lost().is_none())
        .map(|record| record.words()[0])
        .collect();
    // What came first is kept, in order, and nothing is there twice.
    assert_eq!(kept, (0..HITS - lost).collect::<Vec<_>>());
    assert_eq!(records.iter().filter_map(hosted::Record::lost).sum::<u64>(), lost);

    // There is room again.
    victim_add(5, 5);
    let records = session.records();
    assert_eq!(records.iter().map(|record| record.words()).collect::<Vec<_>>(), [[5]]);
    assert_eq!(session.only_probe().lost, lost);
}

#[test]
fn lost_records_are_counted_exactly_on_many_threads() {
    let session = session_with(|process| process.with_cpus(2));
    session.insert_text(
        1,
        &point(address(victim_add as *const ()), 1, "", "push r, rdi\nlog 1\nexit"),
    );
    let read = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..20_000).for_each(|n| {
                        victim_add(n, 1);
                    })
                })
            })
            .collect();
        let mut read = Vec::new();
        while !workers.iter().all(|worker| worker.is_finished()) {
            read.extend(session.records());
        }
        read
    });
    let mut all = read;
    all.extend(session.records());
    let kept = all.iter().filter(|record| record.lost().is_none()).count() as u64;
    let told: u64 = all.iter().filter_map(hosted::Record::lost).sum();
    let probe = session.only_probe();
    assert_eq!((probe.hits, probe.lost), (80_000, told));
    assert_eq!(kept + told, 80_000);
}
