//! Why a program is refused.

use core::fmt;

use crate::rpn::op::Op;
use crate::rpn::reg::Reg;

/// Why the verifier refuses a program, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyError {
    /// The point whose handler it is in; with several points sharing it, one of them.
    pub point: u32,
    /// Offset of the instruction in the object's code.
    pub offset: u32,
    /// Its source line, if the object carries lines.
    pub line: Option<u32>,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No instruction has this opcode.
    Opcode {
        /// The opcode byte.
        found: u8,
    },
    /// The handler ends inside an instruction.
    Truncated {
        /// The instruction.
        op: Op,
        /// Bytes its operand has.
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// No register has this number.
    Register {
        /// The number.
        found: u16,
    },
    /// The register cannot be written.
    ReadOnly {
        /// The register.
        reg: Reg,
    },
    /// No trap saves the register of user mode.
    NotUser {
        /// The register.
        reg: Reg,
    },
    /// The program has no such global variable.
    Global {
        /// The index.
        found: u16,
        /// How many there are.
        count: u16,
    },
    /// The program has no such map.
    Map {
        /// The index.
        found: u16,
        /// How many there are.
        count: u16,
    },
    /// No point of the program is in this group.
    Group {
        /// Its number.
        found: u16,
    },
    /// Some points of a group are suspended at first, others are not.
    GroupDisagrees {
        /// The number of the group.
        group: u16,
    },
    /// No exit facility can have this number.
    Facility {
        /// The number.
        found: u8,
    },
    /// A position that is never on the stack.
    Position {
        /// The instruction.
        op: Op,
        /// The position.
        position: i16,
    },
    /// The program has no such local variable.
    Local {
        /// The index.
        found: u16,
        /// How many there are.
        count: u16,
    },
    /// An operand is out of range.
    Operand {
        /// The instruction.
        op: Op,
        /// Its operand.
        found: u64,
        /// The least value that is good.
        min: u64,
        /// The greatest value that is good.
        max: u64,
    },
    /// A jump out of the handler.
    TargetOutside {
        /// The instruction.
        op: Op,
        /// Offset in the code that it names.
        target: i64,
    },
    /// A jump into the middle of an instruction.
    TargetInside {
        /// The instruction.
        op: Op,
        /// Offset in the code that it names.
        target: u32,
    },
    /// The handler's last instruction lets control go on behind it.
    NoEnd {
        /// The instruction.
        op: Op,
    },
    /// When control comes here there are never enough words on the stack.
    Underflow {
        /// The instruction.
        op: Op,
        /// Words it takes.
        needed: u16,
        /// Words there are at most.
        depth: u16,
    },
    /// When control comes here there is never enough room on the stack.
    Overflow {
        /// The instruction.
        op: Op,
        /// Words by which the stack would grow.
        needed: u16,
        /// Room there is at most.
        room: u16,
    },
    /// The handlers of two points overlap without being the same.
    Overlap {
        /// The other point.
        other: u32,
    },
    /// Code here belongs to no point.
    Unused,
    /// The host has no memory for the program.
    OutOfMemory,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "point {}, ", self.point)?;
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.fault),
            None => write!(f, "byte {} of the code: {}", self.offset, self.fault),
        }
    }
}

impl core::error::Error for VerifyError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Opcode { found } => write!(f, "{found:#04x} is not an instruction"),
            Self::Truncated { op, needed, left } => {
                write!(
                    f,
                    "`{op}` has {needed} bytes of operand, but the handler ends after {left}"
                )
            }
            Self::Register { found } => write!(f, "there is no register {found:#x}"),
            Self::ReadOnly { reg } => write!(f, "register {reg} cannot be written"),
            Self::NotUser { reg } => write!(f, "register {reg} is not saved when user mode is left"),
            Self::Global { found, count: 0 } => {
                write!(f, "global variable {found}: the program names no global variables")
            }
            Self::Global { found, count } => {
                write!(f, "global variable {found}: the program names {count}, counted from 0")
            }
            Self::Map { found, count: 0 } => write!(f, "map {found}: the program has no maps"),
            Self::Map { found, count } => write!(f, "map {found}: the program has {count}, counted from 0"),
            Self::Group { found } => write!(f, "no probe of the program is in group {found}"),
            Self::GroupDisagrees { group } => {
                write!(
                    f,
                    "some probes of group {group} are suspended and others are not: it is suspended as a whole"
                )
            }
            Self::Facility { found } => {
                write!(
                    f,
                    "exit facility {found}: 1 to 5 are the debugger, dump, core, trace and snapshot, 16 to 255 are for others"
                )
            }
            Self::Position { op, position } => {
                write!(f, "`{op}`: position {position} is never on the stack here")
            }
            Self::Local { found, count: 0 } => {
                write!(f, "local variable {found}: the program has no local variables")
            }
            Self::Local { found, count } => {
                write!(f, "local variable {found}: the program has {count}, counted from 0")
            }
            Self::Operand { op, found, min, max } => {
                write!(f, "`{op}` takes {min} to {max}, not {found}")
            }
            Self::TargetOutside { op, target } => {
                write!(f, "`{op}` goes to byte {target} of the code, outside of its handler")
            }
            Self::TargetInside { op, target } => {
                write!(
                    f,
                    "`{op}` goes to byte {target} of the code, the middle of an instruction"
                )
            }
            Self::NoEnd { op } => {
                write!(
                    f,
                    "control goes on behind `{op}`, the last instruction: a handler ends with `exit` or the like"
                )
            }
            Self::Underflow { op, needed, depth } => {
                write!(
                    f,
                    "`{op}` takes {needed} words from the stack, where there are never more than {depth}"
                )
            }
            Self::Overflow { op, needed, room } => {
                write!(
                    f,
                    "`{op}` puts {needed} more words on the stack, where there is never room for more than {room}"
                )
            }
            Self::Overlap { other } => write!(f, "the handler overlaps that of point {other} without being the same"),
            Self::Unused => f.write_str("the code from here belongs to no point"),
            Self::OutOfMemory => f.write_str("not enough memory"),
        }
    }
}
