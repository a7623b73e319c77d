//! Maps against a model, at their borders, and between threads.

extern crate std;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::vec::Vec;
use std::{thread, vec};

use proptest::prelude::*;

use super::spec::log2_bucket;
use super::*;

const SEED: u64 = 0x5eed_5eed_5eed_5eed;

fn spec(kind: Kind, keys: u32, entries: u32) -> Spec {
    Spec::new(kind, keys, entries).unwrap()
}

fn linear(min: i64, max: i64, step: u64) -> Kind {
    Kind::Linear(Linear::new(min, max, step).unwrap())
}

/// The words of all entries: keys and values.
fn entries(map: &Map) -> Vec<(Vec<u64>, Vec<u64>)> {
    let size = map.spec().entry_bytes();
    let mut out = vec![0xa5; size * 4096];
    let reading = map.read(None, &mut out).unwrap();
    assert_eq!(reading.left, 0);
    out.truncate(size * reading.count);
    decode(map.spec(), &out)
}

fn decode(spec: &Spec, bytes: &[u8]) -> Vec<(Vec<u64>, Vec<u64>)> {
    let words = |bytes: &[u8]| -> Vec<u64> {
        bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word))
            .collect()
    };
    let entry = |entry: &[u8]| (words(&entry[..spec.keys() * 8]), words(&entry[spec.keys() * 8..]));
    bytes.chunks(spec.entry_bytes()).map(entry).collect()
}

/// The obvious map: every value of every key, on each CPU.
struct Model {
    spec: Spec,
    cpus: Vec<BTreeMap<Vec<u64>, Vec<i64>>>,
    dropped: u64,
}

impl Model {
    fn new(spec: Spec, cpus: usize) -> Self {
        Model {
            spec,
            cpus: vec![BTreeMap::new(); cpus],
            dropped: 0,
        }
    }

    fn update(&mut self, cpu: usize, keys: &[u64], value: u64) {
        let table = &mut self.cpus[cpu];
        let room = if keys.is_empty() {
            1
        } else {
            self.spec.entries() as usize
        };
        if table.contains_key(keys) || table.len() < room {
            table.entry(keys.to_vec()).or_default().push(value.cast_signed());
        } else {
            self.dropped += 1;
        }
    }

    fn entries(&self) -> Vec<(Vec<u64>, Vec<u64>)> {
        let mut merged: BTreeMap<Vec<u64>, Vec<i64>> = BTreeMap::new();
        for (keys, values) in self.cpus.iter().flatten() {
            merged.entry(keys.clone()).or_default().extend(values);
        }
        let all = merged.into_iter();
        all.map(|(keys, values)| (keys, self.value(&values))).collect()
    }

    fn value(&self, values: &[i64]) -> Vec<u64> {
        let sum: i128 = values.iter().map(|value| i128::from(*value)).sum();
        let histogram = |ranges: &[std::ops::RangeInclusive<i128>]| {
            let inside = |range: &std::ops::RangeInclusive<i128>| {
                values
                    .iter()
                    .filter(|value| range.contains(&i128::from(**value)))
                    .count() as u64
            };
            ranges.iter().map(inside).collect()
        };
        let (lowest, highest) = (i128::from(i64::MIN), i128::from(i64::MAX));
        match self.spec.kind() {
            Kind::Count => vec![values.len() as u64],
            Kind::Sum => vec![sum as u64],
            Kind::Min => vec![values.iter().min().unwrap().cast_unsigned()],
            Kind::Max => vec![values.iter().max().unwrap().cast_unsigned()],
            Kind::Avg => vec![values.len() as u64, sum as u64, (sum >> 64) as u64],
            Kind::Log2 => {
                let powers = (0..63).map(|power| 1 << power..=(2 << power) - 1);
                histogram(&[lowest..=-1, 0..=0].into_iter().chain(powers).collect::<Vec<_>>())
            }
            Kind::Linear(linear) => {
                let (min, step) = (i128::from(linear.min()), i128::from(linear.step()));
                let ranges = (0..linear.buckets() as i128).map(|n| min + n * step..=min + (n + 1) * step - 1);
                let end = min + linear.buckets() as i128 * step;
                let mut all = vec![lowest..=min - 1];
                all.extend(ranges);
                all.push(end..=highest);
                histogram(&all)
            }
        }
    }
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let step = prop_oneof![
        1..50i64,
        any::<i64>().prop_map(|step| (step >> 11).unsigned_abs().cast_signed().max(1))
    ];
    let linear = (any_value(), step, 1..40i64).prop_filter_map("ranges", |(min, step, buckets)| {
        let max = min.cast_signed().checked_add(step.checked_mul(buckets)?)?;
        Some(Kind::Linear(
            Linear::new(min.cast_signed(), max, step.unsigned_abs()).unwrap(),
        ))
    });
    prop_oneof![
        Just(Kind::Count),
        Just(Kind::Sum),
        Just(Kind::Min),
        Just(Kind::Max),
        Just(Kind::Avg),
        Just(Kind::Log2),
        linear,
    ]
}

