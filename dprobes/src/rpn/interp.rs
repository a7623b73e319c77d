//! The interpreter: runs one handler of a verified program, for one hit.
//!
//! It does not allocate, lock, panic or recurse, and executes a bounded number of instructions. Operands, jumps and the
//! depth of the stack were proven by the verifier; stack indices are masked, so that even a mistake there could not
//! leave the workspace.

use core::sync::atomic::Ordering::Relaxed;

use super::bits;
use super::exception::{self, Exception, operand};
use super::frame;
use super::hit::{Hit, Next, Position};
use super::limits::{CALL_DEPTH, DUP_FREE, INSTRUCTION_BUDGET, MEMORY_COST, STACK_WORDS};
use super::log::{self, Logged};
use super::program::{Insn, Program, Width};
use super::rare::Machine;
use super::workspace::Frame;
use crate::record::element::token;

pub use super::env::{Env, PortWidth, TaskValues};
pub use super::observe::{Dispatch, Observer, Stack};
pub use super::variables::Variables;
pub use super::workspace::Workspace;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `exit`: publish the record.
    Exit,
    /// `exit_to`: publish the record, and then ask an exit facility to act; see [`facility`](super::op::facility).
    ExitTo(u8),
    /// `abort`: publish nothing.
    Abort,
    /// `remove`: publish the record, and remove the probe.
    Remove,
    /// An exception that no handler took: publish the record.
    Exception {
        /// The exception.
        exception: Exception,
        /// Offset in the object's code of the instruction that raised it.
        offset: u32,
    },
}

/// What a run leaves behind; its log is in the [`Workspace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Major code for the record, if the program set one.
    pub major: Option<u16>,
    /// Minor code for the record, if the program set one.
    pub minor: Option<u16>,
    /// Bytes of elements in [`Workspace::log`].
    pub log_len: usize,
    /// The log was too small for something the program logged: it is missing or cut short.
    pub log_overflow: bool,
    /// There is to be a stack-trace record: [`Workspace::trace_record`].
    pub traced: bool,
    /// The stack-trace record was too small for a trace: it is missing or cut short.
    pub trace_overflow: bool,
}

/// Runs the handler of a point of the program, counted from zero.
///
/// `variables` are what its instructions reach. A point that the program does not have runs as `abort`.
#[inline]
pub fn run<E: Env>(
    program: &Program,
    point: usize,
    ws: &mut Workspace,
    env: &mut E,
    variables: &Variables<'_>,
) -> Outcome {
    run_observed(program, point, ws, env, variables, &mut ())
}

/// As [`run`], with somebody who watches each instruction; the program is one of
/// [`verify_unfused`](super::verify::verify_unfused), or else some sequences are seen as one.
#[inline]
pub fn run_observed<E: Env, O: Observer>(
    program: &Program,
    point: usize,
    ws: &mut Workspace,
    env: &mut E,
    variables: &Variables<'_>,
    observer: &mut O,
) -> Outcome {
    ws.clear();
    let Some(entry) = program.entries.get(point).copied() else {
        return Outcome {
            end: End::Abort,
            major: None,
            minor: None,
            log_len: 0,
            log_overflow: false,
            traced: false,
            trace_overflow: false,
        };
    };
    let hit = Hit::new(program, variables, entry);
    if entry.whole_stack {
        ws.stack = [0; STACK_WORDS];
        execute::<E, O, true>(hit, ws, env, observer)
    } else {
        execute::<E, O, false>(hit, ws, env, observer)
    }
}

