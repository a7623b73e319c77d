//! Traps: the host calls these from its exception handlers, in any context, with interrupts off.

use core::ptr;
use core::slice;

use engine::host::CallWords;
use engine::insn::Instructions;
use engine::trap::{TrapFrame, Verdict};

use crate::instance;

/// A breakpoint exception (#BP). `frame` holds the registers as the CPU left them: `rip` after the `int3`.
///
/// True when it was the engine's; the frame then says where to resume. False: the breakpoint is somebody else's, and the
/// frame is as it was.
///
/// # Safety
/// 1. `frame` points to the interrupted registers, which nobody else uses until this returns.
/// 2. Interrupts are off, and stay off until the interrupted code is resumed from the frame.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_on_breakpoint(frame: *mut TrapFrame) -> bool {
    let Some(engine) = instance::engine() else { return false };
    // SAFETY: by requirement 1.
    let frame = unsafe { &mut *frame };
    matches!(engine.on_breakpoint(frame), Verdict::Handled)
}

/// A debug exception (#DB). `dr6` is the debug status as the CPU reported it, bits in positive polarity (SDM volume 3,
/// 18.2.3); what the engine has dealt with is cleared in it, and the host writes the rest back.
///
/// True when that was all there was. False: the trap is somebody else's too. The bits that are left say why, and the frame is
/// as if the engine were not there.
///
/// # Safety
/// As [`dprobes_on_breakpoint`]; `dr6` is null or points to a number that nobody else uses until this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_on_debug(frame: *mut TrapFrame, dr6: *mut u64) -> bool {
    let Some(engine) = instance::engine() else { return false };
    // SAFETY: by requirement 1 of `dprobes_on_breakpoint`.
    let Some(frame) = (unsafe { frame.as_mut() }) else {
        return false;
    };
    // SAFETY: by this function's own requirement.
    let Some(dr6) = (unsafe { dr6.as_mut() }) else {
        return false;
    };
    matches!(engine.on_debug(frame, dr6), Verdict::Handled)
}

/// Where code that is `length` bytes long at `address` branches to by itself: writes the first `capacity` targets outside of it to `targets`,
/// and returns how many there are, which may be more. For a host that has to know what runs on the way of a trap.
///
/// # Safety
/// 1. `address` is the beginning of an instruction, and `length` bytes there can be read.
/// 2. `targets` can be written for `capacity` elements, or `capacity` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_branches(address: u64, length: usize, targets: *mut u64, capacity: usize) -> usize {
    let Ok(start) = usize::try_from(address) else { return 0 };
    if start == 0 || isize::try_from(length).is_err() {
        return 0;
    }
    // SAFETY: by requirement 1; it is not null, and the length is not too large.
    let text = unsafe { slice::from_raw_parts(ptr::with_exposed_provenance::<u8>(start), length) };
    let inside = address..address.saturating_add(length as u64);
    let mut count = 0;
    for (offset, insn) in Instructions::new(text).map_while(Result::ok) {
        let Some(target) = insn
            .target(address + offset as u64)
            .filter(|target| !inside.contains(target))
        else {
            continue;
        };
        if count < capacity && !targets.is_null() {
            // SAFETY: the element is one of the `capacity` that can be written, by requirement 2.
            unsafe { ptr::write(targets.add(count), target) };
        }
        count += 1;
    }
    count
}

/// The most bytes that [`dprobes_instruction`] gives.
pub const DPROBES_INSTRUCTION_MAX: usize = 15;

/// What the breakpoint at `address` stands for: fills `bytes`, which has room for `DPROBES_INSTRUCTION_MAX`, with the probed instruction,
/// and returns its length; 0 when nothing is probed there. For whoever shows code in a trap, with interrupts off.
///
/// # Safety
/// `bytes` is null or may be written for `DPROBES_INSTRUCTION_MAX` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_instruction(address: u64, bytes: *mut [u8; DPROBES_INSTRUCTION_MAX]) -> usize {
    // SAFETY: by this function's contract.
    let (Some(engine), Some(to)) = (instance::engine(), unsafe { bytes.as_mut() }) else {
        return 0;
    };
    let Some(insn) = engine.instruction(address) else {
        return 0;
    };
    for (to, byte) in to.iter_mut().zip(insn.bytes()) {
        *to = *byte;
    }
    insn.len()
}

/// A process has come to the instruction at the place that was attached as `number` with `attach_user`. `frame` holds its registers, `rip` the
/// address of the instruction. When this returns they are what the process goes on with; where `rip` has been changed the instruction is not to
/// be carried out.
///
/// # Safety
/// As [`dprobes_on_breakpoint`]; in the context of the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_on_user_hit(number: u64, frame: *mut TrapFrame) {
    let Some(engine) = instance::engine() else { return };
    // SAFETY: by requirement 1 of `dprobes_on_breakpoint`.
    if let Some(frame) = unsafe { frame.as_mut() } {
        engine.on_user_hit(number, frame);
    }
}

/// A call at the place that was attached as `number`, for its returns, will return without a `dprobes_on_user_hit`: it is counted as unfollowed. With
/// interrupts off.
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_on_user_return_lost(number: u64) {
    if let Some(engine) = instance::engine() {
        engine.on_user_return_lost(number);
    }
}

