//! How a pass gets into an exit: the convention that lets a site be dormant for one NOP.
//!
//! An ordinary call would make the compiler keep what is live across it in callee-saved registers, and push those at the
//! beginning of the function: so that a dormant site would cost a spill. A pass therefore calls a [`Target`]'s entry, which preserves
//! all general-purpose registers. Either the exit was compiled so (feature `preserve-most`, or C's `no_caller_saved_registers`), or
//! one of the thunks here saves them and calls the ordinary function in [`Target::call`].

use core::arch::naked_asm;

use crate::hook::{Hook, kind};

/// The thunk for an exit of `hook` that is an ordinary C function.
pub(crate) fn thunk(hook: &Hook) -> *const () {
    let thunk: unsafe extern "C" fn() = match (hook.arguments > 5, hook.is(kind::RETURNING)) {
        (false, false) => enter,
        (false, true) => enter_returning,
        (true, false) => enter_stack,
        (true, true) => enter_stack_returning,
    };
    thunk as *const ()
}

/// Is this one of the thunks?
pub(crate) fn is_thunk(entry: *const ()) -> bool {
    [
        enter as *const (),
        enter_returning as *const (),
        enter_stack as *const (),
        enter_stack_returning as *const (),
    ]
    .iter()
    .any(|thunk| core::ptr::eq(*thunk, entry))
}

/// Does nothing: the entry of a hook without an armed exit.
pub(crate) fn idle(hook: &Hook) -> *const () {
    let idle: unsafe extern "C" fn() = if hook.is(kind::RETURNING) {
        idle_returning
    } else {
        idle_normal
    };
    idle as *const ()
}

/// Calls the ordinary function of the target in RDI. R11 is free here.
#[cfg(not(feature = "linux-thunks"))]
macro_rules! call_ordinary {
    () => {
        "call [rdi + 24]"
    };
}
#[cfg(feature = "linux-thunks")]
macro_rules! call_ordinary {
    () => {
        "mov r11, [rdi + 24]\ncall __x86_indirect_thunk_r11"
    };
}

#[cfg(not(feature = "linux-thunks"))]
macro_rules! go_back {
    () => {
        "ret"
    };
}
#[cfg(feature = "linux-thunks")]
macro_rules! go_back {
    () => {
        "jmp __x86_return_thunk"
    };
}

macro_rules! thunk {
    ($(#[$doc:meta])* $name:ident, saves [$($register:literal),*], then [$($before:literal),*], after [$($after:literal),*],
        restores [$($popped:literal),*]) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            naked_asm!(
                "endbr64",
                $(concat!("push ", $register),)*
                $($before,)*
                call_ordinary!(),
                $($after,)*
                $(concat!("pop ", $popped),)*
                go_back!(),
            )
        }
    };
}

thunk! {
    /// Up to five arguments. Eight pushes and the return address leave RSP 8 off; the last step corrects that.
    enter, saves ["rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10"],
    then ["sub rsp, 8"], after ["add rsp, 8"],
    restores ["r10", "r9", "r8", "rdi", "rsi", "rdx", "rcx", "rax"]
}
thunk! {
    /// Up to five arguments; the answer stays in RAX and RDX.
    enter_returning, saves ["rcx", "rsi", "rdi", "r8", "r9", "r10"],
    then ["sub rsp, 8"], after ["add rsp, 8"],
    restores ["r10", "r9", "r8", "rdi", "rsi", "rcx"]
}
thunk! {
    /// More: the three words on the stack, above eight registers and the return address, are passed on. They are at the same distance
    /// each time, since every push moves RSP by as much as the words are apart.
    enter_stack, saves ["rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10"],
    then ["push [rsp + 88]", "push [rsp + 88]", "push [rsp + 88]"], after ["add rsp, 24"],
    restores ["r10", "r9", "r8", "rdi", "rsi", "rdx", "rcx", "rax"]
}
thunk! {
    /// As [`enter_stack`]; the answer stays in RAX and RDX.
    enter_stack_returning, saves ["rcx", "rsi", "rdi", "r8", "r9", "r10"],
    then ["push [rsp + 72]", "push [rsp + 72]", "push [rsp + 72]"], after ["add rsp, 24"],
    restores ["r10", "r9", "r8", "rdi", "rsi", "rcx"]
}

#[unsafe(naked)]
unsafe extern "C" fn idle_normal() {
    naked_asm!("endbr64", go_back!())
}

#[unsafe(naked)]
unsafe extern "C" fn idle_returning() {
    naked_asm!("endbr64", "xor eax, eax", go_back!())
}

/// A typed exit: the body that [`hook!`](crate::hook) makes for each exit function, without its arguments' types.
///
/// # Safety
/// [`run`](Self::run) is called with the record it was made for and the words of the hook's arguments only.
#[doc(hidden)]
pub unsafe trait Body<const N: usize>: 'static {
    /// Calls the exit function.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn run(exit: *const crate::Exit, words: [u64; N]) -> crate::Answer;
}

/// The functions of an exit record, for `N` arguments.
#[doc(hidden)]
#[derive(Debug)]
pub struct Arity<const N: usize>;

macro_rules! arities {
    ($($n:literal: $($argument:ident)*;)*) => {$(
        impl Arity<$n> {
            /// The ordinary function of an exit.
            #[must_use]
            pub const fn call<B: Body<$n>>() -> *const () {
                unsafe extern "C" fn call<B: Body<$n>>(exit: *const crate::Exit $(, $argument: u64)*) -> crate::Answer {
                    // SAFETY: a pass, or the chain, calls with the record and the hook's words.
                    unsafe { B::run(exit, [$($argument),*]) }
                }
                call::<B> as unsafe extern "C" fn(_ $(, arities!(@any $argument))*) -> _ as *const ()
            }

            /// The preserving entry of an exit on a normal hook; null when a thunk is to be used.
            #[must_use]
            pub const fn entry<B: Body<$n>>() -> *const () {
                #[cfg(feature = "preserve-most")]
                {
                    unsafe extern "rust-cold" fn entry<B: Body<$n>>(exit: *const crate::Exit $(, $argument: u64)*) {
                        // SAFETY: as above.
                        let _ = unsafe { B::run(exit, [$($argument),*]) };
                    }
                    entry::<B> as unsafe extern "rust-cold" fn(_ $(, arities!(@any $argument))*) as *const ()
                }
                #[cfg(not(feature = "preserve-most"))]
                core::ptr::null()
            }

            /// The preserving entry of an exit on a conditional-return hook; null when a thunk is to be used.
            #[must_use]
            pub const fn entry_returning<B: Body<$n>>() -> *const () {
                #[cfg(feature = "preserve-most")]
                {
                    unsafe extern "rust-cold" fn entry<B: Body<$n>>(exit: *const crate::Exit $(, $argument: u64)*) -> (u64, u64) {
                        // SAFETY: as above.
                        let answer = unsafe { B::run(exit, [$($argument),*]) };
                        (answer.flow, answer.value)
                    }
                    entry::<B> as unsafe extern "rust-cold" fn(_ $(, arities!(@any $argument))*) -> _ as *const ()
                }
                #[cfg(not(feature = "preserve-most"))]
                core::ptr::null()
            }
        }
    )*};
    (@any $argument:ident) => { u64 };
}
arities! {
    0: ;
    1: a;
    2: a b;
    3: a b c;
    4: a b c d;
    5: a b c d e;
    6: a b c d e f;
    7: a b c d e f g;
    8: a b c d e f g h;
}
