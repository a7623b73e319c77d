//! The test kernel as a host of the engine.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc::vec::Vec;
use bootimage::memory::{self, ExecMemory, Rights};
use bootimage::sync::IrqMutex;
use bootimage::{clock, fault, module, ring3, smp, symbols, task};
use dprobes::host::{
    BadAddress, ExitTo, Function, Hits, Host, Patch, Prohibited, Task, TrapFrame, WatchError, WatchKind, Watchpoint,
    WriteTextError,
};
use dprobes::trap::debug_registers::DebugRegisters;

use crate::migrant;

/// Where the slots of ring 3 are, and how many bytes they have. Code in ring 3 that is to be probed is within 2 GiB of that.
pub const USER_SLOTS: u64 = 0x5000_0000;
const USER_SLOT_BYTES: u64 = 1 << 14;

/// Bytes for slots.
const SLOT_BYTES: usize = 1 << 21;

/// The test kernel.
pub struct Kernel {
    slots: ExecMemory,
    debug_registers: DebugRegisters,
    user_text: IrqMutex<Vec<Function>>,
    reap: AtomicBool,
    waiting: AtomicBool,
    exits: AtomicU64,
    last_exit: [AtomicU64; 3],
    /// [`Host::sync_cores`] and [`Host::grace_period`].
    pub sync: Barrier,
    /// As `sync`.
    pub grace: Barrier,
}

/// A wait that the engine asks for, and that a test can watch or leave out.
pub struct Barrier {
    omitted: AtomicBool,
    waiting: AtomicU64,
    passed: AtomicU64,
}

impl Barrier {
    const fn new() -> Self {
        Barrier {
            omitted: AtomicBool::new(false),
            waiting: AtomicU64::new(0),
            passed: AtomicU64::new(0),
        }
    }

    /// From now on the wait is left out, which breaks what the engine relies on; or it is not.
    pub fn omit(&self, omitted: bool) {
        self.omitted.store(omitted, Ordering::SeqCst);
    }

    /// Is somebody waiting?
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// How many waits have ended, those that were left out included.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    fn pass(&self, wait: impl FnOnce()) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if !self.omitted.load(Ordering::SeqCst) {
            wait();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.passed.fetch_add(1, Ordering::SeqCst);
    }
}

/// The one exit facility that this kernel has: it remembers what it was asked for.
pub const FACILITY: u32 = 16;

impl Kernel {
    pub(crate) fn new() -> Self {
        memory::map(USER_SLOTS, USER_SLOT_BYTES as usize, Rights::EXECUTE | Rights::USER)
            .expect("memory for slots of ring 3");
        Kernel {
            slots: memory::alloc_exec(SLOT_BYTES).expect("memory for slots"),
            debug_registers: DebugRegisters::new(smp::cpu_count()).expect("memory for the debug registers"),
            user_text: IrqMutex::new(Vec::new()),
            reap: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            exits: AtomicU64::new(0),
            last_exit: [const { AtomicU64::new(0) }; 3],
            sync: Barrier::new(),
            grace: Barrier::new(),
        }
    }

    /// Lets a function in ring 3 be probed.
    pub fn add_user_function(&self, start: u64, end: u64) {
        self.user_text.lock().push(Function { start, end });
    }

    /// Has the engine asked for a reap since this was last called?
    pub fn take_reap_request(&self) -> bool {
        self.reap.swap(false, Ordering::AcqRel)
    }

    /// Does somebody wait for a grace period?
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// How often [`FACILITY`] was triggered, and the last time by which codes (major above minor), at which address, with
    /// which value in RDI.
    pub fn exits(&self) -> (u64, [u64; 3]) {
        let last = self.last_exit.each_ref().map(|fact| fact.load(Ordering::Acquire));
        (self.exits.load(Ordering::Acquire), last)
    }
}

/// The engine's frame and the runtime's are both Linux's `struct pt_regs`.
const _: () = assert!(size_of::<TrapFrame>() == size_of::<bootimage::trap::TrapFrame>());

