//! The host as a table of C functions.

use core::arch::asm;
use core::ffi::c_char;
use core::ops::Range;
use core::slice;

use engine::host::{
    BadAddress, CallWords, Candidate, ExitTo, FacilityError, FileError, FileId, Function, Host, Patch, Prohibited,
    ReturnError, SymbolError, Task, TrapFrame, WatchError, Watchpoint, WriteTextError,
};
use engine::record::header::Header;

use crate::errno::EEXIST;
use crate::instance;

/// The version of [`dprobes_host`]; [`dprobes_init`](crate::dprobes_init) refuses any other.
pub const DPROBES_HOST_VERSION: u32 = 6;

/// What the surrounding kernel provides. Every function must be given, except for those about watchpoints, those about
/// returns, and those about files in user space: of each kind all or none.
///
/// The functions marked *hit* are called from a trap, with interrupts off, possibly inside the page-fault handler or an
/// NMI: they must not sleep, allocate, page in, or take a lock that interrupted code may hold. All others are called from
/// the caller of a control function, in a context that may sleep.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types, reason = "the name is the one that C code uses")]
pub struct dprobes_host {
    /// `DPROBES_HOST_VERSION`.
    pub version: u32,
    /// `sizeof(struct dprobes_host)`.
    pub size: u32,
    /// Where the number of the CPU is, below `cpu_count`: 32 bits at this distance from the base of GS, on every CPU and whenever the library is
    /// called. It is asked for in every hit, where a call would be a tenth of the cost.
    pub cpu_at: u64,
    /// *Hit.* Copies `length` bytes at `address`, kernel or user, into `buffer`. 0, or a negative errno with the address of
    /// the first byte that could not be read in `*bad`. CR2 is as it was afterwards.
    pub read: Option<unsafe extern "C" fn(address: u64, buffer: *mut u8, length: usize, bad: *mut u64) -> i32>,
    /// *Hit.* Copies `length` bytes from `buffer` to `address`, kernel or user. As `read`.
    pub write: Option<unsafe extern "C" fn(address: u64, buffer: *const u8, length: usize, bad: *mut u64) -> i32>,
    /// *Hit.* A monotonic clock in nanoseconds.
    pub now: Option<unsafe extern "C" fn() -> u64>,
    /// *Hit.* Fills in the current task.
    pub task: Option<unsafe extern "C" fn(task: *mut Task)>,
    /// *Hit.* Fills in the user-mode registers of the current task, as it will continue with them. 0, or a negative errno for a
    /// task that has no user mode.
    pub user_registers: Option<unsafe extern "C" fn(frame: *mut TrapFrame) -> i32>,
    /// *Hit.* Has the current task continue in user mode with these general registers and this `rip`; nothing else of
    /// `*frame` is looked at. 0, or a negative errno for a task that has no user mode.
    pub set_user_registers: Option<unsafe extern "C" fn(frame: *const TrapFrame) -> i32>,
    /// *Hit.* Reads a model-specific register. 0, or a negative errno when the CPU refuses; nobody else notices the fault.
    pub msr: Option<unsafe extern "C" fn(number: u32, value: *mut u64) -> i32>,
    /// *Hit.* Can the byte at `address` be written, without anything being paged in? The check must not be able to lose what
    /// another CPU stores there. CR2 is as it was afterwards.
    pub writable: Option<unsafe extern "C" fn(address: u64) -> bool>,
    /// *Hit.* Fills `addresses`, which has room for `capacity`, with the kernel stack of the code with the registers `*frame`,
    /// innermost first: the address in `rip`, then return addresses. Returns how many there are, or a negative errno when there is no
    /// unwinder: the engine follows frame pointers then.
    pub kernel_stack:
        Option<unsafe extern "C" fn(frame: *const TrapFrame, addresses: *mut u64, capacity: usize) -> i64>,
    /// *Hit.* Triggers an exit facility, for a hit on code with the registers `*frame`, whose record has `length` bytes of `elements`. 0, or a
    /// negative errno when there is no such facility.
    pub exit_to: Option<
        unsafe extern "C" fn(exit: *const ExitTo, frame: *const TrapFrame, elements: *const u8, length: usize) -> i32,
    >,
    /// *Hit.* Passes a record to `targets`, bits: 2 the kernel's log, 4 the serial port, 8 the kernel's own trace. `head` is the record's, behind which
    /// nothing follows: it has `length` bytes of `elements`. The probed instruction has not been carried out: while `head->state` is provisional it may
    /// fault, and the same record come again. Returns the bits of those that did not take it.
    pub deliver:
        Option<unsafe extern "C" fn(targets: u32, head: *const Header, elements: *const u8, length: usize) -> u32>,
    /// Can records go to this target, one of the bits of `deliver`? As `facility`.
    pub target: Option<unsafe extern "C" fn(target: u32) -> u32>,
    /// Can there be this exit facility, which a program names that is about to be inserted? 0 if so, or if that is not known yet; 1 when this host
    /// has none, 2 when programs may not have it.
    pub facility: Option<unsafe extern "C" fn(facility: u32) -> u32>,
    /// *Hit.* A call begins of a function whose returns were asked for with `attach_return`: `*frame` has the registers with which its first
    /// instruction is about to be executed, with the return address on top of the stack. When it has returned the host calls `dprobes_on_return` with
    /// `number` and the `DPROBES_CALL_WORDS` words, which it has copied. False: it cannot be followed, and it is as if it had not been asked for.
    pub follow_return: Option<unsafe extern "C" fn(number: u64, frame: *const TrapFrame, words: *const u64) -> bool>,
    /// *Hit.* The first instruction of a function has faulted, behind a `follow_return` with this number, on the stack pointer that `*frame` has. If it is
    /// executed again there, that is no further call: it is followed already.
    pub follow_again: Option<unsafe extern "C" fn(number: u64, frame: *const TrapFrame)>,
    /// *Hit.* Asks that `dprobes_reap` be called soon from a context that may sleep.
    pub request_reap: Option<unsafe extern "C" fn()>,
    /// *Hit.* The instruction at which `dprobes_set_sentry` was told `token` is about to be executed with the registers `*frame`. To have
    /// something else executed, change `rip`. Null when the host sets none.
    pub sentry: Option<unsafe extern "C" fn(token: u64, frame: *mut TrapFrame)>,
    /// How many CPUs there may ever be; constant.
    pub cpu_count: Option<unsafe extern "C" fn() -> u32>,
    /// The area for out-of-line copies of instructions, `*start` up to but not including `*end`; constant. Executable, within 2 GiB of all text
    /// that may be probed, written only through `write_text`.
    pub slot_area: Option<unsafe extern "C" fn(start: *mut u64, end: *mut u64)>,
    /// May there be a probe at each of `count` addresses, which ascend? Fills in `prohibited` and, where that is 0, `function` and `special` of
    /// every candidate. There may be 100,000: the host's tables are to be walked once for all, not once for each.
    ///
    /// What a hit runs outside its guard against hits inside hits must be `DPROBES_PROHIBITED_EXCLUDED`: the entry of the traps, the
    /// functions of this table that read and write memory and name the CPU, and this library. All of the library's code is in sections
    /// `.text` and `.text.*`, so that a linker script can keep it together and this function compare twice:
    /// `__dprobes_text_start = .; *libdprobes.a:*(.text .text.*) __dprobes_text_end = .;`
    pub probeable: Option<unsafe extern "C" fn(candidates: *mut Candidate, count: usize)>,
    /// The address that offsets of a module's probes count from. `name` is `length` bytes, not terminated. 0 with `*base`
    /// filled in, or a negative errno when the module is not loaded.
    pub module_base: Option<unsafe extern "C" fn(name: *const c_char, length: usize, base: *mut u64) -> i32>,
    /// The symbol `symbol`, `symbol_length` bytes, of the module `module`, `module_length` bytes, neither of them terminated: fills in where it is,
    /// and where what it names ends, which is the same where that is not known. The module is loaded, or `kernel`. 0, -ENOENT when there is none,
    /// or -EEXIST when there are several.
    pub symbol: Option<
        unsafe extern "C" fn(
            module: *const c_char,
            module_length: usize,
            symbol: *const c_char,
            symbol_length: usize,
            start: *mut u64,
            end: *mut u64,
        ) -> i32,
    >,
    /// Writes `count` patches, sorted by address, to text. Returns how many were written; those after them were not. A
    /// patch of one byte is a single store.
    pub write_text: Option<unsafe extern "C" fn(patches: *const Patch, count: usize) -> usize>,
    /// Returns when every CPU has executed a serialising instruction, and every trap handler that was running with
    /// interrupts off has ended.
    pub sync_cores: Option<unsafe extern "C" fn()>,
    /// Returns when, in addition, no CPU and no preempted task is inside the slot area any more that was when the call
    /// began.
    pub grace_period: Option<unsafe extern "C" fn()>,
    /// Keeps the host from rewriting instructions that are `DPROBES_SPECIAL_REWRITTEN`, until `unlock_rewrites`. May sleep. Null when there are
    /// none.
    pub lock_rewrites: Option<unsafe extern "C" fn()>,
    /// Lets the host rewrite instructions again. Null when `lock_rewrites` is.
    pub unlock_rewrites: Option<unsafe extern "C" fn()>,
    /// Has all CPUs watch `length` bytes (1, 2, 4 or 8) at `address`, a multiple of that, as watchpoint `number`, which is 0 to 3 and not set: at all
    /// times, or, if `process` is not 0, while they run the threads of that process, those that begin later among them.
    /// `kind` is what is watched for: 1 execution, 2 writing, 3 the I/O port, 4 reading or writing. Hits go to `dprobes_on_watchpoint`. 0, or
    /// a positive number that says why not: 1 this host has none, 2 the address is excluded, 3 none is free, and `*users` says who has them as far
    /// as that is known; 4 I/O breakpoints are switched off, 5 the kernel does not watch ports, 6 memory is short,
    /// 7 it does not watch single processes, 8 there is no such process. Null when the host has none.
    pub set_watchpoint: Option<
        unsafe extern "C" fn(
            number: u32,
            address: u64,
            kind: u32,
            length: u32,
            process: u32,
            users: *mut dprobes_watch_users,
        ) -> i32,
    >,
    /// Takes a watchpoint back. When this returns no CPU runs into it any more. Null when the host has none.
    pub clear_watchpoint: Option<unsafe extern "C" fn(number: u32)>,
    /// Which file is `file`, the host's own word for the one that came with `dprobes_insert_as`? Fills in `*id`, what `stat` says of it. 0, or
    /// a positive number that says why it cannot be probed: 2 there is none, 3 it cannot be mapped, 6 memory is short, 7 it cannot be read,
    /// 9 anything else. Null when the host has no probes in user space.
    pub user_file: Option<unsafe extern "C" fn(file: u64, id: *mut FileId) -> i32>,
    /// Reads `length` bytes at `offset` of a file into `buffer`, as they are in the file. Returns how many there were up to its end, or a negative
    /// errno.
    pub read_user_file: Option<unsafe extern "C" fn(file: u64, offset: u64, buffer: *mut u8, length: usize) -> i64>,
    /// From now on calls `dprobes_on_user_hit` with `number` whenever a process comes to the instruction at `offset` of the file, in every process
    /// that there is and will be, and then carries the instruction out, unless `rip` has been changed. Fills in `*attached`, the host's own word
    /// for it. 0, or a positive number as `user_file`; besides 4: behind the end of the file; 5: the instruction is one that the host does
    /// not probe. If `returns`, the call of `dprobes_on_user_hit` is when a call that has begun there has returned, and `rip` where to; one that will
    /// not be told of, because too many are nested, is told to `dprobes_on_user_return_lost`.
    pub attach_user:
        Option<unsafe extern "C" fn(file: u64, offset: u64, number: u64, returns: bool, attached: *mut u64) -> i32>,
    /// Takes back `count` of those that `attach_user` gave. When this returns none of them is hit any more, and no `dprobes_on_user_hit` for
    /// one of them is under way.
    pub detach_user: Option<unsafe extern "C" fn(attached: *const u64, count: usize)>,
    /// Calls of the function from `start` up to but not including `end` are to be followed to their returns: makes ready what `follow_return` needs.
    /// 0, or a positive number that says why they cannot be: 1 this host follows none, 4 the function returns for another task or on another stack
    /// than it was called on, 5 memory is short. Null, as the three others, when the host follows none.
    pub attach_return: Option<unsafe extern "C" fn(start: u64, end: u64) -> i32>,
    /// Takes one `attach_return` back. Calls under way return as they would have.
    pub detach_return: Option<unsafe extern "C" fn()>,
    /// The function at `address`, whether it may be probed or not: fills in where it begins and ends, and returns true; false when none is known.
    pub function_at: Option<unsafe extern "C" fn(address: u64, function: *mut Function) -> bool>,
    /// Memory of `size` bytes, at least 1, aligned to `align`, a power of two; null when there is none. Never called during
    /// a hit.
    pub alloc: Option<unsafe extern "C" fn(size: usize, align: usize) -> *mut u8>,
    /// Frees what `alloc` returned for this size and alignment. Never called during a hit.
    pub free: Option<unsafe extern "C" fn(memory: *mut u8, size: usize, align: usize)>,
    /// The library has found that it is broken: stops the machine with `message`, `length` bytes that are not terminated.
    /// Must not return.
    pub panic: Option<unsafe extern "C" fn(message: *const c_char, length: usize)>,
}

