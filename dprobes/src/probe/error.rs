//! Why an insert or a remove was refused, with the facts.

use crate::aggregate::SpecError;
use crate::host::{FacilityError, FileError, LocationError, Prohibited, ReturnError, SymbolError, WatchError};
use crate::insn::Refusal;
use crate::mem::OutOfMemory;
use crate::rpn::object::ObjectError;
use crate::rpn::verify::{Fault, VerifyError};
use crate::text::transaction::CommitError;
use crate::wire::{Reason, Reply, WatchUnsupported};

/// Why a program was not inserted. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertError {
    /// The bytes are not a program object.
    Object(ObjectError),
    /// The program does not verify.
    Verify(VerifyError),
    /// A program with this major code is inserted for this module.
    Exists,
    /// None is, into which it could be merged.
    NotFound,
    /// It cannot be merged into the one that is.
    Merge {
        /// Which point, if it is about one.
        point: Option<usize>,
        /// Why.
        error: MergeError,
    },
    /// Memory is short.
    NoMemory,
    /// No slot is free.
    NoSlot {
        /// How many there are.
        slots: usize,
    },
    /// There are too many global variables of different names.
    Globals {
        /// How many there may be.
        names: usize,
    },
    /// A map is beyond a limit, or all of them together are.
    Maps(SpecError),
    /// Probes in modules of this kind cannot be inserted through this engine.
    ModuleKind,
    /// An exit facility that the program names is not there.
    Facility {
        /// Its number.
        facility: u8,
        /// Why.
        error: FacilityError,
    },
    /// A target that the records are to go to is not there.
    Target {
        /// Its bit in [`Targets`](crate::host::Targets).
        target: u32,
        /// Why.
        error: FacilityError,
    },
    /// The module is not loaded.
    NoModule,
    /// The file that the program is for cannot be probed.
    File(FileError),
    /// One point was refused.
    Point {
        /// Which, counted from 0.
        point: usize,
        /// The address it asked for.
        address: u64,
        /// Why.
        error: PointError,
    },
}

/// Why a program cannot be merged into the one that is inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MergeError {
    /// Its local variables are not, by name and order, the first of that program's.
    Variables = 1,
    /// Its maps are not, by name, order and kind, the first of that program's.
    Maps = 2,
    /// One of the two suspends groups, which would be its own only.
    Groups = 3,
    /// A point has a minor code that the program has already.
    Minor = 4,
    /// It is for another file.
    File = 5,
}

impl MergeError {
    /// From the number in [`Reply::detail`].
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Variables),
            2 => Some(Self::Maps),
            3 => Some(Self::Groups),
            4 => Some(Self::Minor),
            5 => Some(Self::File),
            _ => None,
        }
    }
}

/// Why a point was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointError {
    /// Its symbol was not resolved.
    Unresolved,
    /// The module does not have its symbol.
    Symbol(SymbolError),
    /// The module does not have a symbol that its handler uses.
    HandlerSymbol {
        /// Where its word is in the code.
        offset: u32,
        /// Why.
        error: SymbolError,
    },
    /// It is not inside the function that it is counted from.
    OutsideSymbol {
        /// How far it is from the function's beginning.
        distance: i64,
        /// Bytes of the function.
        size: u64,
    },
    /// The host does not allow a probe here.
    Prohibited(Prohibited),
    /// Not where an instruction begins.
    NotBoundary {
        /// Where the instruction that contains the address begins.
        instruction: u64,
        /// Where the next one begins.
        next: u64,
    },
    /// The bytes there are not those the program expects.
    Opcode {
        /// How many bytes were compared.
        len: usize,
        /// The first bytes expected, the first lowest.
        expected: u64,
        /// The first bytes found.
        found: u64,
    },
    /// The instruction cannot be probed.
    Instruction {
        /// Why.
        refusal: Refusal,
        /// Its first bytes, the first lowest.
        bytes: u64,
    },
    /// The bytes, or others before them in the function, are not an instruction.
    Undecodable {
        /// The first of them, the first lowest.
        bytes: u64,
    },
    /// Text could not be read.
    Unreadable,
    /// Text could not be written.
    Unwritable,
    /// The slot is too far away from what the instruction refers to.
    OutOfReach,
    /// Another point of the program is at the same address.
    Twice,
    /// There can be no watchpoint like this.
    Location {
        /// Why.
        error: LocationError,
        /// How many bytes were to be watched.
        len: u8,
    },
    /// The host does not watch this.
    Watch(WatchError),
    /// There can be no probe at this place in the file.
    File(FileError),
    /// Its handler uses variables of a call, and the probe is neither on returns nor at the beginning of a function on whose returns the program
    /// has one too.
    CallVariables,
    /// Calls of the function cannot be followed to their returns.
    Return(ReturnError),
}

