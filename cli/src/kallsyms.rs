//! The kernel's symbols, from `/proc/kallsyms` or a file of the same form (`System.map`, `nm -n`).
//!
//! The list has an address, a type letter and a name on each line, and `[module]` behind a module's symbols. It has no sizes: a
//! function ends where the next symbol of the same module begins, as in the kernel's own `kallsyms_lookup_size_offset`.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

/// What a list of symbols is from: the kernel's image or a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner<'a> {
    /// The kernel's image.
    Kernel,
    /// The module of this name.
    Module(&'a str),
}

impl<'a> Owner<'a> {
    /// From a module's name as programs and the engine write it.
    pub fn named(name: &'a str) -> Self {
        if name == "kernel" {
            Owner::Kernel
        } else {
            Owner::Module(name)
        }
    }

    /// Are they the same? The kernel writes a module's name with `_` where its file has `-`.
    fn is(self, other: Owner<'_>) -> bool {
        let plain = |name: &str| name.strip_suffix(".ko").unwrap_or(name).replace('-', "_");
        match (self, other) {
            (Owner::Kernel, Owner::Kernel) => true,
            (Owner::Module(a), Owner::Module(b)) => a == b || plain(a) == plain(b),
            _ => false,
        }
    }
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Kernel => f.write_str("the kernel"),
            Owner::Module(name) => write!(f, "module {name}"),
        }
    }
}

/// What kind of symbol is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A function: a place for a probe.
    Function,
    /// Anything that has an address.
    Any,
}

impl Wanted {
    fn is(self, kind: u8) -> bool {
        self == Wanted::Any || is_text(kind)
    }
}

/// One symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is in.
    pub owner: Owner<'a>,
    /// Where it begins.
    pub address: u64,
    /// Bytes up to the next symbol; `None` when it is the last of its module's text.
    pub size: Option<u64>,
    /// The type letter, as `nm` explains it.
    pub kind: char,
}

/// Why a list could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListError {
    /// This line, counted from 1, has another form.
    Malformed { line: usize },
    /// What Debian has instead of a System.map: a line that says which package has the real one.
    StandIn,
    /// It has no line at all.
    Empty,
    /// All addresses are zero: the kernel hides them from this user.
    Hidden,
}

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotFound {
    /// No such symbol; see [`Kallsyms::near`] and [`Kallsyms::elsewhere`].
    Unknown,
    /// Several different symbols of the kind that is wanted have the name.
    Ambiguous { addresses: Vec<u64> },
    /// It is data, of this type.
    NotText { kind: char },
    /// The module has no symbols: it is not loaded. See [`Kallsyms::near_modules`].
    NoModule,
}

struct Entry {
    address: u64,
    name: Range<u32>,
    /// Index into `modules`; 0 is the kernel.
    owner: u16,
    kind: u8,
}

/// All symbols of the kernel and its modules.
pub struct Kallsyms {
    text: String,
    /// Sorted by owner, then address; symbols at one address stay in the order of the list.
    entries: Vec<Entry>,
    /// Names in `text`; the first is the kernel's and empty.
    modules: Vec<Range<u32>>,
    /// The hash of each entry's name and the entry's index, sorted.
    by_name: Vec<(u64, u32)>,
}

impl fmt::Debug for Kallsyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kallsyms")
            .field("symbols", &self.entries.len())
            .field("modules", &self.modules.len())
            .finish()
    }
}

fn is_text(kind: u8) -> bool {
    // W and w: weak; a weak object is V or v.
    matches!(kind, b't' | b'T' | b'w' | b'W')
}