/// Who has the debug registers, all of which are in use: a bit for each of the four, the lowest for the first. All zero: not known.
#[repr(C)]
#[derive(Clone, Copy, Default)]
#[allow(non_camel_case_types, reason = "the name is the one that C code uses")]
pub struct dprobes_watch_users {
    /// Those that others use, on any CPU.
    pub others: u32,
    /// Those that `set_watchpoint` has set.
    pub ours: u32,
    /// A process that has some, or for which they are kept; 0 when none is known.
    pub process: u32,
    /// 0.
    pub reserved: u32,
}

/// A [`dprobes_host`] that is complete: the proof is that this exists.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    cpu_at: u64,
    read: unsafe extern "C" fn(u64, *mut u8, usize, *mut u64) -> i32,
    write: unsafe extern "C" fn(u64, *const u8, usize, *mut u64) -> i32,
    now: unsafe extern "C" fn() -> u64,
    task: unsafe extern "C" fn(*mut Task),
    user_registers: unsafe extern "C" fn(*mut TrapFrame) -> i32,
    set_user_registers: unsafe extern "C" fn(*const TrapFrame) -> i32,
    msr: unsafe extern "C" fn(u32, *mut u64) -> i32,
    writable: unsafe extern "C" fn(u64) -> bool,
    kernel_stack: unsafe extern "C" fn(*const TrapFrame, *mut u64, usize) -> i64,
    exit_to: unsafe extern "C" fn(*const ExitTo, *const TrapFrame, *const u8, usize) -> i32,
    deliver: unsafe extern "C" fn(u32, *const Header, *const u8, usize) -> u32,
    target: unsafe extern "C" fn(u32) -> u32,
    facility: unsafe extern "C" fn(u32) -> u32,
    request_reap: unsafe extern "C" fn(),
    sentry: Option<unsafe extern "C" fn(u64, *mut TrapFrame)>,
    cpu_count: unsafe extern "C" fn() -> u32,
    slot_area: unsafe extern "C" fn(*mut u64, *mut u64),
    probeable: unsafe extern "C" fn(*mut Candidate, usize),
    module_base: unsafe extern "C" fn(*const c_char, usize, *mut u64) -> i32,
    symbol: unsafe extern "C" fn(*const c_char, usize, *const c_char, usize, *mut u64, *mut u64) -> i32,
    write_text: unsafe extern "C" fn(*const Patch, usize) -> usize,
    sync_cores: unsafe extern "C" fn(),
    grace_period: unsafe extern "C" fn(),
    rewrites: Option<Rewrites>,
    watchpoints: Option<Watchpoints>,
    returns: Option<Returns>,
    user: Option<User>,
    pub(crate) alloc: unsafe extern "C" fn(usize, usize) -> *mut u8,
    pub(crate) free: unsafe extern "C" fn(*mut u8, usize, usize),
    pub(crate) panic: unsafe extern "C" fn(*const c_char, usize),
}

