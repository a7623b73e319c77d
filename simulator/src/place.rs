//! Where probes and symbols are on a machine that has no kernel.

use std::collections::HashMap;

use dprobes::rpn::object::{self, Location, ObjectError, Place, ResolveError};

/// Where the text of the made-up kernel begins.
pub(crate) const TEXT: u64 = 0xffff_ffff_8100_0000;

/// Bytes from one made-up symbol to the next.
const APART: u64 = 0x1000;

/// Why an object cannot be given addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceError {
    /// The bytes are no object.
    Object(ObjectError),
    /// The address of a symbol is pushed, and nobody knows it.
    Symbol {
        /// The symbol.
        name: String,
        /// The offset in the code of the instruction.
        offset: u32,
    },
}

/// Gives addresses to the probes of an object and to the symbols that its instructions push.
///
/// Symbols that `address` does not know are made up for probes: it does not matter where they are.
///
/// # Errors
/// [`PlaceError`]; the bytes are to be discarded then.
pub fn place(bytes: &mut [u8], address: impl Fn(&str) -> Option<u64>) -> Result<(), PlaceError> {
    let mut made_up: HashMap<String, u64> = HashMap::new();
    let done = object::resolve(
        bytes,
        |_, location| {
            Ok(Place::Absolute(match location {
                Location::Place(Place::Absolute(address)) => address,
                Location::Place(Place::ModuleOffset(offset)) => TEXT.wrapping_add(offset),
                Location::Symbol { name, addend } => {
                    let next = TEXT + APART * made_up.len() as u64;
                    let known = address(name);
                    let at = known.unwrap_or_else(|| *made_up.entry(name.to_owned()).or_insert(next));
                    at.wrapping_add_signed(addend)
                }
                Location::Source { .. } => TEXT,
            }))
        },
        |relocation| address(relocation.symbol).ok_or_else(|| relocation.symbol.to_owned()),
    );
    done.map_err(|error| match error {
        ResolveError::Object(error) => PlaceError::Object(error),
        ResolveError::Location { error: name, .. } => PlaceError::Symbol { name, offset: 0 },
        // The word is behind the opcode.
        ResolveError::Symbol { offset, error: name } => PlaceError::Symbol {
            name,
            offset: offset.saturating_sub(1),
        },
    })
}
