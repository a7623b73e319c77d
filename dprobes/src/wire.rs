//! The fixed binary forms that cross the boundary between the engine and its users: replies and status.
//!
//! Everything is little-endian, naturally aligned and explicitly padded, so that a C program, the `dprobes` command and
//! the kernel agree without knowing each other. The layout of records is in [`record`](crate::record), that of programs
//! in [`rpn::object`](crate::rpn::object).

use zerocopy::FromZeros;

use crate::aggregate::{Kind, Map};

/// Version of the control interface; a command and a module that differ refuse each other.
pub const INTERFACE_VERSION: u32 = 6;

/// The answer to an insert or a remove, with the facts of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromZeros)]
#[repr(C)]
pub struct Reply {
    /// 0, or a negative errno. Never positive.
    pub error: i32,
    /// Why: a [`Reason`] as a number; 0 on success.
    pub reason: u32,
    /// Which point of the program, counted from 0; `u32::MAX` when it is not about one.
    pub point: u32,
    /// More about the reason, as [`Reason`] documents.
    pub detail: u32,
    /// The address it is about, or 0.
    pub address: u64,
    /// More about the reason, as [`Reason`] documents.
    pub facts: [u64; 2],
}

/// Why a request was refused. `facts` and `detail` name the fields of [`Reply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Not refused.
    None = 0,
    /// The bytes are not a program object; `facts[0]` is the offset of the byte that is wrong.
    Object = 1,
    /// The program does not verify; `facts[0]` is the offset in the code.
    Verify = 2,
    /// A program with this major code is inserted for this module.
    Exists = 3,
    /// No such program or probe.
    NotFound = 4,
    /// Memory is short.
    NoMemory = 5,
    /// No slot is free; `facts[0]` is how many there are.
    NoSlot = 6,
    /// A symbol was not resolved before insertion.
    Unresolved = 7,
    /// The module is not loaded.
    NoModule = 8,
    /// The host does not allow a probe here; `detail` is a [`Prohibited`](crate::host::Prohibited).
    Prohibited = 9,
    /// The address is not where an instruction begins; `facts[0]` is the start of the instruction that contains it,
    /// `facts[1]` that of the next one.
    NotBoundary = 10,
    /// The bytes there are not those the program expects; `facts[0]` has the expected and `facts[1]` the found bytes,
    /// first byte lowest, `detail` how many were compared (8 are shown at most).
    Opcode = 11,
    /// This instruction cannot be probed; `detail` is a [`Refusal`](crate::insn::Refusal) as a number, `facts[1]` its
    /// first bytes.
    Instruction = 12,
    /// The bytes there, or others before them in the function, are not an instruction; `facts[1]` has the first bytes.
    Undecodable = 13,
    /// Text could not be read.
    Unreadable = 14,
    /// Text could not be written.
    Unwritable = 15,
    /// The slot is too far from something the instruction refers to.
    OutOfReach = 16,
    /// The program has two points at one address, or more probes are at one address than the engine chains.
    AddressInUse = 17,
    /// Probes of this kind of module are not supported by this host.
    ModuleKind = 18,
    /// There are too many global variables of different names; `facts[0]` is how many there may be.
    Globals = 19,
    /// The maps of the program are beyond a limit; `facts[0]` is how many bytes they take for each CPU, if that is it.
    Maps = 20,
    /// The location cannot be watched; `detail` is a [`LocationError`](crate::rpn::object::LocationError) as a number, `facts[0]` how many
    /// bytes were to be watched.
    WatchLocation = 21,
    /// No debug register is free; `facts[0]` has a bit for each that others use, `facts[1]` for each that the engine uses: bit 0 for the first
    /// of the four. Where the host does not tell who has them both are 0. `detail` is a process that has some, or 0.
    WatchInUse = 22,
    /// The host cannot watch this; `detail` is a [`WatchUnsupported`] as a number.
    WatchUnsupported = 23,
    /// The file of a program for user space cannot be probed, or not at this place; `detail` is a [`FileError`](crate::host::FileError) as a
    /// number.
    File = 24,
    /// The module has no such symbol. `detail` is 0 when it is the place of the point, and 1 when it is a symbol in its handler, whose word is at
    /// offset `facts[0]` of the code.
    NoSymbol = 25,
    /// The module has several symbols of this name; `detail` and `facts[0]` as for [`NoSymbol`](Self::NoSymbol).
    AmbiguousSymbol = 26,
    /// The place is not inside the function that it is counted from; `facts[0]` is the distance, signed, `facts[1]` the size of the function.
    OutsideSymbol = 27,
    /// All programs together would take more memory than the host permits: `facts[0]` is how many bytes that is, `facts[1]` how many they take
    /// without this one.
    MemoryBound = 28,
    /// Calls of the function cannot be followed to their returns; `detail` is a [`ReturnError`](crate::host::ReturnError) as a number.
    Return = 29,
    /// The exit facility `facts[0]` is not there; `detail` is a [`FacilityError`](crate::host::FacilityError) as a number.
    Facility = 30,
    /// The program cannot be merged into the one that is inserted; `detail` is a [`MergeError`](crate::probe::MergeError) as a number.
    Merge = 31,
    /// The handler of the point uses variables of a call, and the point is neither on the returns of a function nor at the beginning of one on whose
    /// returns the program has a point too.
    CallVariables = 32,
    /// The target `facts[0]`, a bit of [`Targets`](crate::host::Targets), is not there; `detail` is a
    /// [`FacilityError`](crate::host::FacilityError) as a number.
    Target = 33,
    /// There is no process of the number `detail`, in which the program's watchpoints are to watch.
    NoProcess = 34,
}

