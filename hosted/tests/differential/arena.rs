//! The memory of a block: code, data and stack, near each other and with gaps that cannot be accessed.

use std::ops::Range;

use hosted::CodeBuffer;

use crate::random::Random;

const PAGE: usize = 4096;
/// Pages: code, gap, data, gap, stack, gap.
const DATA: Range<usize> = 2 * PAGE..6 * PAGE;
const STACK: Range<usize> = 7 * PAGE..9 * PAGE;
const END: usize = 10 * PAGE;

pub struct Arena {
    buffer: CodeBuffer,
}

impl Arena {
    pub fn new() -> Self {
        let buffer = CodeBuffer::new(END).unwrap();
        let start = buffer.range().start as usize;
        let protect = |range: Range<usize>, access| {
            // SAFETY: pages of a buffer that nobody else knows.
            let done = unsafe { libc::mprotect((start + range.start) as *mut _, range.len(), access) };
            assert_eq!(done, 0);
        };
        protect(PAGE..END, libc::PROT_NONE);
        protect(DATA, libc::PROT_READ | libc::PROT_WRITE);
        protect(STACK, libc::PROT_READ | libc::PROT_WRITE);
        Arena { buffer }
    }

    /// Where the code is.
    pub fn code(&self) -> Range<u64> {
        let start = self.buffer.range().start;
        start..start + PAGE as u64
    }

    pub fn write_code(&mut self, code: &[u8]) {
        self.buffer.write(0, code).unwrap();
    }

    /// The middle of the data, and of the stack.
    pub fn data(&self) -> u64 {
        self.buffer.range().start + ((DATA.start + DATA.end) / 2) as u64
    }

    pub fn stack(&self) -> u64 {
        self.buffer.range().start + ((STACK.start + STACK.end) / 2) as u64
    }

    /// Random bytes for data and stack. No word of them is an address, nor has TF or AC when taken for flags.
    pub fn random_memory(&self, random: &mut Random) -> Vec<u8> {
        (0..DATA.len() + STACK.len())
            .map(|_| (random.byte() | 0x40) & 0x7a)
            .collect()
    }

    pub fn set_memory(&mut self, memory: &[u8]) {
        let (data, stack) = memory.split_at(DATA.len());
        // SAFETY: pages of this arena, writable; no reference to them exists, and no block is running.
        unsafe {
            self.place(DATA.start)
                .copy_from_nonoverlapping(data.as_ptr(), data.len());
            self.place(STACK.start)
                .copy_from_nonoverlapping(stack.as_ptr(), stack.len());
        }
    }

    pub fn memory(&self) -> Vec<u8> {
        let mut memory = Vec::with_capacity(DATA.len() + STACK.len());
        for range in [DATA, STACK] {
            // SAFETY: pages of this arena, readable; nothing writes to them while this reference lives.
            memory.extend_from_slice(unsafe { std::slice::from_raw_parts(self.place(range.start), range.len()) });
        }
        memory
    }

    fn place(&self, offset: usize) -> *mut u8 {
        (self.buffer.range().start as usize + offset) as *mut u8
    }
}
