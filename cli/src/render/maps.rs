//! Maps, as tables and histograms, and as JSON.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::address::{Addresses, Role, is_kernel};
use super::escape::{Charset, name, trim};
use super::{histogram, json};
use crate::map::{Entry, Map, Value, average};

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub struct Canvas<'a> {
    /// Columns of the terminal.
    pub width: usize,
    /// What it can show.
    pub charset: Charset,
    /// Names for keys that are addresses.
    pub addresses: &'a Addresses,
    /// The last two keys are the name of a process, as `push name` pushes it.
    pub names: bool,
}

/// A map as text, with a line feed at the end: what it is, its entries, those with the largest values first, and what did not fit.
pub fn text(map: &Map, canvas: Canvas<'_>) -> String {
    let status = &map.status;
    let mut out = format!(
        "{} of program {} for {}: {}",
        name(&status.name, canvas.charset),
        status.major,
        name(&status.module, canvas.charset),
        map.spec.kind().name()
    );
    // Writing to a string does not fail.
    let entries = by_value(&map.entries);
    match entries.as_slice() {
        [] => out.push_str(", nothing yet\n"),
        [only] if map.spec.keys() == 0 => {
            let _ = match &only.value {
                Value::Count(count) => writeln!(out, " = {count}"),
                Value::Number(number) => writeln!(out, " = {number}"),
                Value::Average { count, sum } => {
                    let values = counted(*count, "value", "values");
                    writeln!(out, " = {} of {values}, which sum up to {sum}", average(*count, *sum))
                }
                Value::Histogram(buckets) => {
                    writeln!(
                        out,
                        "\n{}",
                        histogram::draw(buckets, canvas.width, canvas.charset).trim_end_matches('\n')
                    )
                }
            };
        }
        [first, ..] => {
            let _ = writeln!(out, ", {}", counted(map.entries.len() as u64, "entry", "entries"));
            if matches!(first.value, Value::Histogram(_)) {
                entries
                    .iter()
                    .for_each(|entry| out.push_str(&histogram_of(entry, canvas)));
            } else {
                out.push_str(&table(map, &entries, canvas));
            }
        }
    }
    if map.dropped > 0 {
        let _ = writeln!(
            out,
            "  DROPPED {}: on each CPU there is room for {}",
            counted(map.dropped, "update", "updates"),
            counted(u64::from(status.entries), "entry", "entries")
        );
    }
    out
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The entries with the largest values first, and then by key.
fn by_value(entries: &[Entry]) -> Vec<&Entry> {
    let mut entries: Vec<_> = entries.iter().collect();
    // They come in the order of their keys, and a stable sort keeps it.
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.value.weight()));
    entries
}

/// The keys of an entry, and its histogram below.
fn histogram_of(entry: &Entry, canvas: Canvas<'_>) -> String {
    let Value::Histogram(buckets) = &entry.value else {
        return String::new();
    };
    let keys = self::keys(entry, canvas);
    let drawn = histogram::draw(buckets, canvas.width, canvas.charset);
    format!("\n  {}\n{drawn}", keys.join(", "))
}

/// The keys of an entry.
fn keys(entry: &Entry, canvas: Canvas<'_>) -> Vec<String> {
    let (numbers, name) = match entry.keys.as_slice() {
        [numbers @ .., high, low] if canvas.names => (numbers, Some(process(*high, *low, canvas.charset))),
        numbers => (numbers, None),
    };
    numbers.iter().map(|&key| self::key(key, canvas)).chain(name).collect()
}

/// The name of a process, from the words that `push name` pushes.
pub fn process(high: u64, low: u64, charset: Charset) -> String {
    name(&[low.to_le_bytes(), high.to_le_bytes()].concat(), charset)
}

/// A key: a decimal number without sign, or the symbol at an address of the kernel.
fn key(key: u64, canvas: Canvas<'_>) -> String {
    if !is_kernel(key) {
        return key.to_string();
    }
    match canvas.addresses.name(key, Role::Exact) {
        // A list of symbols may come from somebody else.
        Some(symbol) => format!("{key:#x} {}", super::escape::escaped(symbol.as_bytes(), canvas.charset)),
        None => format!("{key:#x}"),
    }
}

