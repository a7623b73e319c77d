//! The symbols of the running kernel, and the functions that they make of its text.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Range;

/// The kernel's own symbols; those of modules are left out.
#[derive(Debug)]
pub struct Symbols {
    /// By name. Of several with one name the first.
    places: HashMap<String, u64>,
    /// Address and name, sorted; of several at one address the first that is code.
    sorted: Vec<(u64, String)>,
}

/// What the kernel takes for a function: the bytes from a symbol up to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub range: Range<u64>,
}

impl Symbols {
    /// Reads `/proc/kallsyms`.
    ///
    /// # Errors
    /// What the system said, or `PermissionDenied` when it hides the addresses.
    pub fn read() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/kallsyms")?)
    }

    fn parse(list: &str) -> io::Result<Self> {
        let mut places = HashMap::new();
        let mut all: Vec<(u64, bool, &str)> = Vec::new();
        for line in list.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name), None) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let Ok(address) = u64::from_str_radix(address, 16) else {
                continue;
            };
            places.entry(name.to_owned()).or_insert(address);
            all.push((address, !matches!(kind, "t" | "T" | "w" | "W"), name));
        }
        if all.iter().all(|(address, ..)| *address == 0) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the kernel hides the addresses of its symbols (sysctl kernel.kptr_restrict)",
            ));
        }
        // Stable: what is listed first stays first.
        all.sort_by_key(|&(address, is_data, _)| (address, is_data));
        all.dedup_by_key(|(address, ..)| *address);
        let sorted = all
            .into_iter()
            .map(|(address, _, name)| (address, name.to_owned()))
            .collect();
        Ok(Symbols { places, sorted })
    }

    /// Where a symbol is.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.places.get(name).copied()
    }

    /// What lies between two symbols, if the kernel has both.
    pub fn between(&self, start: &str, end: &str) -> Option<Range<u64>> {
        Some(self.address(start)?..self.address(end)?)
    }

    /// The functions in `text`, in order. A symbol that begins at the end of another's instructions is one of its own. The NOPs in front of functions, which
    /// have symbols of their own where the kernel may patch calls into them, are none.
    pub fn functions(&self, text: &Range<u64>) -> impl Iterator<Item = Function> {
        self.sorted.windows(2).filter_map(move |pair| match pair {
            [(start, name), (end, _)] if text.contains(start) && !name.starts_with("__pfx_") => Some(Function {
                name: name.clone(),
                range: *start..(*end).min(text.end),
            }),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_reaches_to_the_next_symbol_whatever_that_is() {
        let list = "\
ffffffff81000000 D _data_here
ffffffff81000000 T _stext
ffffffff81000010 t one
ffffffff81000010 t alias_of_one
ffffffff81000030 r table
ffffffff81000038 t __pfx_two
ffffffff81000040 T _etext
ffffffffc0000000 t of_a_module\t[module]
";
        let symbols = Symbols::parse(list).expect("the list can be read");
        let text = symbols.between("_stext", "_etext").expect("text has both ends");
        let functions: Vec<_> = symbols
            .functions(&text)
            .map(|function| (function.name, function.range.end - function.range.start))
            .collect();
        assert_eq!(
            functions,
            [("_stext".into(), 16), ("one".into(), 32), ("table".into(), 8)]
        );
        assert_eq!(symbols.address("of_a_module"), None);
    }

    #[test]
    fn hidden_addresses_are_an_error() {
        let error = Symbols::parse("0000000000000000 T _stext\n").expect_err("there is no address");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
