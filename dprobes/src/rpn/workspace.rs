//! What a CPU keeps for the program it runs.

use zerocopy::{FromZeros, Immutable, KnownLayout};

use super::limits::{CALL_DEPTH, LOG_MAX, STACK_WORDS};

/// Room after the log: `log str` reads one byte more than fits, to see whether there is more.
const LOG_SLACK: usize = 8;

/// The machine's memory: one for each CPU, used by one run at a time.
///
/// It is a few kilobytes, so a host places it in memory it owns rather than on a kernel's stack; all bytes zero are a
/// good initial value (`zerocopy`'s `FromZeros` says so to the compiler). A run leaves nothing in it that a later one
/// could notice.
#[derive(Debug, FromZeros, Immutable, KnownLayout)]
#[repr(C)]
pub struct Workspace {
    pub(super) stack: [u64; STACK_WORDS],
    pub(super) frames: [Frame; CALL_DEPTH + 1],
    pub(super) log_len: usize,
    pub(super) log: [u8; LOG_MAX as usize + LOG_SLACK],
}

/// A routine that is executing; the first is the handler itself.
#[derive(Clone, Copy, Debug, FromZeros, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Frame {
    /// Index of the instruction behind the `call`.
    pub(super) back: u32,
    /// Index of the exception handler plus one, or zero.
    pub(super) handler: u32,
}

impl Workspace {
    /// A workspace.
    pub const fn new() -> Self {
        Self {
            stack: [0; STACK_WORDS],
            frames: [Frame { back: 0, handler: 0 }; CALL_DEPTH + 1],
            log_len: 0,
            log: [0; LOG_MAX as usize + LOG_SLACK],
        }
    }

    /// The elements that the last run logged.
    pub fn log(&self) -> &[u8] {
        self.log.get(..self.log_len).unwrap_or(&[])
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}