impl Kallsyms {
    /// Reads a list.
    pub fn parse(text: String) -> Result<Self, ListError> {
        let mut entries = Vec::with_capacity(text.len() / 45);
        let kernel: Range<u32> = 0..0;
        let mut modules = vec![kernel];
        let range = |part: &str| {
            let start = part.as_ptr().addr() - text.as_ptr().addr();
            start as u32..(start + part.len()) as u32
        };
        if u32::try_from(text.len()).is_err() {
            return Err(ListError::Malformed { line: 1 });
        }
        if text.contains("The real System.map is in") {
            return Err(ListError::StandIn);
        }
        let mut owner = 0;
        for (index, line) in text.lines().enumerate() {
            let malformed = ListError::Malformed { line: index + 1 };
            let mut fields = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (fields.next(), fields.next(), fields.next()) else {
                return Err(malformed);
            };
            let (Ok(address), [kind], true) = (
                u64::from_str_radix(address, 16),
                kind.as_bytes(),
                kind.is_ascii() && !address.starts_with('+'),
            ) else {
                return Err(malformed);
            };
            let module = match fields.next() {
                None => "",
                Some(field) => match field.strip_prefix('[').and_then(|field| field.strip_suffix(']')) {
                    Some(module) if !module.is_empty() => module,
                    _ => return Err(malformed),
                },
            };
            // A module's symbols stand together, so the last owner is nearly always the right one.
            let is = |modules: &[Range<u32>], owner: usize| slice(&text, &modules[owner]) == module;
            if !is(&modules, owner) {
                owner = (0..modules.len())
                    .find(|&owner| is(&modules, owner))
                    .unwrap_or(modules.len());
                if owner == modules.len() {
                    modules.push(range(module));
                }
            }
            let Ok(owner) = u16::try_from(owner) else {
                return Err(malformed);
            };
            entries.push(Entry {
                address,
                name: range(name),
                owner,
                kind: *kind,
            });
        }
        if entries.is_empty() {
            return Err(ListError::Empty);
        }
        if entries.iter().all(|entry| entry.address == 0) {
            return Err(ListError::Hidden);
        }
        entries.sort_by_key(|entry| (entry.owner, entry.address));
        let name = |(index, entry): (u32, &Entry)| (hash(slice(&text, &entry.name)), index);
        let mut by_name: Vec<_> = (0..).zip(&entries).map(name).collect();
        by_name.sort_unstable();
        Ok(Kallsyms {
            text,
            entries,
            modules,
            by_name,
        })
    }

    /// The entries with this name, of all modules, in the order of `entries`.
    fn named(&self, name: &str) -> impl Iterator<Item = usize> {
        let hash = hash(name);
        let start = self.by_name.partition_point(|(other, _)| *other < hash);
        let same = self.by_name[start..]
            .iter()
            .take_while(move |(other, _)| *other == hash);
        same.map(|(_, index)| *index as usize)
            .filter(move |&index| self.name(index) == name)
    }

    /// The one symbol of this name.
    pub fn find<'a>(&'a self, name: &str, owner: Owner<'_>, wanted: Wanted) -> Result<Symbol<'a>, NotFound> {
        let Some(range) = self.entries_of(owner) else {
            return Err(match owner {
                Owner::Kernel => NotFound::Unknown,
                Owner::Module(_) => NotFound::NoModule,
            });
        };
        let named = || self.named(name).filter(|index| range.contains(index));
        let found: Vec<usize> = named().filter(|&index| wanted.is(self.entries[index].kind)).collect();
        // Sorted by address. One place that is listed twice is no contradiction.
        let mut addresses: Vec<u64> = found.iter().map(|&index| self.entries[index].address).collect();
        addresses.dedup();
        match (found.first(), addresses.len()) {
            (Some(&index), 1) => Ok(self.symbol(index)),
            (Some(_), _) => Err(NotFound::Ambiguous { addresses }),
            (None, _) => Err(match named().next() {
                Some(index) => NotFound::NotText {
                    kind: char::from(self.entries[index].kind),
                },
                None => NotFound::Unknown,
            }),
        }
    }

    /// Symbols whose names differ little, the best first.
    pub fn near(&self, name: &str, owner: Owner<'_>, wanted: Wanted) -> Vec<String> {
        let range = self.entries_of(owner).unwrap_or(0..0);
        nearest(
            name,
            range
                .filter(|&index| wanted.is(self.entries[index].kind))
                .map(|index| self.name(index)),
        )
    }

    /// The modules that have a symbol of this name; the kernel as `kernel`.
    pub fn elsewhere(&self, name: &str, wanted: Wanted) -> Vec<String> {
        let found = self.named(name).filter(|&index| wanted.is(self.entries[index].kind));
        let mut modules: Vec<String> = found
            .map(|index| match self.owner(self.entries[index].owner) {
                Owner::Kernel => "kernel".to_owned(),
                Owner::Module(module) => module.to_owned(),
            })
            .collect();
        modules.dedup();
        modules
    }

    /// Modules whose names differ little, the best first.
    pub fn near_modules(&self, name: &str) -> Vec<String> {
        nearest(name, self.modules.iter().skip(1).map(|name| slice(&self.text, name)))
    }

    /// The symbol that contains an address, and how far the address is into it. Of aliases, the first listed.
    pub fn containing(&self, address: u64) -> Option<(Symbol<'_>, u64)> {
        let mut best: Option<usize> = None;
        let mut start = 0;
        while start < self.entries.len() {
            let owner = self.entries[start].owner;
            let end = start + self.entries[start..].partition_point(|entry| entry.owner == owner);
            let block = &self.entries[start..end];
            let after = block.partition_point(|entry| entry.address <= address);
            if let Some(last) = block[..after].last().filter(|last| is_text(last.kind)) {
                let first = start + block.partition_point(|entry| entry.address < last.address);
                if best.is_none_or(|best| self.entries[best].address < self.entries[first].address) {
                    best = Some(first);
                }
            }
            start = end;
        }
        let symbol = self.symbol(best?);
        let offset = address - symbol.address;
        symbol
            .size
            .is_some_and(|size| offset < size)
            .then_some((symbol, offset))
    }

