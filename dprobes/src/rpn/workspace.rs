//! What a CPU keeps for the program it runs.

use zerocopy::{FromZeros, Immutable, KnownLayout};

use super::buffer::Buffer;
use super::heap::Heap;
use super::limits::{
    CALL_DEPTH, CALL_VARIABLES_MAX, EX_LOG_MAX, LOG_MAX, STACK_TRACE_MAX, STACK_WORDS, TRACE_NAME_MAX,
};
use crate::record::element::{PREFIX, prefix, token};

/// Room after the log: `log str` reads one byte more than fits, to see whether there is more.
const LOG_SLACK: usize = 8;

/// Bytes of what a stack-trace record begins with.
pub(super) const TRACE_HEAD: usize = PREFIX + TRACE_NAME_MAX + PREFIX + 8 * TRACE_FACTS;

/// Words of what a stack-trace record begins with.
pub(super) const TRACE_FACTS: usize = 5;

/// The machine's memory: one for each CPU, used by one run at a time.
///
/// It is some 30 kilobytes, so a host places it in memory it owns rather than on a kernel's stack; all bytes zero are a
/// good initial value (`zerocopy`'s `FromZeros` says so to the compiler). A run leaves nothing in it that a later one
/// could notice.
#[derive(Debug, FromZeros, Immutable, KnownLayout)]
#[repr(C)]
pub struct Workspace {
    pub(super) stack: [u64; STACK_WORDS],
    pub(super) frames: [Frame; CALL_DEPTH + 1],
    /// What traces show of each routine; meaningful where its frame says so.
    pub(super) shown: [[Shown; SHOWN]; CALL_DEPTH + 1],
    pub(super) log: Buffer<0, { LOG_MAX as usize + LOG_SLACK }>,
    /// Length of the log before the last logging instruction.
    pub(super) previous_len: usize,
    pub(super) trace: Buffer<TRACE_HEAD, { TRACE_HEAD + EX_LOG_MAX as usize }>,
    /// Traces that are missing or cut short.
    pub(super) traces_cut: u64,
    pub(super) heap: Heap,
    /// Return addresses on their way to the log.
    pub(super) addresses: [u64; STACK_TRACE_MAX],
    /// The variables of the call.
    pub(super) call: [u64; CALL_VARIABLES_MAX],
}

/// A routine that is executing; the first is the handler itself.
#[derive(Clone, Copy, Debug, FromZeros, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Frame {
    /// Index of the instruction behind the `call`.
    pub(super) back: u32,
    /// Index of the exception handler plus one, or zero.
    pub(super) handler: u32,
    /// Index of the routine's first instruction.
    pub(super) called: u32,
    /// The caller's SBP.
    pub(super) sbp: u16,
    /// Whether `shown` says what traces show of it.
    pub(super) shows: u16,
}

/// Kinds of things that traces show of a routine: words of the stack, local and global variables.
pub(super) const SHOWN: usize = 3;

/// A range of such things.
#[derive(Clone, Copy, Debug, Default, FromZeros, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Shown {
    pub(super) first: u16,
    pub(super) count: u16,
}

impl Frame {
    /// The frame of a handler.
    pub(super) const fn outermost(called: u32) -> Self {
        Self {
            back: 0,
            handler: 0,
            called,
            sbp: 0,
            shows: 0,
        }
    }
}

impl Workspace {
    /// A workspace.
    pub const fn new() -> Self {
        Self {
            stack: [0; STACK_WORDS],
            frames: [Frame::outermost(0); CALL_DEPTH + 1],
            shown: [[Shown { first: 0, count: 0 }; SHOWN]; CALL_DEPTH + 1],
            log: Buffer::new(),
            previous_len: 0,
            trace: Buffer::new(),
            traces_cut: 0,
            heap: Heap::new(),
            addresses: [0; STACK_TRACE_MAX],
            call: [0; CALL_VARIABLES_MAX],
        }
    }

    /// Makes it ready for a hit.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.log.len = 0;
        self.previous_len = 0;
        self.trace.len = 0;
        self.traces_cut = 0;
        self.heap.clear();
    }

    /// The variables of the call in which, or at whose beginning or end, the next run is, or the last one was.
    #[inline]
    pub fn call_words(&mut self) -> &mut [u64; CALL_VARIABLES_MAX] {
        &mut self.call
    }

    /// The elements that the last run logged.
    pub fn log(&self) -> &[u8] {
        self.log.elements()
    }

    /// The traces that the last run appended: the elements of a stack-trace record without those it begins with.
    pub fn traces(&self) -> &[u8] {
        self.trace.elements()
    }

    /// The elements of the last run's stack-trace record, if there is to be one: the module's name, as far as
    /// [`TRACE_NAME_MAX`] bytes go; the probed address, the program's id, and the major and minor code of the probe; and the traces.
    pub fn trace_record(&mut self, module: &[u8], facts: [u64; 4]) -> Option<&[u8]> {
        if self.trace.len == 0 {
            return None;
        }
        let name = module.get(..TRACE_NAME_MAX).unwrap_or(module);
        let [address, id, major, minor] = facts;
        let facts: [u64; TRACE_FACTS] = [address, id, major, minor, self.traces_cut];
        let words = facts.into_iter().flat_map(u64::to_le_bytes);
        let head = prefix(token::STRING, name.len() as u16)
            .into_iter()
            .chain(name.iter().copied())
            .chain(prefix(token::WORDS, TRACE_FACTS as u16))
            .chain(words);
        let start = TRACE_NAME_MAX.saturating_sub(name.len());
        let bytes = &mut self.trace.bytes;
        for (to, from) in bytes.get_mut(start..TRACE_HEAD)?.iter_mut().zip(head) {
            *to = from;
        }
        bytes.get(start..TRACE_HEAD + self.trace.len)
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}