fn any_value() -> impl Strategy<Value = u64> {
    let border = (0..64u32, -1..=1i64).prop_map(|(bit, off)| (1u64 << bit).wrapping_add_signed(off));
    prop_oneof![any::<u64>(), border, (-20..20i64).prop_map(i64::cast_unsigned)]
}

proptest! {
    #[test]
    fn a_map_is_its_model(
        kind in any_kind(),
        keys in 0..=4usize,
        entries_max in prop_oneof![1..6u32, 1..200u32],
        updates in proptest::collection::vec((0..3usize, proptest::array::uniform4(0..4u64), any_value()), 0..400),
        wide: bool,
        seed: u64,
        room in 0..20usize,
    ) {
        let spec = spec(kind, keys as u32, entries_max);
        let map = Map::new(spec, 3, seed).unwrap();
        let mut model = Model::new(spec, 3);
        for (cpu, chosen, value) in updates {
            let chosen = chosen.map(|key| if wide { key.wrapping_mul(0x1000_0000_0000_0001) } else { key });
            map.update(cpu, &chosen[..keys], value);
            model.update(cpu, &chosen[..keys], value);
        }
        let expected = model.entries();
        prop_assert_eq!(entries(&map), &*expected);
        prop_assert_eq!(map.dropped(), model.dropped);

        // Page by page it is the same.
        let mut pages = Vec::new();
        let mut out = vec![0; room * spec.entry_bytes() + 7];
        loop {
            let after = pages.last().map(|(keys, _): &(Vec<u64>, _)| &**keys);
            let reading = map.read(after, &mut out).unwrap();
            prop_assert_eq!(reading.count + reading.left, expected.len() - pages.len());
            prop_assert_eq!(reading.count, room.min(expected.len() - pages.len()));
            pages.extend(decode(&spec, &out[..reading.count * spec.entry_bytes()]));
            if reading.count == 0 || reading.left == 0 {
                break;
            }
        }
        prop_assert!(pages.len() == expected.len() || room == 0);
        prop_assert!(room == 0 || pages == expected);
    }

    #[test]
    fn a_bucket_is_the_quotient(kind in any_kind(), value in any_value()) {
        let value = value.cast_signed();
        if let Kind::Linear(linear) = kind {
            let distance = i128::from(value) - i128::from(linear.min());
            let expected = match distance {
                ..0 => 0,
                _ => (distance / i128::from(linear.step())).min(linear.buckets() as i128) + 1,
            };
            prop_assert_eq!(linear.bucket(value) as i128, expected);
        }
    }

    #[test]
    fn ranges_are_accepted_exactly_if_they_are_right(min: i64, max: i64, step in prop_oneof![any::<u64>(), 0..2000u64], near: bool) {
        let max = if near { min.saturating_add(max % 4096) } else { max };
        let (wide, exact) = (i128::from(max) - i128::from(min), i128::from(step));
        let right = wide > 0 && exact > 0 && wide % exact == 0 && wide / exact <= 1024;
        let linear = Linear::new(min, max, step);
        prop_assert_eq!(linear.is_ok(), right);
        if let Ok(linear) = linear {
            prop_assert_eq!((linear.min(), linear.max(), linear.step()), (min, max, step));
            prop_assert_eq!(linear.buckets() as i128, wide / exact);
        }
    }
}

