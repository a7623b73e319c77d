//! Third step: proven instructions to the form the interpreter runs.

use alloc::vec::Vec;

use super::decode::Step;
use super::depth::Depth;
use super::{Fault, Handler, Verifier, VerifyError};
use crate::rpn::op::Op;
use crate::rpn::program::{Entry, Insn, Jump, Origin, Program, Width};
use crate::rpn::reg::Reg;

impl Verifier<'_, '_> {
    /// Adds a handler to the program.
    pub(super) fn emit(
        &self,
        handler: Handler,
        steps: &[Step],
        depths: &[Depth],
        program: &mut Program,
    ) -> Result<Entry, VerifyError> {
        let unproven = |step: &Step, depth: &Depth| !depth.proves(step.need());
        // In a ring nothing is checked, but whoever wraps sees what was popped: an unproven instruction, one that takes a
        // count from the stack, or a handler, since an exception's three words can wrap.
        let mut unproven_steps = steps
            .iter()
            .zip(depths)
            .filter(|(step, depth)| unproven(step, depth))
            .count();
        let wraps = |step: &Step| step.op == Op::Sx || step.is_counted();
        let whole_stack = handler.ring && (unproven_steps != 0 || steps.iter().any(wraps));
        if handler.ring {
            unproven_steps = 0;
        }

        // Where each step begins, its check included.
        let first = program.code.len();
        let mut pcs: Vec<u32> = Vec::new();
        self.reserve(&mut pcs, steps.len())?;
        let mut pc = first as u32;
        for (step, depth) in steps.iter().zip(depths) {
            pcs.push(pc);
            pc += 1 + u32::from(!handler.ring && unproven(step, depth));
        }

        self.reserve(&mut program.code, steps.len() + unproven_steps)?;
        self.reserve(&mut program.origins, steps.len() + unproven_steps)?;
        for (number, (step, depth)) in (0..).zip(steps.iter().zip(depths)) {
            let origin = Origin {
                offset: step.offset,
                number,
            };
            if !handler.ring && unproven(step, depth) {
                let need = step.need();
                program.code.push(Insn::Check {
                    pops: need.pops,
                    room: need.room,
                });
                program.origins.push(origin);
            }
            let target = step.target();
            let jump = Jump {
                target: pcs.get(target).copied().unwrap_or(first as u32),
                cost: (number + 1).saturating_sub(target as u32),
            };
            let insn = self.insn(step, jump)?;
            program.code.push(insn);
            program.origins.push(origin);
        }
        Ok(Entry {
            pc: first as u32,
            ex_mask: 0,
            whole_stack,
        })
    }

    fn insn(&self, step: &Step, jump: Jump) -> Result<Insn, VerifyError> {
        let byte = step.operand as u8;
        let half = step.operand as u16;
        // Decoding proved that it is one.
        let reg = || Reg::from_number(half).ok_or_else(|| self.error(step.offset, Fault::Register { found: half }));
        Ok(match step.op {
            Op::Nop => Insn::Nop,
            Op::Jmp => Insn::Jmp(jump),
            Op::Jlt => Insn::Jlt(jump),
            Op::Jle => Insn::Jle(jump),
            Op::Jgt => Insn::Jgt(jump),
            Op::Jge => Insn::Jge(jump),
            Op::Jz => Insn::Jz(jump),
            Op::Jnz => Insn::Jnz(jump),
            Op::Loop => Insn::Loop(jump),
            Op::Call => Insn::Call(jump),
            Op::Ret => Insn::Ret,
            Op::Abort => Insn::Abort,
            Op::Remove => Insn::Remove,
            Op::Exit => Insn::Exit,
            Op::SetMin => Insn::SetMin(half),
            Op::SetMinS => Insn::SetMinS,
            Op::SetMaj => Insn::SetMaj(half),
            Op::SetMajS => Insn::SetMajS,
            Op::LogStr => Insn::LogStr,
            Op::LogMrf => Insn::LogMrf,
            Op::Log => Insn::Log(half),
            Op::LogS => Insn::LogS,
            Op::LogLv => Insn::LogLv,
            Op::PushLv => Insn::PushLv(half),
            Op::PushLvS => Insn::PushLvS,
            Op::PopLv => Insn::PopLv(half),
            Op::PopLvS => Insn::PopLvS,
            Op::MoveLv => Insn::MoveLv(half),
            Op::MoveLvS => Insn::MoveLvS,
            Op::IncLv => Insn::IncLv(half),
            Op::IncLvS => Insn::IncLvS,
            Op::DecLv => Insn::DecLv(half),
            Op::DecLvS => Insn::DecLvS,
            Op::Add => Insn::Add,
            Op::Sub => Insn::Sub,
            Op::Mul => Insn::Mul,
            Op::Div => Insn::Div,
            Op::Idiv => Insn::Idiv,
            Op::Neg => Insn::Neg,
            Op::Not => Insn::Not,
            Op::And => Insn::And,
            Op::Or => Insn::Or,
            Op::Xor => Insn::Xor,
            Op::Rol => Insn::Rol(byte),
            Op::RolS => Insn::RolS,
            Op::Ror => Insn::Ror(byte),
            Op::RorS => Insn::RorS,
            Op::Shl => Insn::Shl(byte),
            Op::ShlS => Insn::ShlS,
            Op::Shr => Insn::Shr(byte),
            Op::ShrS => Insn::ShrS,
            Op::Pbl => Insn::Pbl(byte),
            Op::PblS => Insn::PblS,
            Op::Pbr => Insn::Pbr(byte),
            Op::PbrS => Insn::PbrS,
            Op::Pzl => Insn::Pzl(byte),
            Op::PzlS => Insn::PzlS,
            Op::Pzr => Insn::Pzr(byte),
            Op::PzrS => Insn::PzrS,
            Op::Xchg => Insn::Xchg,
            Op::Dup => Insn::Dup(byte),
            Op::DupS => Insn::DupS,
            Op::Ros => Insn::Ros(byte),
            Op::Push => Insn::Push(step.operand),
            Op::PushR => Insn::PushR(reg()?),
            Op::PopR => Insn::PopR(reg()?),
            Op::PushMemU8 => Insn::PushMem(Width::U8),
            Op::PushMemU16 => Insn::PushMem(Width::U16),
            Op::PushMemU32 => Insn::PushMem(Width::U32),
            Op::PushMemU64 => Insn::PushMem(Width::U64),
            Op::PushMemS8 => Insn::PushMem(Width::S8),
            Op::PushMemS16 => Insn::PushMem(Width::S16),
            Op::PushMemS32 => Insn::PushMem(Width::S32),
            Op::PopMemU8 => Insn::PopMem(Width::U8),
            Op::PopMemU16 => Insn::PopMem(Width::U16),
            Op::PopMemU32 => Insn::PopMem(Width::U32),
            Op::PopMemU64 => Insn::PopMem(Width::U64),
            Op::Sx => Insn::Sx(jump.target),
            Op::Ux => Insn::Ux,
            Op::Rx => Insn::Rx,
            Op::PushX => Insn::PushX,
        })
    }
}