/// How a host that rewrites instructions is kept from it.
#[derive(Clone, Copy)]
struct Rewrites {
    lock: unsafe extern "C" fn(),
    unlock: unsafe extern "C" fn(),
}

/// What a host does about watchpoints, if it has any.
#[derive(Clone, Copy)]
struct Watchpoints {
    set: unsafe extern "C" fn(u32, u64, u32, u32, u32, *mut dprobes_watch_users) -> i32,
    clear: unsafe extern "C" fn(u32),
}

/// What a host does about calls and their returns, if it does.
#[derive(Clone, Copy)]
struct Returns {
    follow: unsafe extern "C" fn(u64, *const TrapFrame, *const u64) -> bool,
    again: unsafe extern "C" fn(u64, *const TrapFrame),
    attach: unsafe extern "C" fn(u64, u64) -> i32,
    detach: unsafe extern "C" fn(),
    function: unsafe extern "C" fn(u64, *mut Function) -> bool,
}

/// What a host does about files in user space, if it does.
#[derive(Clone, Copy)]
struct User {
    file: unsafe extern "C" fn(u64, *mut FileId) -> i32,
    read: unsafe extern "C" fn(u64, u64, *mut u8, usize) -> i64,
    attach: unsafe extern "C" fn(u64, u64, u64, bool, *mut u64) -> i32,
    detach: unsafe extern "C" fn(*const u64, usize),
}