/// Why a host cannot watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum WatchUnsupported {
    /// It has no watchpoints.
    Host = 1,
    /// A CPU's I/O breakpoints are switched off (CR4.DE).
    IoBreakpoints = 2,
    /// Whoever manages the debug registers there does not watch ports.
    Ports = 3,
    /// It does not watch what a single process does.
    OneProcess = 4,
}

impl WatchUnsupported {
    /// From the number in [`Reply::detail`].
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Host),
            2 => Some(Self::IoBreakpoints),
            3 => Some(Self::Ports),
            4 => Some(Self::OneProcess),
            _ => None,
        }
    }
}

impl Reason {
    /// The errno that stands for the reason at the C boundary, negative.
    #[must_use]
    pub const fn errno(self) -> i32 {
        const ENOENT: i32 = 2;
        const ESRCH: i32 = 3;
        const ENOMEM: i32 = 12;
        const EACCES: i32 = 13;
        const EFAULT: i32 = 14;
        const EBUSY: i32 = 16;
        const EEXIST: i32 = 17;
        const EINVAL: i32 = 22;
        const ENOSPC: i32 = 28;
        const ERANGE: i32 = 34;
        const EILSEQ: i32 = 84;
        const EOPNOTSUPP: i32 = 95;
        match self {
            Reason::None => 0,
            Reason::Object
            | Reason::Verify
            | Reason::Unresolved
            | Reason::NotBoundary
            | Reason::WatchLocation
            | Reason::File
            | Reason::AmbiguousSymbol
            | Reason::OutsideSymbol
            | Reason::Merge
            | Reason::CallVariables => -EINVAL,
            Reason::Exists => -EEXIST,
            Reason::NotFound | Reason::NoModule | Reason::NoSymbol => -ENOENT,
            Reason::NoMemory | Reason::MemoryBound => -ENOMEM,
            Reason::NoSlot | Reason::Globals | Reason::Maps => -ENOSPC,
            Reason::Prohibited | Reason::Facility | Reason::Target => -EACCES,
            Reason::Opcode | Reason::Undecodable => -EILSEQ,
            Reason::Instruction | Reason::ModuleKind | Reason::WatchUnsupported | Reason::Return => -EOPNOTSUPP,
            Reason::Unreadable | Reason::Unwritable => -EFAULT,
            Reason::OutOfReach => -ERANGE,
            Reason::AddressInUse | Reason::WatchInUse => -EBUSY,
            Reason::NoProcess => -ESRCH,
        }
    }

