//! A histogram, drawn in the terminal.

use std::fmt::Write;

use super::escape::Charset;
use crate::map::Bucket;

/// Empty ranges in a row that are still drawn one by one.
const GAP: usize = 3;

/// What stands for more of them.
const DOTS: &str = "...";

/// The narrowest bar that is worth drawing, in columns.
const BAR_MIN: usize = 10;

/// Lines for the ranges from the first to the last that has values; longer runs of empty ones become a line of dots.
///
/// Each has the range (the first value included, the last not, as `[4, 8)`), the count, its part of all in percent, and a bar. No line
/// is longer than `width` columns unless that leaves no room for a bar.
pub fn draw(buckets: &[Bucket], width: usize, charset: Charset) -> String {
    let used = |bucket: &Bucket| bucket.count > 0;
    let (Some(first), Some(last)) = (buckets.iter().position(used), buckets.iter().rposition(used)) else {
        return String::new();
    };
    let buckets = &buckets[first..=last];
    let total: u128 = buckets.iter().map(|bucket| u128::from(bucket.count)).sum();
    let highest = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(1);
    let rows = rows(buckets);
    let range_width = rows.iter().map(|(range, _)| range.len()).max().unwrap_or(0);
    let count_width = highest.to_string().len();
    // Two spaces before the range, between the columns, and the bars' borders.
    let taken = 2 + range_width + 2 + count_width + 2 + "100.0%".len() + 2 + 2;
    let room = width.saturating_sub(taken).max(BAR_MIN);

    let mut out = String::new();
    for (range, count) in rows {
        // Writing to a string does not fail.
        let _ = write!(out, "  {range:<range_width$}  {:>count_width$}", count.unwrap_or(0));
        if let Some(count) = count {
            let tenths = (u128::from(count) * 2000 + total) / (2 * total);
            let (bar, columns) = bar(count, highest, room, charset);
            let pad = room - columns;
            let _ = write!(out, "  {:>3}.{}%  |{bar}{:pad$}|", tenths / 10, tenths % 10, "");
        }
        out.push('\n');
    }
    out
}

/// The range and the count of each line; none for one that stands for several empty ranges.
fn rows(buckets: &[Bucket]) -> Vec<(String, Option<u64>)> {
    let mut rows = Vec::new();
    for run in buckets.chunk_by(|a, b| (a.count == 0) == (b.count == 0)) {
        if run.len() > GAP && run.iter().all(|bucket| bucket.count == 0) {
            rows.push((DOTS.to_owned(), None));
        } else {
            rows.extend(run.iter().map(|bucket| (range(bucket), Some(bucket.count))));
        }
    }
    rows
}

/// A bar as long as its part of the longest, and how many columns it takes. What is not zero can be seen.
fn bar(count: u64, highest: u64, room: usize, charset: Charset) -> (String, usize) {
    // From one eighth to seven.
    const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let parts = if charset == Charset::Unicode { 8 } else { 1 };
    let exact = u128::from(count) * (room * parts) as u128 / u128::from(highest.max(1));
    let units = (exact as usize).max(usize::from(count > 0));
    let (whole, part) = (units / parts, units % parts);
    let block = if charset == Charset::Unicode { "█" } else { "@" };
    let mut text = block.repeat(whole);
    text.extend(part.checked_sub(1).and_then(|index| PARTS.get(index)));
    (text, whole + usize::from(part > 0))
}

/// The values of a range.
fn range(bucket: &Bucket) -> String {
    // The end is the value after the last, which may be the first that does not fit into 64 bits.
    let end = |to: i64| number(i128::from(to) + 1);
    match (bucket.from, bucket.to) {
        (Some(from), Some(to)) if from == to => format!("[{}]", number(i128::from(from))),
        (Some(from), Some(to)) => format!("[{}, {})", number(i128::from(from)), end(to)),
        (None, Some(to)) => format!("(..., {})", end(to)),
        (Some(from), None) => format!("[{}, ...)", number(i128::from(from))),
        (None, None) => "(..., ...)".to_owned(),
    }
}

