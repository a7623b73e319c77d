//! Addresses in the kernel, by the symbols they are at.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::kallsyms::{Kallsyms, Owner};
use crate::symbols;

/// Finds names for addresses. The list of symbols is read when the first is asked for, and is done without where it cannot be read.
#[derive(Debug)]
pub struct Addresses {
    symbols: OnceCell<Option<Kallsyms>>,
    running: bool,
}

/// How an address came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is that of something.
    Exact,
    /// It was left by a call: what is meant is the call before it, which may be the last instruction of its function.
    Return,
}

impl Addresses {
    /// By the symbols of the running kernel, as far as they can be read.
    pub fn running() -> Self {
        Addresses {
            symbols: OnceCell::new(),
            running: true,
        }
    }

    /// Without symbols: those of the running kernel would be wrong.
    pub fn unnamed() -> Self {
        Addresses {
            symbols: OnceCell::new(),
            running: false,
        }
    }

    /// By a list of symbols.
    pub fn from_list(path: &Path) -> Result<Self, Error> {
        Ok(Self::from_symbols(symbols::load(Some(path))?))
    }

    /// By these symbols.
    pub fn from_symbols(symbols: Kallsyms) -> Self {
        Addresses {
            symbols: OnceCell::from(Some(symbols)),
            running: false,
        }
    }

    /// By a list of symbols, if there is one, or else by those of the running kernel if it is what is looked at.
    pub fn choose(list: Option<&PathBuf>, running: bool) -> Result<Self, Error> {
        match list {
            Some(path) => Self::from_list(path),
            None if running => Ok(Self::running()),
            None => Ok(Self::unnamed()),
        }
    }

    fn symbols(&self) -> Option<&Kallsyms> {
        let load = || self.running.then(|| symbols::load(None).ok()).flatten();
        self.symbols.get_or_init(load).as_ref()
    }

    /// The function that an address of the kernel is in, such as `vfs_read+0x1f` or `e1000_probe+0x3 [e1000]`.
    pub fn name(&self, address: u64, role: Role) -> Option<String> {
        let back = u64::from(role == Role::Return);
        let inside = address.checked_sub(back).filter(|inside| is_kernel(*inside))?;
        let (symbol, offset) = self.symbols()?.containing(inside)?;
        let offset = match offset + back {
            0 => String::new(),
            offset => format!("+{offset:#x}"),
        };
        let module = match symbol.owner {
            Owner::Kernel => String::new(),
            Owner::Module(name) => format!(" [{name}]"),
        };
        Some(format!("{}{offset}{module}", symbol.name))
    }
}

/// Does a word look like an address in the kernel? They are in the upper half of the address space (SDM volume 1, 3.3.7.1); its last
/// page is left out, whose addresses are small negative numbers.
pub fn is_kernel(word: u64) -> bool {
    (0xffff_8000_0000_0000..0xffff_ffff_ffff_f000).contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
ffffffff81001000 T caller
ffffffff81001080 T after
ffffffff81001100 T end
ffffffffc0100000 t e1000_probe\t[e1000]
ffffffffc0100080 T e1000_last\t[e1000]
";

    #[test]
    fn an_address_is_named_by_where_it_came_from() {
        let addresses = Addresses::from_symbols(Kallsyms::parse(LIST.to_owned()).unwrap());
        let name = |address, role| addresses.name(address, role).unwrap_or_default();
        assert_eq!(name(0xffff_ffff_8100_1000, Role::Exact), "caller");
        assert_eq!(name(0xffff_ffff_8100_1004, Role::Exact), "caller+0x4");
        // The last instruction of `caller` was a call.
        assert_eq!(name(0xffff_ffff_8100_1080, Role::Return), "caller+0x80");
        assert_eq!(name(0xffff_ffff_8100_1080, Role::Exact), "after");
        assert_eq!(name(0xffff_ffff_c010_0003, Role::Exact), "e1000_probe+0x3 [e1000]");
        for outside in [0, 1, 0x1234, 0xffff_8880_0000_0000, 0xffff_ffff_8100_0fff, u64::MAX] {
            assert_eq!(addresses.name(outside, Role::Return), None);
        }
        assert_eq!(Addresses::unnamed().name(0xffff_ffff_8100_1000, Role::Exact), None);
    }

    #[test]
    fn small_negative_numbers_are_no_addresses() {
        for (word, kernel) in [
            (0, false),
            (0x7fff_ffff_ffff, false),
            (0xffff_7fff_ffff_ffff, false),
            (0xffff_8000_0000_0000, true),
            (0xffff_ffff_8100_0000, true),
            (-100_i64 as u64, false),
        ] {
            assert_eq!(is_kernel(word), kernel, "{word:#x}");
        }
    }
}
