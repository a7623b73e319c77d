//! Watching a run, instruction by instruction: for the simulator. A kernel's runs are not watched, and pay nothing for it.

use super::exception::Exception;
use super::limits::STACK_WORDS;

/// The stack of a run at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'a> {
    words: &'a [u64; STACK_WORDS],
    depth: usize,
}

impl<'a> Stack<'a> {
    pub(super) fn new(words: &'a [u64; STACK_WORDS], depth: usize) -> Self {
        Self { words, depth }
    }

    /// How many words are on it. Of a ring it is how many more were pushed than popped, or 0.
    pub fn depth(&self) -> usize {
        if self.depth.cast_signed() < 0 { 0 } else { self.depth }
    }

    /// The word at a position: 0 is the top one. `None` below the bottom.
    pub fn word(&self, position: usize) -> Option<u64> {
        let index = self.depth().checked_sub(position)?.checked_sub(1)?;
        self.words.get(index % STACK_WORDS).copied()
    }
}

/// Where an exception leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// It is ignored.
    Ignored,
    /// To the handler at this offset of the object's code.
    Handler(u32),
    /// To the end of the program.
    End,
}

/// Somebody who watches a run.
pub trait Observer {
    /// Whether anybody does. Where it is false the interpreter is compiled without what leads here.
    const WATCHES: bool = true;

    /// An instruction is about to be executed: its offset in the object's code, and the stack before it.
    fn instruction(&mut self, offset: u32, stack: Stack<'_>);

    /// It has raised an exception.
    fn exception(&mut self, exception: Exception, to: Dispatch);
}

/// Nobody.
impl Observer for () {
    const WATCHES: bool = false;

    #[inline]
    fn instruction(&mut self, _: u32, _: Stack<'_>) {}

    #[inline]
    fn exception(&mut self, _: Exception, _: Dispatch) {}
}
