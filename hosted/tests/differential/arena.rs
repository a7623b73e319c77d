//! The memory that blocks run in: code, data and stack, within reach of each other, with gaps that cannot be accessed.
//!
//! Places in it are given as offsets from its start, so that a block means the same in every process.

use std::ops::Range;

use hosted::CodeBuffer;

use crate::random::Random;

pub const PAGE: usize = 4096;
/// Where blocks go.
pub const CODE: Range<usize> = 0..64 * PAGE;
/// Two pages that can be written; a gap before them, the page that can only be read behind them.
pub const DATA: Range<usize> = 65 * PAGE..67 * PAGE;
pub const READ_ONLY: Range<usize> = 67 * PAGE..68 * PAGE;
/// Gaps on both sides.
pub const STACK: Range<usize> = 69 * PAGE..70 * PAGE;
pub const END: usize = 71 * PAGE;

/// A page that 32 bits reach, and that is at this address in every process.
pub const LOW: u64 = 0x1000_0000;

/// A far pointer in the data, of whatever size, whose selector is that of the stack.
pub const FAR: usize = DATA.start + 16;

/// A place in the data, aligned to 64, where some of the memories have an image that XRSTOR and FXRSTOR accept.
pub const IMAGE: usize = DATA.start + 2048;

/// How many different contents of the memory there are.
pub const MEMORIES: usize = 32;

pub struct Arena {
    buffer: CodeBuffer,
    memories: Vec<Vec<u8>>,
}

impl Arena {
    pub fn new() -> Self {
        let mut arena = Arena {
            buffer: CodeBuffer::new(END).unwrap(),
            memories: Vec::new(),
        };
        arena.protect(CODE.end..END, libc::PROT_NONE);
        arena.protect(READ_ONLY, libc::PROT_READ | libc::PROT_WRITE);
        let mut random = Random::new(0);
        // SAFETY: pages of this arena, writable; no reference to them exists.
        unsafe {
            let page = std::slice::from_raw_parts_mut(arena.place(READ_ONLY.start), PAGE);
            page.fill_with(|| random.byte());
        }
        arena.protect(READ_ONLY, libc::PROT_READ);
        arena.protect(DATA, libc::PROT_READ | libc::PROT_WRITE);
        arena.protect(STACK, libc::PROT_READ | libc::PROT_WRITE);
        arena.map_low();
        arena.memories = (0..MEMORIES).map(|number| memory(number, arena.start())).collect();
        arena
    }

    fn protect(&self, range: Range<usize>, access: libc::c_int) {
        // SAFETY: pages of a buffer that nobody else knows.
        let done = unsafe { libc::mprotect(self.place(range.start).cast(), range.len(), access) };
        assert_eq!(done, 0);
    }

    fn map_low(&self) {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: `MAP_FIXED_NOREPLACE` fails rather than touch an existing mapping.
        let page = unsafe { libc::mmap(LOW as usize as *mut _, PAGE, access, flags, -1, 0) };
        assert_eq!(page as u64, LOW, "there is something else at {LOW:#x}");
    }

    pub fn start(&self) -> u64 {
        self.buffer.range().start
    }

    pub fn address(&self, offset: usize) -> u64 {
        self.start() + offset as u64
    }

    /// The offset of an address in the arena.
    pub fn offset(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address.wrapping_sub(self.start())).ok()?;
        (offset < END).then_some(offset)
    }

    pub fn write_code(&mut self, offset: usize, code: &[u8]) {
        assert!(offset + code.len() <= CODE.end);
        self.buffer.write(offset, code).unwrap();
    }

    /// Fills data, stack and the low page with one of the memories.
    pub fn set_memory(&mut self, number: usize) {
        let memory = &self.memories[number % MEMORIES];
        let (data, rest) = memory.split_at(DATA.len());
        let (stack, low) = rest.split_at(STACK.len());
        // SAFETY: pages of this arena, writable; no reference to them exists, and no block is running.
        unsafe {
            self.place(DATA.start)
                .copy_from_nonoverlapping(data.as_ptr(), data.len());
            self.place(STACK.start)
                .copy_from_nonoverlapping(stack.as_ptr(), stack.len());
            (LOW as usize as *mut u8).copy_from_nonoverlapping(low.as_ptr(), low.len());
        }
    }

    /// What can be written, and where it is.
    fn parts(&self) -> [Range<u64>; 3] {
        let address = |range: Range<usize>| self.address(range.start)..self.address(range.end);
        [address(DATA), address(STACK), LOW..LOW + PAGE as u64]
    }

    /// Data, stack and the low page, as they are.
    pub fn memory(&self) -> [&[u8]; 3] {
        // SAFETY: pages of this arena, readable; nothing writes to them while this reference lives: no block is running.
        self.parts().map(|Range { start, end }| unsafe {
            std::slice::from_raw_parts(start as usize as *const u8, (end - start) as usize)
        })
    }

    /// What of the memory is there is overwritten with zeros.
    pub fn forget(&mut self, range: Range<u64>) {
        for part in self.parts() {
            let (start, end) = (range.start.max(part.start), range.end.min(part.end));
            if start < end {
                // SAFETY: as in `set_memory`.
                unsafe { (start as usize as *mut u8).write_bytes(0, (end - start) as usize) };
            }
        }
    }

    fn place(&self, offset: usize) -> *mut u8 {
        (self.start() as usize + offset) as *mut u8
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: mapped by this arena; no block is running.
        unsafe { libc::munmap(LOW as usize as *mut _, PAGE) };
    }
}

/// Contents for what can be written. Most of it has neither TF nor AC when it is taken for flags; a few words are addresses or small.
fn memory(number: usize, start: u64) -> Vec<u8> {
    let mut random = Random::new(1000 + number as u64);
    let mut memory: Vec<u8> = (0..DATA.len() + STACK.len() + PAGE)
        .map(|_| (random.byte() | 0x40) & 0x7a)
        .collect();
    for word in memory.chunks_exact_mut(8) {
        let value = match random.below(24) {
            0 => start + (DATA.start as u64 + random.below(DATA.len() as u64)),
            1 => random.below(64),
            2 => random.next(),
            _ => continue,
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
    memory[FAR - DATA.start..][..12].copy_from_slice(&[0, 1, 0x2b, 0, 0x2b, 0, 0, 0, 0x2b, 0, 0, 0]);
    if number.is_multiple_of(4) {
        let image = &mut memory[IMAGE - DATA.start..][..2816];
        image[..576].fill(0);
        image[..2].copy_from_slice(&0x37f_u16.to_le_bytes()); // FCW
        image[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes()); // MXCSR
        image[160..416].fill_with(|| random.byte());
        image[512] = random.byte() & 7; // XSTATE_BV: some of x87, SSE, AVX
    }
    memory
}