    /// From the number in [`Reply::reason`].
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::None,
            1 => Self::Object,
            2 => Self::Verify,
            3 => Self::Exists,
            4 => Self::NotFound,
            5 => Self::NoMemory,
            6 => Self::NoSlot,
            7 => Self::Unresolved,
            8 => Self::NoModule,
            9 => Self::Prohibited,
            10 => Self::NotBoundary,
            11 => Self::Opcode,
            12 => Self::Instruction,
            13 => Self::Undecodable,
            14 => Self::Unreadable,
            15 => Self::Unwritable,
            16 => Self::OutOfReach,
            17 => Self::AddressInUse,
            18 => Self::ModuleKind,
            19 => Self::Globals,
            20 => Self::Maps,
            21 => Self::WatchLocation,
            22 => Self::WatchInUse,
            23 => Self::WatchUnsupported,
            24 => Self::File,
            25 => Self::NoSymbol,
            26 => Self::AmbiguousSymbol,
            27 => Self::OutsideSymbol,
            28 => Self::MemoryBound,
            29 => Self::Return,
            30 => Self::Facility,
            31 => Self::Merge,
            32 => Self::CallVariables,
            33 => Self::Target,
            34 => Self::NoProcess,
            _ => return None,
        })
    }
}

/// What a probe does at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// The breakpoint is in place.
    Armed = 1,
    /// It took its `max_hits`; the breakpoint is out, or will be out at once.
    Exhausted = 2,
    /// Its own program removed it.
    RemovedItself = 3,
    /// The module it was in has been unloaded, and the probe does not come back: the program asks for an address.
    ModuleGone = 4,
    /// Its module is not loaded. The probe goes in when it is, before the module's initialisation runs. If it was refused the last time
    /// that the module was loaded, the status has the reason.
    Waiting = 5,
    /// It could not be put in when its module was loaded; the status has the reason. It is tried again when the module is loaded again.
    Refused = 6,
    /// Another probe of its program was refused when its module was loaded: a program's probes are all in, or none is.
    Withheld = 7,
    /// It was in the module's initialisation, which has run, and whose memory has been freed. It goes in again when the module is loaded
    /// again.
    CodeFreed = 8,
    /// It was taken out by request, and its program is kept until it is removed, so that what it has counted can be read.
    Disarmed = 9,
}

impl State {
    /// From the number in [`ProbeStatus::state`].
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::Armed,
            2 => Self::Exhausted,
            3 => Self::RemovedItself,
            4 => Self::ModuleGone,
            5 => Self::Waiting,
            6 => Self::Refused,
            7 => Self::Withheld,
            8 => Self::CodeFreed,
            9 => Self::Disarmed,
            _ => return None,
        })
    }
}

