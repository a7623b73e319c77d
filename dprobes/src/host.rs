//! The one seam: what the surrounding kernel must provide.
//!
//! The engine knows no kernel. A host is the Linux module (through the C ABI), the test kernel, or an ordinary process, and
//! the engine is generic over it: no dynamic dispatch on the path of a hit.
//!
//! The methods fall into two groups, and the difference is the safety of the product:
//!
//! - **On the path of a hit** (the first part of the trait): called from a trap, with interrupts off, possibly inside
//!   the page-fault handler or an NMI. They must not sleep, allocate, page in, panic or take a lock that interrupted code
//!   may hold.
//! - **Control** (all others): called from the caller of [`Engine::insert`](crate::probe::Engine::insert) and its
//!   like, in a context that may sleep, one caller at a time.

use core::ops::Range;

pub use crate::frame::TrapFrame;
pub use crate::rpn::BadAddress;
use crate::rpn::limits::CALL_VARIABLES_MAX;
pub use crate::rpn::object::{LocationError, WatchKind, Watchpoint};

/// Who was running when a probe fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Task {
    /// Process id, as user space knows it (Linux: the thread group id).
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Real user id.
    pub uid: u32,
    /// Must be zero.
    pub reserved: u32,
    /// A number that tells this task from every other living one, whatever name spaces say (Linux: the task's address).
    /// Never printed; it finds the record of an instruction that faulted after it was interrupted.
    pub cookie: u64,
    /// Process name, zero-padded; not terminated when all 16 bytes are used.
    pub name: [u8; 16],
}

/// Bytes for one place in text or in a slot. See [`Host::write_text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Patch {
    /// Where the first byte goes.
    pub address: u64,
    /// How many of `bytes` count: 1..=32.
    pub len: u32,
    /// Must be zero.
    pub reserved: u32,
    /// The bytes.
    pub bytes: [u8; 32],
}

impl Patch {
    /// The most bytes that one patch holds.
    pub const MAX: usize = 32;

    /// A patch of one byte, the only size that may be written over code that other CPUs run.
    #[must_use]
    pub const fn byte(address: u64, byte: u8) -> Self {
        let mut bytes = [0; Self::MAX];
        bytes[0] = byte;
        Patch {
            address,
            len: 1,
            reserved: 0,
            bytes,
        }
    }

    /// A patch with a whole image, for a slot that no CPU runs yet.
    #[must_use]
    pub const fn image(address: u64, bytes: [u8; Self::MAX]) -> Self {
        Patch {
            address,
            len: Self::MAX as u32,
            reserved: 0,
            bytes,
        }
    }

    /// The bytes that count.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let len = (self.len as usize).min(Self::MAX);
        self.bytes.get(..len).unwrap_or(&[])
    }
}

/// A place in text that may be probed, as far as the host knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Function {
    /// Address of the function's first byte.
    pub start: u64,
    /// Address after its last byte.
    pub end: u64,
}

/// Why the host does not allow a probe at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Prohibited {
    /// Not the text of the kernel or of a loaded module.
    NotText = 1,
    /// In text, but no function is known to be there, so that instruction boundaries cannot be established.
    NoFunction = 2,
    /// Excluded: entry code, noinstr text, or the engine itself.
    Excluded = 3,
    /// The function tracer owns these bytes.
    Ftrace = 4,
    /// A jump label owns these bytes.
    JumpLabel = 5,
    /// A static call owns these bytes.
    StaticCall = 6,
    /// Alternatives are being applied to these bytes.
    Alternative = 7,
    /// The kernel recovers from a fault at this instruction by decoding it, and would find the breakpoint.
    ExceptionEntry = 8,
    /// Another facility has a breakpoint here.
    ForeignBreakpoint = 9,
    /// The kernel finds a `BUG` or `WARN` by this address, where there is its `ud2` or `ud1`.
    Bug = 10,
}

