//! The registry's own targets: the chain that calls several exits, and the gate that decides during a transaction.
//!
//! This is the path of a pass: no lock, no allocation, nothing that waits, any context. A pass has counted itself in before it got here,
//! so that everything it follows stays as long as it is here.

use core::arch::asm;
use core::arch::x86_64::_rdtsc;
use core::sync::atomic::Ordering;

use crate::counters::{self, CALLED, NESTED, RETURNED, SLOW};
use crate::exit::Exit;
use crate::flow::Answer;
use crate::hook::{Chain, Gate};
use crate::target::Target;

/// The hook's arguments, whatever they are; a hook with fewer leaves the others unspecified.
type Words = [u64; 8];

#[cfg(not(feature = "linux-thunks"))]
macro_rules! call_register {
    ($operand:literal) => {
        concat!("call {", $operand, "}")
    };
}
#[cfg(feature = "linux-thunks")]
macro_rules! call_register {
    ($operand:literal) => {
        concat!("call __x86_indirect_thunk_{", $operand, "}")
    };
}

/// Calls `function` with `target` and the words, as C would.
///
/// # Safety
/// `function` is an `extern "C"` function that takes a pointer to `target` and as many words as the hook has arguments.
#[inline(always)]
unsafe fn invoke(function: *const (), target: *const Target, words: &Words) -> Answer {
    let [a, b, c, d, e, f, g, h] = *words;
    let (flow, value);
    // SAFETY: the caller says what `function` is. Arguments that it does not have are ignored, by the convention. Four words keep
    // the stack aligned.
    unsafe {
        asm!(
            "sub rsp, 8",
            "push {h}",
            "push {g}",
            "push {f}",
            call_register!("function"),
            "add rsp, 32",
            function = in(reg) function,
            f = in(reg) f,
            g = in(reg) g,
            h = in(reg) h,
            in("rdi") target,
            in("rsi") a,
            inlateout("rdx") b => value,
            in("rcx") c,
            in("r8") d,
            in("r9") e,
            lateout("rax") flow,
            clobber_abi("C"),
        );
    }
    Answer { flow, value }
}

/// Calls the exits of a chain in order until one does not continue.
///
/// # Safety
/// `chain` is the target that a pass has loaded and counted itself in for; `words` are the hook's.
unsafe fn walk(chain: *const Target, words: &Words) -> Answer {
    // SAFETY: a chain begins with its target.
    let chain = unsafe { &*chain.cast::<Chain>() };
    let version = chain.version.load(Ordering::Relaxed);
    let mut exit: *const Exit = chain.first.load(Ordering::Relaxed);
    // SAFETY: the links of this version do not change, and the exits stay, while a pass that has counted itself in may follow them.
    while let Some(this) = unsafe { exit.as_ref() } {
        // SAFETY: an exit of this hook, called with the hook's words.
        let answer = unsafe { call_exit(this, words) };
        if answer.code() != 0 {
            return answer;
        }
        exit = this.link(version).load(Ordering::Relaxed);
    }
    Answer::CONTINUE
}

/// Calls one exit and counts the call.
///
/// # Safety
/// As [`walk`]; `exit` is on the hook.
unsafe fn call_exit(exit: &Exit, words: &Words) -> Answer {
    let call = exit.target.call.load(Ordering::Relaxed);
    let own = exit.target.counters.load(Ordering::Relaxed);
    // SAFETY: the counters stay as long as the exit is registered.
    unsafe { counters::increment(own, CALLED) };
    if exit.watch == 0 {
        // SAFETY: the caller's promise.
        return unsafe { invoke(call, &raw const exit.target, words) };
    }
    // SAFETY: as above. What runs on this CPU is what was called and has not returned; the call just counted is one.
    let running = unsafe { counters::current(own, CALLED).wrapping_sub(counters::current(own, RETURNED)) };
    // Where tasks migrate, a call may return on another CPU; the difference of one CPU is then a negative number.
    if running as i64 > 1 {
        // SAFETY: as above.
        unsafe { counters::increment(own, NESTED) };
    }
    // SAFETY: every x86-64 CPU has the instruction; no address is involved.
    let begun = unsafe { _rdtsc() };
    // SAFETY: the caller's promise.
    let answer = unsafe { invoke(call, &raw const exit.target, words) };
    // SAFETY: as above.
    let cycles = unsafe { _rdtsc() }.wrapping_sub(begun);
    if cycles > exit.watch {
        // SAFETY: as above.
        unsafe { counters::increment(own, SLOW) };
    }
    // SAFETY: as above.
    unsafe { counters::increment(own, RETURNED) };
    answer
}

/// Calls what was there before the transaction, or what is there after it.
///
/// # Safety
/// `gate` is the target that a pass has loaded and counted itself in for; `words` are the hook's.
unsafe fn pass_gate(gate: *const Target, words: &Words) -> Answer {
    // SAFETY: a gate begins with its target.
    let gate = unsafe { &*gate.cast::<Gate>() };
    let ticket = gate.ticket.load(Ordering::Relaxed);
    // SAFETY: the word lives as long as the registry's users: it is static.
    let live = unsafe { &*gate.live.load(Ordering::Relaxed) };
    let target = if live.load(Ordering::Acquire) >= ticket {
        gate.new.load(Ordering::Relaxed)
    } else {
        gate.old.load(Ordering::Relaxed)
    };
    // SAFETY: both stay while a pass that has counted itself in may use them.
    let target = unsafe { &*target };
    if target.counters.load(Ordering::Relaxed) != 0 {
        // An exit that is armed alone. Its own entry would leave the counting to the pass.
        // SAFETY: only exits have counters, and an exit begins with its target.
        return unsafe { call_exit(&*(&raw const *target).cast::<Exit>(), words) };
    }
    let call = target.call.load(Ordering::Relaxed);
    if call.is_null() {
        return Answer::CONTINUE;
    }
    // SAFETY: the other targets with a function are chains, of this hook.
    unsafe { invoke(call, target, words) }
}

macro_rules! functions {
    ($($name:ident, $name_stack:ident: $function:ident;)*) => {$(
        /// With up to five arguments.
        unsafe extern "C" fn $name(target: *const Target, a: u64, b: u64, c: u64, d: u64, e: u64) -> Answer {
            // SAFETY: a thunk calls it with what a pass has loaded.
            unsafe { $function(target, &[a, b, c, d, e, 0, 0, 0]) }
        }

        /// With more.
        unsafe extern "C" fn $name_stack(
            target: *const Target, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64, h: u64,
        ) -> Answer {
            // SAFETY: a thunk calls it with what a pass has loaded.
            unsafe { $function(target, &[a, b, c, d, e, f, g, h]) }
        }
    )*};
}
functions! {
    chain, chain_stack: walk;
    gate, gate_stack: pass_gate;
}

/// The function of a hook's chains.
pub(crate) fn chain_function(arguments: u32) -> *const () {
    if arguments > 5 {
        chain_stack as *const ()
    } else {
        chain as *const ()
    }
}

/// The function of a hook's gate.
pub(crate) fn gate_function(arguments: u32) -> *const () {
    if arguments > 5 {
        gate_stack as *const ()
    } else {
        gate as *const ()
    }
}