impl Table {
    /// `None` when a function is missing, or the table is of another version.
    ///
    /// # Safety
    /// Every function in the table does what [`dprobes_host`] says of it, for as long as the result is used.
    pub(crate) unsafe fn check(host: &dprobes_host) -> Option<Self> {
        if host.version != DPROBES_HOST_VERSION || host.size as usize != size_of::<dprobes_host>() {
            return None;
        }
        Some(Table {
            cpu_at: host.cpu_at,
            read: host.read?,
            write: host.write?,
            now: host.now?,
            task: host.task?,
            user_registers: host.user_registers?,
            set_user_registers: host.set_user_registers?,
            msr: host.msr?,
            writable: host.writable?,
            kernel_stack: host.kernel_stack?,
            exit_to: host.exit_to?,
            deliver: host.deliver?,
            target: host.target?,
            facility: host.facility?,
            request_reap: host.request_reap?,
            sentry: host.sentry,
            cpu_count: host.cpu_count?,
            slot_area: host.slot_area?,
            probeable: host.probeable?,
            module_base: host.module_base?,
            symbol: host.symbol?,
            write_text: host.write_text?,
            sync_cores: host.sync_cores?,
            grace_period: host.grace_period?,
            rewrites: match (host.lock_rewrites, host.unlock_rewrites) {
                (Some(lock), Some(unlock)) => Some(Rewrites { lock, unlock }),
                (None, None) => None,
                // Half of them is a mistake.
                (Some(_), None) | (None, Some(_)) => return None,
            },
            watchpoints: match (host.set_watchpoint, host.clear_watchpoint) {
                (Some(set), Some(clear)) => Some(Watchpoints { set, clear }),
                (None, None) => None,
                // Half of them is a mistake.
                (Some(_), None) | (None, Some(_)) => return None,
            },
            returns: match (
                host.follow_return,
                host.follow_again,
                host.attach_return,
                host.detach_return,
                host.function_at,
            ) {
                (Some(follow), Some(again), Some(attach), Some(detach), Some(function)) => Some(Returns {
                    follow,
                    again,
                    attach,
                    detach,
                    function,
                }),
                (None, None, None, None, None) => None,
                _ => return None,
            },
            user: match (host.user_file, host.read_user_file, host.attach_user, host.detach_user) {
                (Some(file), Some(read), Some(attach), Some(detach)) => Some(User {
                    file,
                    read,
                    attach,
                    detach,
                }),
                (None, None, None, None) => None,
                _ => return None,
            },
            alloc: host.alloc?,
            free: host.free?,
            panic: host.panic?,
        })
    }
}