/// One probe, as a query shows it. The counts of traps are disjoint: each hit is in exactly one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromZeros)]
#[repr(C)]
pub struct ProbeStatus {
    /// Major code of its program.
    pub major: u16,
    /// Minor code.
    pub minor: u16,
    /// A [`State`] as a number.
    pub state: u32,
    /// The group of the point in its program.
    pub group: u16,
    /// Its type.
    pub type_: u16,
    /// [`PROBE_SUSPENDED`] and [`PROBE_HALTED`]: why a hit would be counted and nothing else.
    pub flags: u32,
    /// Where the breakpoint is; for a program in user space, where in its file; 0 if it is nowhere, because its module is not loaded. It may be
    /// after the address asked for, past an `endbr64` and the function tracer's NOP. Or what a watchpoint
    /// watches: an address, or a port.
    pub address: u64,
    /// What a watchpoint watches for: 1 execute, 2 write, 3 I/O, 4 read or write. 0 for a breakpoint.
    pub watch: u32,
    /// How many bytes a watchpoint watches: 1, 2, 4 or 8. 0 for a breakpoint.
    pub watch_len: u32,
    /// The process in which a watchpoint watches; 0 if it is all of them.
    pub process: u32,
    /// 0.
    pub reserved: u32,
    /// For a program in user space the device of its file, as `st_dev` has it, else 0.
    pub device: u64,
    /// The inode of its file, as `st_ino` has it, else 0.
    pub inode: u64,
    /// How the instruction is resumed: 1 copied, 2 emulated, 3 stepped, 4 left to the kernel, since it is a trap
    /// by itself (`ud2`); 0 for a watchpoint, after which there is nothing to carry out, and in
    /// user space, where the kernel does that.
    pub resume: u32,
    /// How many of the program's local variables there are; the same for all its probes.
    pub locals: u32,
    /// Hits whose program ran.
    pub hits: u64,
    /// Hits let pass because of `pass_count`.
    pub skipped: u64,
    /// Hits while the group of the probe was suspended: the program did not run.
    pub suspended: u64,
    /// Hits inside another hit on the same CPU: the program did not run. For a watchpoint also one for each CPU that has come on line since and had no debug
    /// register free, where nothing is watched.
    pub missed: u64,
    /// Attempts undone because the instruction faulted.
    pub faulted: u64,
    /// Hits after the probe was exhausted or removed itself and before the breakpoint was out.
    pub late: u64,
    /// Programs that ended by an exception no handler took.
    pub exceptions: u64,
    /// Log elements that did not fit.
    pub overflows: u64,
    /// Exit facilities that programs asked for and that are not there.
    pub unavailable: u64,
    /// Records lost because the ring of their CPU was full, or frozen.
    pub lost: u64,
    /// Calls that could not be followed to their return, because there was no room to note one more: the program did not run.
    pub unfollowed: u64,
    /// Records that a target other than the ring did not take, for each of these: the kernel log's rate limit was reached, the serial port
    /// is dead, nobody listens to the trace event.
    pub undelivered: u64,
    /// Why the probe was refused when its module was loaded: a [`Reason`] as a number, 0 if it was not. This and what follows are as in
    /// [`Reply`].
    pub reason: u32,
    /// More about the reason.
    pub detail: u32,
    /// The address the reason is about, or 0.
    pub refused_at: u64,
    /// More about the reason.
    pub facts: [u64; 2],
    /// What the point was called in the program, such as `do_sys_openat2+0x1f`; zero-padded UTF-8, cut if longer.
    pub label: [u8; 64],
    /// The module; zero-padded UTF-8.
    pub module: [u8; 64],
}

/// For [`ProbeStatus::flags`]: the group of the probe is suspended.
pub const PROBE_SUSPENDED: u32 = 1;

/// For [`ProbeStatus::flags`]: everything is halted.
pub const PROBE_HALTED: u32 = 2;

/// One map of an inserted program, as a list shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromZeros)]
#[repr(C)]
pub struct MapStatus {
    /// What it is read by. No other map ever has the same number, also when its program is removed and inserted again.
    pub id: u64,
    /// Major code of its program.
    pub major: u16,
    /// Its place among the maps of its program, from 0.
    pub index: u16,
    /// What it does with values: 1 count, 2 sum, 3 min, 4 max, 5 avg, 6 log2, 7 linear.
    pub kind: u32,
    /// Words of a key: 0 to 4.
    pub keys: u32,
    /// How many different keys the table of a CPU has room for.
    pub entries: u32,
    /// For a linear histogram the first value of the first range, else 0.
    pub min: i64,
    /// For a linear histogram the value after the last of the last range, else 0.
    pub max: i64,
    /// For a linear histogram the number of values in a range, else 0.
    pub step: u64,
    /// Bytes that it takes on all CPUs together.
    pub bytes: u64,
    /// Updates that did not fit, because the table of their CPU had an entry for other keys in each of its places.
    pub dropped: u64,
    /// Bytes of an entry, as [`ReadMapRequest`] describes it.
    pub entry_bytes: u32,
    /// 0.
    pub reserved: u32,
    /// What it is called in the program; zero-padded UTF-8, cut if longer.
    pub name: [u8; 64],
    /// The module; zero-padded UTF-8.
    pub module: [u8; 64],
}

macro_rules! zero_by_default {
    ($($name:ident)*) => {$(
        impl Default for $name {
            /// All zero: arrays of 64 have no derived one.
            fn default() -> Self {
                Self::new_zeroed()
            }
        }
    )*};
}
zero_by_default! { ProbeStatus MapStatus RemoveRequest VarStatus VarsRequest }

impl MapStatus {
    /// What a map says of itself. What its program and its place there would say is zero.
    #[must_use]
    pub fn of(map: &Map) -> Self {
        let spec = map.spec();
        let (min, max, step) = match spec.kind() {
            Kind::Linear(linear) => (linear.min(), linear.max(), linear.step()),
            _ => (0, 0, 0),
        };
        MapStatus {
            kind: spec.kind().code().into(),
            keys: spec.keys() as u32,
            entries: spec.entries(),
            min,
            max,
            step,
            bytes: map.bytes(),
            dropped: map.dropped(),
            entry_bytes: spec.entry_bytes() as u32,
            ..MapStatus::default()
        }
    }
}

