//! An average that is read while it is written: every way in which a reader's loads can fall between a writer's stores.
//!
//! The file under test is compiled here a second time, with atomics that ask a schedule where they are. On x86-64 loads are carried
//! out in order, and the stores of a CPU are seen in order (SDM volume 3, 9.2.2): each load finds memory as it was after some store, and no
//! later load finds it as it was before. So all non-descending sequences of such moments are all there is. A writer that is
//! interrupted is one of them: moments that do not go on.

#[path = "../src/aggregate/average.rs"]
mod average;

mod sync {
    use std::cell::RefCell;

    pub(super) use core::sync::atomic::{Ordering, fence};

    /// The word of this number.
    pub(super) struct AtomicU64(pub(super) usize);

    type Words = [u64; super::average::WORDS];

    #[derive(Default)]
    pub(super) struct Schedule {
        /// Memory after each store; first as it was before all.
        pub(super) moments: Vec<Words>,
        /// While something is read: how many moments each load goes on, and how many it could.
        pub(super) steps: Option<Vec<(usize, usize)>>,
        /// The moment of the last load, and how many loads there were.
        pub(super) at: usize,
        pub(super) loads: usize,
    }

    thread_local! {
        pub(super) static SCHEDULE: RefCell<Schedule> = RefCell::default();
    }

    impl AtomicU64 {
        pub(super) fn load(&self, _: Ordering) -> u64 {
            SCHEDULE.with_borrow_mut(|schedule| {
                let last = schedule.moments.len() - 1;
                let Some(steps) = &mut schedule.steps else {
                    return schedule.moments[last][self.0];
                };
                if schedule.loads == steps.len() {
                    steps.push((0, last - schedule.at));
                }
                schedule.at += steps[schedule.loads].0;
                schedule.loads += 1;
                schedule.moments[schedule.at][self.0]
            })
        }

        pub(super) fn store(&self, value: u64, _: Ordering) {
            SCHEDULE.with_borrow_mut(|schedule| {
                assert!(schedule.steps.is_none(), "a reader changes nothing");
                let mut words = *schedule.moments.last().unwrap();
                words[self.0] = value;
                schedule.moments.push(words);
            });
        }
    }
}

use sync::{AtomicU64, SCHEDULE};

/// Has the values added, and reads at all moments. `check` is shown what each reading found, and how many updates were complete when it
/// began and when it ended. Returns how many readings there were.
fn explore(values: &[i64], attempts: u32, check: impl Fn(Option<(u64, i128)>, usize, usize)) -> usize {
    let words: [AtomicU64; average::WORDS] = std::array::from_fn(AtomicU64);
    SCHEDULE.with_borrow_mut(|schedule| schedule.moments = vec![[0; average::WORDS]]);
    let moments = || SCHEDULE.with_borrow(|schedule| schedule.moments.len() - 1);
    let ends: Vec<usize> = values
        .iter()
        .map(|value| {
            average::add(&words, *value);
            moments()
        })
        .collect();
    let complete = |at| ends.iter().filter(|end| **end <= at).count();
    let mut steps: Vec<(usize, usize)> = Vec::new();
    let mut readings = 0;
    loop {
        SCHEDULE.with_borrow_mut(|schedule| {
            (schedule.at, schedule.loads) = (0, 0);
            schedule.steps = Some(core::mem::take(&mut steps));
        });
        let found = average::read(&words, attempts);
        let at = SCHEDULE.with_borrow_mut(|schedule| {
            steps = schedule.steps.take().unwrap();
            schedule.at
        });
        readings += 1;
        check(found, complete(steps[0].0), complete(at));
        // The next schedule: the last load that can go on later does.
        while let Some((step, most)) = steps.pop() {
            if step < most {
                steps.push((step + 1, most));
                break;
            }
        }
        if steps.is_empty() {
            return readings;
        }
    }
}

/// Their sums differ in both halves, so that halves of two of them are told apart.
const VALUES: &[i64] = &[i64::MIN, i64::MIN + 1, -7, i64::MAX];

#[test]
fn what_is_read_was_there_at_some_moment_of_the_reading() {
    let readings = explore(VALUES, 1, |found, begun, ended| {
        let Some((count, sum)) = found else { return };
        assert!(
            (begun..=ended).contains(&(count as usize)),
            "{count} of {begun} to {ended}"
        );
        let expected: i128 = VALUES[..count as usize].iter().map(|value| i128::from(*value)).sum();
        assert_eq!(sum, expected, "after {count} updates");
    });
    // 17 moments for each of 5 loads.
    assert_eq!(readings, 20_349);
}

/// Each attempt that fails has seen the writer go on: with one attempt more than there are updates a reader succeeds, wherever the writer
/// stops, for however long.
#[test]
fn a_reader_waits_for_nobody() {
    for updates in 1..=2 {
        let values = &VALUES[..updates];
        let readings = explore(values, updates as u32 + 1, |found, _, _| assert!(found.is_some()));
        assert!(readings > 100);
        let gave_up = std::cell::Cell::new(0);
        explore(values, updates as u32, |found, _, _| {
            gave_up.set(gave_up.get() + u32::from(found.is_none()))
        });
        assert!(gave_up.get() > 0, "fewer attempts were enough for {updates}");
    }
    const { assert!(average::ATTEMPTS > 2, "more than the updates that come in between") };
}