#[test]
fn powers_of_two_have_their_buckets() {
    assert_eq!(log2_bucket(i64::MIN), 0);
    assert_eq!(log2_bucket(-1), 0);
    assert_eq!(log2_bucket(0), 1);
    for power in 0..63 {
        let first = 1_i64 << power;
        assert_eq!(log2_bucket(first), power + 2);
        assert_eq!(log2_bucket(first + (first - 1)), power + 2);
    }
    assert_eq!(log2_bucket(i64::MAX), LOG2_BUCKETS - 1);
}

#[test]
fn the_whole_range_of_values_has_linear_buckets() {
    let half = 1_i64 << 54;
    let Kind::Linear(all) = linear(i64::MIN, i64::MAX - (half - 1), half as u64) else {
        unreachable!()
    };
    assert_eq!(all.buckets(), 1023);
    assert_eq!(all.bucket(i64::MIN), 1);
    assert_eq!(all.bucket(i64::MIN + half - 1), 1);
    assert_eq!(all.bucket(i64::MIN + half), 2);
    assert_eq!(all.bucket(-1), 512);
    assert_eq!(all.bucket(0), 513);
    assert_eq!(all.bucket(all.max() - 1), 1023);
    assert_eq!(all.bucket(all.max()), 1024);
    assert_eq!(all.bucket(i64::MAX), 1024);
    assert_eq!(
        Linear::new(i64::MIN, i64::MAX, 1 << 63),
        Err(SpecError::Uneven {
            width: u64::MAX,
            step: 1 << 63
        })
    );
    let Kind::Linear(one) = linear(i64::MIN, i64::MAX, u64::MAX) else {
        unreachable!()
    };
    assert_eq!(
        [i64::MIN, 0, i64::MAX - 1, i64::MAX].map(|value| one.bucket(value)),
        [1, 1, 1, 2]
    );
}

#[test]
fn what_is_out_of_range_is_refused_with_the_facts() {
    assert_eq!(Spec::new(Kind::Count, 5, 1), Err(SpecError::Keys { found: 5 }));
    assert_eq!(Spec::new(Kind::Count, 1, 0), Err(SpecError::Entries { found: 0 }));
    assert_eq!(
        Spec::new(Kind::Count, 1, 65_537),
        Err(SpecError::Entries { found: 65_537 })
    );
    assert!(Spec::new(Kind::Count, 4, 65_536).is_ok());
    for code in 1..=7 {
        let parts = if code == 7 { (-5, 5, 2) } else { (0, 0, 0) };
        let spec = Spec::from_parts(code, 2, 9, parts).unwrap();
        assert_eq!((spec.kind().code(), spec.keys(), spec.entries()), (code, 2, 9));
    }
    assert_eq!(Spec::from_parts(0, 0, 1, (0, 0, 0)), Err(SpecError::Kind { found: 0 }));
    assert_eq!(Spec::from_parts(8, 0, 1, (0, 0, 0)), Err(SpecError::Kind { found: 8 }));
    assert_eq!(Spec::from_parts(6, 0, 1, (0, 0, 1)), Err(SpecError::Unexpected));
    assert_eq!(Linear::new(0, 1025, 1), Err(SpecError::Buckets { buckets: 1025 }));
    assert!(Linear::new(0, 1024, 1).is_ok());
    for (min, max, step) in [(0, 0, 1), (1, 0, 1), (0, 1, 0)] {
        assert_eq!(Linear::new(min, max, step), Err(SpecError::Range { min, max, step }));
    }
}