/// Text as a label or a name is here: zero-padded, cut if it is longer.
#[must_use]
pub fn label(text: &[u8]) -> [u8; 64] {
    let mut label = [0; 64];
    for (to, from) in label.iter_mut().zip(text) {
        *to = *from;
    }
    label
}

const _: () = assert!(size_of::<Reply>() == 40);
const _: () = assert!(size_of::<ProbeStatus>() == 320);
const _: () = assert!(size_of::<MapStatus>() == 200);

/// `ioctl` argument: insert a program.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct InsertRequest {
    /// Address of the object in the caller's memory.
    pub object: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The descriptor of the file that a program for user space is for, open for reading; -1 for programs of another kind, or for none.
    pub file: i32,
    /// [`INSERT_NEW`], [`INSERT_MERGE`] or [`INSERT_REPLACE`].
    pub how: u32,
    /// Address of an array of [`ProbeStatus`] in the caller's memory: the final state of each probe of the program that was replaced.
    pub last: u64,
    /// How many fit into `last`.
    pub capacity: u32,
    /// Written by the kernel: how many probes the program that was replaced had, which may be more than fit.
    pub count: u32,
    /// The process in which its watchpoints watch; 0 means all.
    pub process: u32,
    /// Where its records go, bits of [`Targets`](crate::host::Targets): 1 the ring, 2 the kernel's log, 4 the serial port, 8 the kernel's trace; 0
    /// means the ring.
    pub targets: u32,
    /// Written by the kernel, also when the call fails.
    pub reply: Reply,
}

/// For [`InsertRequest::how`]: there must be no program with the same major code for the same module.
pub const INSERT_NEW: u32 = 0;

/// For [`InsertRequest::how`]: the probes are added to the program that is there, and count in its variables and maps.
pub const INSERT_MERGE: u32 = 1;

/// For [`InsertRequest::how`]: the program that is there is removed, if there is one. A place that both have is never without one of the two.
pub const INSERT_REPLACE: u32 = 2;

impl Default for InsertRequest {
    /// No object, and no file.
    fn default() -> Self {
        InsertRequest {
            object: 0,
            length: 0,
            file: -1,
            how: INSERT_NEW,
            last: 0,
            capacity: 0,
            count: 0,
            process: 0,
            targets: 0,
            reply: Reply::default(),
        }
    }
}

/// The first page of a mapped ring, read-only: `/dev/dprobes` mapped at offset `cpu * (control + data)` for the ring of a CPU, with the sizes that
/// [`RingsRequest`] has. Behind it is the ring itself, `data` bytes, a power of two.
///
/// Positions count words of 8 bytes since the beginning; the word at a position is at its remainder by the ring's size. From `tail` to `head` are records,
/// each a [`Header`](crate::record::header::Header) with its elements, in turn, which may go on at the ring's beginning where it ends. To read one, at
/// position `at`, which is `tail` at first:
///
/// 1. Load `head`, acquire. If `at` is there, there is nothing more.
/// 2. Load the first word of the record: `state`, and `length` in its upper half.
/// 3. If `state` is provisional, and `at` is not below `settled` (load, acquire), the instruction may not have completed yet: stop here for now, and go on later,
///    or settle by `ioctl`. If it is discarded, or the instruction is to be ignored that has faulted, pass over it.
/// 4. Copy the record.
/// 5. Acquire fence; load `tail`. If it is behind `at`, the copy is worth nothing: the writer has been there. Go on at `tail`; what has been missed is in `overwritten`.
///
/// On x86-64 the acquire loads and the fence are plain loads that the compiler must not reorder. Who maps the ring frees nothing: unless it
/// is a flight recorder it fills up until somebody calls `read`. `facts` of a record is the kernel's own business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromZeros)]
#[repr(C)]
pub struct RingControl {
    /// Behind the newest record.
    pub head: u64,
    /// The oldest record.
    pub tail: u64,
    /// Provisional records before this position are final.
    pub settled: u64,
    /// Records lost because the ring was full or frozen.
    pub lost: u64,
    /// The same, of those that would have been provisional; goes down again when their instruction faults.
    pub lost_provisionally: u64,
    /// Records that have given way to newer ones.
    pub overwritten: u64,
    /// 1: a flight recorder, the oldest records give way. 2: frozen, nothing is recorded.
    pub mode: u64,
}

