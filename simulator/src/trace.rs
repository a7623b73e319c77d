//! Each instruction of a run, with the stack before and after it.

use dprobes::rpn::exception::Exception;
use dprobes::rpn::interp::{Observer, Stack};

pub use dprobes::rpn::interp::Dispatch;

/// Words of a stack that a [`Step`] shows.
pub const SHOWN: usize = 8;

/// The stack at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words {
    /// How many words are on it.
    pub depth: usize,
    /// The top ones, at most [`SHOWN`], the top word last.
    pub top: Vec<u64>,
}

impl Words {
    fn of(stack: Stack<'_>) -> Self {
        let shown = stack.depth().min(SHOWN);
        Self {
            depth: stack.depth(),
            top: (0..shown).rev().filter_map(|position| stack.word(position)).collect(),
        }
    }
}

/// An instruction that was executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its offset in the program's code.
    pub offset: u32,
    /// The stack before it.
    pub before: Words,
    /// The stack after it, and after the words of an exception.
    pub after: Words,
    /// The exception that it raised.
    pub raised: Option<Raised>,
}

/// An exception, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raised {
    /// The exception.
    pub exception: Exception,
    /// Where it led.
    pub to: Dispatch,
}

/// Whoever looks at each instruction.
pub type Watch<'a> = &'a mut dyn FnMut(&Step);

/// Makes steps of what the interpreter tells.
pub(crate) struct Tracer<'a> {
    watch: Option<Watch<'a>>,
    count: u64,
    /// The instruction that is being executed, without what comes after it.
    open: Option<Step>,
}

impl<'a> Tracer<'a> {
    /// `watch` is told each step.
    pub(crate) fn new(watch: Option<Watch<'a>>) -> Self {
        Self {
            watch,
            count: 0,
            open: None,
        }
    }

    /// The run is over. Returns how many instructions it executed.
    pub(crate) fn finish(&mut self) -> u64 {
        self.close(None);
        self.count
    }

    /// The instruction that was being executed is done. What is on the stack when a program ends is what was there before its last
    /// instruction.
    fn close(&mut self, after: Option<Stack<'_>>) {
        if let Some(mut step) = self.open.take()
            && let Some(watch) = &mut self.watch
        {
            step.after = after.map_or_else(|| step.before.clone(), Words::of);
            watch(&step);
        }
    }
}

impl Observer for Tracer<'_> {
    fn instruction(&mut self, offset: u32, stack: Stack<'_>) {
        self.close(Some(stack));
        self.count += 1;
        if self.watch.is_some() {
            self.open = Some(Step {
                offset,
                before: Words::of(stack),
                after: Words::default(),
                raised: None,
            });
        }
    }

    fn exception(&mut self, exception: Exception, to: Dispatch) {
        if let Some(step) = &mut self.open {
            step.raised = Some(Raised { exception, to });
        }
    }
}