/// A number, exactly: multiples of 1024 in units of it.
fn number(value: i128) -> String {
    let mut value = value;
    let mut unit = "";
    for next in ["K", "M", "G", "T", "P", "E"] {
        if value == 0 || value % 1024 != 0 {
            break;
        }
        value /= 1024;
        unit = next;
    }
    format!("{value}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn log2(counts: &[(usize, u64)]) -> Vec<Bucket> {
        let range = |nth: usize| match nth {
            0 => (None, Some(-1)),
            1 => (Some(0), Some(0)),
            _ => (Some(1 << (nth - 2)), Some((1 << (nth - 2)) - 1 + (1 << (nth - 2)))),
        };
        let count = |nth| counts.iter().find(|(at, _)| *at == nth).map_or(0, |(_, count)| *count);
        (0..65)
            .map(|nth| Bucket {
                from: range(nth).0,
                to: range(nth).1,
                count: count(nth),
            })
            .collect()
    }

    #[test]
    fn ranges_counts_and_bars() {
        let buckets = log2(&[(0, 1), (1, 3), (3, 1000), (12, 250), (13, 499), (14, 4)]);
        let lines =
            |width, charset| -> Vec<String> { draw(&buckets, width, charset).lines().map(str::to_owned).collect() };
        assert_eq!(
            lines(60, Charset::Ascii),
            [
                "  (..., 0)     1    0.1%  |@                               |",
                "  [0]          3    0.2%  |@                               |",
                "  [1]          0    0.0%  |                                |",
                "  [2, 4)    1000   56.9%  |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|",
                "  ...          0",
                "  [1K, 2K)   250   14.2%  |@@@@@@@@                        |",
                "  [2K, 4K)   499   28.4%  |@@@@@@@@@@@@@@@                 |",
                "  [4K, 8K)     4    0.2%  |@                               |",
            ]
        );
        assert_eq!(
            lines(50, Charset::Unicode)[5..],
            [
                "  [1K, 2K)   250   14.2%  |█████▌                |",
                "  [2K, 4K)   499   28.4%  |██████████▉           |",
                "  [4K, 8K)     4    0.2%  |▏                     |",
            ]
        );
        assert_eq!(draw(&log2(&[]), 80, Charset::Ascii), "");
    }

    #[test]
    fn numbers_are_exact() {
        for (value, text) in [
            (0, "0"),
            (1000, "1000"),
            (1024, "1K"),
            (1536, "1536"),
            (-2048, "-2K"),
            (3 << 20, "3M"),
            (1 << 62, "4E"),
            (1 << 63, "8E"),
            (-(1 << 63), "-8E"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    proptest! {
        #[test]
        fn every_line_fits_and_the_longest_bar_is_the_highest_count(
            counts in proptest::collection::vec(prop_oneof![Just(0), 0..10u64, any::<u64>()], 65),
            width in 50..200usize,
        ) {
            let counts: Vec<_> = counts.into_iter().enumerate().collect();
            let buckets = log2(&counts);
            for charset in [Charset::Ascii, Charset::Unicode] {
                let text = draw(&buckets, width.max(70), charset);
                let bars = text.lines().filter(|line| line.ends_with('|'));
                for line in bars.clone() {
                    prop_assert_eq!(line.chars().count(), width.max(70));
                }
                let drawn = |line: &str| line.chars().filter(|c| matches!(c, '@' | '▏'..='▏' | '▉'..='▎' | '█')).count();
                let highest = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
                for line in bars {
                    let count: u64 = line.split(['|']).next().unwrap().split_whitespace().rev().nth(1).unwrap().parse().unwrap();
                    prop_assert_eq!(drawn(line) == 0, count == 0);
                    if count == highest {
                        prop_assert!(line.ends_with("@|") || line.ends_with("█|"));
                    }
                }
            }
        }
    }
}