/// The loop. With `WHOLE`, every word that was ever on the stack is kept in memory.
///
/// The top word is kept in `tos`, all others are in the workspace; when the stack is empty, `tos` stands for the word
/// below its bottom, which only a ring has.
fn execute<E: Env, O: Observer, const WHOLE: bool>(
    mut hit: Hit<'_>,
    ws: &mut Workspace,
    env: &mut E,
    observer: &mut O,
) -> Outcome {
    let (program, entry) = (hit.program, hit.entry);
    let locals = hit.variables.locals;
    ws.frames[0] = Frame::outermost(entry.pc);
    let code = program.code.as_slice();
    let logmax = program.logmax;
    let mut pc = entry.pc as usize;
    let mut sp = 0_usize;
    let mut tos = 0_u64;
    let mut jumps = program.jmpmax;
    let mut budget = i64::from(INSTRUCTION_BUDGET);
    // For an observer: whether the last instruction was a check, with which the one behind it was announced.
    let mut announced = false;

    macro_rules! slot {
        ($index:expr) => {
            ws.stack[$index % STACK_WORDS]
        };
    }
    macro_rules! push {
        ($word:expr) => {{
            let word = $word;
            slot!(sp.wrapping_sub(1)) = tos;
            sp = sp.wrapping_add(1);
            tos = word;
        }};
    }
    macro_rules! pop {
        () => {{
            let word = tos;
            if WHOLE {
                slot!(sp.wrapping_sub(1)) = word;
            }
            sp = sp.wrapping_sub(1);
            tos = slot!(sp.wrapping_sub(1));
            word
        }};
    }
    macro_rules! binary {
        ($a:ident, $b:ident, $result:expr) => {{
            let $b = pop!();
            let $a = tos;
            tos = $result;
        }};
    }
    // What follows an exception. Control does not come back.
    macro_rules! follow {
        ($hit:ident, $method:ident $(, $arg:expr)*) => {{
            slot!(sp.wrapping_sub(1)) = tos;
            let next = $hit.$method(ws, Position { pc: pc.wrapping_sub(1), sp, budget } $(, $arg)*);
            if O::WATCHES {
                let (exception, dispatch) = next.told(&$hit);
                observer.exception(exception, dispatch);
                announced = false;
            }
            match next {
                Next::Ignored(_) => {}
                Next::Handler(to) => {
                    (pc, sp, budget) = (to.pc, to.sp, to.budget);
                    tos = slot!(sp.wrapping_sub(1));
                }
                Next::End(end) => break end,
            }
            continue;
        }};
    }
    macro_rules! raise {
        ($code:ident, $parm1:expr, $parm2:expr) => {
            follow!(hit, raise, exception::$code, $parm1, $parm2)
        };
    }
    macro_rules! charge {
        ($cost:expr) => {{
            budget -= i64::from($cost);
            if budget < 0 {
                follow!(hit, exhausted);
            }
        }};
    }
    macro_rules! count_jump {
        () => {
            match jumps.checked_sub(1) {
                Some(left) => jumps = left,
                None => raise!(MAX_JMPS, u64::from(program.jmpmax), 0),
            }
        };
    }
    macro_rules! jump {
        ($jump:expr, $condition:expr) => {
            if $condition {
                count_jump!();
                charge!($jump.cost);
                pc = $jump.target as usize;
            }
        };
    }
    macro_rules! add_jump {
        ($word:expr, $jump:expr, $condition:expr) => {{
            pc += 2;
            tos = tos.wrapping_add_signed(i64::from($word));
            jump!($jump, $condition);
        }};
    }
    macro_rules! local {
        ($index:expr) => {{
            let index = $index;
            match hit.variables.any_local(index) {
                Some(local) => local,
                None => raise!(INVALID_OPERAND, operand::LOCAL, index),
            }
        }};
    }
    macro_rules! declared_local {
        ($index:expr) => {{
            let index = $index;
            match locals.get(usize::from(index)) {
                Some(local) => local,
                None => raise!(INVALID_OPERAND, operand::LOCAL, u64::from(index)),
            }
        }};
    }
    macro_rules! global {
        ($index:expr) => {{
            let index = $index;
            match hit.variables.global(usize::from(index)) {
                Some(global) => global,
                None => raise!(INVALID_OPERAND, operand::GLOBAL, u64::from(index)),
            }
        }};
    }
    // A word of the stack at a position below an index.
    macro_rules! at {
        ($base:expr, $position:expr) => {
            slot!(
                $base
                    .wrapping_sub(1)
                    .wrapping_sub(isize::from($position).cast_unsigned())
            )
        };
    }
    macro_rules! push_at {
        ($base:expr, $position:expr) => {{
            slot!(sp.wrapping_sub(1)) = tos;
            let word = at!($base, $position);
            sp = sp.wrapping_add(1);
            tos = word;
        }};
    }
    macro_rules! pop_at {
        ($base:expr, $position:expr) => {{
            if WHOLE {
                slot!(sp.wrapping_sub(1)) = tos;
            }
            sp = sp.wrapping_sub(1);
            at!($base, $position) = tos;
            tos = slot!(sp.wrapping_sub(1));
        }};
    }
    macro_rules! bits {
        ($count:expr) => {{
            let count = $count;
            if count > 63 {
                raise!(INVALID_OPERAND, operand::BIT, count);
            }
            count as u32
        }};
    }
    // `value bit -- result`
    macro_rules! propagate {
        ($bits:ident) => {{
            let bit = pop!();
            match u8::try_from(bit) {
                Ok(small @ 1..=64) => tos = bits::$bits(tos, small),
                _ => raise!(INVALID_OPERAND, operand::BIT, bit),
            }
        }};
    }
    // `count value -- result`
    macro_rules! shift {
        ($method:ident) => {{
            let value = pop!();
            let count = pop!();
            let count = bits!(count);
            push!(value.$method(count));
        }};
    }
    macro_rules! code16 {
        ($min:expr) => {{
            let code = pop!();
            match u16::try_from(code) {
                Ok(code @ $min..=u16::MAX) => code,
                _ => raise!(INVALID_OPERAND, operand::CODE, code),
            }
        }};
    }
    macro_rules! logged {
        ($logged:expr) => {{
            ws.previous_len = ws.log.len;
            let logged = $logged;
            if logged != Logged::All {
                match hit.log_failed(logged, logmax) {
                    (code, parm1) => follow!(hit, raise, code, parm1, 0),
                }
            }
        }};
    }
    macro_rules! read {
        ($type:ty, $widen:expr) => {{
            let mut bytes = [0; size_of::<$type>()];
            match env.read(tos, &mut bytes) {
                Ok(()) => tos = $widen(<$type>::from_le_bytes(bytes)),
                Err(bad) => {
                    pop!();
                    raise!(INVALID_ADDR, bad.addr, 0);
                }
            }
        }};
    }

    if WHOLE {
        tos = slot!(sp.wrapping_sub(1));
    }
    let end = loop {
        // Control cannot get behind the code; if it did, the run would end here.
        let Some(insn) = code.get(pc) else { break End::Abort };
        if O::WATCHES {
            if !announced {
                slot!(sp.wrapping_sub(1)) = tos;
                observer.instruction(hit.offset(pc), Stack::new(&ws.stack, sp));
            }
            announced = insn.is_check();
        }
        pc += 1;
        match *insn {
            Insn::Check { pops, room } => {
                let (pops, most) = (usize::from(pops), STACK_WORDS.saturating_sub(usize::from(room)));
                if sp < pops {
                    raise!(RPN_STACK_WRAP, 0, (pops - sp) as u64);
                }
                if sp > most {
                    raise!(RPN_STACK_WRAP, STACK_WORDS as u64, (sp - most) as u64);
                }
            }
            Insn::CheckSbp { position, takes } => {
                let left = sp.wrapping_sub(usize::from(takes));
                if let Err(failure) = frame::place(hit.sbp, i128::from(position), left) {
                    follow!(hit, fail, failure);
                }
            }
            Insn::Rare(rare) => {
                slot!(sp.wrapping_sub(1)) = tos;
                let at = Position {
                    pc: pc.wrapping_sub(1),
                    sp,
                    budget,
                };
                let mut machine = Machine {
                    hit: &mut hit,
                    ws: &mut *ws,
                    env: &mut *env,
                    at,
                };
                let result = machine.execute(rare);
                (sp, budget) = (machine.at.sp, machine.at.budget);
                tos = slot!(sp.wrapping_sub(1));
                if let Err(failure) = result {
                    follow!(hit, fail, failure);
                }
            }
            Insn::Nop => {}
            Insn::Jmp(to) => jump!(to, true),
            Insn::Jlt(to) => jump!(to, tos.cast_signed() < 0),
            Insn::Jle(to) => jump!(to, tos.cast_signed() <= 0),
            Insn::Jgt(to) => jump!(to, tos.cast_signed() > 0),
            Insn::Jge(to) => jump!(to, tos.cast_signed() >= 0),
            Insn::Jz(to) => jump!(to, tos == 0),
            Insn::Jnz(to) => jump!(to, tos != 0),
            Insn::Loop(to) => {
                // Counted whether it jumps or not.
                count_jump!();
                tos = tos.wrapping_sub(1);
                if tos != 0 {
                    charge!(to.cost);
                    pc = to.target as usize;
                }
            }
            Insn::Call(to) => {
                let Some(frame) = ws.frames.get_mut(hit.frame + 1) else {
                    raise!(CALL_STACK_OVERFLOW, CALL_DEPTH as u64, 0);
                };
                charge!(to.cost);
                *frame = Frame {
                    back: pc as u32,
                    handler: 0,
                    called: to.target,
                    sbp: hit.sbp as u16,
                    shows: 0,
                };
                hit.frame += 1;
                pc = to.target as usize;
            }
            Insn::Ret => {
                let Some(caller) = hit.frame.checked_sub(1) else {
                    raise!(CALL_STACK_OVERFLOW, 0, 0);
                };
                let (back, sbp) = match ws.frames.get(hit.frame) {
                    Some(frame) => (frame.back as usize, usize::from(frame.sbp)),
                    None => break End::Abort,
                };
                charge!(hit.cost(pc - 1, back) as u32);
                hit.frame = caller;
                hit.sbp = sbp;
                pc = back;
            }
            Insn::Abort => break End::Abort,
            Insn::Remove => break End::Remove,
            Insn::Exit => break End::Exit,
            Insn::ExitTo(facility) => break End::ExitTo(facility),

            Insn::SetMin(minor) => hit.minor = Some(minor),
            Insn::SetMinS => hit.minor = Some(code16!(0)),
            Insn::SetMaj(major) => hit.major = Some(major),
            Insn::SetMajS => hit.major = Some(code16!(1)),

            Insn::LogStr => {
                let addr = pop!();
                let len = pop!();
                budget -= i64::from(MEMORY_COST);
                logged!(ws.log_str(logmax, env, addr, len));
            }
            Insn::LogMrf => {
                let addr = pop!();
                let len = pop!();
                budget -= i64::from(MEMORY_COST);
                logged!(ws.log_mrf(logmax, env, addr, len));
            }
            Insn::Log(count) => {
                slot!(sp.wrapping_sub(1)) = tos;
                let from = sp;
                sp = sp.wrapping_sub(usize::from(count));
                tos = slot!(sp.wrapping_sub(1));
                logged!(ws.log_stack(logmax, from, usize::from(count)));
            }
            Insn::LogS => {
                if tos > STACK_WORDS as u64 {
                    let count = pop!();
                    raise!(INVALID_OPERAND, operand::COUNT, count);
                }
                let count = tos as usize;
                let below = sp.wrapping_sub(1);
                if !WHOLE && count > below {
                    raise!(RPN_STACK_WRAP, 0, (count - below) as u64);
                }
                pop!();
                slot!(sp.wrapping_sub(1)) = tos;
                let from = sp;
                sp = sp.wrapping_sub(count);
                tos = slot!(sp.wrapping_sub(1));
                logged!(ws.log_stack(logmax, from, count));
            }

            Insn::LogLv => {
                let count = pop!();
                let first = pop!();
                let all = locals.len() as u64;
                let Some(range) = log::range(first, count, all) else {
                    raise!(INVALID_OPERAND, operand::LOCAL, first.max(all));
                };
                let words = range.map(|index| log::local(hit.variables, index));
                logged!(ws.log_words(logmax, token::LOCALS, words));
            }

            Insn::PushLv(index) => push!(declared_local!(index).load(Relaxed)),
            Insn::PushLvS => {
                let index = pop!();
                push!(local!(index).load(Relaxed));
            }
            Insn::PopLv(index) => {
                let value = pop!();
                declared_local!(index).store(value, Relaxed);
            }
            Insn::PopLvS => {
                let value = pop!();
                let index = pop!();
                local!(index).store(value, Relaxed);
            }
            Insn::MoveLv(index) => declared_local!(index).store(tos, Relaxed),
            Insn::MoveLvS => {
                let index = pop!();
                local!(index).store(tos, Relaxed);
            }
            Insn::IncLv(index) => {
                declared_local!(index).fetch_add(1, Relaxed);
            }
            Insn::IncLvS => {
                let index = pop!();
                local!(index).fetch_add(1, Relaxed);
            }
            Insn::DecLv(index) => {
                declared_local!(index).fetch_sub(1, Relaxed);
            }
            Insn::DecLvS => {
                let index = pop!();
                local!(index).fetch_sub(1, Relaxed);
            }

            Insn::PushGv(index) => push!(global!(index).load(Relaxed)),
            Insn::PopGv(index) => {
                let value = pop!();
                global!(index).store(value, Relaxed);
            }
            Insn::MoveGv(index) => global!(index).store(tos, Relaxed),
            Insn::IncGv(index) => {
                global!(index).fetch_add(1, Relaxed);
            }
            Insn::DecGv(index) => {
                global!(index).fetch_sub(1, Relaxed);
            }

            // Positions that are proven, or that a check before this has found to be on the stack.
            Insn::PushSbp(position) => push_at!(hit.sbp, position),
            Insn::PopSbp(position) => pop_at!(hit.sbp, position),
            Insn::CopySbp(position) => at!(hit.sbp, position) = tos,
            Insn::PushTsp(position) => push_at!(sp, position),
            Insn::PopTsp(position) => pop_at!(sp, position),
            Insn::CopyTsp(position) => at!(sp.wrapping_sub(1), position) = tos,

            Insn::Add => binary!(a, b, a.wrapping_add(b)),
            Insn::Sub => binary!(a, b, a.wrapping_sub(b)),
            Insn::Mul => binary!(a, b, a.wrapping_mul(b)),
            Insn::Div => {
                let divisor = pop!();
                let dividend = pop!();
                match (dividend.checked_rem(divisor), dividend.checked_div(divisor)) {
                    (Some(remainder), Some(quotient)) => {
                        push!(remainder);
                        push!(quotient);
                    }
                    _ => raise!(DIV_BY_ZERO, 0, 0),
                }
            }
            Insn::Idiv => {
                let divisor = pop!().cast_signed();
                let dividend = pop!().cast_signed();
                match (dividend.checked_rem(divisor), dividend.checked_div(divisor)) {
                    (Some(remainder), Some(quotient)) => {
                        push!(remainder.cast_unsigned());
                        push!(quotient.cast_unsigned());
                    }
                    _ => raise!(DIV_BY_ZERO, 0, 0),
                }
            }
            Insn::Neg => tos = tos.wrapping_neg(),
            Insn::Not => tos = !tos,
            Insn::And => binary!(a, b, a & b),
            Insn::Or => binary!(a, b, a | b),
            Insn::Xor => binary!(a, b, a ^ b),
            Insn::Rol(count) => tos = tos.rotate_left(u32::from(count)),
            Insn::RolS => shift!(rotate_left),
            Insn::Ror(count) => tos = tos.rotate_right(u32::from(count)),
            Insn::RorS => shift!(rotate_right),
            Insn::Shl(count) => tos = tos.wrapping_shl(u32::from(count)),
            Insn::ShlS => shift!(wrapping_shl),
            Insn::Shr(count) => tos = tos.wrapping_shr(u32::from(count)),
            Insn::ShrS => shift!(wrapping_shr),

            Insn::Pbl(bit) => tos = bits::pbl(tos, bit),
            Insn::PblS => propagate!(pbl),
            Insn::Pbr(bit) => tos = bits::pbr(tos, bit),
            Insn::PbrS => propagate!(pbr),
            Insn::Pzl(bit) => tos = bits::pzl(tos, bit),
            Insn::PzlS => propagate!(pzl),
            Insn::Pzr(bit) => tos = bits::pzr(tos, bit),
            Insn::PzrS => propagate!(pzr),

            Insn::Xchg => {
                let below = sp.wrapping_sub(2);
                (slot!(below), tos) = (tos, slot!(below));
            }
            Insn::Dup(count) => {
                let value = pop!();
                budget -= i64::from(count.saturating_sub(DUP_FREE));
                for _ in 0..count {
                    push!(value);
                }
            }
            Insn::DupS => {
                let count = slot!(sp.wrapping_sub(2));
                if count > STACK_WORDS as u64 {
                    pop!();
                    pop!();
                    raise!(INVALID_OPERAND, operand::COUNT, count);
                }
                let depth = sp.wrapping_sub(2).wrapping_add(count as usize);
                if !WHOLE && depth > STACK_WORDS {
                    raise!(RPN_STACK_WRAP, STACK_WORDS as u64, (depth - STACK_WORDS) as u64);
                }
                let value = pop!();
                pop!();
                budget -= count.saturating_sub(u64::from(DUP_FREE)) as i64;
                for _ in 0..count {
                    push!(value);
                }
            }
            Insn::Ros(count) => {
                slot!(sp.wrapping_sub(1)) = tos;
                sp = sp.wrapping_sub(usize::from(count));
                tos = slot!(sp.wrapping_sub(1));
            }
            Insn::Push(word) => push!(word),

            Insn::PushR(reg) => push!(env.reg(reg)),
            Insn::PopR(reg) => {
                let value = pop!();
                env.set_reg(reg, value);
            }

            Insn::PushMem(width) => {
                budget -= i64::from(MEMORY_COST);
                match width {
                    Width::U8 => read!(u8, u64::from),
                    Width::U16 => read!(u16, u64::from),
                    Width::U32 => read!(u32, u64::from),
                    Width::U64 => read!(u64, u64::from),
                    Width::S8 => read!(i8, |value| i64::from(value).cast_unsigned()),
                    Width::S16 => read!(i16, |value| i64::from(value).cast_unsigned()),
                    Width::S32 => read!(i32, |value| i64::from(value).cast_unsigned()),
                }
            }
            Insn::PopMem(width) => {
                let value = pop!();
                let addr = pop!();
                budget -= i64::from(MEMORY_COST);
                let bytes = value.to_le_bytes();
                let len = match width {
                    Width::U8 | Width::S8 => 1,
                    Width::U16 | Width::S16 => 2,
                    Width::U32 | Width::S32 => 4,
                    Width::U64 => 8,
                };
                if let Err(bad) = env.write(addr, &bytes[..len]) {
                    raise!(INVALID_ADDR, bad.addr, 0);
                }
            }

            Insn::Sx(handler) => {
                if let Some(frame) = ws.frames.get_mut(hit.frame) {
                    frame.handler = handler + 1;
                }
            }
            Insn::Ux => {
                if let Some(frame) = ws.frames.get_mut(hit.frame) {
                    frame.handler = 0;
                }
            }
            Insn::Rx => {
                let exception = Exception {
                    code: tos,
                    parm1: slot!(sp.wrapping_sub(2)),
                    parm2: slot!(sp.wrapping_sub(3)),
                };
                follow!(hit, dispatch, exception);
            }
            Insn::PushX => {
                push!(hit.last.parm2);
                push!(hit.last.parm1);
                push!(hit.last.code);
            }

            Insn::TopWord { op, word } => {
                tos = op.apply(tos, word);
                pc += 1;
            }
            Insn::TopBelow { op, below } => {
                tos = op.apply(tos, slot!(sp.wrapping_sub(usize::from(below))));
                pc += 1;
            }
            Insn::TopLv { op, local } => {
                pc += 1;
                tos = op.apply(tos, declared_local!(local).load(Relaxed));
            }
            Insn::BelowWord { op, below, word } => {
                let at = sp.wrapping_sub(usize::from(below));
                slot!(at) = op.apply(slot!(at), word);
                pc += 3;
            }
            Insn::BelowTop { op, below } => {
                let at = sp.wrapping_sub(usize::from(below));
                slot!(at) = op.apply(slot!(at), tos);
                pc += 3;
            }
            Insn::LvWord { op, local, word } => {
                pc += 3;
                let local = declared_local!(local);
                local.store(op.apply(local.load(Relaxed), word), Relaxed);
            }
            Insn::LvTop { op, local } => {
                pc += 3;
                let local = declared_local!(local);
                local.store(op.apply(local.load(Relaxed), tos), Relaxed);
            }
            Insn::LvPop { op, local } => {
                pc += 2;
                let value = pop!();
                let local = declared_local!(local);
                local.store(op.apply(local.load(Relaxed), value), Relaxed);
            }
            Insn::AddJz { word, jump } => add_jump!(word, jump, tos == 0),
            Insn::AddJnz { word, jump } => add_jump!(word, jump, tos != 0),
            Insn::AddJlt { word, jump } => add_jump!(word, jump, tos.cast_signed() < 0),
            Insn::AddJle { word, jump } => add_jump!(word, jump, tos.cast_signed() <= 0),
            Insn::AddJgt { word, jump } => add_jump!(word, jump, tos.cast_signed() > 0),
            Insn::AddJge { word, jump } => add_jump!(word, jump, tos.cast_signed() >= 0),
            Insn::AndJz { word, jump } => {
                pc += 2;
                tos &= i64::from(word).cast_unsigned();
                jump!(jump, tos == 0);
            }
            Insn::AndJnz { word, jump } => {
                pc += 2;
                tos &= i64::from(word).cast_unsigned();
                jump!(jump, tos != 0);
            }
        }
    };
    Outcome {
        end,
        major: hit.major,
        minor: hit.minor,
        log_len: ws.log.len,
        log_overflow: hit.log_overflow,
        traced: ws.trace.len != 0,
        trace_overflow: ws.traces_cut != 0,
    }
}
