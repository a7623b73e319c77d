//! A map as it was read: what it is, and its entries.

use dprobes::aggregate::{Kind, LOG2_BUCKETS, Linear, Spec};
use dprobes::wire::MapStatus;

/// A map and what was in it.
#[derive(Debug, Clone)]
pub struct Map {
    /// What the module says of it.
    pub status: MapStatus,
    /// What it is.
    pub spec: Spec,
    /// Its entries, in ascending order of their keys.
    pub entries: Vec<Entry>,
    /// Updates that did not fit.
    pub dropped: u64,
}

/// What a map has for some keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The keys.
    pub keys: Vec<u64>,
    /// The value.
    pub value: Value,
}

/// The value of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// How many there were.
    Count(u64),
    /// The sum, the smallest or the largest.
    Number(i64),
    /// How many there were, and their sum.
    Average { count: u64, sum: i128 },
    /// How many there were in each range of values; the ranges are in ascending order and have no gaps.
    Histogram(Vec<Bucket>),
}

/// A range of values, both ends included, and how many values were in it. Without an end it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// The smallest value.
    pub from: Option<i64>,
    /// The largest value.
    pub to: Option<i64>,
    /// How many.
    pub count: u64,
}

/// What a module says that this command does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

/// What a map is, by what the module says of it.
pub fn spec(status: &MapStatus) -> Result<Spec, Unknown> {
    let kind = u8::try_from(status.kind).map_err(|_| Unknown)?;
    let ranges = (status.min, status.max, status.step);
    let spec = Spec::from_parts(kind, status.keys, status.entries, ranges).map_err(|_| Unknown)?;
    (spec.entry_bytes() == status.entry_bytes as usize)
        .then_some(spec)
        .ok_or(Unknown)
}

/// The entries in bytes that the module wrote.
pub fn entries(spec: &Spec, bytes: &[u8]) -> Vec<Entry> {
    let entry = |bytes: &[u8]| {
        let mut keys: Vec<u64> = bytes
            .as_chunks()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word))
            .collect();
        let words = keys.split_off(spec.keys());
        Entry {
            keys,
            value: value(spec.kind(), &words),
        }
    };
    bytes.chunks_exact(spec.entry_bytes()).map(entry).collect()
}

fn value(kind: Kind, words: &[u64]) -> Value {
    let first = words.first().copied().unwrap_or(0);
    match (kind, words) {
        (Kind::Count, _) => Value::Count(first),
        (Kind::Avg, &[count, low, high]) => Value::Average {
            count,
            sum: (u128::from(low) | u128::from(high) << 64).cast_signed(),
        },
        (Kind::Sum | Kind::Min | Kind::Max | Kind::Avg, _) => Value::Number(first.cast_signed()),
        (Kind::Log2, counts) => Value::Histogram(buckets(counts, log2_range)),
        (Kind::Linear(linear), counts) => Value::Histogram(buckets(counts, |nth| linear_range(linear, nth))),
    }
}

fn buckets(counts: &[u64], range: impl Fn(usize) -> (Option<i64>, Option<i64>)) -> Vec<Bucket> {
    let bucket = |(nth, count): (usize, &u64)| {
        let (from, to) = range(nth);
        Bucket {
            from,
            to,
            count: *count,
        }
    };
    counts.iter().enumerate().map(bucket).collect()
}

fn log2_range(nth: usize) -> (Option<i64>, Option<i64>) {
    match nth {
        0 => (None, Some(-1)),
        1 => (Some(0), Some(0)),
        LOG2_BUCKETS.. => (None, None),
        _ => {
            let from = 1_i64 << (nth - 2);
            (Some(from), Some(from + (from - 1)))
        }
    }
}

fn linear_range(linear: Linear, nth: usize) -> (Option<i64>, Option<i64>) {
    let start = |range: usize| {
        linear
            .min()
            .wrapping_add_unsigned(linear.step().wrapping_mul(range as u64))
    };
    match nth {
        0 => (None, linear.min().checked_sub(1)),
        _ if nth > linear.buckets() => (Some(linear.max()), None),
        _ => (Some(start(nth - 1)), Some(start(nth).wrapping_sub(1))),
    }
}

impl Value {
    /// What entries are sorted by: the largest comes first.
    pub fn weight(&self) -> i128 {
        match self {
            Value::Count(count) => i128::from(*count),
            Value::Number(number) => i128::from(*number),
            // Thousandths are enough to sort by.
            Value::Average { count, sum } => thousandths(*count, *sum),
            Value::Histogram(buckets) => buckets.iter().map(|bucket| i128::from(bucket.count)).sum(),
        }
    }
}

/// The average in thousandths, rounded half away from zero.
fn thousandths(count: u64, sum: i128) -> i128 {
    let count = i128::from(count.max(1));
    let (whole, rest) = (sum / count, sum % count);
    let rounded = (rest * 2000 + rest.signum() * count) / (2 * count);
    whole.saturating_mul(1000).saturating_add(rounded)
}