/// The task with this cookie, as in `dprobes_task`, has ended, and comes to no probe in user space any more. With interrupts off. To be called by a
/// host that has these, for every task.
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_on_task_ended(cookie: u64) {
    if let Some(engine) = instance::engine() {
        engine.on_task_ended(cookie);
    }
}

/// How many words `follow_return` is given for a call, and [`dprobes_on_return`] gets back.
pub const DPROBES_CALL_WORDS: usize = 8;

const _: () = assert!(size_of::<[u64; DPROBES_CALL_WORDS]>() == size_of::<CallWords>());

/// A call that is followed has returned: `number` and `words` are what `follow_return` was given. `frame` holds the registers with which the
/// caller goes on, `rip` the address that the call has returned to. When this returns general registers may have been changed, but for
/// `rip` and `rsp`.
///
/// # Safety
/// As [`dprobes_on_breakpoint`]; `words` may be read for `DPROBES_CALL_WORDS` words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_on_return(number: u64, frame: *mut TrapFrame, words: *const u64) {
    let Some(engine) = instance::engine() else { return };
    // SAFETY: by requirement 1 of `dprobes_on_breakpoint`, and by this function's own; they are words in memory as an array's are.
    if let (Some(frame), Some(words)) = unsafe { (frame.as_mut(), words.cast::<CallWords>().as_ref()) } {
        engine.on_return(number, frame, words);
    }
}

/// A `ud2` or `ud1` of kernel code raised #UD: to be called before anything else is done about it, by a host that answers `DPROBES_SPECIAL_REPORTED`.
/// `frame` holds the registers as the CPU left them: `rip` at the instruction.
///
/// True when a program has sent the CPU elsewhere: the host resumes from the frame, and does nothing about the exception.
///
/// # Safety
/// As [`dprobes_on_breakpoint`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_on_undefined(frame: *mut TrapFrame) -> bool {
    let Some(engine) = instance::engine() else { return false };
    // SAFETY: by requirement 1 of `dprobes_on_breakpoint`.
    let Some(frame) = (unsafe { frame.as_mut() }) else {
        return false;
    };
    engine.on_undefined(frame)
}

/// Does a breakpoint stand at `address` for an instruction that is `DPROBES_SPECIAL_REWRITTEN`? Then it must not be written over: the
/// instruction's first byte is in `*first`, the others are in text. For whoever rewrites such an instruction, while that is locked
/// (`lock_rewrites`), with interrupts off.
///
/// # Safety
/// `first` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_rewritten(address: u64, first: *mut u8) -> bool {
    // SAFETY: by this function's contract.
    let (Some(engine), Some(first)) = (instance::engine(), unsafe { first.as_mut() }) else {
        return false;
    };
    match engine.rewritten(address) {
        Some(byte) => {
            *first = byte;
            true
        }
        None => false,
    }
}

/// The instruction for which there is a breakpoint at `address` (`dprobes_rewritten`) becomes the one at the beginning of `bytes`: hits carry
/// that out from now on. The caller then writes all bytes but the first and synchronises all CPUs. Contexts as there.
///
/// False when it cannot be emulated: the caller then has to write all bytes, and the breakpoint is gone.
///
/// # Safety
/// `bytes` may be read for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_rewrite(address: u64, bytes: *const u8, length: usize) -> bool {
    let Some(engine) = instance::engine().filter(|_| !bytes.is_null() && isize::try_from(length).is_ok()) else {
        return false;
    };
    // SAFETY: by this function's contract; it is not null, and the length is not too large.
    engine.rewrite(address, unsafe { slice::from_raw_parts(bytes, length) })
}

/// A CPU has come on line that does not watch for watchpoint `number`, because no debug register was free there: one hit is counted as missed,
/// whatever it misses. With interrupts off.
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_on_watchpoint_lost(number: u32) {
    if let Some(engine) = instance::engine() {
        engine.on_watchpoint_lost(number as usize);
    }
}

/// Watchpoints were hit: a bit for each in `watchpoints`, the lowest for number 0. `frame` holds the registers as the CPU left them: behind
/// the instruction, or at the instruction if that is what is watched. When this returns the frame says where to resume.
///
/// # Safety
/// As [`dprobes_on_breakpoint`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_on_watchpoint(frame: *mut TrapFrame, watchpoints: u8) {
    let Some(engine) = instance::engine() else { return };
    // SAFETY: by requirement 1 of `dprobes_on_breakpoint`.
    if let Some(frame) = unsafe { frame.as_mut() } {
        engine.on_watchpoint(watchpoints, frame);
    }
}

/// Any other exception of kernel code. When the copy of an instruction faulted in its slot, the frame is changed to name
/// the original instruction, and the result is true. The host then reports the fault, or recovers from it, by the frame.
///
/// # Safety
/// As [`dprobes_on_breakpoint`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprobes_on_fault(frame: *mut TrapFrame) -> bool {
    let Some(engine) = instance::engine() else { return false };
    // SAFETY: by requirement 1 of `dprobes_on_breakpoint`.
    let Some(frame) = (unsafe { frame.as_mut() }) else {
        return false;
    };
    engine.on_fault(frame)
}