fn table(map: &Map, entries: &[&Entry], canvas: Canvas<'_>) -> String {
    let named = canvas.names && map.spec.keys() >= 2;
    // Without those that are a name.
    let numbers = map.spec.keys() - if named { 2 } else { 0 };
    let mut headings: Vec<String> = match numbers {
        1 => vec!["KEY".to_owned()],
        _ => (1..=numbers).map(|nth| format!("KEY {nth}")).collect(),
    };
    headings.extend(named.then(|| "NAME".to_owned()));
    let keys = headings.len();
    let kind = map.spec.kind().name().to_uppercase();
    headings.push(kind);
    let average_of = |entry: &Entry| matches!(entry.value, Value::Average { .. });
    if entries.iter().any(|entry| average_of(entry)) {
        headings.extend(["COUNT".to_owned(), "SUM".to_owned()]);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings);
    for entry in entries {
        let keys = self::keys(entry, canvas).into_iter();
        let values = match &entry.value {
            Value::Count(count) => vec![count.to_string()],
            Value::Number(number) => vec![number.to_string()],
            Value::Average { count, sum } => vec![average(*count, *sum), count.to_string(), sum.to_string()],
            Value::Histogram(_) => Vec::new(),
        };
        table.add_row(keys.chain(values));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((2, 0));
        // A key that is a symbol is text, and stands beside others that are.
        let symbols = || {
            let mut keys = entries.iter().filter_map(|entry| entry.keys.get(index));
            keys.any(|&key| is_kernel(key))
        };
        let text = index < keys && (named && index + 1 == keys || symbols());
        if !text {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[derive(Serialize)]
struct MapLine<'a> {
    module: std::borrow::Cow<'a, str>,
    major: u16,
    name: std::borrow::Cow<'a, str>,
    kind: &'static str,
    keys: usize,
    room: u32,
    bytes: u64,
    dropped: u64,
    entries: Vec<EntryItem>,
}

#[derive(Serialize)]
struct EntryItem {
    keys: Vec<String>,
    /// Those keys that are addresses of the kernel, with their names.
    #[serde(skip_serializing_if = "Option::is_none")]
    symbols: Option<Vec<Option<String>>>,
    #[serde(flatten)]
    value: ValueItem,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ValueItem {
    Count { value: u64 },
    Number { value: i64 },
    Average { average: String, count: u64, sum: String },
    Histogram { total: u64, buckets: Vec<BucketItem> },
}

#[derive(Serialize)]
struct BucketItem {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<i64>,
    count: u64,
}

/// A map as JSON in one line, with a line feed: what it is, and its entries in the order of their keys.
///
/// Keys are strings of decimal digits, so that no reader rounds them; so are average and sum of an `avg`, where the sum may have 128
/// bits. Other values, counts and borders of ranges are integers of up to 64 bits. `from` and `to` of a range are its first and its last
/// value; a range without one of them is open there. Ranges without values are left out.
pub fn line(map: &Map, addresses: &Addresses) -> String {
    let status = &map.status;
    json::line(&MapLine {
        module: String::from_utf8_lossy(trim(&status.module)),
        major: status.major,
        name: String::from_utf8_lossy(trim(&status.name)),
        kind: map.spec.kind().name(),
        keys: map.spec.keys(),
        room: status.entries,
        bytes: status.bytes,
        dropped: map.dropped,
        entries: map.entries.iter().map(|entry| item(entry, addresses)).collect(),
    })
}

fn item(entry: &Entry, addresses: &Addresses) -> EntryItem {
    let symbols: Vec<_> = entry.keys.iter().map(|&key| addresses.name(key, Role::Exact)).collect();
    EntryItem {
        keys: entry.keys.iter().map(u64::to_string).collect(),
        symbols: symbols.iter().any(Option::is_some).then_some(symbols),
        value: match &entry.value {
            Value::Count(count) => ValueItem::Count { value: *count },
            Value::Number(number) => ValueItem::Number { value: *number },
            Value::Average { count, sum } => ValueItem::Average {
                average: average(*count, *sum),
                count: *count,
                sum: sum.to_string(),
            },
            Value::Histogram(buckets) => ValueItem::Histogram {
                total: buckets.iter().fold(0, |total, bucket| total.wrapping_add(bucket.count)),
                buckets: buckets
                    .iter()
                    .filter(|bucket| bucket.count > 0)
                    .map(|bucket| BucketItem {
                        from: bucket.from,
                        to: bucket.to,
                        count: bucket.count,
                    })
                    .collect(),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;
    use crate::kallsyms::Kallsyms;
    use crate::map;
    use dprobes::aggregate::{self, Kind, Linear, Spec};
    use dprobes::wire::{MapStatus, label};

    /// A map of the engine's own, with these updates, as the module would show it.
    fn sample(title: &[u8], spec: Spec, updates: &[(&[u64], i64)]) -> Map {
        let real = aggregate::Map::new(spec, 2, 1).unwrap();
        for (nth, (keys, value)) in updates.iter().enumerate() {
            real.update(nth % 2, keys, value.cast_unsigned());
        }
        let mut out = vec![0; spec.entry_bytes() * 64];
        let reading = real.read(None, &mut out).unwrap();
        let status = MapStatus {
            id: 1,
            major: 1,
            name: label(title),
            module: label(b"kernel"),
            ..MapStatus::of(&real)
        };
        assert_eq!(map::spec(&status), Ok(spec));
        Map {
            status,
            spec,
            entries: map::entries(&spec, &out[..reading.count * spec.entry_bytes()]),
            dropped: real.dropped(),
        }
    }

    fn samples() -> Vec<Map> {
        let spec = |kind, keys, entries| Spec::new(kind, keys, entries).unwrap();
        let linear = Kind::Linear(Linear::new(-10, 40, 10).unwrap());
        let function = 0xffff_ffff_8100_1010;
        let opens: Vec<(&[u64], i64)> = vec![
            (&[42], 0),
            (&[42], 0),
            (&[7], 0),
            (&[42], 0),
            (&[1000], 0),
            (&[u64::MAX], 0),
        ];
        let sizes: Vec<(&[u64], i64)> = (0..2000)
            .map(|n| (&[3][..], n * n % 70_000))
            .chain([(&[9][..], -5)])
            .collect();
        vec![
            sample(b"hits", spec(Kind::Count, 0, 1), &[(&[], 0), (&[], 0), (&[], 0)]),
            sample(
                b"opens",
                spec(Kind::Count, 1, 2),
                &[&opens[..], &[(&[8], 0), (&[8], 0), (&[9], 0)]].concat(),
            ),
            sample(
                b"bytes",
                spec(Kind::Sum, 2, 8),
                &[(&[1, 2], i64::MIN), (&[1, 3], 5), (&[function, 1], -7)],
            ),
            sample(
                b"smallest",
                spec(Kind::Min, 1, 8),
                &[(&[0xffff_8880_0000_1000], 4), (&[function], -3)],
            ),
            sample(b"largest", spec(Kind::Max, 0, 1), &[(&[], i64::MAX)]),
            sample(b"mean", spec(Kind::Avg, 0, 1), &[(&[], 1), (&[], 2)]),
            sample(b"none", spec(Kind::Log2, 0, 1), &[]),
            sample(
                b"latency",
                spec(Kind::Avg, 1, 8),
                &[(&[5], 10), (&[5], 11), (&[6], i64::MIN), (&[6], i64::MIN), (&[5], 11)],
            ),
            sample(b"sizes", spec(Kind::Log2, 1, 8), &sizes),
            sample(
                b"levels",
                spec(linear, 0, 1),
                &[(&[], -11), (&[], -10), (&[], 39), (&[], 39), (&[], 40), (&[], 1000)],
            ),
            sample(b"\x1b[2J\xff", spec(Kind::Count, 4, 8), &[]),
        ]
    }

    fn addresses() -> Addresses {
        let list = "ffffffff81001000 T vfs_read\nffffffff81001080 T next\n";
        Addresses::from_symbols(Kallsyms::parse(list.to_owned()).unwrap())
    }

    #[test]
    fn process_names_are_shown_as_names_where_they_are() {
        let addresses = addresses();
        let canvas = Canvas {
            width: 72,
            charset: Charset::Ascii,
            addresses: &addresses,
            names: true,
        };
        let low = |name: &[u8; 8]| u64::from_le_bytes(*name);
        let spec = Spec::new(Kind::Count, 3, 8).unwrap();
        let map = sample(
            b"opens",
            spec,
            &[
                (&[7, 0, low(b"cat\0\0\0\0\0")], 0),
                (&[7, low(b"16\x1b\0\0\0\0\0"), low(b"process-")], 0),
            ],
        );
        let drawn = text(&map, canvas);
        let rows: Vec<_> = drawn.lines().skip(1).collect();
        assert_eq!(
            rows,
            [
                "  KEY  NAME            COUNT",
                "    7  cat                 1",
                "    7  process-16\\x1b      1"
            ]
        );
        // One key is no name.
        let map = sample(
            b"opens",
            Spec::new(Kind::Count, 1, 8).unwrap(),
            &[(&[low(b"cat\0\0\0\0\0")], 0)],
        );
        assert!(text(&map, canvas).contains("7627107"));
    }

    #[test]
    fn every_kind_has_a_form() {
        let addresses = addresses();
        for (charset, file) in [(Charset::Ascii, "maps.txt"), (Charset::Unicode, "maps-unicode.txt")] {
            let canvas = Canvas {
                width: 72,
                charset,
                addresses: &addresses,
                names: false,
            };
            let all: Vec<String> = samples().iter().map(|map| text(map, canvas)).collect();
            let all = all.join("\n");
            assert!(!all.chars().any(|c| c.is_control() && c != '\n'), "{all:?}");
            assert_golden(file, &all);
        }
    }

    #[test]
    fn json_has_everything() {
        let all: String = samples().iter().map(|map| line(map, &addresses())).collect();
        assert!(all.is_ascii());
        for line in all.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["module"], "kernel");
        }
        assert_golden("maps.json", &all);
    }
}
