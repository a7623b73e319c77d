//! Verified programs: what the verifier makes and the interpreter runs.

use alloc::vec::Vec;

use super::rare::Rare;
use super::reg::Reg;
use super::system::SystemInsn;

/// A program that has been verified. Only [`verify`](super::verify::verify) makes one.
#[derive(Debug)]
pub struct Program {
    pub(super) code: Vec<Insn>,
    /// For each instruction in `code`, where it comes from.
    pub(super) origins: Vec<Origin>,
    /// For each point, its handler.
    pub(super) entries: Vec<Entry>,
    pub(super) groups: Vec<Group>,
    pub(super) locals: u16,
    pub(super) globals: u16,
    pub(super) logmax: u16,
    pub(super) ex_logmax: u16,
    pub(super) jmpmax: u16,
    pub(super) auto_trace: bool,
    pub(super) allocates_locals: bool,
}

/// A group of a program's points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Its number in the program's text.
    pub number: u16,
    /// Whether it is suspended at first.
    pub suspended: bool,
}

impl Program {
    /// Number of points, each with its handler.
    pub fn points(&self) -> usize {
        self.entries.len()
    }

    /// Instructions it runs: those of its handlers, and the checks that the verifier has added.
    pub fn instructions(&self) -> usize {
        self.code.len()
    }

    /// The exit facilities that its handlers name, each as often as they do.
    pub fn facilities(&self) -> impl Iterator<Item = u8> {
        self.code.iter().filter_map(|insn| match insn {
            Insn::ExitTo(facility) => Some(*facility),
            _ => None,
        })
    }

    /// Number of local variables its runs need.
    pub fn locals(&self) -> usize {
        usize::from(self.locals)
    }

    /// Number of global variables it names.
    pub fn globals(&self) -> usize {
        usize::from(self.globals)
    }

    /// Whether its runs need a [`Pool`](super::variables::Pool) of local variables.
    pub fn allocates_locals(&self) -> bool {
        self.allocates_locals
    }

    /// The groups of its points, by ascending number; `suspend` and `resume` name them by their index here.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Whether any of the groups is suspended at first, or can be later.
    pub fn suspends(&self) -> bool {
        let suspends = |insn: &Insn| matches!(insn, Insn::Rare(Rare::System(SystemInsn::Suspend { .. })));
        self.groups.iter().any(|group| group.suspended) || self.code.iter().any(suspends)
    }

    /// The group of a point, by its index in [`groups`](Self::groups).
    pub fn group_of(&self, point: usize) -> Option<u16> {
        self.entries.get(point).map(|entry| entry.group)
    }

    /// Whether the handler of a point uses variables of a call.
    pub fn keeps_for_calls(&self, point: usize) -> bool {
        self.entries.get(point).is_some_and(|entry| entry.of_call)
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
    /// Bytes of the byte heap.
    pub(super) heap: u16,
    /// Index of the point's group.
    pub(super) group: u16,
    /// Whether words that were popped can be seen again. Then the stack is zero at first, and kept complete in memory.
    pub(super) whole_stack: bool,
    /// Whether it is a handler that [only counts](super::counting).
    pub(super) counting: bool,
    /// Whether it uses variables of the call.
    pub(super) of_call: bool,
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
    /// Not in the object: raises `RPN_STACK_WRAP` unless a position in relation to SBP is on the stack, the `takes` words on top
    /// not counted. It stands before an instruction for which the verifier could not prove this.
    CheckSbp {
        position: i16,
        takes: u16,
    },
    /// An instruction that is not executed in the interpreter's loop.
    Rare(Rare),
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
    ExitTo(u8),
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
    PushGv(u16),
    PopGv(u16),
    MoveGv(u16),
    IncGv(u16),
    DecGv(u16),
    PushSbp(i16),
    PopSbp(i16),
    CopySbp(i16),
    PushTsp(i16),
    PopTsp(i16),
    CopyTsp(i16),
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
    // What follows is not in objects. Each does what a sequence of instructions does that begins in its place, and goes on
    // behind it. The sequences of one kind are all of one length, so that where to go on need not be looked up.
    /// Top word: `push WORD; op`, two instructions.
    TopWord {
        op: Alu,
        word: u64,
    },
    /// Top word and one below it: `push tsp, POSITION; op`, two.
    TopBelow {
        op: Alu,
        below: u8,
    },
    /// Top word and a variable: `push lv, LOCAL; op`, two.
    TopLv {
        op: Alu,
        local: u16,
    },
    /// A word below the top one: `xchg; push WORD; op; xchg`, four.
    BelowWord {
        op: Alu,
        below: u8,
        word: u64,
    },
    /// A word below the top one, and that: `xchg; push tsp, 1; op; xchg`, four.
    BelowTop {
        op: Alu,
        below: u8,
    },
    /// A variable: `push lv, LOCAL; push WORD; op; pop lv, LOCAL`, four.
    LvWord {
        op: Alu,
        local: u16,
        word: u64,
    },
    /// A variable and the top word: `dup 2; push lv, LOCAL; op; pop lv, LOCAL`, four.
    LvTop {
        op: Alu,
        local: u16,
    },
    /// A variable and the top word, which is popped: `push lv, LOCAL; op; pop lv, LOCAL`, three.
    LvPop {
        op: Alu,
        local: u16,
    },
    // `push WORD; add; jz LABEL`, three.
    AddJz {
        word: i32,
        jump: Jump,
    },
    AddJnz {
        word: i32,
        jump: Jump,
    },
    AddJlt {
        word: i32,
        jump: Jump,
    },
    AddJle {
        word: i32,
        jump: Jump,
    },
    AddJgt {
        word: i32,
        jump: Jump,
    },
    AddJge {
        word: i32,
        jump: Jump,
    },
    // `push WORD; and; jz LABEL`, three.
    AndJz {
        word: i32,
        jump: Jump,
    },
    AndJnz {
        word: i32,
        jump: Jump,
    },
}

/// An operation on two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alu {
    Add,
    Sub,
    Mul,
    And,
    Or,
    Xor,
}

impl Alu {
    #[inline(always)]
    pub(super) fn apply(self, a: u64, b: u64) -> u64 {
        match self {
            Self::Add => a.wrapping_add(b),
            Self::Sub => a.wrapping_sub(b),
            Self::Mul => a.wrapping_mul(b),
            Self::And => a & b,
            Self::Or => a | b,
            Self::Xor => a ^ b,
        }
    }
}

impl Insn {
    /// Whether it only checks what comes after it.
    pub(super) fn is_check(&self) -> bool {
        matches!(self, Self::Check { .. } | Self::CheckSbp { .. })
    }
}

const _: () = assert!(size_of::<Insn>() == 16);