impl From<OutOfMemory> for InsertError {
    fn from(_: OutOfMemory) -> Self {
        InsertError::NoMemory
    }
}

impl From<VerifyError> for InsertError {
    fn from(error: VerifyError) -> Self {
        match error.fault {
            Fault::OutOfMemory => InsertError::NoMemory,
            _ => InsertError::Verify(error),
        }
    }
}

impl From<ObjectError> for InsertError {
    fn from(error: ObjectError) -> Self {
        InsertError::Object(error)
    }
}

impl From<SpecError> for InsertError {
    fn from(error: SpecError) -> Self {
        InsertError::Maps(error)
    }
}

impl InsertError {
    /// The error in the form that crosses the boundary to user space.
    #[must_use]
    pub fn reply(&self) -> Reply {
        match *self {
            InsertError::Object(error) => refuse(Reason::Object, error.offset() as u64),
            InsertError::Verify(error) => Reply {
                point: error.point,
                ..refuse(Reason::Verify, u64::from(error.offset))
            },
            InsertError::Exists => refuse(Reason::Exists, 0),
            InsertError::NotFound => refuse(Reason::NotFound, 0),
            InsertError::Merge { point, error } => Reply {
                point: point.map_or(u32::MAX, |point| point as u32),
                detail: error as u32,
                ..refuse(Reason::Merge, 0)
            },
            InsertError::NoMemory => refuse(Reason::NoMemory, 0),
            InsertError::NoSlot { slots } => refuse(Reason::NoSlot, slots as u64),
            InsertError::Globals { names } => refuse(Reason::Globals, names as u64),
            InsertError::Maps(error) => refuse(
                Reason::Maps,
                match error {
                    SpecError::Bytes { bytes } => bytes,
                    _ => 0,
                },
            ),
            InsertError::ModuleKind => refuse(Reason::ModuleKind, 0),
            InsertError::Facility { facility, error } => Reply {
                detail: error as u32,
                ..refuse(Reason::Facility, facility.into())
            },
            InsertError::Target { target, error } => Reply {
                detail: error as u32,
                ..refuse(Reason::Target, target.into())
            },
            InsertError::NoModule => refuse(Reason::NoModule, 0),
            InsertError::File(error) => Reply {
                detail: error as u32,
                ..refuse(Reason::File, 0)
            },
            InsertError::Point { point, address, error } => Reply {
                point: point as u32,
                address,
                ..error.reply()
            },
        }
    }
}

