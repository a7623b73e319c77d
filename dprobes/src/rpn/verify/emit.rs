//! Third step: proven instructions to the form the interpreter runs.

use alloc::vec::Vec;

use super::decode::Step;
use super::depth::Depth;
use super::fuse::fuse;
use super::{Fault, Handler, Verifier, VerifyError};
use crate::rpn::counting::counts;
use crate::rpn::env::PortWidth;
use crate::rpn::frame::{Access, Base, FrameInsn};
use crate::rpn::heap::HeapInsn;
use crate::rpn::log::LogInsn;
use crate::rpn::op::Op;
use crate::rpn::program::{Entry, Insn, Jump, Origin, Program, Width};
use crate::rpn::rare::Rare;
use crate::rpn::reg::{Class, Reg};
use crate::rpn::system::SystemInsn;
use crate::rpn::trace::TraceInsn;
use crate::rpn::variables::{Scope, VariableInsn, VariableOp};

/// What must be looked at while the program runs, before a step.
fn checks(step: &Step, depth: &Depth) -> impl Iterator<Item = Insn> + use<> {
    let need = step.need();
    let check = (!depth.proves(need)).then_some(Insn::Check {
        pops: need.pops,
        room: need.room,
    });
    let position = step
        .sbp_position()
        .filter(|position| !depth.proves_position(*position, step.takes));
    let takes = step.takes;
    let position = position.map(|position| Insn::CheckSbp { position, takes });
    check.into_iter().chain(position)
}