impl Host for Kernel {
    fn cpu(&self) -> usize {
        bootimage::cpu_id()
    }

    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
        fault::probe_read_in_a_hit(address, buf).map_err(|fault| BadAddress { addr: fault.address })
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        // SAFETY: what a probe program or an emulated instruction writes to is what its author asked for.
        unsafe { fault::probe_write_in_a_hit(address, bytes) }.map_err(|fault| BadAddress { addr: fault.address })
    }

    fn now(&self) -> u64 {
        clock::now_ns()
    }

    fn task(&self) -> Task {
        // One task to a CPU, or those that wander.
        let cpu = bootimage::cpu_id();
        let mut name = *b"cpu0\0\0\0\0\0\0\0\0\0\0\0\0";
        name[3] += cpu as u8;
        Task {
            pid: cpu as u32,
            tid: cpu as u32,
            cookie: task::current().unwrap_or(cpu as u64),
            name,
            ..Task::default()
        }
    }

    fn user_registers(&self) -> Option<TrapFrame> {
        // SAFETY: the registers are on this CPU's stack until the trap from ring 3 returns, which this is inside of, and the
        // layouts are the same.
        ring3::frame().map(|frame| unsafe { frame.cast().read() })
    }

    fn set_user_registers(&self, new: &TrapFrame) -> bool {
        let Some(frame) = ring3::frame() else { return false };
        // SAFETY: as above; the code that this has interrupted is not looking at the registers at the moment.
        let frame: &mut TrapFrame = unsafe { frame.cast().as_mut() };
        *frame = TrapFrame {
            error_code: frame.error_code,
            cs: frame.cs,
            rflags: frame.rflags,
            ss: frame.ss,
            ..*new
        };
        true
    }

    fn msr(&self, number: u32) -> Option<u64> {
        fault::probe_msr(number)
    }

    fn writable(&self, address: u64) -> bool {
        fault::probe_writable(address)
    }

    fn kernel_stack(&self, _: &TrapFrame, _: &mut [u64]) -> Option<usize> {
        None
    }

    fn exit_to(&self, exit: &ExitTo, frame: &TrapFrame, _: &[u8]) -> bool {
        if exit.facility != FACILITY {
            return false;
        }
        let codes = u64::from(exit.major) << 16 | u64::from(exit.minor);
        for (to, fact) in self.last_exit.iter().zip([codes, exit.address, frame.rdi]) {
            to.store(fact, Ordering::Release);
        }
        self.exits.fetch_add(1, Ordering::AcqRel);
        true
    }

    fn request_reap(&self) {
        self.reap.store(true, Ordering::Release);
    }

    fn watchpoints_hit(&self, dr6: u64) -> Hits {
        self.debug_registers.hits(dr6)
    }

    fn cpu_count(&self) -> usize {
        smp::cpu_count()
    }

    fn slot_area(&self) -> Range<u64> {
        self.slots.address..self.slots.address + self.slots.len as u64
    }

    fn user_slot_area(&self) -> Range<u64> {
        USER_SLOTS..USER_SLOTS + USER_SLOT_BYTES
    }

    fn probeable(&self, address: u64) -> Result<Function, Prohibited> {
        let of_user = self.user_text.lock();
        if let Some(function) = of_user
            .iter()
            .find(|function| (function.start..function.end).contains(&address))
        {
            return Ok(*function);
        }
        let in_module = module::text().contains(&address) && module::get().is_some();
        if !in_module && !memory::text().contains(&address) {
            return Err(Prohibited::NotText);
        }
        let function = symbols::function_at(address).ok_or(Prohibited::NoFunction)?;
        if memory::noinstr_text().contains(&address) || memory::dprobes_text().contains(&address) {
            return Err(Prohibited::Excluded);
        }
        Ok(Function {
            start: function.code.start,
            end: function.code.end,
        })
    }

    fn module_base(&self, name: &[u8]) -> Option<u64> {
        (name == b"loadable" && module::get().is_some()).then_some(module::BASE)
    }

    fn write_text(&self, patches: &[Patch]) -> Result<(), WriteTextError> {
        // SAFETY: the engine writes one byte at a time over text that may be running, and whole images only to slots that no CPU
        // runs yet.
        let written = unsafe { memory::write_text(patches.iter().map(|patch| (patch.address, patch.bytes()))) };
        written.map_err(|_| WriteTextError { index: 0 })
    }

    fn set_watchpoint(&self, number: usize, what: &Watchpoint, process: u32) -> Result<(), WatchError> {
        if process != 0 {
            return Err(WatchError::OneProcess);
        }
        // The path of #DB runs through this before it can switch the registers off.
        if what.kind() == WatchKind::Execute && memory::noinstr_text().contains(&what.address()) {
            return Err(WatchError::Excluded);
        }
        // SAFETY: this kernel, and what it calls on its CPUs, is in ring 0.
        unsafe { self.debug_registers.set(number, what, on_each_cpu) }
    }

    fn clear_watchpoint(&self, number: usize) {
        // SAFETY: as above.
        unsafe { self.debug_registers.clear(number, on_each_cpu) };
    }

    fn sync_cores(&self) {
        self.sync.pass(smp::sync_cores);
    }

    fn grace_period(&self) {
        self.grace.pass(|| {
            smp::sync_cores();
            self.waiting.store(true, Ordering::Release);
            while migrant::is_parked_in(&self.slot_area()) {
                core::hint::spin_loop();
            }
            smp::quiesce(&self.slot_area());
            smp::quiesce(&self.user_slot_area());
            task::quiesce(&self.slot_area());
            self.waiting.store(false, Ordering::Release);
        });
    }
}

/// Runs a function on all CPUs, with interrupts masked and the number of the CPU.
fn on_each_cpu(function: &(dyn Fn(usize) + Sync)) {
    smp::call_on_all(|| function(bootimage::cpu_id()));
}
