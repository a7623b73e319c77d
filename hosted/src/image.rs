//! The executable of this process: its text, its functions, and which of them are not to be probed.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

use dprobes::host::{Function, Prohibited};
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Endianness, Object as _, ObjectSymbol as _, SymbolKind};

/// Why the executable of this process cannot be understood.
#[derive(Debug, Clone)]
pub enum ImageError {
    /// `/proc/self/exe` cannot be read.
    Read(std::io::ErrorKind),
    /// It is not an ELF file that can be parsed.
    Parse(object::Error),
    /// It has no symbols: it has been stripped.
    NoSymbols,
    /// It has no executable segment.
    NoText,
}

impl std::fmt::Display for ImageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ImageError::Read(kind) => write!(f, "/proc/self/exe cannot be read: {kind}"),
            ImageError::Parse(error) => write!(f, "/proc/self/exe cannot be parsed: {error}"),
            ImageError::NoSymbols => f.write_str("the executable has no symbols; build it without stripping"),
            ImageError::NoText => f.write_str("the executable has no executable segment"),
        }
    }
}

impl std::error::Error for ImageError {}

/// The executable, as it is loaded.
#[derive(Debug)]
pub(crate) struct Image {
    text: Vec<Range<u64>>,
    /// By start; one for each start.
    functions: Vec<Entry>,
    names: HashMap<String, u64>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u64,
    end: u64,
    excluded: bool,
}

/// What the trap handler consists of, as the first part of a function's path. The crates under test and their users are others.
///
/// Rust's own libraries are among them as a whole: which of their functions the compiler has shared between the handler
/// and other code cannot be seen from outside. The C library is not in the executable.
const EXCLUDED_CRATES: [&str; 7] = [
    "dprobes",
    "hosted",
    "core",
    "alloc",
    "std",
    "compiler_builtins",
    "rustc_std_workspace_core",
];