#[test]
fn memory_is_what_was_said_and_bounded() {
    // One line of 128 bytes for the table, one for its single entry.
    assert_eq!(spec(Kind::Count, 0, 1).bytes_per_cpu(), 256);
    // Without keys there is one entry, whatever was asked for.
    assert_eq!(spec(Kind::Count, 0, 65_536).bytes_per_cpu(), 256);
    // 128 entries of two words, 256 places of four bytes.
    assert_eq!(spec(Kind::Count, 1, 128).bytes_per_cpu(), 128 + 128 * 16 + 256 * 4);
    assert_eq!(
        spec(Kind::Log2, 4, 3).bytes_per_cpu(),
        128 + (3 * 69 * 8_u64).next_multiple_of(128) + 8 * 4
    );
    let big = spec(linear(0, 1024, 1), 0, 1);
    assert_eq!(big.bytes_per_cpu(), 128 + (1026 * 8_u64).next_multiple_of(128));
    let widest = spec(linear(0, 1024, 1), 4, 65_536);
    assert!(matches!(bytes_of_all([&widest]), Err(SpecError::Bytes { bytes }) if bytes > BYTES_MAX));
    assert_eq!(bytes_of_all(&[big; 64]), Ok(64 * big.bytes_per_cpu()));
    assert_eq!(bytes_of_all(&[big; 65]), Err(SpecError::Maps { found: 65 }));
    assert_eq!(Map::new(big, 3, SEED).unwrap().bytes(), 3 * big.bytes_per_cpu());
}

#[test]
fn what_does_not_fit_is_counted_and_changes_nothing() {
    let map = Map::new(spec(Kind::Sum, 1, 3), 2, SEED).unwrap();
    for key in 0..10 {
        map.update(0, &[key], 1);
    }
    assert_eq!(map.dropped(), 7);
    // Entries that are there go on.
    map.update(0, &[1], 41);
    assert_eq!(map.dropped(), 7);
    // The other CPU has room of its own, and its keys are merged: more entries than a table has.
    for key in 8..12 {
        map.update(1, &[key], 5);
    }
    map.update(1, &[9], 5);
    assert_eq!(map.dropped(), 8);
    let found: Vec<_> = entries(&map)
        .into_iter()
        .map(|(keys, value)| (keys[0], value[0]))
        .collect();
    assert_eq!(found, [(0, 1), (1, 42), (2, 1), (8, 5), (9, 10), (10, 5)]);
    // A caller that breaks the contract is counted too.
    map.update(2, &[1], 1);
    map.update(0, &[], 1);
    map.update(0, &[1, 2], 1);
    map.update(0, &[1, 2, 3, 4, 5], 1);
    assert_eq!(map.dropped(), 12);
}

#[test]
fn a_full_table_of_the_largest_size_is_all_there() {
    let entries = if cfg!(miri) { 64 } else { ENTRIES_MAX };
    let map = Map::new(spec(Kind::Max, 2, entries), 1, SEED).unwrap();
    for key in 0..u64::from(entries) + 5 {
        map.update(0, &[key << 40, key], key);
    }
    assert_eq!(map.dropped(), 5);
    let mut out = vec![0; entries as usize * 24];
    assert_eq!(
        map.read(None, &mut out),
        Ok(Reading {
            count: entries as usize,
            left: 0
        })
    );
    for (number, (keys, value)) in (0..).zip(decode(map.spec(), &out)) {
        assert_eq!((keys, value), (vec![number << 40, number], vec![number]));
    }
}

/// Keys as programs have them: small numbers, addresses of objects, pages. A run in the index is what a hit has to walk at most.
#[test]
fn runs_in_the_index_are_short() {
    if cfg!(miri) {
        return;
    }
    for seed in [0, SEED, u64::MAX] {
        for shift in [0, 3, 6, 7, 12, 13, 16, 21, 32, 48] {
            for keys in 1..=4 {
                let map = Map::new(spec(Kind::Count, keys, 8192), 1, seed).unwrap();
                for n in 0..8192_u64 {
                    let key = [n << shift, (n << shift).wrapping_add(0xffff_8880_0000_0000), n, n & 1];
                    map.update(0, &key[..keys as usize], 0);
                }
                assert_eq!(map.dropped(), 0);
                let run = map.tables[0].longest_run();
                assert!(
                    run < 100,
                    "{run} places in a row: seed {seed:#x}, shift {shift}, {keys} keys"
                );
            }
        }
    }
}