impl Prohibited {
    /// From the number that crosses the C boundary.
    #[must_use]
    pub const fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            1 => Self::NotText,
            2 => Self::NoFunction,
            3 => Self::Excluded,
            4 => Self::Ftrace,
            5 => Self::JumpLabel,
            6 => Self::StaticCall,
            7 => Self::Alternative,
            8 => Self::ExceptionEntry,
            9 => Self::ForeignBreakpoint,
            10 => Self::Bug,
            _ => return None,
        })
    }
}

/// An address that the engine asks the host about, and the answer. See [`Host::probeable_batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Candidate {
    /// The address.
    pub address: u64,
    /// The function it is in. It counts if `prohibited` is 0.
    pub function: Function,
    /// 0, or the [`Prohibited`] that says why there may be no probe.
    pub prohibited: i32,
    /// The [`Special`] that the place is, if there may be a probe.
    pub special: u32,
}

/// How a place is probed that the host does something about as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Special {
    /// Like any other: its text stays what it is.
    None = 0,
    /// The host rewrites the instruction while it may be run, and tells by [`Engine::rewrite`](crate::probe::Engine::rewrite) when a breakpoint of the
    /// engine is there. It does so, as the engine changes this text, with [`Host::lock_rewrites`] held.
    Rewritten = 1,
    /// A `ud2`, or a `ud1`, that the host finds by its address and its bytes. No breakpoint replaces it: it is a trap by itself, which the host
    /// reports by [`Engine::on_undefined`](crate::probe::Engine::on_undefined) before it does anything about it.
    Reported = 2,
}

impl Candidate {
    /// A question.
    #[must_use]
    pub const fn new(address: u64) -> Self {
        Candidate {
            address,
            function: Function { start: 0, end: 0 },
            prohibited: Prohibited::NotText as i32,
            special: Special::None as u32,
        }
    }

    /// Answers it.
    pub const fn answer(&mut self, answer: Result<Function, Prohibited>) {
        match answer {
            Ok(function) => (self.function, self.prohibited) = (function, 0),
            Err(why) => self.prohibited = why as i32,
        }
    }

    /// The answer.
    ///
    /// # Errors
    /// Why there may be no probe.
    pub const fn answered(&self) -> Result<Function, Prohibited> {
        if self.prohibited == 0 {
            return Ok(self.function);
        }
        match Prohibited::from_code(self.prohibited) {
            Some(why) => Err(why),
            // A number that this version does not know is a refusal all the same.
            None => Err(Prohibited::Excluded),
        }
    }

    /// How an address that was allowed is probed.
    #[must_use]
    pub const fn special(&self) -> Special {
        match self.special {
            1 => Special::Rewritten,
            2 => Special::Reported,
            _ => Special::None,
        }
    }

    /// The answer to who wants to copy the instruction and have no breakpoint there: only what stays what it is will do.
    ///
    /// # Errors
    /// Why it cannot be copied.
    pub const fn copyable(&self) -> Result<Function, Prohibited> {
        match (self.answered(), self.special()) {
            (Ok(_), Special::Rewritten) => Err(Prohibited::JumpLabel),
            (Ok(_), Special::Reported) => Err(Prohibited::Bug),
            (answer, _) => answer,
        }
    }
}

/// What a program that ends with `exit_to` asks for. See [`Host::exit_to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct ExitTo {
    /// Which facility: 1 the debugger, 2 a crash dump, 3 a core dump of the process, 4 the kernel's own trace, 5 a snapshot of the rings, 16 to 255 what other modules
    /// have registered.
    pub facility: u32,
    /// Major code of the program.
    pub major: u16,
    /// Minor code of the probe.
    pub minor: u16,
    /// Address of the probed instruction.
    pub address: u64,
}

/// Where the records of a program go: some of [`Targets::RING`] and the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets(u32);

impl Targets {
    /// The ring of the CPU, from which records are read.
    pub const RING: u32 = 1;
    /// The kernel's log.
    pub const KERNEL_LOG: u32 = 2;
    /// A serial port.
    pub const SERIAL: u32 = 4;
    /// The kernel's own tracing: an event for each record.
    pub const TRACE: u32 = 8;
    /// What they are called.
    pub const NAMES: [(&str, u32); 4] = [
        ("ring", Self::RING),
        ("klog", Self::KERNEL_LOG),
        ("serial", Self::SERIAL),
        ("trace", Self::TRACE),
    ];