    fn entries_of(&self, owner: Owner<'_>) -> Option<Range<usize>> {
        let index = (0..self.modules.len()).find(|&index| self.owner(index as u16).is(owner))? as u16;
        let start = self.entries.partition_point(|entry| entry.owner < index);
        let end = self.entries.partition_point(|entry| entry.owner <= index);
        (start < end).then_some(start..end)
    }

    fn owner(&self, owner: u16) -> Owner<'_> {
        match owner {
            0 => Owner::Kernel,
            _ => Owner::Module(slice(&self.text, &self.modules[usize::from(owner)])),
        }
    }

    fn name(&self, index: usize) -> &str {
        slice(&self.text, &self.entries[index].name)
    }

    fn symbol(&self, index: usize) -> Symbol<'_> {
        let entry = &self.entries[index];
        let next = self.entries[index..]
            .iter()
            .find(|next| next.address > entry.address || next.owner != entry.owner);
        // A module's text and data are apart: what follows the last function is not where that function ends.
        let size = next
            .filter(|next| {
                next.owner == entry.owner && (is_text(next.kind) || !is_text(entry.kind) || entry.owner == 0)
            })
            .map(|next| next.address - entry.address);
        Symbol {
            name: self.name(index),
            owner: self.owner(entry.owner),
            address: entry.address,
            size,
            kind: char::from(entry.kind),
        }
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn slice<'a>(text: &'a str, range: &Range<u32>) -> &'a str {
    text.get(range.start as usize..range.end as usize).unwrap_or("")
}

/// The three names that are most like `name`, the best first; those that only add a compiler's suffix (`.isra.0`) come before all.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let limit = (name.len() / 3).clamp(1, 4);
    let mut near: Vec<(usize, &str)> = names
        .filter(|other| !other.starts_with("__pfx_") && !other.starts_with("__cfi_"))
        .filter_map(|other| {
            if other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')) {
                return Some((0, other));
            }
            if other.len().abs_diff(name.len()) > limit {
                return None;
            }
            let distance = strsim::osa_distance(name, other);
            (distance <= limit).then_some((distance, other))
        })
        .collect();
    near.sort();
    near.dedup();
    near.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T startup_64