/// `ioctl` argument: the rings of all CPUs, and what they do when they are full.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct RingsRequest {
    /// What to do: [`RINGS_LOOK`] or one of the others.
    pub action: u32,
    /// Written by the kernel: as [`RingControl::mode`].
    pub mode: u32,
    /// Written by the kernel: how many rings there are, one for each CPU that there may be.
    pub cpus: u32,
    /// Written by the kernel: bytes in front of the ring in its mapping, with [`RingControl`] at their beginning.
    pub control: u32,
    /// Written by the kernel: bytes of the ring.
    pub data: u64,
}

/// For [`RingsRequest::action`]: nothing.
pub const RINGS_LOOK: u32 = 0;
/// For [`RingsRequest::action`]: what does not fit is dropped. This is how it is at first.
pub const RINGS_KEEP_OLDEST: u32 = 1;
/// For [`RingsRequest::action`]: be a flight recorder; the oldest records give way to those that do not fit.
pub const RINGS_KEEP_NEWEST: u32 = 2;
/// For [`RingsRequest::action`]: record nothing, until thawed, or until the file is closed by which this was asked for.
pub const RINGS_FREEZE: u32 = 3;
/// For [`RingsRequest::action`]: record again.
pub const RINGS_THAW: u32 = 4;
/// For [`RingsRequest::action`]: wait until it is known of every record that is there whether its instruction has completed.
pub const RINGS_SETTLE: u32 = 5;

/// `ioctl` argument: remove a program, or all.
#[derive(Debug, Clone, Copy, FromZeros)]
#[repr(C)]
pub struct RemoveRequest {
    /// Major code of the program.
    pub major: u16,
    /// [`REMOVE_ALL`]: remove everything, whatever the other fields say. [`REMOVE_ALL_NOW`]: halt everything before that, at once, even while
    /// another request is being carried out.
    pub all: u16,
    /// How many fit into `last`.
    pub capacity: u32,
    /// The module's name, zero-padded.
    pub module: [u8; 64],
    /// Address of an array of [`ProbeStatus`] in the caller's memory: the final state of each probe of the program, in which
    /// every hit there ever was is counted. Not written when everything is removed.
    pub last: u64,
    /// Written by the kernel: how many probes the program had, which may be more than fit.
    pub count: u32,
    /// Not 0: only take probes of the program out, for good, and keep it, so that what its maps and variables have in the end can be read
    /// before it is removed: [`KEEP_ALL`] of them, or those with a minor code, a group or a type. `last` and `count` are not written then.
    pub keep: u16,
    /// The minor code, the group or the type; otherwise 0.
    pub number: u16,
    /// Written by the kernel, also when the call fails.
    pub reply: Reply,
}

/// For [`RemoveRequest::keep`]: take all probes out.
pub const KEEP_ALL: u16 = 1;

/// For [`RemoveRequest::keep`]: take those with a minor code out.
pub const KEEP_MINOR: u16 = 2;

/// For [`RemoveRequest::keep`]: take those of a group out.
pub const KEEP_GROUP: u16 = 3;

/// For [`RemoveRequest::keep`]: take those of a type out.
pub const KEEP_TYPE: u16 = 4;

/// For [`RemoveRequest::all`].
pub const REMOVE_ALL: u16 = 1;

/// For [`RemoveRequest::all`].
pub const REMOVE_ALL_NOW: u16 = 2;

/// `ioctl` argument: the state of all probes.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct QueryRequest {
    /// Address of an array of [`ProbeStatus`] in the caller's memory.
    pub buffer: u64,
    /// How many fit.
    pub capacity: u32,
    /// Written by the kernel: how many there are, which may be more than fit.
    pub count: u32,
    /// Written by the kernel: [`INTERFACE_VERSION`].
    pub version: u32,
    /// Must be zero.
    pub reserved: u32,
}

