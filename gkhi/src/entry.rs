//! How a pass gets into an exit: the convention that lets a site be dormant for one NOP.
//!
//! An ordinary call would make the compiler keep what is live across it in callee-saved registers, and push those at the
//! beginning of the function: so that a dormant site would cost a spill. A pass therefore calls a [`Target`]'s entry, which preserves
//! all general-purpose registers. Either the exit was compiled so (feature `preserve-most`, or C's `no_caller_saved_registers`), or
//! one of the thunks here saves them and calls the ordinary function in [`Target::call`].

use core::arch::naked_asm;
use core::mem::offset_of;

use crate::counters::CALLED;
use crate::exit::Exit;
use crate::hook::{Chain, Hook, kind};
use crate::target::Target;

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

/// The entry of a hook's chain: calls its exits in order until one does not continue. It times none of them.
pub(crate) fn chain(hook: &Hook, version: usize) -> *const () {
    let [even, odd]: [unsafe extern "C" fn(); 2] = match (hook.arguments, hook.is(kind::RETURNING)) {
        (0..=2, false) => [chain_2_even, chain_2_odd],
        (0..=2, true) => [chain_2_returning_even, chain_2_returning_odd],
        (3..=5, false) => [chain_5_even, chain_5_odd],
        (3..=5, true) => [chain_5_returning_even, chain_5_returning_odd],
        (_, false) => [chain_8_even, chain_8_odd],
        (_, true) => [chain_8_returning_even, chain_8_returning_odd],
    };
    let entry = if version == 0 { even } else { odd };
    entry as *const ()
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

/// Calls the exit in RBX, an ordinary function. R11 is free here.
#[cfg(not(feature = "linux-thunks"))]
macro_rules! call_exit {
    () => {
        "call [rbx + {call}]"
    };
}
#[cfg(feature = "linux-thunks")]
macro_rules! call_exit {
    () => {
        "mov r11, [rbx + {call}]\ncall __x86_indirect_thunk_r11"
    };
}

/// What calls several exits. It saves the registers once; RBX has the current exit, and each exit gets the arguments anew from where they
/// were saved. Nine pushes and the return address leave RSP aligned; from there the arguments are at 40 (RSI), 56 (RDX), 48, 24 and 16.
macro_rules! chain {
    ($($even:ident, $odd:ident: reloads [$($reload:literal),*], before [$($before:literal),*], after [$($after:literal),*],
        ends [$($end:literal),*];)*) => {$(
        chain!($even, 0, [$($reload),*], [$($before),*], [$($after),*], [$($end),*]);
        chain!($odd, 1, [$($reload),*], [$($before),*], [$($after),*], [$($end),*]);
    )*};
    ($name:ident, $version:literal, [$($reload:literal),*], [$($before:literal),*], [$($after:literal),*], [$($end:literal),*]) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            naked_asm!(
                "endbr64",
                "push rax",
                "push rdx",
                "push rcx",
                "push rsi",
                "push rdi",
                "push r8",
                "push r9",
                "push r10",
                "push rbx",
                "mov rbx, [rdi + {first}]",
                "jmp 3f",
                "2:",
                $($reload,)*
                "3:",
                "mov r11, [rbx + {counters}]",
                crate::__increment!("r11 + {called}"),
                $($before,)*
                "mov rdi, rbx",
                call_exit!(),
                $($after,)*
                "test eax, eax",
                "jnz 4f",
                "mov rbx, [rbx + {link}]",
                "test rbx, rbx",
                "jnz 2b",
                "4:",
                "pop rbx",
                "pop r10",
                "pop r9",
                "pop r8",
                "pop rdi",
                "pop rsi",
                "pop rcx",
                $($end,)*
                go_back!(),
                first = const offset_of!(Chain, first),
                counters = const offset_of!(Target, counters),
                called = const CALLED * 8,
                call = const offset_of!(Target, call),
                link = const Exit::LINKS + $version * 8,
            )
        }
    };
}
chain! {
    chain_2_even, chain_2_odd:
        reloads ["mov rsi, [rsp + 40]", "mov rdx, [rsp + 56]"], before [], after [], ends ["pop rdx", "pop rax"];
    // The answer stays in RAX and RDX.
    chain_2_returning_even, chain_2_returning_odd:
        reloads ["mov rsi, [rsp + 40]", "mov rdx, [rsp + 56]"], before [], after [], ends ["add rsp, 16"];
    chain_5_even, chain_5_odd:
        reloads ["mov rsi, [rsp + 40]", "mov rdx, [rsp + 56]", "mov rcx, [rsp + 48]", "mov r8, [rsp + 24]", "mov r9, [rsp + 16]"],
        before [], after [], ends ["pop rdx", "pop rax"];
    chain_5_returning_even, chain_5_returning_odd:
        reloads ["mov rsi, [rsp + 40]", "mov rdx, [rsp + 56]", "mov rcx, [rsp + 48]", "mov r8, [rsp + 24]", "mov r9, [rsp + 16]"],
        before [], after [], ends ["add rsp, 16"];
    // The three words above the return address are passed on, to each exit anew, since it may change them.
    chain_8_even, chain_8_odd:
        reloads ["mov rsi, [rsp + 40]", "mov rdx, [rsp + 56]", "mov rcx, [rsp + 48]", "mov r8, [rsp + 24]", "mov r9, [rsp + 16]"],
        before ["sub rsp, 8", "push [rsp + 104]", "push [rsp + 104]", "push [rsp + 104]"], after ["add rsp, 32"],
        ends ["pop rdx", "pop rax"];
    chain_8_returning_even, chain_8_returning_odd:
        reloads ["mov rsi, [rsp + 40]", "mov rdx, [rsp + 56]", "mov rcx, [rsp + 48]", "mov r8, [rsp + 24]", "mov r9, [rsp + 16]"],
        before ["sub rsp, 8", "push [rsp + 104]", "push [rsp + 104]", "push [rsp + 104]"], after ["add rsp, 32"],
        ends ["add rsp, 16"];
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

/// Panics, while another panic unwinds, when it is dropped: which ends the program. A pass's assembly is not to be unwound.
#[cfg(feature = "preserve-most")]
struct NoUnwinding;

#[cfg(feature = "preserve-most")]
impl Drop for NoUnwinding {
    fn drop(&mut self) {
        panic!("an exit has panicked");
    }
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
                        let guard = NoUnwinding;
                        // SAFETY: as above.
                        let _ = unsafe { B::run(exit, [$($argument),*]) };
                        core::mem::forget(guard);
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
                        let guard = NoUnwinding;
                        // SAFETY: as above.
                        let answer = unsafe { B::run(exit, [$($argument),*]) };
                        core::mem::forget(guard);
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