/// What a host says about a facility or a target.
fn there(code: u32) -> Result<(), FacilityError> {
    match code {
        0 => Ok(()),
        // A number that this version does not know is a refusal all the same.
        code => Err(FacilityError::from_code(code).unwrap_or(FacilityError::Absent)),
    }
}

/// The engine's host: the table that the engine was made with.
pub(crate) struct CHost {
    table: Table,
}

impl CHost {
    pub(crate) fn new(table: Table) -> Self {
        CHost { table }
    }
}

// The calls through the table are sound for one reason, which each block below names: `Table::check` was told that the
// functions do what `dprobes_host` says, and every pointer passed is valid for the access that is documented there.
impl Host for CHost {
    #[inline]
    fn cpu(&self) -> usize {
        let cpu: usize;
        // SAFETY: by `Table::check`: the number is there. The upper half of the register is cleared by the move.
        unsafe {
            asm!("mov {:e}, gs:[{}]", out(reg) cpu, in(reg) self.table.cpu_at, options(nostack, preserves_flags, readonly));
        }
        cpu
    }

    #[inline]
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
        let mut bad = address;
        // SAFETY: by `Table::check`; `buf` may be written for its length, and `bad` outlives the call.
        let result = unsafe { (self.table.read)(address, buf.as_mut_ptr(), buf.len(), &raw mut bad) };
        if result == 0 {
            Ok(())
        } else {
            Err(BadAddress { addr: bad })
        }
    }

    #[inline]
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        let mut bad = address;
        // SAFETY: by `Table::check`; `bytes` may be read for its length, and `bad` outlives the call.
        let result = unsafe { (self.table.write)(address, bytes.as_ptr(), bytes.len(), &raw mut bad) };
        if result == 0 {
            Ok(())
        } else {
            Err(BadAddress { addr: bad })
        }
    }

    #[inline]
    fn now(&self) -> u64 {
        // SAFETY: by `Table::check`; no arguments.
        unsafe { (self.table.now)() }
    }

    #[inline]
    fn task(&self) -> Task {
        let mut task = Task::default();
        // SAFETY: by `Table::check`; `task` outlives the call, and any bytes make a valid `Task`.
        unsafe { (self.table.task)(&raw mut task) };
        task
    }

    fn user_registers(&self) -> Option<TrapFrame> {
        let mut frame = TrapFrame::default();
        // SAFETY: by `Table::check`; `frame` outlives the call, and any bytes make a valid `TrapFrame`.
        let result = unsafe { (self.table.user_registers)(&raw mut frame) };
        (result == 0).then_some(frame)
    }

    fn set_user_registers(&self, frame: &TrapFrame) -> bool {
        // SAFETY: by `Table::check`; `frame` may be read.
        unsafe { (self.table.set_user_registers)(frame) == 0 }
    }

    fn msr(&self, number: u32) -> Option<u64> {
        let mut value = 0;
        // SAFETY: by `Table::check`; `value` outlives the call.
        let result = unsafe { (self.table.msr)(number, &raw mut value) };
        (result == 0).then_some(value)
    }

    fn writable(&self, address: u64) -> bool {
        // SAFETY: by `Table::check`.
        unsafe { (self.table.writable)(address) }
    }

    fn kernel_stack(&self, frame: &TrapFrame, addresses: &mut [u64]) -> Option<usize> {
        // SAFETY: by `Table::check`; `frame` may be read, and `addresses` written for its length.
        let count = unsafe { (self.table.kernel_stack)(frame, addresses.as_mut_ptr(), addresses.len()) };
        // More than there is room for would be the host's mistake, which must not become ours.
        usize::try_from(count).ok().map(|count| count.min(addresses.len()))
    }

    fn exit_to(&self, exit: &ExitTo, frame: &TrapFrame, elements: &[u8]) -> bool {
        // SAFETY: by `Table::check`; all three may be read, the elements for their length.
        unsafe { (self.table.exit_to)(exit, frame, elements.as_ptr(), elements.len()) == 0 }
    }

    fn facility(&self, facility: u8) -> Result<(), FacilityError> {
        // SAFETY: by `Table::check`.
        there(unsafe { (self.table.facility)(facility.into()) })
    }

    fn deliver(&self, targets: u32, head: &[u64; 9], elements: &[u8]) -> u32 {
        let head: *const Header = head.as_ptr().cast();
        // SAFETY: by `Table::check`; the words are those of a header, in memory as it is, and may be read, as may the elements for their length.
        unsafe { (self.table.deliver)(targets, head, elements.as_ptr(), elements.len()) }
    }

    fn target(&self, target: u32) -> Result<(), FacilityError> {
        // SAFETY: by `Table::check`.
        there(unsafe { (self.table.target)(target) })
    }

    fn sentry(&self, token: u64, frame: &mut TrapFrame) {
        if let Some(sentry) = self.table.sentry {
            // SAFETY: by `Table::check`; the frame may be changed.
            unsafe { sentry(token, frame) }
        }
    }

    fn follow_return(&self, number: u64, frame: &TrapFrame, words: &CallWords) -> bool {
        let Some(returns) = self.table.returns else {
            return false;
        };
        // SAFETY: by `Table::check`; the frame and the words may be read.
        unsafe { (returns.follow)(number, frame, words.as_ptr()) }
    }

    fn follow_again(&self, number: u64, frame: &TrapFrame) {
        if let Some(returns) = self.table.returns {
            // SAFETY: by `Table::check`; the frame may be read.
            unsafe { (returns.again)(number, frame) }
        }
    }

    fn request_reap(&self) {
        // SAFETY: by `Table::check`; no arguments.
        unsafe { (self.table.request_reap)() }
    }

    fn cpu_count(&self) -> usize {
        // SAFETY: by `Table::check`; no arguments.
        unsafe { (self.table.cpu_count)() as usize }
    }

    fn slot_area(&self) -> Range<u64> {
        let (mut start, mut end) = (0, 0);
        // SAFETY: by `Table::check`; both places outlive the call.
        unsafe { (self.table.slot_area)(&raw mut start, &raw mut end) };
        start..end
    }

    fn probeable(&self, address: u64) -> Result<Function, Prohibited> {
        let mut candidate = Candidate::new(address);
        self.probeable_batch(slice::from_mut(&mut candidate));
        candidate.copyable()
    }

    fn probeable_batch(&self, candidates: &mut [Candidate]) {
        // SAFETY: by `Table::check`; `candidates` may be written for its length, and any bytes make valid candidates.
        unsafe { (self.table.probeable)(candidates.as_mut_ptr(), candidates.len()) }
    }

    fn module_base(&self, name: &[u8]) -> Option<u64> {
        let mut base = 0;
        // SAFETY: by `Table::check`; `name` may be read for its length, and `base` outlives the call.
        let result = unsafe { (self.table.module_base)(name.as_ptr().cast(), name.len(), &raw mut base) };
        (result == 0).then_some(base)
    }

    fn symbol(&self, module: &[u8], name: &str) -> Result<Range<u64>, SymbolError> {
        let (mut start, mut end) = (0, 0);
        // SAFETY: by `Table::check`; both names may be read for their lengths, and both places outlive the call.
        let result = unsafe {
            (self.table.symbol)(
                module.as_ptr().cast(),
                module.len(),
                name.as_ptr().cast(),
                name.len(),
                &raw mut start,
                &raw mut end,
            )
        };
        match result {
            0 => Ok(start..end),
            EEXIST => Err(SymbolError::Ambiguous),
            _ => Err(SymbolError::Unknown),
        }
    }

    fn write_text(&self, patches: &[Patch]) -> Result<(), WriteTextError> {
        // SAFETY: by `Table::check`; `patches` may be read for its length.
        let written = unsafe { (self.table.write_text)(patches.as_ptr(), patches.len()) };
        if written == patches.len() {
            Ok(())
        } else {
            Err(WriteTextError { index: written })
        }
    }

    fn lock_rewrites(&self) {
        if let Some(rewrites) = self.table.rewrites {
            // SAFETY: by `Table::check`; no arguments.
            unsafe { (rewrites.lock)() }
        }
    }

    fn unlock_rewrites(&self) {
        if let Some(rewrites) = self.table.rewrites {
            // SAFETY: by `Table::check`; no arguments.
            unsafe { (rewrites.unlock)() }
        }
    }

    fn set_watchpoint(&self, number: usize, what: &Watchpoint, process: u32) -> Result<(), WatchError> {
        let Some(watchpoints) = self.table.watchpoints else {
            return Err(WatchError::Unsupported);
        };
        let (kind, length) = (what.kind() as u32, what.len().into());
        let mut users = dprobes_watch_users::default();
        // SAFETY: by `Table::check`; `users` outlives the call, and any bytes make a valid value of it.
        match unsafe { (watchpoints.set)(number as u32, what.address(), kind, length, process, &raw mut users) } {
            0 => Ok(()),
            2 => Err(WatchError::Excluded),
            3 => Err(WatchError::InUse {
                others: users.others as u8,
                ours: users.ours as u8,
                process: users.process,
            }),
            4 => Err(WatchError::IoBreakpoints),
            5 => Err(WatchError::Ports),
            6 => Err(WatchError::NoMemory),
            7 => Err(WatchError::OneProcess),
            8 => Err(WatchError::NoProcess(process)),
            // A number that this version does not know is a refusal all the same.
            _ => Err(WatchError::Unsupported),
        }
    }

    fn clear_watchpoint(&self, number: usize) {
        if let Some(watchpoints) = self.table.watchpoints {
            // SAFETY: by `Table::check`.
            unsafe { (watchpoints.clear)(number as u32) };
        }
    }

    fn attach_return(&self, function: Function) -> Result<(), ReturnError> {
        let returns = self.table.returns.ok_or(ReturnError::Unsupported)?;
        // SAFETY: by `Table::check`.
        match unsafe { (returns.attach)(function.start, function.end) } {
            0 => Ok(()),
            result => {
                let known = u32::try_from(result).ok().and_then(ReturnError::from_code);
                // A number that this version does not know is a refusal all the same.
                Err(known.unwrap_or(ReturnError::Unsupported))
            }
        }
    }

    fn detach_return(&self) {
        if let Some(returns) = self.table.returns {
            // SAFETY: by `Table::check`; no arguments.
            unsafe { (returns.detach)() }
        }
    }

    fn function_at(&self, address: u64) -> Option<Function> {
        let returns = self.table.returns?;
        let mut function = Function { start: 0, end: 0 };
        // SAFETY: by `Table::check`; `function` outlives the call.
        let found = unsafe { (returns.function)(address, &raw mut function) };
        found.then_some(function)
    }

    fn user_file(&self, file: u64) -> Result<FileId, FileError> {
        let user = self.table.user.ok_or(FileError::Unsupported)?;
        let mut id = FileId::default();
        // SAFETY: by `Table::check`; `id` outlives the call.
        let result = unsafe { (user.file)(file, &raw mut id) };
        file_error(result).map_or(Ok(id), Err)
    }

    fn read_user_file(&self, file: u64, offset: u64, buf: &mut [u8]) -> Result<usize, FileError> {
        let user = self.table.user.ok_or(FileError::Unsupported)?;
        // SAFETY: by `Table::check`; `buf` may be written for its length.
        let count = unsafe { (user.read)(file, offset, buf.as_mut_ptr(), buf.len()) };
        let count = usize::try_from(count).map_err(|_| FileError::Unreadable)?;
        Ok(count.min(buf.len()))
    }

    fn attach_user(&self, file: u64, offset: u64, number: u64, returns: bool) -> Result<u64, FileError> {
        let user = self.table.user.ok_or(FileError::Unsupported)?;
        let mut attached = 0;
        // SAFETY: by `Table::check`; `attached` outlives the call.
        let result = unsafe { (user.attach)(file, offset, number, returns, &raw mut attached) };
        file_error(result).map_or(Ok(attached), Err)
    }

    fn detach_user(&self, attached: &[u64]) {
        if let Some(user) = self.table.user {
            // SAFETY: by `Table::check`; `attached` may be read for its length.
            unsafe { (user.detach)(attached.as_ptr(), attached.len()) };
        }
    }

    fn sync_cores(&self) {
        // SAFETY: by `Table::check`; no arguments.
        unsafe { (self.table.sync_cores)() }
    }

    fn grace_period(&self) {
        // SAFETY: by `Table::check`; no arguments.
        unsafe { (self.table.grace_period)() }
    }
}

/// What a number says that is not 0. One that this version does not know is a refusal all the same.
fn file_error(result: i32) -> Option<FileError> {
    if result == 0 {
        return None;
    }
    let known = u32::try_from(result).ok().and_then(FileError::from_code);
    Some(known.unwrap_or(FileError::Failed))
}

/// The table of the engine there is, for memory and for the panic handler, which have no `self` to find it by.
pub(crate) fn table() -> Option<&'static Table> {
    instance::table()
}