    /// From bits, of which none means the ring; `None` when there are others than those above.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        match bits {
            0 => Some(Targets(Self::RING)),
            1..=15 => Some(Targets(bits)),
            _ => None,
        }
    }

    /// Is the ring among them?
    #[must_use]
    pub const fn has_ring(self) -> bool {
        self.0 & Self::RING != 0
    }

    /// The others, as bits: those that are the host's.
    #[must_use]
    pub const fn of_host(self) -> u32 {
        self.0 & !Self::RING
    }
}

impl Default for Targets {
    /// The ring.
    fn default() -> Self {
        Targets(Self::RING)
    }
}

/// Text could not be written. Nothing of the failing [`Host::write_text`] call after `index` was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteTextError {
    /// The first patch that was not written.
    pub index: usize,
}

/// Why a module's symbol has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SymbolError {
    /// There is none of this name, or no such module.
    Unknown,
    /// There are several.
    Ambiguous,
}

/// Which watchpoints were hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hits {
    /// A bit for each watchpoint, the lowest for number 0.
    pub watchpoints: u8,
    /// The bits of DR6 that stand for them.
    pub causes: u64,
}

/// Why a host does not watch a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchError {
    /// This host has no watchpoints.
    Unsupported,
    /// The handling of the trap itself needs what is there: a stack, a descriptor table, or the engine.
    Excluded,
    /// All debug registers that could be used are in use: a bit for each, the lowest for the first of the four. Where the host does not
    /// tell who has them both are 0.
    InUse {
        /// Those that others use.
        others: u8,
        /// Those that watchpoints use.
        ours: u8,
        /// A process that has some, or for which they are kept; 0 when the host knows of none.
        process: u32,
    },
    /// A CPU's I/O breakpoints are switched off (CR4.DE).
    IoBreakpoints,
    /// Whoever manages the registers for this host does not watch ports.
    Ports,
    /// This host does not watch what a single process does.
    OneProcess,
    /// There is no process of this number.
    NoProcess(u32),
    /// Memory is short.
    NoMemory,
}

/// Which file a program for user space is for: what `stat` says of it. No two files have the same while probes are in one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct FileId {
    /// The device, as in `st_dev`.
    pub device: u64,
    /// The inode, as in `st_ino`.
    pub inode: u64,
}

/// Why a host has no probe in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum FileError {
    /// This host has no probes in user space.
    Unsupported = 1,
    /// The request came with no file.
    NoFile = 2,
    /// It is no regular file, or its file system does not let files be mapped.
    NotMappable = 3,
    /// The place is behind the end of the file.
    Outside = 4,
    /// The facility that delivers the hits does not probe the instruction there.
    Instruction = 5,
    /// Memory is short.
    NoMemory = 6,
    /// The file cannot be read there.
    Unreadable = 7,
    /// The place is an address, and not one in the file.
    Address = 8,
    /// The facility has failed in a way that it does not explain.
    Failed = 9,
}

impl FileError {
    /// From the number that crosses the C boundary.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::Unsupported,
            2 => Self::NoFile,
            3 => Self::NotMappable,
            4 => Self::Outside,
            5 => Self::Instruction,
            6 => Self::NoMemory,
            7 => Self::Unreadable,
            8 => Self::Address,
            9 => Self::Failed,
            _ => return None,
        })
    }
}

/// What a program keeps for a call from its beginning to its end.
pub type CallWords = [u64; CALL_VARIABLES_MAX];

/// Why a host does not follow the calls of a function to where they return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ReturnError {
    /// It follows none.
    Unsupported = 1,
    /// A call does not begin at the place: it is not the first instruction of a function.
    NotEntry = 2,
    /// The function does not return: there is no way out of its code.
    NeverReturns = 3,
    /// The function returns for another task, or on another stack, than it was called on.
    Switches = 4,
    /// Memory is short.
    NoMemory = 5,
}

