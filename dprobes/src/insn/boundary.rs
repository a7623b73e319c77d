//! Instruction boundaries of a function, found by decoding from its start.

use super::decode::Insn;
use super::parts::DecodeError;
use core::fmt;

/// The instructions of a text, from its first byte on. Ends after the last whole instruction or the first error.
#[derive(Clone, Debug)]
pub struct Instructions<'a> {
    text: &'a [u8],
    offset: usize,
}

impl<'a> Instructions<'a> {
    /// The instructions of `text`, whose first byte must be the start of one (the start of a function).
    pub fn new(text: &'a [u8]) -> Instructions<'a> {
        Instructions { text, offset: 0 }
    }
}

impl Iterator for Instructions<'_> {
    /// The offset of the instruction in the text, and the instruction.
    type Item = Result<(usize, Insn), BoundaryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.text.get(offset..).filter(|rest| !rest.is_empty())?;
        match Insn::decode(rest) {
            Ok(insn) => {
                self.offset = offset.wrapping_add(insn.len());
                Some(Ok((offset, insn)))
            }
            Err(error) => {
                self.text = &[];
                Some(Err(BoundaryError { offset, error }))
            }
        }
    }
}

/// Bytes that are not an instruction were met before the offset was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundaryError {
    /// Where, as an offset into the text.
    pub offset: usize,
    /// Why.
    pub error: DecodeError,
}

impl fmt::Display for BoundaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at offset {:#x} of the function: {}", self.offset, self.error)
    }
}

impl core::error::Error for BoundaryError {}

/// Whether `offset` is the start of an instruction of `text`, the bytes of a function from its start. An offset at or
/// past the end is not one.
///
/// # Errors
///
/// [`BoundaryError`] if what lies before `offset` cannot be decoded.
pub fn is_boundary(text: &[u8], offset: usize) -> Result<bool, BoundaryError> {
    for item in Instructions::new(text) {
        match item {
            Ok((at, _)) if at == offset => return Ok(true),
            Ok((at, _)) if at > offset => return Ok(false),
            Ok(_) => {}
            Err(error) if error.offset > offset => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
