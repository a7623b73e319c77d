//! Many threads hit while probes come and go.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::support::{Session, address, instructions, point, session, session_with};
use crate::victims::*;

const THREADS: u64 = 4;
const HITS: u64 = 100_000;

/// What the churned program adds to RAX each time it runs.
const MARK: u64 = 1 << 32;

/// Runs the victim on all threads, with one probe that stays at `steady` and one that comes and goes at `churned`, `rounds` times; counts must be
/// exact and results as expected.
fn churn(session: &Session, rounds: u32, steady: u64, churned: u64) {
    let code = "inc lv, a\nabort";
    session.insert_text(1, &point(steady, 1, "", code));
    let running = AtomicBool::new(true);
    let marks = AtomicU64::new(0);
    let calls = AtomicU64::new(0);
    let counted = thread::scope(|scope| {
        let worker = || {
            let mut n = 0;
            // At least as many as wanted, and as long as probes come and go.
            while n < HITS || running.load(Ordering::Relaxed) {
                let result = victim_add(n, 5);
                assert_eq!(result % MARK, n + 6);
                marks.fetch_add(result / MARK, Ordering::Relaxed);
                n += 1;
                if n % 16 == 0 {
                    // Shorter turns: inserting and removing waits until each thread has had one.
                    thread::yield_now();
                }
            }
            calls.fetch_add(n, Ordering::Relaxed);
        };
        for _ in 0..THREADS {
            scope.spawn(worker);
        }
        let mut counted = 0;
        for _ in 0..rounds {
            session.insert_text(
                2,
                &point(
                    churned,
                    2,
                    "",
                    "inc lv, a\npush r, rax\npush 0x100000000\nadd\npop r, rax\nabort",
                ),
            );
            thread::yield_now();
            for probe in session.remove_program(2) {
                assert_eq!((probe.missed, probe.faulted, probe.late, probe.skipped), (0, 0, 0, 0));
                counted += probe.hits;
            }
        }
        running.store(false, Ordering::Relaxed);
        counted
    });
    let probe = session.only_probe();
    let calls = calls.into_inner();
    assert!(calls >= THREADS * HITS);
    assert_eq!(probe.hits, calls);
    assert_eq!((probe.missed, probe.faulted, probe.late, probe.skipped), (0, 0, 0, 0));
    assert_eq!(session.variables(1, 1), [calls]);
    assert_eq!(marks.into_inner(), counted);
    assert!(counted > 0);
    assert_eq!(victim_add(1, 2), 4);
}

/// The entry is probed all the time, the middle now and then.
#[test]
fn exact_counts_while_another_probe_comes_and_goes() {
    let session = session();
    let places = instructions(&session, address(victim_add as *const ()));
    churn(&session, 1_000, places[0], places[1]);
}

/// Both programs at one address: the second of them comes and goes.
#[test]
fn exact_counts_while_another_program_comes_and_goes_at_the_same_address() {
    let session = session();
    let places = instructions(&session, address(victim_add as *const ()));
    churn(&session, 100, places[1], places[1]);
}

/// An emulated instruction, and more threads than the engine has CPUs.
#[test]
fn exact_counts_with_more_threads_than_cpus() {
    let session = session_with(|process| process.with_cpus(2));
    let places = instructions(&session, address(victim_add as *const ()));
    churn(&session, 100, places[0], places[2]);
}

#[test]
fn every_thread_has_its_own_records() {
    let session = session();
    session.insert_text(
        1,
        &point(address(victim_add as *const ()), 1, "", "push r, rdi\nlog 1\nexit"),
    );
    let tids: Vec<u32> = thread::scope(|scope| {
        let thread = |index: u64| {
            scope.spawn(move || {
                (0..100).for_each(|n| assert_eq!(victim_add(index << 32 | n, 0), (index << 32 | n) + 1));
                // SAFETY: the call has no preconditions.
                unsafe { libc::gettid() as u32 }
            })
        };
        let threads: Vec<_> = (0..8).map(thread).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let records = session.records();
    for (index, tid) in (0..).zip(tids) {
        let of_thread = records.iter().filter(|record| record.words()[0] >> 32 == index);
        let mut seen: Vec<_> = of_thread
            .map(|record| (record.header.time, record.words()[0], record.header.tid))
            .collect();
        // A thread keeps its CPU if it can, but need not.
        seen.sort_unstable();
        assert_eq!(
            seen.iter().map(|(_, word, _)| *word).collect::<Vec<_>>(),
            (0..100).map(|n| index << 32 | n).collect::<Vec<_>>()
        );
        assert!(seen.iter().all(|(_, _, logged)| *logged == tid));
    }
}