impl Verifier<'_, '_> {
    /// Adds a handler to the program.
    pub(super) fn emit(
        &self,
        handler: Handler,
        steps: &[Step],
        depths: &[Depth],
        program: &mut Program,
    ) -> Result<Entry, VerifyError> {
        // In a ring nothing is checked, but whoever wraps sees what was popped: an unproven instruction, one that looks at the
        // stack itself, or a handler, since an exception's three words can wrap.
        let unproven = |(step, depth): &(&Step, &Depth)| checks(step, depth).next().is_some();
        let wraps = |step: &Step| step.op == Op::Sx || step.looks_itself();
        let whole_stack =
            handler.ring && (steps.iter().any(wraps) || steps.iter().zip(depths).any(|pair| unproven(&pair)));
        let checks = |step, depth| checks(step, depth).filter(|_| !handler.ring);

        // Where each step begins, its checks included.
        let first = program.code.len();
        let mut pcs: Vec<u32> = Vec::new();
        self.reserve(&mut pcs, steps.len())?;
        let mut pc = first as u32;
        for (step, depth) in steps.iter().zip(depths) {
            pcs.push(pc);
            pc += 1 + checks(step, depth).count() as u32;
        }

        let added = pc as usize - first;
        self.reserve(&mut program.code, added)?;
        self.reserve(&mut program.origins, added)?;
        for (number, (step, depth)) in (0..).zip(steps.iter().zip(depths)) {
            let origin = Origin {
                offset: step.offset,
                number,
            };
            for check in checks(step, depth) {
                program.code.push(check);
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
        if self.fuse
            && !whole_stack
            && let Some(code) = program.code.get_mut(first..)
        {
            fuse(code);
        }
        Ok(Entry {
            pc: first as u32,
            ex_mask: 0,
            heap: 0,
            group: 0,
            whole_stack,
            counting: program.code.get(first..).is_some_and(counts),
            of_call: steps.iter().any(|step| matches!(step.op, Op::PushCv | Op::PopCv)),
        })
    }

    fn insn(&self, step: &Step, jump: Jump) -> Result<Insn, VerifyError> {
        let byte = step.operand as u8;
        let half = step.operand as u16;
        // Decoding proved that it is one.
        let reg = || Reg::from_number(half).ok_or_else(|| self.error(step.offset, Fault::Register { found: half }));
        let position = step.operand.cast_signed() as i16;
        let rare = |rare| Insn::Rare(rare);
        let variable = |operation| rare(Rare::Variable(VariableInsn::Global(operation)));
        let frame = |base, access| rare(Rare::Frame(FrameInsn::Indexed(base, access)));
        let read = |width| rare(Rare::Heap(HeapInsn::Read { width, count: half }));
        let write = |width| rare(Rare::Heap(HeapInsn::Write { width, count: half }));
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
            Op::PushR => match reg()? {
                reg if reg.class() == Class::System => rare(Rare::System(SystemInsn::PushSystem(reg))),
                reg => Insn::PushR(reg),
            },
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
            Op::ExitTo => Insn::ExitTo(byte),
            Op::Suspend => rare(Rare::System(SystemInsn::Suspend {
                group: half,
                suspended: true,
            })),
            Op::Resume => rare(Rare::System(SystemInsn::Suspend {
                group: half,
                suspended: false,
            })),
            Op::PushGv => Insn::PushGv(half),
            Op::PopGv => Insn::PopGv(half),
            Op::MoveGv => Insn::MoveGv(half),
            Op::IncGv => Insn::IncGv(half),
            Op::DecGv => Insn::DecGv(half),
            Op::PushGvS => variable(VariableOp::Push),
            Op::PopGvS => variable(VariableOp::Pop),
            Op::MoveGvS => variable(VariableOp::Move),
            Op::IncGvS => variable(VariableOp::Inc),
            Op::DecGvS => variable(VariableOp::Dec),
            Op::AllocGv => rare(Rare::Variable(VariableInsn::Alloc(Scope::Global))),
            Op::FreeGv => rare(Rare::Variable(VariableInsn::Free(Scope::Global))),
            Op::AllocLv => rare(Rare::Variable(VariableInsn::Alloc(Scope::Local))),
            Op::FreeLv => rare(Rare::Variable(VariableInsn::Free(Scope::Local))),
            Op::PushCv => rare(Rare::Variable(VariableInsn::PushCall(byte))),
            Op::PopCv => rare(Rare::Variable(VariableInsn::PopCall(byte))),
            Op::LogGv => rare(Rare::Log(LogInsn::Globals)),
            Op::LogKstack => rare(Rare::Log(LogInsn::KernelStack)),
            Op::LogUstack => rare(Rare::Log(LogInsn::UserStack)),
            Op::LogName => rare(Rare::Log(LogInsn::Name)),
            Op::PushLp => rare(Rare::Log(LogInsn::PushLength)),
            Op::PushPlp => rare(Rare::Log(LogInsn::PushPrevious)),
            Op::PopLp => rare(Rare::Log(LogInsn::PopLength)),
            Op::PushSbp => Insn::PushSbp(position),
            Op::PushSbpS => frame(Base::Sbp, Access::Push),
            Op::PopSbp => Insn::PopSbp(position),
            Op::PopSbpS => frame(Base::Sbp, Access::Pop),
            Op::CopySbp => Insn::CopySbp(position),
            Op::CopySbpS => frame(Base::Sbp, Access::Copy),
            Op::PushTsp => Insn::PushTsp(position),
            Op::PushTspS => frame(Base::Tsp, Access::Push),
            Op::PopTsp => Insn::PopTsp(position),
            Op::PopTspS => frame(Base::Tsp, Access::Pop),
            Op::CopyTsp => Insn::CopyTsp(position),
            Op::CopyTspS => frame(Base::Tsp, Access::Copy),
            Op::SaveSbp => rare(Rare::Frame(FrameInsn::SaveSbp)),
            Op::RestoreSbp => rare(Rare::Frame(FrameInsn::RestoreSbp)),
            Op::SaveTsp => rare(Rare::Frame(FrameInsn::SaveTsp)),
            Op::RestoreTsp => rare(Rare::Frame(FrameInsn::RestoreTsp)),
            Op::PushWid => Insn::Push((-64_i64).cast_unsigned()),
            Op::PushU => rare(Rare::System(SystemInsn::PushUser(reg()?))),
            Op::PopU => rare(Rare::System(SystemInsn::PopUser(reg()?))),
            Op::PushCpuid => rare(Rare::System(SystemInsn::Cpuid)),
            Op::PushMsr => rare(Rare::System(SystemInsn::Msr)),
            Op::PushTask => rare(Rare::System(SystemInsn::Task)),
            Op::PushPid => rare(Rare::System(SystemInsn::Pid)),
            Op::PushTid => rare(Rare::System(SystemInsn::Tid)),
            Op::PushUid => rare(Rare::System(SystemInsn::Uid)),
            Op::PushCpu => rare(Rare::System(SystemInsn::Cpu)),
            Op::PushClock => rare(Rare::System(SystemInsn::Clock)),
            Op::PushTsc => rare(Rare::System(SystemInsn::Tsc)),
            Op::PushName => rare(Rare::System(SystemInsn::Name)),
            Op::PushIoU8 => rare(Rare::System(SystemInsn::PortRead(PortWidth::U8))),
            Op::PopIoU8 => rare(Rare::System(SystemInsn::PortWrite(PortWidth::U8))),
            Op::PushIoU16 => rare(Rare::System(SystemInsn::PortRead(PortWidth::U16))),
            Op::PopIoU16 => rare(Rare::System(SystemInsn::PortWrite(PortWidth::U16))),
            Op::PushIoU32 => rare(Rare::System(SystemInsn::PortRead(PortWidth::U32))),
            Op::PopIoU32 => rare(Rare::System(SystemInsn::PortWrite(PortWidth::U32))),
            Op::VfyR => rare(Rare::System(SystemInsn::Readable)),
            Op::VfyRw => rare(Rare::System(SystemInsn::Writable)),
            Op::Malloc => rare(Rare::Heap(HeapInsn::Malloc)),
            Op::Free => rare(Rare::Heap(HeapInsn::Free)),
            Op::PushhU8 => read(1),
            Op::PophU8 => write(1),
            Op::PushhU16 => read(2),
            Op::PophU16 => write(2),
            Op::PushhU32 => read(4),
            Op::PophU32 => write(4),
            Op::PushhU64 => read(8),
            Op::PophU64 => write(8),
            Op::Agg => {
                let map = self.map(half);
                rare(Rare::System(SystemInsn::Aggregate {
                    map: half,
                    keys: map.map_or(0, |map| map.keys),
                    value: map.is_some_and(|map| map.kind.takes_value()),
                }))
            }
            Op::LogSt => rare(Rare::Trace(TraceInsn::Append)),
            Op::PurgeSt => rare(Rare::Trace(TraceInsn::Purge)),
            Op::TraceLv => rare(Rare::Trace(TraceInsn::Locals)),
            Op::TraceGv => rare(Rare::Trace(TraceInsn::Globals)),
            Op::TracePv => rare(Rare::Trace(TraceInsn::Positions)),
            Op::PushStp => rare(Rare::Trace(TraceInsn::PushLength)),
            Op::PopStp => rare(Rare::Trace(TraceInsn::PopLength)),
        })
    }
}
