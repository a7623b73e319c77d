//! Sorting in little stack.
//!
//! The standard library's unstable sort calls itself, with arrays of up to 4 KiB in each call; a kernel's whole stack has 16 KiB. This is a
//! heap sort: in place, without recursion, never worse than n log n, and n where the order is right already.

use core::cmp::Ordering;

/// Sorts by a key. Elements with equal keys may change places.
pub(crate) fn by_key<T, K: Ord>(slice: &mut [T], key: impl Fn(&T) -> K) {
    by(slice, |one, other| key(one).cmp(&key(other)));
}

/// Sorts by a comparison. Equal elements may change places.
pub(crate) fn by<T>(slice: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let less = |one: &T, other: &T| compare(one, other).is_lt();
    if slice.is_sorted_by(|one, next| !less(next, one)) {
        return;
    }
    for root in (0..slice.len() / 2).rev() {
        sift_down(slice, root, &less);
    }
    for end in (1..slice.len()).rev() {
        slice.swap(0, end);
        if let Some(heap) = slice.get_mut(..end) {
            sift_down(heap, 0, &less);
        }
    }
}

/// Takes an element down to where its children are not greater.
fn sift_down<T>(heap: &mut [T], mut root: usize, less: &impl Fn(&T, &T) -> bool) {
    loop {
        let left = 2 * root + 1;
        let child = match (heap.get(left), heap.get(left + 1)) {
            (Some(one), Some(other)) if less(one, other) => left + 1,
            (Some(_), _) => left,
            (None, _) => return,
        };
        match (heap.get(root), heap.get(child)) {
            (Some(parent), Some(greater)) if less(parent, greater) => heap.swap(root, child),
            _ => return,
        }
        root = child;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::by_key;

    proptest! {
        #[test]
        fn it_sorts_as_the_standard_library_does(mut values: Vec<u16>) {
            let mut expected = values.clone();
            expected.sort_unstable();
            by_key(&mut values, |value| *value);
            prop_assert_eq!(values, expected);
        }
    }

    #[test]
    fn it_sorts_many_in_any_order() {
        for multiplier in [1, 7, 49_999, 25_013] {
            let mut values = Vec::from_iter((0..50_000_u64).map(|n| (n * multiplier % 50_000, n)));
            by_key(&mut values, |(value, _)| *value);
            assert!(
                values
                    .iter()
                    .enumerate()
                    .all(|(index, (value, _))| index as u64 == *value)
            );
        }
    }
}
