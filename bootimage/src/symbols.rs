//! The kernel's functions, from the symbol table of its own file.
//!
//! The runner passes the file as a boot module (`-initrd`). Without it the kernel runs, and knows no function.

use alloc::vec::Vec;
use core::ops::Range;

use object::read::elf::{ElfFile64, ElfSymbol64};
use object::{Endianness, Object, ObjectSymbol, SymbolKind};
use spin::Once;

use crate::info::boot_info;
use crate::memory::{boot_bytes, text};
use crate::module;

/// A function of this kernel, or of its module, which is there only while it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its symbol, mangled as the compiler left it.
    pub name: &'static str,
    /// From its first byte to the one after its last.
    pub code: Range<u64>,
}

static FUNCTIONS: Once<Vec<Function>> = Once::new();

/// All functions with a size, in the order of their addresses. The first call allocates; not for traps.
pub fn functions() -> &'static [Function] {
    FUNCTIONS.call_once(|| {
        let module = boot_info().module.clone().unwrap_or(0..0);
        let file = boot_bytes(module.start, (module.end - module.start) as usize);
        let Ok(file) = ElfFile64::<Endianness>::parse(file) else {
            return Vec::new();
        };
        let mut functions: Vec<_> = file.symbols().filter_map(|symbol| function(&symbol)).collect();
        functions.sort_unstable_by_key(|function| (function.code.start, function.code.end));
        functions
    })
}

fn function(symbol: &ElfSymbol64<'static, '_>) -> Option<Function> {
    let code = symbol.address()..symbol.address() + symbol.size();
    if symbol.kind() != SymbolKind::Text
        || code.is_empty()
        || !(text().contains(&code.start) || module::text().contains(&code.start))
    {
        return None;
    }
    Some(Function {
        name: symbol.name().ok()?,
        code,
    })
}

/// The function whose code contains `address`; where several do, the last in order of start and end.
pub fn function_at(address: u64) -> Option<&'static Function> {
    let functions = functions();
    let after = functions.partition_point(|function| function.code.start <= address);
    functions[..after]
        .iter()
        .rev()
        .find(|function| function.code.contains(&address))
}

/// The function with this symbol: mangled, or the plain name of a `#[unsafe(no_mangle)]` or assembly function.
pub fn function_named(name: &str) -> Option<&'static Function> {
    functions().iter().find(|function| function.name == name)
}

/// As [`function_at`], but knows nothing until the table has been read, and does not allocate.
pub(crate) fn known_function_at(address: u64) -> Option<&'static Function> {
    FUNCTIONS.get().and_then(|_| function_at(address))
}