impl ReturnError {
    /// From the number that crosses the C boundary.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::Unsupported,
            2 => Self::NotEntry,
            3 => Self::NeverReturns,
            4 => Self::Switches,
            5 => Self::NoMemory,
            _ => return None,
        })
    }
}

/// Why an exit facility or a target cannot be reached, as far as that is known before it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum FacilityError {
    /// The host has none.
    Absent = 1,
    /// The host has it, and was told not to let programs have it.
    Forbidden = 2,
}

impl FacilityError {
    /// From its number.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Absent),
            2 => Some(Self::Forbidden),
            _ => None,
        }
    }
}

/// What the surrounding kernel provides.
pub trait Host: Sync + 'static {
    // ---- on the path of a hit ----

    /// The CPU that executes this, below [`cpu_count`](Host::cpu_count). It must not change while a trap is handled.
    fn cpu(&self) -> usize;

    /// Copies memory at `address`, kernel or user, into `buf`.
    ///
    /// # Errors
    /// [`BadAddress`] with the first byte that could not be read. Never pages in; CR2 is as it was afterwards.
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), BadAddress>;

    /// Copies `bytes` to memory at `address`, kernel or user.
    ///
    /// # Errors
    /// [`BadAddress`] with the first byte that could not be written; bytes before it may have been.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), BadAddress>;

    /// A monotonic clock in nanoseconds, readable in any context.
    fn now(&self) -> u64;

    /// The current task.
    fn task(&self) -> Task;

    /// The user-mode registers of the current task, as it will continue with them. `None` for a task that has no user mode.
    fn user_registers(&self) -> Option<TrapFrame>;

    /// Has the current task continue in user mode with these general registers and this `rip`; nothing else of `frame` is
    /// looked at. False for a task that has no user mode.
    fn set_user_registers(&self, frame: &TrapFrame) -> bool;

    /// Reads a model-specific register. `None` when the CPU refuses, by a fault that nobody else notices.
    fn msr(&self, number: u32) -> Option<u64>;

    /// Can the byte at `address` be written, without anything being paged in? The check must not be able to lose what
    /// another CPU stores there: a locked `or` with zero, not a load and a store. CR2 is as it was afterwards.
    fn writable(&self, address: u64) -> bool;

    /// Fills `addresses` with the kernel stack of the code with these registers, innermost first, and says how many there are: the
    /// address in `frame.rip`, then return addresses. `None` when the host has no unwinder: the engine follows frame pointers then.
    fn kernel_stack(&self, frame: &TrapFrame, addresses: &mut [u64]) -> Option<usize>;

    /// Triggers an exit facility of the host's own: the program of a hit on code with the registers `frame` has asked for it, its record
    /// has been written, with these elements, and no exit on [`EXIT_TO`](static@crate::trap::EXIT_TO) is this facility. False when there is no
    /// such facility.
    fn exit_to(&self, exit: &ExitTo, frame: &TrapFrame, elements: &[u8]) -> bool;

    /// Passes a record to [`targets`](Targets) of the host's own, bits of which none is the ring. `head` is the record's
    /// [`Header`](crate::record::header::Header) in words: as bytes, its first field first. The instruction has not been carried out: while `state` is
    /// provisional it may fault, and the same record come again. Returns the bits of those that did not take it.
    fn deliver(&self, targets: u32, head: &[u64; 9], elements: &[u8]) -> u32 {
        let _ = (head, elements);
        targets
    }

    /// The instruction at which [`Engine::set_sentry`](crate::probe::Engine::set_sentry) was told `token` is about to be executed; `frame` has the
    /// registers with which it will be. To have something else executed instead, change `rip`; the probes at the place are
    /// not hit then.
    fn sentry(&self, token: u64, frame: &mut TrapFrame) {
        let _ = (token, frame);
    }

    /// A call begins whose return was [asked for](Host::attach_return): `frame` has the registers with which the first instruction of the function is about
    /// to be executed, the return address on top of the stack. When the call has returned the host calls
    /// [`Engine::on_return`](crate::probe::Engine::on_return) with the number and the words. False: the call cannot be followed, and it is as if nothing had
    /// been asked.
    fn follow_return(&self, number: u64, frame: &TrapFrame, words: &CallWords) -> bool {
        let _ = (number, frame, words);
        false
    }

    /// The first instruction of a function, where [`follow_return`](Host::follow_return) was called with this number last, has faulted: if it is executed
    /// again with the stack pointer that `frame` has, that is no further call, and is not to be followed once more.
    fn follow_again(&self, number: u64, frame: &TrapFrame) {
        let _ = (number, frame);
    }

    /// Asks that [`Engine::reap`](crate::probe::Engine::reap) be called soon from a context that may sleep.
    fn request_reap(&self);

    /// Which watchpoints the causes of a debug exception in DR6 are. A host that has the watchpoints called in another way, by
    /// [`Engine::on_watchpoint`](crate::probe::Engine::on_watchpoint), never says that there are any.
    fn watchpoints_hit(&self, dr6: u64) -> Hits {
        let _ = dr6;
        Hits::default()
    }

    // ---- control ----

    /// How many CPUs there may ever be; constant.
    fn cpu_count(&self) -> usize;

    /// The area for out-of-line copies of instructions: executable, within 2 GiB of all text that may be probed, written
    /// only through [`write_text`](Host::write_text); constant. The engine cuts it into [`Patch::MAX`]-byte slots.
    fn slot_area(&self) -> Range<u64>;

    /// A second area, for copies of instructions that run in ring 3: executable there, not writable there, and otherwise as
    /// [`slot_area`](Host::slot_area), of the text in the lower half of the address space. Empty on a host that has no probes there, or whose
    /// one area serves both.
    fn user_slot_area(&self) -> Range<u64> {
        0..0
    }

    /// Can there be this exit facility for a program that is about to be inserted? What is not known to be missing may still turn out to be, and
    /// is counted then.
    ///
    /// # Errors
    /// [`FacilityError`]: why it is certain that there is none.
    fn facility(&self, facility: u8) -> Result<(), FacilityError> {
        let _ = facility;
        Ok(())
    }

    /// Can records of a program that is about to be inserted go to this [target](Targets)?
    ///
    /// # Errors
    /// [`FacilityError`]: why not.
    fn target(&self, target: u32) -> Result<(), FacilityError> {
        let _ = target;
        Err(FacilityError::Absent)
    }

    /// May there be a probe at `address`, and a copy of what is there? Then which function is it in?
    ///
    /// # Errors
    /// The reason why not.
    fn probeable(&self, address: u64) -> Result<Function, Prohibited>;

    /// [`probeable`](Host::probeable) for many addresses, which ascend: answers every candidate. For hosts to which one pass through their
    /// tables for all is cheaper than one for each.
    fn probeable_batch(&self, candidates: &mut [Candidate]) {
        for candidate in candidates {
            candidate.answer(self.probeable(candidate.address));
        }
    }

    /// Which function is at `address`, whether it may be probed or not? `None` when it is not known.
    fn function_at(&self, address: u64) -> Option<Function> {
        self.probeable(address).ok()
    }

    /// The address that offsets of a module's probes count from, or `None` when it is not loaded.
    fn module_base(&self, name: &[u8]) -> Option<u64>;

    /// The address of a symbol of a module that is loaded, and where what it names ends; that is the address again where the host does not
    /// know. The kernel's own symbols are those of module `kernel`.
    ///
    /// # Errors
    /// [`SymbolError`].
    fn symbol(&self, module: &[u8], name: &str) -> Result<Range<u64>, SymbolError> {
        let _ = (module, name);
        Err(SymbolError::Unknown)
    }

    /// Writes text, through an alias that is writable and not executable. The patches are sorted by address, so that a
    /// host can map each page once. A patch of one byte is a single store.
    ///
    /// # Errors
    /// [`WriteTextError`]: patches before its index are written, the others are not.
    fn write_text(&self, patches: &[Patch]) -> Result<(), WriteTextError>;

    /// Keeps the host from rewriting instructions that are [`Special::Rewritten`], until [`unlock_rewrites`](Host::unlock_rewrites). May sleep.
    fn lock_rewrites(&self) {}

    /// Lets the host rewrite instructions again.
    fn unlock_rewrites(&self) {}

    /// Has all CPUs watch a location as watchpoint `number`, which is 0 to 3 and not set: at all times, or, if `process` is not 0, while they run the
    /// threads of that process, those that begin later among them. A hit comes to
    /// [`Engine::on_debug`](crate::probe::Engine::on_debug), or to [`Engine::on_watchpoint`](crate::probe::Engine::on_watchpoint).
    ///
    /// # Errors
    /// [`WatchError`]: the host has none, or no free one, or does not watch this. Nothing has changed then.
    fn set_watchpoint(&self, number: usize, what: &Watchpoint, process: u32) -> Result<(), WatchError> {
        let _ = (number, what, process);
        Err(WatchError::Unsupported)
    }

    /// Takes a watchpoint back that is set. When this returns no CPU runs into it any more.
    fn clear_watchpoint(&self, number: usize) {
        let _ = number;
    }

    /// Which file the one is that came with a request to insert a program: `file` is the host's own word for it.
    ///
    /// # Errors
    /// [`FileError`]: it cannot be probed.
    fn user_file(&self, file: u64) -> Result<FileId, FileError> {
        let _ = file;
        Err(FileError::Unsupported)
    }

    /// Reads bytes of a file, as they are in it and not as some process has them: as many as there are up to its end, and says how many.
    ///
    /// # Errors
    /// [`FileError`].
    fn read_user_file(&self, file: u64, offset: u64, buf: &mut [u8]) -> Result<usize, FileError> {
        let _ = (file, offset, buf);
        Err(FileError::Unsupported)
    }

    /// From now on, whenever a process that runs the file comes to the instruction at this offset, calls
    /// [`Engine::on_user_hit`](crate::probe::Engine::on_user_hit) with this number: in every process there is and will be. The host carries the
    /// instruction out afterwards, unless `rip` has been changed. Gives a word by which to [detach](Host::detach_user) it.
    ///
    /// If `returns`, that is not when it comes there, but when the call that has begun there has returned: `rip` is where to, and a return that
    /// the host could not follow, because calls are nested too deep, is told to
    /// [`Engine::on_user_return_lost`](crate::probe::Engine::on_user_return_lost).
    ///
    /// # Errors
    /// [`FileError`]. Nothing has changed then.
    fn attach_user(&self, file: u64, offset: u64, number: u64, returns: bool) -> Result<u64, FileError> {
        let _ = (file, offset, number, returns);
        Err(FileError::Unsupported)
    }

    /// Takes back what [`attach_user`](Host::attach_user) gave. When this returns none of these is hit any more, and no call of the engine for one of
    /// them is under way.
    fn detach_user(&self, attached: &[u64]) {
        let _ = attached;
    }

    /// Calls of this function are to be followed to their returns: makes everything ready that [`follow_return`](Host::follow_return) needs.
    ///
    /// # Errors
    /// [`ReturnError`]: why they cannot be. Nothing has changed then.
    fn attach_return(&self, function: Function) -> Result<(), ReturnError> {
        let _ = function;
        Err(ReturnError::Unsupported)
    }

    /// Takes back one [`attach_return`](Host::attach_return). Calls that are under way return as they would have; of those that were followed the engine
    /// is not interested any more.
    fn detach_return(&self) {}

    /// Returns when every CPU has executed a serialising instruction after the call began: no CPU runs stale text
    /// (SDM volume 3, 9.1.3), and every trap handler that was running with interrupts off has ended.
    fn sync_cores(&self);

    /// Returns when, in addition to [`sync_cores`](Host::sync_cores), no CPU and no preempted task is executing inside
    /// [`slot_area`](Host::slot_area) or [`user_slot_area`](Host::user_slot_area) any more that was when the call began.
    fn grace_period(&self);
}
