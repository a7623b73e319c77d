//! The byte heap: scratch memory of a hit.
//!
//! Blocks lie one behind the other, in the order in which they were allocated; freeing one closes the gap. So what is free is in one
//! piece, and a block is named by a number, not by where it is.

use core::cell::Cell;

use zerocopy::{FromZeros, Immutable, KnownLayout};

use super::env::Env;
use super::exception;
use super::limits::{HEAP_BLOCKS, HEAP_MAX, STACK_WORDS};
use super::rare::{Failure, Machine};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeapInsn {
    Malloc,
    Free,
    /// `width` is 1, 2, 4 or 8 bytes.
    Read {
        width: u8,
        count: u16,
    },
    Write {
        width: u8,
        count: u16,
    },
}

#[derive(Debug, FromZeros, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Heap {
    /// Blocks there are.
    count: usize,
    /// Bytes of all blocks.
    used: usize,
    /// Handles given out in this hit.
    handles: u64,
    blocks: [Block; HEAP_BLOCKS],
    bytes: [u8; HEAP_MAX as usize],
}

#[derive(Clone, Copy, Debug, FromZeros, Immutable, KnownLayout)]
#[repr(C)]
struct Block {
    handle: u64,
    start: usize,
    len: usize,
}

impl Heap {
    pub(super) const fn new() -> Self {
        let block = Block {
            handle: 0,
            start: 0,
            len: 0,
        };
        Self {
            count: 0,
            used: 0,
            handles: 0,
            blocks: [block; HEAP_BLOCKS],
            bytes: [0; HEAP_MAX as usize],
        }
    }

    /// Empties it, for a new hit.
    #[inline]
    pub(super) fn clear(&mut self) {
        (self.count, self.used, self.handles) = (0, 0, 0);
    }

    /// The index of a block.
    fn find(&self, handle: u64) -> Option<usize> {
        let blocks = self.blocks.iter().take(self.count);
        // Zero is no handle.
        blocks.filter(|_| handle != 0).position(|block| block.handle == handle)
    }

    /// Allocates a block where there is room for it.
    fn allocate(&mut self, len: usize) -> Option<u64> {
        let block = self.blocks.get_mut(self.count)?;
        self.bytes.get_mut(self.used..)?.get_mut(..len)?.fill(0);
        self.handles += 1;
        *block = Block {
            handle: self.handles,
            start: self.used,
            len,
        };
        self.count += 1;
        self.used += len;
        Some(self.handles)
    }

    /// Bytes behind a block.
    fn behind(&self, block: Block) -> usize {
        self.used.saturating_sub(block.start).saturating_sub(block.len)
    }

    fn free(&mut self, index: usize, block: Block) {
        let bytes = Cell::from_mut(self.bytes.as_mut_slice()).as_slice_of_cells();
        let moved = bytes
            .get(..self.used)
            .and_then(|bytes| bytes.get(block.start + block.len..));
        let to = bytes.get(block.start..);
        for (to, from) in to.unwrap_or(&[]).iter().zip(moved.unwrap_or(&[])) {
            to.set(from.get());
        }
        let blocks = Cell::from_mut(self.blocks.as_mut_slice()).as_slice_of_cells();
        let moved = blocks.get(..self.count).and_then(|blocks| blocks.get(index + 1..));
        for (to, from) in blocks.get(index..).unwrap_or(&[]).iter().zip(moved.unwrap_or(&[])) {
            let start = from.get().start - block.len;
            to.set(Block { start, ..from.get() });
        }
        self.count -= 1;
        self.used -= block.len;
    }
}

