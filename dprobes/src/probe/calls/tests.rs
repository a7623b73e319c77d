//! What is kept for calls: compared with a table that has no limits.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::calls::{Call, Calls};

const fn call(task: u64, frame: u64) -> Call {
    Call { task, frame, of: 7 }
}

#[test]
fn each_call_has_its_own() {
    let calls = Calls::new(4, 8).unwrap();
    assert!(calls.begin(call(100, 0x1000), &[1; 8]));
    assert!(calls.begin(call(100, 0xf00), &[2; 8]));
    // Another task, and another function of the same frame: one that jumps to the other.
    assert!(calls.begin(call(200, 0xf00), &[3; 8]));
    let other = Call {
        of: 8,
        ..call(100, 0xf00)
    };
    assert!(calls.begin(other, &[4; 8]));
    assert_eq!(calls.end(call(100, 0xf00)), Some([2; 8]));
    assert_eq!(calls.end(call(100, 0xf00)), None);
    assert_eq!(calls.end(other), Some([4; 8]));
    assert_eq!(calls.end(call(200, 0xf00)), Some([3; 8]));
    assert_eq!(calls.end(call(100, 0x1000)), Some([1; 8]));
    // What no task is called finds nobody.
    assert_eq!((calls.end(call(0, 0)), calls.end(call(1, 0))), (None, None));
}

#[test]
fn calls_that_never_return_give_their_places_back() {
    let calls = Calls::new(1, 4).unwrap();
    for round in 1..100_u64 {
        // Four deep, and left from the innermost.
        for frame in [0x1000, 0xf00, 0xe00, 0xd00] {
            assert!(calls.begin(call(100, frame), &[round; 8]));
        }
        assert!(!calls.begin(call(100, 0xc00), &[0; 8]), "it is full");
        assert!(!calls.begin(call(200, 0x1000), &[0; 8]), "for others too");
        assert_eq!(calls.end(call(100, 0xe00)), Some([round; 8]));
        assert!(calls.begin(call(100, 0xe00), &[round; 8]), "what was below is over");
    }
    calls.task_ended(100);
    for frame in [0x1000, 0xf00, 0xe00, 0xd00] {
        assert!(calls.begin(call(200, frame), &[5; 8]));
        assert_eq!(calls.end(call(100, frame)), None);
    }
}

/// A small generator of numbers (xorshift).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn as_a_table_without_limits() {
    let calls = Calls::new(8, 16).unwrap();
    let mut model: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    let (mut state, mut lost) = (0x1234_5678_9abc_def1, 0);
    for round in 0..200_000_u64 {
        let task = 0xffff_8880_0000_0000 + next(&mut state) % 40 * 64;
        let stack = model.entry(task).or_default();
        match next(&mut state) % 5 {
            0 | 1 if stack.len() < 12 => {
                let frame = stack.last().map_or(0x8000, |(frame, _)| frame - 16);
                if calls.begin(call(task, frame), &[round; 8]) {
                    stack.push((frame, round));
                } else {
                    lost += 1;
                }
            }
            2 | 3 => {
                if let Some((frame, kept)) = stack.pop() {
                    assert_eq!(calls.end(call(task, frame)), Some([kept; 8]));
                }
            }
            _ if next(&mut state).is_multiple_of(50) => {
                calls.task_ended(task);
                stack.clear();
            }
            _ => {}
        }
    }
    assert!(lost > 0, "windows are shared");
    for (task, stack) in &model {
        for (frame, kept) in stack.iter().rev() {
            assert_eq!(calls.end(call(*task, *frame)), Some([*kept; 8]));
        }
    }
}
