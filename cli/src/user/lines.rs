//! From lines of source text to addresses, by DWARF.

use std::collections::BTreeSet;

use addr2line::gimli::{self, EndianSlice, RunTimeEndian};
use object::{Object as _, ObjectSection as _};

use super::elf::Elf;

/// Why a line has no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoLine {
    /// There is no debug information, or none that can be read.
    NoDebug(Option<String>),
    /// No code is from a file with this name.
    NoFile,
    /// No code is from this line; the nearest after it that has some, of the same file.
    NoCode { next: Option<u32> },
    /// Code of the line is in several functions, or was compiled in several times.
    Ambiguous(Vec<u64>),
}

/// The address of the first instruction of a line. `file` is the end of the path that the compiler was given.
pub fn find(elf: &Elf, file: &str, line: u32) -> Result<u64, NoLine> {
    let own = lines(elf.data(), file)?;
    let all = match (&own, &elf.debug) {
        (None, Some(debug)) => lines(&debug.data, file)?,
        _ => own,
    };
    let rows = all.ok_or(NoLine::NoDebug(None))?;
    if rows.is_empty() {
        return Err(NoLine::NoFile);
    }
    // One place for each function, the first.
    let mut places = BTreeSet::new();
    let mut functions = BTreeSet::new();
    let mut addresses: Vec<_> = rows.iter().filter(|row| row.1 == line).map(|row| row.0).collect();
    addresses.sort_unstable();
    for address in addresses {
        let function = elf.containing(address).map_or(address, |symbol| symbol.address);
        if functions.insert(function) {
            places.insert(address);
        }
    }
    match places.len() {
        0 => Err(NoLine::NoCode {
            next: rows.iter().map(|row| row.1).filter(|other| *other > line).min(),
        }),
        1 => Ok(places.into_iter().next().unwrap_or_default()),
        _ => Err(NoLine::Ambiguous(places.into_iter().collect())),
    }
}

/// Address and line of all code that is from a file; `None` without debug information.
fn lines(data: &[u8], file: &str) -> Result<Option<Vec<(u64, u32)>>, NoLine> {
    let unreadable = |error: gimli::Error| NoLine::NoDebug(Some(error.to_string()));
    let Ok(object) = object::File::parse(data) else {
        return Ok(None);
    };
    if object.section_by_name(".debug_line").is_none() {
        return Ok(None);
    }
    let endian = RunTimeEndian::Little;
    let sections = gimli::DwarfSections::load(|id| {
        let section = object.section_by_name(id.name());
        // A section that cannot be read is as good as none; what needs it says so.
        let data = section.and_then(|section| section.uncompressed_data().ok());
        Ok::<_, gimli::Error>(data.unwrap_or_default())
    })
    .map_err(unreadable)?;
    let dwarf = sections.borrow(|data| EndianSlice::new(data, endian));
    let context = addr2line::Context::from_dwarf(dwarf).map_err(unreadable)?;
    let mut rows = Vec::new();
    for (address, _, location) in context.find_location_range(0, u64::MAX).map_err(unreadable)? {
        let named = location.file.is_some_and(|path| is_named(path, file));
        if let (true, Some(line)) = (named, location.line) {
            rows.push((address, line));
        }
    }
    Ok(Some(rows))
}

/// Does a path end in these components?
fn is_named(path: &str, file: &str) -> bool {
    std::path::Path::new(path).ends_with(file)
}
