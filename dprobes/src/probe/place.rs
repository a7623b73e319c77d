//! From an address that a program asks for to a place that can be probed: every check, and the slot's image.

use alloc::vec::Vec;

use super::engine::Engine;
use super::error::PointError;
use super::site::Resumption;
use crate::host::{Function, Host, Patch, Prohibited};
use crate::insn::{self, Insn, Instructions, Refusal, Resume};
use crate::mem;
use crate::text::transaction::INT3;

/// The longest instruction.
const INSN_MAX: usize = 15;

/// Functions longer than this are not decoded from their start, so that a boundary in them cannot be established.
const FUNCTION_MAX: u64 = 1 << 20;

/// A place that can be probed: proven to be an instruction that this engine can resume.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) address: u64,
    pub(crate) insn: Insn,
}

impl<H: Host> Engine<H> {
    /// Checks an address: allowed, on an instruction boundary, the expected bytes, an instruction that can be resumed.
    pub(crate) fn place(&self, requested: u64, expected: &[u8]) -> Result<Place, PointError> {
        let (address, function) = self.skip_entry(requested)?;
        let text = self.original_text(function, address)?;
        let offset = (address - function.start) as usize;
        let insn = instruction_at(&text, function.start, offset)?;
        let bytes = text.get(offset..).unwrap_or(&[]);
        let found = bytes.get(..expected.len()).unwrap_or(bytes);
        if found != expected {
            let (len, expected, found) = (expected.len(), first_bytes(expected), first_bytes(found));
            return Err(PointError::Opcode { len, expected, found });
        }
        if let Some(refusal) = refusal(&insn) {
            return Err(PointError::Instruction {
                refusal,
                bytes: first_bytes(bytes),
            });
        }
        Ok(Place { address, insn })
    }

    /// An entry probe goes behind `endbr64`, where an indirect call must land, and behind the function tracer's NOP, which
    /// is not ours to patch.
    fn skip_entry(&self, requested: u64) -> Result<(u64, Function), PointError> {
        const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
        const FTRACE_LEN: u64 = 5;
        let mut address = requested;
        let function = loop {
            match self.host().probeable(address) {
                Ok(function) if address == function.start => {
                    let mut bytes = [0; ENDBR64.len()];
                    self.host()
                        .read(address, &mut bytes)
                        .map_err(|_| PointError::Unreadable)?;
                    if bytes != ENDBR64 {
                        break function;
                    }
                    address += ENDBR64.len() as u64;
                }
                Ok(function) => break function,
                Err(Prohibited::Ftrace) => {
                    let behind = address + FTRACE_LEN;
                    let function = self.host().probeable(behind).map_err(PointError::Prohibited)?;
                    if requested != function.start {
                        return Err(PointError::Prohibited(Prohibited::Ftrace));
                    }
                    address = behind;
                    break function;
                }
                Err(why) => return Err(PointError::Prohibited(why)),
            }
        };
        Ok((address, function))
    }

    /// The text from the function's start to a little behind `address`, without this engine's own breakpoints.
    fn original_text(&self, function: Function, address: u64) -> Result<Vec<u8>, PointError> {
        let end = function.end.min(address + INSN_MAX as u64);
        let inside = (function.start..function.end).contains(&address) && end - function.start <= FUNCTION_MAX;
        let len = if inside { (end - function.start) as usize } else { 0 };
        if len == 0 {
            return Err(PointError::Prohibited(Prohibited::NoFunction));
        }
        let mut text = mem::vec(len).map_err(|_| PointError::Unreadable)?;
        text.resize(len, 0);
        self.host()
            .read(function.start, &mut text)
            .map_err(|_| PointError::Unreadable)?;
        for (at, byte) in (function.start..).zip(&mut text) {
            if *byte == INT3
                && let Some(site) = self.site(at)
            {
                *byte = site.insn.bytes().first().copied().unwrap_or(INT3);
            }
        }
        Ok(text)
    }

    /// How the instruction at a place is resumed from the slot at `slot`, and what the slot must hold.
    pub(crate) fn slot_image(&self, place: &Place, slot: u64) -> Result<(Resumption, Patch), PointError> {
        let insn = &place.insn;
        let refused = |refusal| PointError::Instruction {
            refusal,
            bytes: first_bytes(insn.bytes()),
        };
        let copy = insn.relocate(place.address, slot).map_err(|_| PointError::OutOfReach)?;
        // What is not the instruction or the jump back traps, so that a stray CPU is caught at once.
        let mut image = [INT3; Patch::MAX];
        let (before, after) = image.split_at_mut(insn.len());
        before.copy_from_slice(copy.bytes());
        let next = place.address + insn.len() as u64;
        let jump = insn::jump(slot + insn.len() as u64, next).map_err(|_| PointError::OutOfReach)?;
        if let Some(to) = after.first_chunk_mut() {
            *to = jump;
        }
        let resumption = match insn.resume().map_err(refused)? {
            Resume::Copy => Resumption::Copied { slot },
            Resume::CopyWithNext => return Err(refused(Refusal::InterruptShadow)),
            Resume::Emulate(emulation) => Resumption::Emulated {
                emulation,
                slot,
                fallback: insn.step().ok(),
            },
            Resume::Step(kind) => Resumption::Stepped { slot, kind },
        };
        Ok((resumption, Patch::image(slot, image)))
    }
}

/// Why the engine cannot resume an instruction, if it cannot.
fn refusal(insn: &Insn) -> Option<Refusal> {
    match insn.resume() {
        Ok(Resume::CopyWithNext) => Some(Refusal::InterruptShadow),
        Ok(_) => None,
        Err(refusal) => Some(refusal),
    }
}

/// The instruction that begins at `offset` of a function's text, found by decoding from the function's start.
fn instruction_at(text: &[u8], start: u64, offset: usize) -> Result<Insn, PointError> {
    let undecodable = |at| PointError::Undecodable {
        bytes: first_bytes(text.get(at..).unwrap_or(&[])),
    };
    for item in Instructions::new(text) {
        let (at, insn) = item.map_err(|error| undecodable(error.offset))?;
        let end = at + insn.len();
        if at == offset {
            return Ok(insn);
        }
        if end > offset {
            return Err(PointError::NotBoundary {
                instruction: start + at as u64,
                next: start + end as u64,
            });
        }
    }
    Err(undecodable(offset))
}

/// Up to eight bytes as a number, the first lowest.
fn first_bytes(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take(8)
        .rev()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}