impl Image {
    /// The executable of this process; parsed once.
    pub(crate) fn get() -> Result<&'static Image, ImageError> {
        static IMAGE: OnceLock<Result<Image, ImageError>> = OnceLock::new();
        IMAGE.get_or_init(Image::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Image, ImageError> {
        let file = std::fs::read("/proc/self/exe").map_err(|error| ImageError::Read(error.kind()))?;
        let elf = ElfFile64::<Endianness>::parse(&*file).map_err(ImageError::Parse)?;
        let bias = load_bias();
        let text: Vec<_> = elf
            .elf_program_headers()
            .iter()
            .filter(|header| {
                let flags = header.p_flags(Endianness::Little);
                header.p_type(Endianness::Little) == object::elf::PT_LOAD && flags.0 & object::elf::PF_X.0 != 0
            })
            .map(|header| {
                let start = bias.wrapping_add(header.p_vaddr(Endianness::Little));
                start..start + header.p_memsz(Endianness::Little)
            })
            .collect();
        if text.is_empty() {
            return Err(ImageError::NoText);
        }
        let mut functions = Vec::new();
        let mut names = HashMap::new();
        for symbol in elf
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
        {
            let Ok(name) = symbol.name() else { continue };
            let start = bias.wrapping_add(symbol.address());
            names.insert(name.to_owned(), start);
            if symbol.size() > 0 {
                functions.push(Entry {
                    start,
                    end: start + symbol.size(),
                    excluded: is_excluded(name),
                });
            }
        }
        if functions.is_empty() {
            return Err(ImageError::NoSymbols);
        }
        functions.sort_by_key(|entry| entry.start);
        // Of several functions that the linker has folded into one, all count.
        functions.dedup_by(|later, first| {
            let same = later.start == first.start;
            if same {
                first.end = first.end.max(later.end);
                first.excluded |= later.excluded;
            }
            same
        });
        Ok(Image { text, functions, names })
    }

    /// The executable's text, from its first byte to its last.
    pub(crate) fn text(&self) -> Range<u64> {
        let start = self.text.iter().map(|range| range.start).min().unwrap_or(0);
        let end = self.text.iter().map(|range| range.end).max().unwrap_or(0);
        start..end
    }

    /// The function at an address, if it may be probed.
    pub(crate) fn function(&self, address: u64) -> Result<Function, Prohibited> {
        if !self.text.iter().any(|range| range.contains(&address)) {
            return Err(Prohibited::NotText);
        }
        let after = self.functions.partition_point(|entry| entry.start <= address);
        let entry = after
            .checked_sub(1)
            .and_then(|index| self.functions.get(index))
            .ok_or(Prohibited::NoFunction)?;
        if address >= entry.end {
            return Err(Prohibited::NoFunction);
        }
        if entry.excluded {
            return Err(Prohibited::Excluded);
        }
        Ok(Function {
            start: entry.start,
            end: entry.end,
        })
    }

    /// The address of a symbol, by the name in the symbol table.
    pub(crate) fn symbol(&self, name: &str) -> Option<u64> {
        self.names.get(name).copied()
    }
}

/// Is this a function of a crate that the trap handler is made of?
fn is_excluded(symbol: &str) -> bool {
    // What is not mangled is assembly or C, and not the handler's.
    let Ok(name) = rustc_demangle::try_demangle(symbol) else {
        return symbol.starts_with("__rust");
    };
    let name = format!("{name:#}");
    // `<T as Trait>::f` belongs to the crate of `T`.
    let path = name
        .trim_start_matches(['<', '&', '*', '(', '['])
        .trim_start_matches("mut ")
        .trim_start_matches("dyn ");
    let first = path.split("::").next().unwrap_or(path);
    // Types without a path (`<u64 as ..>::f`) are the core library's, and not worth a probe.
    !path.contains("::")
        || EXCLUDED_CRATES.contains(&first)
        || first.chars().any(|c| !(c.is_alphanumeric() || c == '_'))
}

/// What is added to an address in the file to get the address in memory.
fn load_bias() -> u64 {
    unsafe extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, bias: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the C library passes a valid `info`, and the pointer that it was given.
        unsafe { *bias.cast::<u64>() = (*info).dlpi_addr };
        1
    }
    let mut bias = 0_u64;
    // SAFETY: the function has the right type, and does not keep its arguments. The executable is visited first.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut bias).cast()) };
    bias
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handlers_crates_are_excluded_and_others_are_not() {
        let cases = [
            ("_ZN7dprobes4trap10breakpoint3foo17h0123456789abcdefE", true),
            (
                "_ZN56_$LT$dprobes..insn..Insn$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE",
                true,
            ),
            ("_ZN4core3ptr13drop_in_place17h0123456789abcdefE", true),
            ("_ZN5fires6victim17h0123456789abcdefE", false),
            (
                "_ZN58_$LT$fires..Victim$u20$as$u20$core..clone..Clone$GT$5clone17h0123456789abcdefE",
                false,
            ),
            ("_ZN12hosted_tests3run17h0123456789abcdefE", false),
            ("main", false),
            ("__rust_alloc", true),
        ];
        for (symbol, excluded) in cases {
            assert_eq!(is_excluded(symbol), excluded, "{symbol}");
        }
    }

    #[test]
    fn this_executable_is_understood() {
        let image = Image::get().unwrap();
        let here = load_bias as fn() -> u64 as usize as u64;
        assert!(image.text().contains(&here));
        assert_eq!(image.function(here), Err(Prohibited::Excluded));
        assert_eq!(
            image.function(EXCLUDED_CRATES[0].as_ptr() as u64),
            Err(Prohibited::NotText)
        );
        let main = image.symbol("main").unwrap();
        assert_eq!(image.function(main).map(|function| function.start), Ok(main));
        assert_eq!(image.function(main + 1).map(|function| function.start), Ok(main));
    }
}
