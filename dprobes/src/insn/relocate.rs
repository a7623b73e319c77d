//! The bytes of an instruction for another address.

use super::decode::{Insn, MAX_LEN};
use core::fmt;

/// Why an instruction or jump cannot be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelocateError {
    /// The distance does not fit in a signed 32-bit displacement.
    OutOfReach {
        /// The address it is placed at.
        from: u64,
        /// The address it has to reach.
        to: u64,
    },
}

impl fmt::Display for RelocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RelocateError::OutOfReach { from, to } => {
                write!(f, "{to:#x} cannot be reached from {from:#x} with 32 bits")
            }
        }
    }
}

impl core::error::Error for RelocateError {}

/// A copy of an instruction, made for one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocated {
    bytes: [u8; MAX_LEN],
    length: u8,
}

impl Relocated {
    /// The bytes of the copy, as many as the original has.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl Insn {
    /// The memory address that a RIP-relative operand names when the instruction is at `address`. `None` if it has no
    /// such operand.
    pub fn rip_relative_address(&self, address: u64) -> Option<u64> {
        if !self.is_rip_relative() {
            return None;
        }
        let next = address.wrapping_add(self.len() as u64);
        let target = next.wrapping_add_signed(self.signed(self.displacement()));
        Some(if self.has_32bit_addresses() {
            target & 0xffff_ffff
        } else {
            target
        })
    }

    /// The bytes for a copy at `to` of the instruction at `from`, with the displacement of a RIP-relative operand
    /// corrected so that it names the same memory, and that of an `xbegin` so that it falls back to the same address.
    ///
    /// Branch displacements are left alone: a stepped branch is corrected [afterwards](super::StepKind).
    ///
    /// # Errors
    ///
    /// `OutOfReach` if the memory or the address cannot be reached from `to`.
    pub fn relocate(&self, from: u64, to: u64) -> Result<Relocated, RelocateError> {
        let mut copy = Relocated {
            bytes: [0; MAX_LEN],
            length: self.len() as u8,
        };
        for (byte, original) in copy.bytes.iter_mut().zip(self.bytes()) {
            *byte = *original;
        }
        let next = to.wrapping_add(self.len() as u64);
        let (field, target) = match self.rip_relative_address(from) {
            Some(target) => (self.displacement(), target),
            None if self.is_xbegin() => {
                let fallback = self.signed(self.immediate());
                let next = from.wrapping_add(self.len() as u64);
                (self.immediate(), next.wrapping_add_signed(fallback))
            }
            None => return Ok(copy),
        };
        let displacement = if self.is_rip_relative() && self.has_32bit_addresses() {
            // The sum is truncated to 32 bits, so every address is in reach.
            target.wrapping_sub(next) as u32
        } else {
            distance(next, target).ok_or(RelocateError::OutOfReach { from: to, to: target })? as u32
        };
        for (byte, new) in copy
            .bytes
            .iter_mut()
            .skip(usize::from(field.start))
            .zip(displacement.to_le_bytes().into_iter().take(usize::from(field.size)))
        {
            *byte = new;
        }
        Ok(copy)
    }
}

/// The bytes of a `jmp` placed at `from` that goes to `to`.
///
/// # Errors
///
/// `OutOfReach` if the distance does not fit.
pub fn jump(from: u64, to: u64) -> Result<[u8; 5], RelocateError> {
    let displacement = distance(from.wrapping_add(5), to).ok_or(RelocateError::OutOfReach { from, to })?;
    let [a, b, c, d] = displacement.to_le_bytes();
    Ok([0xe9, a, b, c, d])
}

fn distance(from: u64, to: u64) -> Option<i32> {
    i32::try_from(to.wrapping_sub(from) as i64).ok()
}