/// An average for people and programs: a decimal number with three places.
pub fn average(count: u64, sum: i128) -> String {
    let all = thousandths(count, sum);
    let sign = if all < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", all.unsigned_abs() / 1000, all.unsigned_abs() % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dprobes::aggregate::Map as Real;
    use proptest::prelude::*;

    /// The entries of a map of the engine's own, as the command decodes them.
    fn read(spec: Spec, updates: &[(u64, i64)]) -> Vec<Entry> {
        let map = Real::new(spec, 1, 1).unwrap();
        for (key, value) in updates {
            map.update(0, &[*key][..spec.keys()], value.cast_unsigned());
        }
        let mut out = vec![0; spec.entry_bytes() * 64];
        let reading = map.read(None, &mut out).unwrap();
        entries(&spec, &out[..reading.count * spec.entry_bytes()])
    }

    fn spec(kind: Kind, keys: u32) -> Spec {
        Spec::new(kind, keys, 64).unwrap()
    }

    #[test]
    fn values_are_what_was_put_in() {
        let updates = [(7, -5), (3, 4), (7, 2)];
        let with = |kind| read(spec(kind, 1), &updates);
        let entry = |key, value| Entry { keys: vec![key], value };
        let number = |three, seven| vec![entry(3, Value::Number(three)), entry(7, Value::Number(seven))];
        assert_eq!(
            with(Kind::Count),
            [entry(3, Value::Count(1)), entry(7, Value::Count(2))]
        );
        assert_eq!(with(Kind::Sum), number(4, -3));
        assert_eq!(with(Kind::Min), number(4, -5));
        assert_eq!(with(Kind::Max), number(4, 2));
        assert_eq!(with(Kind::Avg)[1].value, Value::Average { count: 2, sum: -3 });
    }

    proptest! {
        #[test]
        fn a_value_is_in_the_bucket_whose_range_has_it(value: i64, small in -70i64..70, min in -50i64..50, step in 1u64..9, ranges in 1i64..9) {
            let linear = Linear::new(min, min + step as i64 * ranges, step).unwrap();
            for value in [value, small, value >> 40, i64::MIN, i64::MAX] {
                for kind in [Kind::Log2, Kind::Linear(linear)] {
                    let Value::Histogram(buckets) = &read(spec(kind, 0), &[(0, value)])[0].value else {
                        panic!("no histogram");
                    };
                    for bucket in buckets {
                        let inside = bucket.from.is_none_or(|from| from <= value) && bucket.to.is_none_or(|to| value <= to);
                        prop_assert_eq!(bucket.count, u64::from(inside), "{:?} of {}", bucket, value);
                    }
                    for pair in buckets.windows(2) {
                        prop_assert_eq!(pair[0].to.and_then(|to| to.checked_add(1)), pair[1].from);
                    }
                }
            }
        }

        #[test]
        fn an_average_is_rounded_to_thousandths(count in 1u64.., sum in -(1i128 << 90)..1i128 << 90) {
            // Compared in other units, so that nothing is rounded here.
            let text = average(count, sum);
            let all: i128 = text.replace('.', "").parse().unwrap();
            let (exact, shown) = (sum * 1000, all * i128::from(count));
            prop_assert!((exact - shown).abs() * 2 <= i128::from(count), "{sum} / {count} is not {text}");
        }
    }

    #[test]
    fn averages_at_the_borders() {
        for (count, sum, text) in [
            (1, 0, "0.000"),
            (2, -1, "-0.500"),
            (3, 2, "0.667"),
            (3, -2, "-0.667"),
            (2000, 1, "0.001"),
            (2001, 1, "0.000"),
            (2000, -1, "-0.001"),
            (2001, -1, "0.000"),
            (1, i128::from(i64::MIN), "-9223372036854775808.000"),
            (
                u64::MAX,
                i128::from(u64::MAX) * i128::from(i64::MAX),
                "9223372036854775807.000",
            ),
        ] {
            assert_eq!(average(count, sum), text, "{sum} / {count}");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_guessed() {
        let good = MapStatus {
            id: 1,
            major: 1,
            kind: 6,
            keys: 1,
            entries: 8,
            entry_bytes: 66 * 8,
            ..MapStatus::default()
        };
        assert_eq!(super::spec(&good), Ok(Spec::new(Kind::Log2, 1, 8).unwrap()));
        for bad in [
            MapStatus { kind: 9, ..good },
            MapStatus { kind: 257, ..good },
            MapStatus { keys: 5, ..good },
            MapStatus { entry_bytes: 8, ..good },
            MapStatus { entry_bytes: 0, ..good },
            MapStatus { step: 1, ..good },
            MapStatus { kind: 7, ..good },
        ] {
            assert_eq!(super::spec(&bad), Err(Unknown), "{bad:?}");
        }
    }
}
