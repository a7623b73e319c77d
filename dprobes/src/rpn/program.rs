//! Verified programs: what the verifier makes and the interpreter runs.

use alloc::vec::Vec;

use super::reg::Reg;

/// A program that has been verified. Only [`verify`](super::verify::verify) makes one.
#[derive(Debug)]
pub struct Program {
    pub(super) code: Vec<Insn>,
    /// For each instruction in `code`, where it comes from.
    pub(super) origins: Vec<Origin>,
    /// For each point, its handler.
    pub(super) entries: Vec<Entry>,
    pub(super) locals: u16,
    pub(super) logmax: u16,
    pub(super) jmpmax: u16,
}

impl Program {
    /// Number of points, each with its handler.
    pub fn points(&self) -> usize {
        self.entries.len()
    }

    /// Number of local variables its runs need.
    pub fn locals(&self) -> usize {
        usize::from(self.locals)
    }

    /// Bytes of log elements a hit can write.
    pub fn logmax(&self) -> u16 {
        self.logmax
    }
}

/// The handler of a point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its first instruction.
    pub(super) pc: u32,
    /// Exceptions that it handles.
    pub(super) ex_mask: u16,
    /// Whether words that were popped can be seen again. Then the stack is zero at first, and kept complete in memory.
    pub(super) whole_stack: bool,
}

/// Where a decoded instruction comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Its offset in the object's code.
    pub(super) offset: u32,
    /// Its number, counted in instructions of the object: the measure of the budget.
    pub(super) number: u32,
}

/// Where a jump goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    /// Index of the instruction.
    pub(super) target: u32,
    /// What it is charged: see [`INSTRUCTION_BUDGET`](super::limits::INSTRUCTION_BUDGET).
    pub(super) cost: u32,
}

/// Width of an access to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
}

/// A decoded instruction: its operands are proven, its jumps are absolute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insn {
    /// Not in the object: raises `RPN_STACK_WRAP` unless `pops` words are on the stack and there is room for `room`.
    /// It stands before an instruction for which the verifier could not prove this.
    Check {
        pops: u16,
        room: u16,
    },
    Nop,
    Jmp(Jump),
    Jlt(Jump),
    Jle(Jump),
    Jgt(Jump),
    Jge(Jump),
    Jz(Jump),
    Jnz(Jump),
    Loop(Jump),
    Call(Jump),
    Ret,
    Abort,
    Remove,
    Exit,
    SetMin(u16),
    SetMinS,
    SetMaj(u16),
    SetMajS,
    LogStr,
    LogMrf,
    Log(u16),
    LogS,
    LogLv,
    PushLv(u16),
    PushLvS,
    PopLv(u16),
    PopLvS,
    MoveLv(u16),
    MoveLvS,
    IncLv(u16),
    IncLvS,
    DecLv(u16),
    DecLvS,
    Add,
    Sub,
    Mul,
    Div,
    Idiv,
    Neg,
    Not,
    And,
    Or,
    Xor,
    Rol(u8),
    RolS,
    Ror(u8),
    RorS,
    Shl(u8),
    ShlS,
    Shr(u8),
    ShrS,
    Pbl(u8),
    PblS,
    Pbr(u8),
    PbrS,
    Pzl(u8),
    PzlS,
    Pzr(u8),
    PzrS,
    Xchg,
    Dup(u8),
    DupS,
    Ros(u8),
    Push(u64),
    PushR(Reg),
    PopR(Reg),
    PushMem(Width),
    PopMem(Width),
    Sx(u32),
    Ux,
    Rx,
    PushX,
}

const _: () = assert!(size_of::<Insn>() == 16);