impl HeapInsn {
    pub(super) fn execute<E: Env>(self, m: &mut Machine<'_, '_, E>) -> Result<(), Failure> {
        match self {
            Self::Malloc => malloc(m),
            Self::Free => free(m),
            Self::Read { width: 1, count } => read::<1, E>(m, count),
            Self::Read { width: 2, count } => read::<2, E>(m, count),
            Self::Read { width: 4, count } => read::<4, E>(m, count),
            Self::Read { count, .. } => read::<8, E>(m, count),
            Self::Write { width: 1, count } => write::<1, E>(m, count),
            Self::Write { width: 2, count } => write::<2, E>(m, count),
            Self::Write { width: 4, count } => write::<4, E>(m, count),
            Self::Write { count, .. } => write::<8, E>(m, count),
        }
    }
}

fn malloc<E: Env>(m: &mut Machine<'_, '_, E>) -> Result<(), Failure> {
    let size = m.pop();
    let room = usize::from(m.hit.entry.heap).saturating_sub(m.ws.heap.used);
    let len = usize::try_from(size).ok().filter(|len| *len <= room);
    if let Some(len) = len {
        m.charge(len as u32 / 8)?;
    }
    let handle = len.and_then(|len| m.ws.heap.allocate(len));
    m.push(handle.ok_or(Failure::Exception {
        code: exception::HEAP_NOMEM,
        parm1: size,
        parm2: 0,
    })?);
    Ok(())
}

/// A block by its handle.
fn block<E: Env>(m: &Machine<'_, '_, E>, handle: u64, offset: u64) -> Result<(usize, Block), Failure> {
    let found = m.ws.heap.find(handle);
    found
        .and_then(|index| Some((index, *m.ws.heap.blocks.get(index)?)))
        .ok_or(Failure::Exception {
            code: exception::HEAP_INVALID_HANDLE,
            parm1: handle,
            parm2: offset,
        })
}

fn free<E: Env>(m: &mut Machine<'_, '_, E>) -> Result<(), Failure> {
    let handle = m.pop();
    let (index, block) = block(m, handle, 0)?;
    // Bytes are moved one by one.
    m.charge(m.ws.heap.behind(block) as u32 / 2)?;
    m.ws.heap.free(index, block);
    Ok(())
}

/// Pops `handle offset`, and finds where in the heap the `count` values of `width` bytes are.
fn place<E: Env>(m: &mut Machine<'_, '_, E>, width: usize, count: u16) -> Result<usize, Failure> {
    let offset = m.pop();
    let handle = m.pop();
    let (_, block) = block(m, handle, offset)?;
    let (whole, len) = (block.len as u64, width as u64 * u64::from(count));
    if offset > whole || len > whole - offset {
        return Err(Failure::Exception {
            code: exception::HEAP_INVALID_OFFSET,
            parm1: handle,
            parm2: offset.max(whole),
        });
    }
    m.charge(u32::from(count))?;
    Ok(block.start.wrapping_add(offset as usize))
}

fn read<const W: usize, E: Env>(m: &mut Machine<'_, '_, E>, count: u16) -> Result<(), Failure> {
    let start = place(m, W, count)?;
    let mut sp = m.at.sp;
    let bytes = m.ws.heap.bytes.get(start..).unwrap_or(&[]);
    for bytes in bytes.as_chunks::<W>().0.iter().take(usize::from(count)) {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = *from;
        }
        m.ws.stack[sp % STACK_WORDS] = u64::from_le_bytes(word);
        sp = sp.wrapping_add(1);
    }
    m.at.sp = sp;
    Ok(())
}

fn write<const W: usize, E: Env>(m: &mut Machine<'_, '_, E>, count: u16) -> Result<(), Failure> {
    let place = place(m, W, count);
    // The values are taken, whether they are of use or not.
    let mut sp = m.at.sp;
    m.at.sp = sp.wrapping_sub(usize::from(count));
    let bytes = m.ws.heap.bytes.get_mut(place?..).unwrap_or(&mut []);
    for bytes in bytes.as_chunks_mut::<W>().0.iter_mut().take(usize::from(count)) {
        sp = sp.wrapping_sub(1);
        let word = m.ws.stack[sp % STACK_WORDS];
        for (to, from) in bytes.iter_mut().zip(word.to_le_bytes()) {
            *to = from;
        }
    }
    Ok(())
}