ffffffff81001000 t helper
ffffffff81001040 T vfs_read
ffffffff81001040 T vfs_read_alias
ffffffff810010c0 W arch_weak
ffffffff81001100 t helper
ffffffff81001180 t do_thing.isra.0
ffffffff810011c0 T last_function
ffffffff81002000 T _etext
ffffffff82000000 D jiffies
ffffffff82000008 d table
ffffffffc0100000 t e1000_probe\t[e1000_main]
ffffffffc0100080 T e1000_last\t[e1000_main]
ffffffffc0200000 d e1000_table\t[e1000_main]
ffffffffc0300000 t helper\t[ext4]
ffffffffc0300010 t ext4_open\t[ext4]
";

    fn list() -> Kallsyms {
        Kallsyms::parse(LIST.to_owned()).unwrap()
    }

    #[test]
    fn a_name_gives_address_and_size() {
        let list = list();
        let symbol = list.find("vfs_read", Owner::Kernel, Wanted::Function).unwrap();
        assert_eq!(
            (symbol.address, symbol.size, symbol.kind),
            (0xffff_ffff_8100_1040, Some(0x80), 'T')
        );
        let weak = list.find("arch_weak", Owner::Kernel, Wanted::Function).unwrap();
        assert_eq!(weak.size, Some(0x40));
        let last = list.find("last_function", Owner::Kernel, Wanted::Function).unwrap();
        assert_eq!(last.size, Some(0xe40));
    }

    #[test]
    fn aliases_are_one_place() {
        let list = list();
        for name in ["vfs_read", "vfs_read_alias"] {
            let symbol = list.find(name, Owner::Kernel, Wanted::Function).unwrap();
            assert_eq!((symbol.name, symbol.size), (name, Some(0x80)));
        }
        assert_eq!(
            list.find("_stext", Owner::Kernel, Wanted::Function).unwrap().size,
            Some(0x1000)
        );
    }

    #[test]
    fn a_name_of_two_functions_is_refused() {
        assert_eq!(
            list().find("helper", Owner::Kernel, Wanted::Function),
            Err(NotFound::Ambiguous {
                addresses: vec![0xffff_ffff_8100_1000, 0xffff_ffff_8100_1100]
            })
        );
        // In a module of its own it is unique.
        assert!(list().find("helper", Owner::Module("ext4"), Wanted::Function).is_ok());
    }

    #[test]
    fn data_is_no_place_for_a_probe() {
        let found = list()
            .find("jiffies", Owner::Kernel, Wanted::Function)
            .map(|symbol| symbol.address);
        assert_eq!(found, Err(NotFound::NotText { kind: 'D' }));
    }

    #[test]
    fn data_has_an_address_too() {
        let list = list();
        let any = |name| list.find(name, Owner::Kernel, Wanted::Any).map(|symbol| symbol.address);
        assert_eq!(any("jiffies"), Ok(0xffff_ffff_8200_0000));
        assert_eq!(any("vfs_read"), Ok(0xffff_ffff_8100_1040));
        assert_eq!(any("tabel"), Err(NotFound::Unknown));
        assert_eq!(list.near("tabel", Owner::Kernel, Wanted::Any), ["table"]);
        assert_eq!(list.elsewhere("e1000_table", Wanted::Any), ["e1000_main"]);
        assert!(matches!(any("helper"), Err(NotFound::Ambiguous { addresses }) if addresses.len() == 2));
    }

    #[test]
    fn modules_are_apart() {
        let list = list();
        let probe = list
            .find("e1000_probe", Owner::Module("e1000-main"), Wanted::Function)
            .unwrap();
        assert_eq!((probe.owner, probe.size), (Owner::Module("e1000_main"), Some(0x80)));
        // The next symbol is data, mapped elsewhere.
        assert_eq!(
            list.find("e1000_last", Owner::Module("e1000_main.ko"), Wanted::Function)
                .unwrap()
                .size,
            None
        );
        // The next symbol is another module's.
        assert_eq!(
            list.find("ext4_open", Owner::Module("ext4"), Wanted::Function)
                .unwrap()
                .size,
            None
        );
        assert_eq!(
            list.find("x", Owner::Module("ext3"), Wanted::Function),
            Err(NotFound::NoModule)
        );
        assert_eq!(list.near_modules("ext3"), ["ext4"]);
    }

    #[test]
    fn an_unknown_name_has_suggestions() {
        let list = list();
        assert_eq!(
            list.find("vfs_raed", Owner::Kernel, Wanted::Function),
            Err(NotFound::Unknown)
        );
        assert_eq!(list.near("vfs_raed", Owner::Kernel, Wanted::Function), ["vfs_read"]);
        assert_eq!(
            list.near("do_thing", Owner::Kernel, Wanted::Function),
            ["do_thing.isra.0"]
        );
        // Data is not suggested.
        assert_eq!(list.near("jiffiez", Owner::Kernel, Wanted::Function), [""; 0]);
        assert_eq!(
            list.find("ext4_open", Owner::Kernel, Wanted::Function),
            Err(NotFound::Unknown)
        );
        assert_eq!(list.elsewhere("ext4_open", Wanted::Function), ["ext4"]);
        assert_eq!(list.elsewhere("helper", Wanted::Function), ["kernel", "ext4"]);
    }

    #[test]
    fn an_address_has_a_name() {
        let list = list();
        let at = |address| list.containing(address).map(|(symbol, offset)| (symbol.name, offset));
        assert_eq!(at(0xffff_ffff_8100_1043), Some(("vfs_read", 3)));
        assert_eq!(at(0xffff_ffff_8100_103f), Some(("helper", 0x3f)));
        assert_eq!(at(0xffff_ffff_c010_0010), Some(("e1000_probe", 0x10)));
        assert_eq!(at(0xffff_ffff_8200_0004), None);
        assert_eq!(at(0xffff_ffff_c020_0001), None);
        assert_eq!(at(0x1000), None);
    }

    #[test]
    fn what_is_no_list_is_said_so() {
        let parse = |text: &str| Kallsyms::parse(text.to_owned()).unwrap_err();
        assert_eq!(parse(""), ListError::Empty);
        assert_eq!(
            parse("ffffffff81000000 T a\nnonsense\n"),
            ListError::Malformed { line: 2 }
        );
        assert_eq!(
            parse("ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n"),
            ListError::StandIn
        );
        assert_eq!(parse("+ff T a\n"), ListError::Malformed { line: 1 });
        assert_eq!(parse("ff T a [\n"), ListError::Malformed { line: 1 });
        assert_eq!(
            parse("0000000000000000 T a\n0000000000000000 T b\t[m]\n"),
            ListError::Hidden
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "([0-9a-f]{0,17} [a-zA-Z]{0,2} [a-z.]{0,4}(\t\\[m?\\])?\n?){0,8}", address: u64) {
            if let Ok(list) = Kallsyms::parse(text) {
                list.containing(address);
                let _ = list.find("a", Owner::Kernel, Wanted::Function);
                let _ = list.find("a", Owner::Module("m"), Wanted::Function);
            }
        }
    }
}
