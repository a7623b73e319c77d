//! What an exit answers.

use core::ffi::c_int;

use crate::word::Word;

/// Answer of an exit on a normal hook.
///
/// There is no "return" here: a normal hook cannot make its function return, so that an exit cannot ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The next exit, or the hooked code when this was the last.
    Continue,
    /// The hooked code; exits after this one are not called.
    Terminate,
}

/// Answer of an exit on a conditional-return hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<R> {
    /// The next exit, or the hooked code when this was the last.
    Continue,
    /// The hooked code; exits after this one are not called.
    Terminate,
    /// The hooked function returns this; exits after this one are not called.
    Return(R),
}

/// `GKHI_CONTINUE`.
pub const CONTINUE: c_int = 0;
/// `GKHI_TERMINATE`. On a normal hook every other non-zero answer means the same.
pub const TERMINATE: c_int = 1;
/// `GKHI_RETURN`; any negative answer means the same, and on a normal hook it means `GKHI_TERMINATE`.
pub const RETURN: c_int = -1;

/// An answer in registers: RAX and RDX. Only the low 32 bits of `flow` count, so that a C function may return an `int`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Answer {
    /// [`CONTINUE`], [`TERMINATE`] or [`RETURN`] in the low 32 bits.
    pub flow: u64,
    /// With [`RETURN`], the value that the hooked function returns.
    pub value: u64,
}

impl Answer {
    /// Go on.
    pub const CONTINUE: Self = Answer {
        flow: CONTINUE as u64,
        value: 0,
    };

    /// The part of `flow` that counts.
    #[inline(always)]
    #[must_use]
    pub const fn code(self) -> c_int {
        self.flow as c_int
    }
}

impl From<Flow> for Answer {
    #[inline(always)]
    fn from(flow: Flow) -> Self {
        Answer {
            flow: match flow {
                Flow::Continue => CONTINUE,
                Flow::Terminate => TERMINATE,
            } as u64,
            value: 0,
        }
    }
}

impl<R: Word> From<Verdict<R>> for Answer {
    #[inline(always)]
    fn from(verdict: Verdict<R>) -> Self {
        match verdict {
            Verdict::Continue => Answer::CONTINUE,
            Verdict::Terminate => Flow::Terminate.into(),
            Verdict::Return(value) => Answer {
                flow: RETURN as u64,
                value: value.into_word(),
            },
        }
    }
}
