//! Lists that the kernel carries of its own instructions: by whom else each is used, and, since the kernel's build made them, where
//! instructions begin.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use crate::kcore::Kcore;
use crate::symbols::Symbols;

/// One list.
#[derive(Debug)]
pub struct Table {
    /// What it is a list of.
    pub name: &'static str,
    /// The addresses in it.
    pub addresses: BTreeSet<u64>,
}

/// Where a list is and how long its entries are. Each begins with the distance from itself to the instruction, 32 bits.
struct Layout {
    name: &'static str,
    start: &'static str,
    end: &'static str,
    entry: usize,
}

/// Jump labels: include/linux/jump_label.h, `struct jump_entry`.
pub const JUMP_LABELS: &str = "jump labels";
/// Static calls: include/linux/static_call_types.h, `struct static_call_site`.
pub const STATIC_CALLS: &str = "static calls";
/// BUG and WARN: include/asm-generic/bug.h, `struct bug_entry`.
pub const BUGS: &str = "BUG and WARN";
/// Instructions whose fault the kernel recovers from: arch/x86/include/asm/extable.h.
pub const EXCEPTIONS: &str = "exception table";
/// Where the unwinder's rules change (ORC): objtool's own decoder found these.
pub const ORC: &str = "unwinder (ORC)";

const LAYOUTS: [Layout; 5] = [
    Layout {
        name: JUMP_LABELS,
        start: "__start___jump_table",
        end: "__stop___jump_table",
        entry: 16,
    },
    Layout {
        name: STATIC_CALLS,
        start: "__start_static_call_sites",
        end: "__stop_static_call_sites",
        entry: 8,
    },
    Layout {
        name: BUGS,
        start: "__start___bug_table",
        end: "__stop___bug_table",
        entry: 12,
    },
    Layout {
        name: EXCEPTIONS,
        start: "__start___ex_table",
        end: "__stop___ex_table",
        entry: 12,
    },
    Layout {
        name: ORC,
        start: "__start_orc_unwind_ip",
        end: "__stop_orc_unwind_ip",
        entry: 4,
    },
];

/// Reads the lists of the running kernel, as far as it has them.
///
/// # Errors
/// What the system said.
pub fn read(symbols: &Symbols, kcore: &Kcore) -> io::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for layout in &LAYOUTS {
        let Some(place) = symbols.between(layout.start, layout.end) else {
            continue;
        };
        let bytes = kcore.read(place.clone())?;
        let addresses = (place.start..)
            .step_by(layout.entry)
            .zip(bytes.chunks_exact(layout.entry))
            .filter_map(|(at, entry)| {
                let distance = i32::from_le_bytes(*entry.first_chunk()?);
                Some(at.wrapping_add_signed(i64::from(distance)))
            })
            .collect();
        tables.push(Table {
            name: layout.name,
            addresses,
        });
    }
    Ok(tables)
}

/// What kprobes must not probe: `/sys/kernel/debug/kprobes/blacklist`, sorted.
///
/// # Errors
/// What the system said.
pub fn kprobes_blacklist() -> io::Result<Vec<Range<u64>>> {
    let list = std::fs::read_to_string("/sys/kernel/debug/kprobes/blacklist")?;
    let mut ranges = Vec::from_iter(list.lines().filter_map(blacklisted));
    ranges.sort_by_key(|range| range.start);
    Ok(ranges)
}

fn blacklisted(line: &str) -> Option<Range<u64>> {
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    Some(number(start)?..number(end)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_of_the_blacklist() {
        assert_eq!(
            super::blacklisted("0xffffffff81000010-0xffffffff81000020\tname"),
            Some(0xffff_ffff_8100_0010..0xffff_ffff_8100_0020)
        );
        assert_eq!(super::blacklisted(""), None);
    }
}