impl PointError {
    pub(super) fn reply(self) -> Reply {
        let detailed = |reason, detail, facts| Reply {
            detail,
            facts,
            ..refuse(reason, 0)
        };
        match self {
            PointError::Unresolved => refuse(Reason::Unresolved, 0),
            PointError::Symbol(error) => refuse(no_symbol(error), 0),
            PointError::HandlerSymbol { offset, error } => detailed(no_symbol(error), 1, [offset.into(), 0]),
            PointError::OutsideSymbol { distance, size } => {
                detailed(Reason::OutsideSymbol, 0, [distance.cast_unsigned(), size])
            }
            PointError::Prohibited(why) => detailed(Reason::Prohibited, why as u32, [0; 2]),
            PointError::NotBoundary { instruction, next } => detailed(Reason::NotBoundary, 0, [instruction, next]),
            PointError::Opcode { len, expected, found } => detailed(Reason::Opcode, len as u32, [expected, found]),
            PointError::Instruction { refusal, bytes } => detailed(Reason::Instruction, refusal as u32, [0, bytes]),
            PointError::Undecodable { bytes } => detailed(Reason::Undecodable, 0, [0, bytes]),
            PointError::Unreadable => refuse(Reason::Unreadable, 0),
            PointError::Unwritable => refuse(Reason::Unwritable, 0),
            PointError::OutOfReach => refuse(Reason::OutOfReach, 0),
            PointError::Twice => refuse(Reason::AddressInUse, 0),
            PointError::Location { error, len } => detailed(Reason::WatchLocation, error as u32, [len.into(), 0]),
            PointError::CallVariables => refuse(Reason::CallVariables, 0),
            PointError::Return(ReturnError::NoMemory) => refuse(Reason::NoMemory, 0),
            PointError::Return(error) => detailed(Reason::Return, error as u32, [0; 2]),
            PointError::File(error) => detailed(Reason::File, error as u32, [0; 2]),
            PointError::Watch(error) => match error {
                WatchError::Unsupported => detailed(Reason::WatchUnsupported, WatchUnsupported::Host as u32, [0; 2]),
                WatchError::IoBreakpoints => {
                    detailed(Reason::WatchUnsupported, WatchUnsupported::IoBreakpoints as u32, [0; 2])
                }
                WatchError::Excluded => detailed(Reason::Prohibited, Prohibited::Excluded as u32, [0; 2]),
                WatchError::Ports => detailed(Reason::WatchUnsupported, WatchUnsupported::Ports as u32, [0; 2]),
                WatchError::OneProcess => {
                    detailed(Reason::WatchUnsupported, WatchUnsupported::OneProcess as u32, [0; 2])
                }
                WatchError::NoProcess(process) => detailed(Reason::NoProcess, process, [0; 2]),
                WatchError::NoMemory => refuse(Reason::NoMemory, 0),
                WatchError::InUse { others, ours, process } => {
                    detailed(Reason::WatchInUse, process, [others.into(), ours.into()])
                }
            },
        }
    }
}

fn no_symbol(error: SymbolError) -> Reason {
    match error {
        SymbolError::Unknown => Reason::NoSymbol,
        SymbolError::Ambiguous => Reason::AmbiguousSymbol,
    }
}

fn refuse(reason: Reason, fact: u64) -> Reply {
    Reply {
        error: reason.errno(),
        reason: reason as u32,
        point: u32::MAX,
        facts: [fact, 0],
        ..Reply::default()
    }
}

/// Why nothing was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveError {
    /// No program with this major code is inserted for this module.
    NotFound,
    /// Memory is short.
    NoMemory,
    /// Text could not be written at this address; the probes are still armed.
    Unwritable {
        /// Where.
        address: u64,
    },
}

impl From<CommitError> for RemoveError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Changed { address }
            | CommitError::Unreadable { address }
            | CommitError::Unwritable { address } => RemoveError::Unwritable { address },
            CommitError::NoMemory(_) => RemoveError::NoMemory,
        }
    }
}

impl RemoveError {
    /// The error in the form that crosses the boundary to user space.
    #[must_use]
    pub fn reply(&self) -> Reply {
        match *self {
            RemoveError::NotFound => refuse(Reason::NotFound, 0),
            RemoveError::NoMemory => refuse(Reason::NoMemory, 0),
            RemoveError::Unwritable { address } => Reply {
                address,
                ..refuse(Reason::Unwritable, 0)
            },
        }
    }
}