/// `ioctl` argument: all maps of all programs.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct MapsRequest {
    /// Address of an array of [`MapStatus`] in the caller's memory.
    pub buffer: u64,
    /// How many fit.
    pub capacity: u32,
    /// Written by the kernel: how many there are, which may be more than fit.
    pub count: u32,
}

/// `ioctl` argument: the entries of a map, those of all CPUs merged, in ascending order of their keys as words without sign.
///
/// An entry is its keys and its value, in words of eight bytes, little-endian. The value is, by kind of the map:
///
/// - count: how many updates there were;
/// - sum: the sum, signed, which wraps around at 64 bits;
/// - min, max: the value, signed;
/// - avg: how many values there were, and their exact sum, signed, of 128 bits, low half first;
/// - log2: 65 counts: of values below 0, of 0, of 1, of 2 to 3, of 4 to 7, and so on up to 2^62 to 2^63-1;
/// - linear: counts: of values below `min`, in each range, and from `max` on.
///
/// Each entry is as it was at some moment of the call, and probes go on meanwhile. Where not all entries fit, the call tells how many are
/// left, and is repeated with the keys of the last in `after`: keys that come in between the calls are found if they are
/// greater. The kernel may write fewer entries than there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ReadMapRequest {
    /// The map: [`MapStatus::id`].
    pub id: u64,
    /// Address of the entries in the caller's memory.
    pub buffer: u64,
    /// How many bytes there are for them.
    pub length: u64,
    /// Where to go on: only entries with greater keys are written, if `resume` is 1. As many words count as the map has keys; the others
    /// must be 0.
    pub after: [u64; 4],
    /// 1 to go on after `after`, 0 to begin; then `after` must be 0 throughout.
    pub resume: u32,
    /// Written by the kernel: bytes of each entry; also when none fits.
    pub entry_bytes: u32,
    /// Written by the kernel: how many entries are in the buffer.
    pub count: u64,
    /// Written by the kernel: how many there are after those. The buffer has been long enough if it is 0.
    pub left: u64,
    /// Written by the kernel: updates that did not fit into the map; not less than when the entries were read.
    pub dropped: u64,
    /// Must be zero.
    pub reserved: u64,
}

/// One question of a [`CheckRequest`] and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct PointCheck {
    /// The address asked for.
    pub asked: u64,
    /// Written by the kernel: where the breakpoint would be, which may be after the address asked for, past an `endbr64` and the function
    /// tracer's NOP; 0 when a probe would be refused.
    pub address: u64,
    /// Written by the kernel: a [`Reason`] as a number; 0 when a probe would be accepted.
    pub reason: u32,
    /// Written by the kernel: more about the reason, as [`Reason`] documents. Without a refusal how the instruction would be resumed:
    /// 1 copied, 2 emulated, 3 stepped, 4 left to the kernel.
    pub detail: u32,
}

impl PointCheck {
    /// A question.
    #[must_use]
    pub fn of(asked: u64) -> Self {
        PointCheck {
            asked,
            ..PointCheck::default()
        }
    }

    /// The answer that there could be a probe at `address`.
    #[must_use]
    pub fn accepted(address: u64, resume: u32) -> Self {
        PointCheck {
            address,
            detail: resume,
            ..PointCheck::default()
        }
    }

    /// The answer that inserting would be refused with this reply.
    #[must_use]
    pub fn refused(reply: &Reply) -> Self {
        PointCheck {
            reason: reply.reason,
            detail: reply.detail,
            ..PointCheck::default()
        }
    }
}

/// `ioctl` argument: whether probes would be accepted, without inserting any. What depends on more than the address and the
/// instruction there (free slots, memory, other probes of the program) is not part of the answer.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct CheckRequest {
    /// Address of an array of [`PointCheck`] in the caller's memory, of which the addresses asked for are filled in; sorted ones are
    /// answered fastest.
    pub checks: u64,
    /// How many there are: at most [`CHECKS_MAX`].
    pub count: u32,
    /// Must be zero.
    pub reserved: u32,
}

/// How many addresses a [`CheckRequest`] may ask about.
pub const CHECKS_MAX: u32 = 65536;