#[test]
fn an_average_is_exact_at_the_extremes() {
    let map = Map::new(spec(Kind::Avg, 0, 1), 2, SEED).unwrap();
    for cpu in 0..2 {
        for _ in 0..3 {
            map.update(cpu, &[], i64::MIN.cast_unsigned());
        }
    }
    map.update(1, &[], 1);
    let sum = 6 * i128::from(i64::MIN) + 1;
    assert_eq!(entries(&map), [(vec![], vec![7, sum as u64, (sum >> 64) as u64])]);
}

/// Four writers, each on its own CPU, and two readers: whatever they see was there at some moment, and at the end all is there.
#[test]
fn writers_and_readers_at_the_same_time() {
    const CPUS: usize = 4;
    const KEYS: u64 = 40;
    const UPDATES: u64 = if cfg!(miri) { 200 } else { 300_000 };
    for kind in [Kind::Count, Kind::Avg, Kind::Log2, linear(0, 40, 1), Kind::Max] {
        // Not enough room for the keys: some are dropped.
        let map = Map::new(spec(kind, 1, 32), CPUS, SEED).unwrap();
        let (running, rounds) = (AtomicUsize::new(CPUS), AtomicUsize::new(0));
        let started = AtomicBool::new(false);
        // The value of an entry must always be that of whole updates: the value is the key, whatever the key.
        let check = |entries: Vec<(Vec<u64>, Vec<u64>)>| -> u64 {
            let mut updates = 0;
            for (keys, value) in entries {
                let key = keys[0];
                updates += match kind {
                    Kind::Count => value[0],
                    Kind::Max => {
                        assert_eq!(value, [key]);
                        0
                    }
                    Kind::Avg => {
                        assert_eq!(
                            u128::from(value[1]) | u128::from(value[2]) << 64,
                            u128::from(key) * u128::from(value[0])
                        );
                        value[0]
                    }
                    Kind::Log2 => {
                        let bucket = log2_bucket(key.cast_signed());
                        assert_eq!(value.iter().sum::<u64>(), value[bucket]);
                        value[bucket]
                    }
                    _ => {
                        assert_eq!(value.iter().sum::<u64>(), value[key as usize + 1]);
                        value[key as usize + 1]
                    }
                };
            }
            updates
        };
        thread::scope(|scope| {
            for cpu in 0..CPUS {
                let (map, running, started) = (&map, &running, &started);
                scope.spawn(move || {
                    while !started.load(Ordering::Acquire) {
                        thread::yield_now();
                    }
                    for n in 0..UPDATES {
                        let key = (n.wrapping_mul(7) + cpu as u64 * 3) % KEYS;
                        map.update(cpu, &[key], key);
                    }
                    running.fetch_sub(1, Ordering::Release);
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    loop {
                        let finished = running.load(Ordering::Acquire) == 0;
                        let dropped = map.dropped();
                        let updates = check(entries(&map)) + dropped;
                        assert!(last <= updates && updates <= UPDATES * CPUS as u64, "{last} {updates}");
                        last = updates;
                        rounds.fetch_add(1, Ordering::Relaxed);
                        started.store(true, Ordering::Release);
                        if finished {
                            return;
                        }
                    }
                });
            }
        });
        let counted = check(entries(&map)) + map.dropped();
        assert!(
            kind == Kind::Max || counted == UPDATES * CPUS as u64,
            "{kind:?}: {counted}"
        );
        assert!(map.dropped() > 0);
        assert!(rounds.into_inner() > 2, "nothing was read meanwhile");
    }
}