/// A variable of a program, or a global one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromZeros)]
#[repr(C)]
pub struct VarStatus {
    /// Its value. When it is being reset: the one that it had before.
    pub value: u64,
    /// Its place among the local variables of its program, or among the global ones, from 0.
    pub index: u32,
    /// Major code of its program; 0 for a global one.
    pub major: u16,
    /// [`VARS_LOCAL`] or [`VARS_GLOBAL`].
    pub scope: u16,
    /// What it is called; zero-padded UTF-8, cut if longer. A local variable need not have a name.
    pub name: [u8; 64],
    /// The module of its program; zero-padded UTF-8. Empty for a global one.
    pub module: [u8; 64],
}

/// For [`VarsRequest::scope`]: the local variables of all programs, and the global ones.
pub const VARS_ALL: u16 = 0;
/// For [`VarsRequest::scope`]: the local variables of one program.
pub const VARS_LOCAL: u16 = 1;
/// For [`VarsRequest::scope`]: the global variables.
pub const VARS_GLOBAL: u16 = 2;

/// `ioctl` argument: the values of variables, which probes may be changing meanwhile. Each is read, or exchanged for 0, at one moment.
#[derive(Debug, Clone, Copy, FromZeros)]
#[repr(C)]
pub struct VarsRequest {
    /// Address of an array of [`VarStatus`] in the caller's memory.
    pub buffer: u64,
    /// How many fit; no more than 65,536 are written.
    pub capacity: u32,
    /// Written by the kernel: how many there are, which may be more than fit.
    pub count: u32,
    /// Which: [`VARS_ALL`], [`VARS_LOCAL`] or [`VARS_GLOBAL`].
    pub scope: u16,
    /// For local variables: major code of the program.
    pub major: u16,
    /// 1: set them to 0. All that are chosen must fit; if they do not, nothing is changed, and the call fails with `ENOSPC`. Not with
    /// [`VARS_ALL`].
    pub reset: u32,
    /// Only those from this place on
    pub first: u32,
    /// and so many; 0 for all of them.
    pub number: u32,
    /// For local variables: the module of the program, zero-padded.
    pub module: [u8; 64],
}

const _: () = assert!(size_of::<VarStatus>() == 144);
const _: () = assert!(size_of::<VarsRequest>() == 96);
const _: () = assert!(size_of::<PointCheck>() == 24);
const _: () = assert!(size_of::<CheckRequest>() == 16);
const _: () = assert!(size_of::<MapsRequest>() == 16);
const _: () = assert!(size_of::<ReadMapRequest>() == 96);

const fn iowr(number: u32, size: usize) -> u32 {
    // Linux's include/uapi/asm-generic/ioctl.h: direction (read and write) 30..31, size 16..29, type 8..15, number 0..7.
    3 << 30 | (size as u32) << 16 | (b'D' as u32) << 8 | number
}

/// `ioctl` on `/dev/dprobes` with an [`InsertRequest`].
pub const IOCTL_INSERT: u32 = iowr(1, size_of::<InsertRequest>());
/// `ioctl` on `/dev/dprobes` with a [`RemoveRequest`].
pub const IOCTL_REMOVE: u32 = iowr(2, size_of::<RemoveRequest>());
/// `ioctl` on `/dev/dprobes` with a [`QueryRequest`].
pub const IOCTL_QUERY: u32 = iowr(3, size_of::<QueryRequest>());
/// `ioctl` on `/dev/dprobes` with a [`MapsRequest`].
pub const IOCTL_MAPS: u32 = iowr(4, size_of::<MapsRequest>());
/// `ioctl` on `/dev/dprobes` with a [`ReadMapRequest`].
pub const IOCTL_READ_MAP: u32 = iowr(5, size_of::<ReadMapRequest>());
/// `ioctl` on `/dev/dprobes` with a [`CheckRequest`].
pub const IOCTL_CHECK: u32 = iowr(6, size_of::<CheckRequest>());
/// `ioctl` on `/dev/dprobes` with a [`VarsRequest`].
pub const IOCTL_VARS: u32 = iowr(7, size_of::<VarsRequest>());
/// `ioctl` on `/dev/dprobes` with a [`RingsRequest`].
pub const IOCTL_RINGS: u32 = iowr(8, size_of::<RingsRequest>());
