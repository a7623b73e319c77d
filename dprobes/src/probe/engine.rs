//! The engine: one per kernel, over one host.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use spin::{Mutex, MutexGuard};

use super::calls::Calls;
use super::cpu::Cpu;
use super::globals::{Globals, Names};
use super::maps::MapNumbers;
use super::program::{Loaded, Probe};
use super::returns::Returns;
use super::site::Site;
use super::table::Table;
use super::user::{UserControl, UserSites};
use super::watch::{WATCHPOINTS, Watches};
use crate::host::{Host, Watchpoint};
use crate::insn::Insn;
use crate::mem::{self, OutOfMemory};
use crate::record::ring::{MODE_FROZEN, MODE_NEWEST};
use crate::text::slot::{FreeSlots, SlotArea};
use crate::wire::{PROBE_HALTED, PROBE_SUSPENDED, ProbeStatus, RingControl, label};

/// How many windows of places there are for calls in user space that programs keep something for.
const CALL_WINDOWS: usize = 64;

/// How many places each has: so many of these calls of a task can be under way.
const CALLS_OF_TASK: usize = 128;

/// The engine over a host.
///
/// The control methods ([`insert`](Self::insert), [`remove`](Self::remove), [`query`](Self::query), ...) may be called from
/// any context that may sleep; they exclude each other by a spinning lock, so that a host whose tasks are preempted
/// should let one in at a time. The trap methods ([`on_breakpoint`](Self::on_breakpoint), [`on_debug`](Self::on_debug),
/// [`on_fault`](Self::on_fault)) take no lock, allocate nothing and cannot panic.
pub struct Engine<H: Host> {
    host: H,
    pub(crate) cpus: Box<[Cpu]>,
    pub(crate) table: Table<Site>,
    pub(crate) slots: SlotArea<Site>,
    pub(crate) map_numbers: MapNumbers,
    pub(crate) globals: Globals,
    pub(crate) watches: Watches,
    pub(crate) user_sites: UserSites,
    pub(crate) returns: Returns,
    /// What is kept for calls in user space; null while no program keeps anything.
    calls: AtomicPtr<Calls>,
    /// Does every hit do nothing but carry its instruction out?
    halted: AtomicBool,
    /// The last number that was given to a site.
    last_site: AtomicU64,
    control: Mutex<Control>,
}

/// What only the control path touches.
pub(crate) struct Control {
    #[expect(
        clippy::vec_box,
        reason = "probes refer to their program by address: it must not move"
    )]
    pub(crate) programs: Vec<Box<Loaded>>,
    /// The names of the global variables.
    pub(crate) globals: Names,
    pub(crate) free_slots: FreeSlots,
    /// Sites that have left the table and whose slots may still be running.
    pub(crate) limbo: Vec<*mut Site>,
    /// Where the host has breakpoints of its own.
    pub(crate) sentries: Vec<*mut Site>,
    /// What the host watches, and in which process if not in all, by the number of the watchpoint.
    pub(crate) watchpoints: [Option<(Watchpoint, u32)>; WATCHPOINTS],
    pub(crate) user: UserControl,
    /// The last number that was given to a probe on a return.
    pub(super) last_return: u64,
    /// The last number that was given to a program.
    pub(super) last_program: u64,
}

// SAFETY: the pointers are to boxed sites that the control path owns; whichever thread holds the lock may free them.
unsafe impl Send for Control {}

impl<H: Host> Engine<H> {
    /// An engine without probes.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn new(host: H) -> Result<Self, OutOfMemory> {
        let mut cpus = mem::vec(host.cpu_count())?;
        for _ in 0..host.cpu_count() {
            cpus.push(Cpu::new()?);
        }
        let slots = SlotArea::new(host.slot_area(), host.user_slot_area())?;
        let control = Mutex::new(Control {
            programs: Vec::new(),
            globals: Names::default(),
            free_slots: slots.free_list()?,
            limbo: mem::vec(slots.count())?,
            sentries: Vec::new(),
            watchpoints: [None; WATCHPOINTS],
            user: UserControl::default(),
            last_return: 0,
            last_program: 0,
        });
        Ok(Engine {
            host,
            cpus: cpus.into_boxed_slice(),
            table: Table::new()?,
            slots,
            map_numbers: MapNumbers::default(),
            globals: Globals::new()?,
            watches: Watches::default(),
            user_sites: UserSites::new()?,
            returns: Returns::new()?,
            calls: AtomicPtr::default(),
            halted: AtomicBool::new(false),
            last_site: AtomicU64::new(0),
            control,
        })
    }

    /// The host.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// A [number](Site::number) for a site.
    pub(crate) fn next_site(&self) -> u64 {
        self.last_site.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock()
    }

    /// The site at an address. The reference is valid in a trap as long as the trap runs, and on the control path as long as
    /// the control lock is held: a site is freed only a grace period after it has left the table.
    #[inline]
    pub(crate) fn site(&self, address: u64) -> Option<&Site> {
        // SAFETY: the table holds null or pointers to boxed sites, which live until a grace period after their removal.
        unsafe { self.table.get(address).as_ref() }
    }

    /// The instruction that a breakpoint of this engine stands for, or `None` if there is none at this address. For traps.
    pub fn instruction(&self, address: u64) -> Option<Insn> {
        let site = self.site(address).filter(|site| !site.is_reported());
        site.map(Site::current)
    }

    /// What is kept for calls in user space. Valid as [`site`](Self::site) says.
    pub(crate) fn calls(&self) -> Option<&Calls> {
        // SAFETY: null or a boxed table, which is freed only after a core sync has passed since it was replaced.
        unsafe { self.calls.load(Ordering::Acquire).as_ref() }
    }

    /// Sees to it that there is a place for what programs keep for calls in user space. Control lock held.
    pub(super) fn keep_calls(&self) -> Result<(), OutOfMemory> {
        if self.calls().is_none() {
            let calls = mem::boxed(Calls::new(CALL_WINDOWS, CALLS_OF_TASK)?)?;
            self.calls.store(Box::into_raw(calls), Ordering::Release);
        }
        Ok(())
    }

    /// If no program keeps anything for calls in user space any more there need not be a place for it. Control lock held.
    pub(super) fn forget_calls(&self, control: &Control) {
        if control.programs.iter().any(|loaded| loaded.keeps_calls) {
            return;
        }
        let calls = self.calls.swap(ptr::null_mut(), Ordering::AcqRel);
        if !calls.is_null() {
            // A hit that has found it has ended after this.
            self.host.sync_cores();
            // SAFETY: it comes from `Box::into_raw` in `keep_calls`, and nobody finds it any more, or has it still.
            drop(unsafe { Box::from_raw(calls) });
        }
    }

    /// The state of this CPU.
    #[inline]
    pub(crate) fn this_cpu(&self) -> Option<&Cpu> {
        self.cpus.get(self.host.cpu())
    }

    /// Has all hits do nothing from now on but carry their instruction out: they are counted as suspended. That ends when everything has been
    /// [removed](Self::remove_all). For emergencies: it may be called in any context, and needs nobody.
    pub fn halt(&self) {
        self.halted.store(true, Ordering::SeqCst);
    }

    /// Is everything halted?
    #[inline]
    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Relaxed)
    }

    /// There is nothing left to be halted. Control lock held.
    pub(super) fn go_on(&self) {
        self.halted.store(false, Ordering::SeqCst);
    }

    /// How many slots there are: one for each probed address.
    pub fn slots(&self) -> usize {
        self.slots.count()
    }

    /// How many slots nobody has: the others are in use, or wait for a grace period.
    pub fn slots_free(&self) -> usize {
        self.lock().free_slots.len()
    }

    /// Shows every probe, in the order of insertion.
    pub fn query(&self, visit: &mut dyn FnMut(&ProbeStatus)) {
        for loaded in &self.lock().programs {
            for probe in &loaded.probes {
                visit(&status(loaded, probe, self.is_halted()));
            }
        }
    }

    /// Reads the local variables of a program into `values`, as many as fit, and returns how many there are; `None` when
    /// there is no such program.
    pub fn locals(&self, module: &[u8], major: u16, values: &mut [u64]) -> Option<usize> {
        let control = self.lock();
        let loaded = control.programs.iter().find(|loaded| loaded.is(module, major))?;
        for (value, local) in values.iter_mut().zip(&*loaded.locals) {
            *value = local.load(Ordering::Relaxed);
        }
        Some(loaded.locals.len())
    }

    /// Copies final records of a CPU into `out`, as many whole ones as fit, and frees them; returns the bytes written.
    /// One caller at a time per CPU. Losses are told by records of their own.
    pub fn read_records(&self, cpu: usize, out: &mut [u8]) -> usize {
        self.cpus.get(cpu).map_or(0, |state| state.ring.read(cpu, out))
    }

    /// Are there records whose instruction may not have completed? They can be read after [`settle`](Self::settle).
    pub fn has_provisional(&self) -> bool {
        self.cpus.iter().any(|cpu| cpu.ring.has_provisional())
    }

    /// Has the rings keep the newest records when they are full, and the oldest give way; or the other way round, as it is at first.
    pub fn keep_newest(&self, newest: bool) {
        self.set_mode(MODE_NEWEST, newest);
    }

    /// Records nothing from now on; what comes is counted as lost. It may be called in any context.
    pub fn freeze(&self) {
        self.set_mode(MODE_FROZEN, true);
    }

    /// Records again.
    pub fn thaw(&self) {
        self.set_mode(MODE_FROZEN, false);
    }

    fn set_mode(&self, bits: u64, on: bool) {
        for cpu in &self.cpus {
            cpu.ring.set_mode(bits, on);
        }
    }

    /// Whether the rings keep the newest records, and whether they are frozen: see [`RingControl::mode`](crate::wire::RingControl::mode).
    pub fn rings_mode(&self) -> u64 {
        self.cpus.first().map_or(0, |cpu| cpu.ring.mode())
    }

    /// Where the ring of a CPU is, to be mapped read-only: the page with its [`RingControl`](crate::wire::RingControl), and its words. It stays there as
    /// long as the engine exists.
    pub fn ring_memory(&self, cpu: usize) -> Option<(*const RingControl, *const [u64])> {
        let (control, words) = self.cpus.get(cpu)?.ring.memory();
        let words = core::ptr::slice_from_raw_parts(words.as_ptr().cast::<u64>(), words.len());
        Some((core::ptr::from_ref(control).cast(), words))
    }

    /// Copies the newest records of a CPU into `out`, and leaves them where they are; returns the bytes written. For a machine that is about to
    /// stop: nobody may be writing records. A record is provisional if its instruction is not known to have completed.
    pub fn save_records(&self, cpu: usize, out: &mut [u8]) -> usize {
        self.cpus.get(cpu).map_or(0, |state| state.ring.save(cpu, out))
    }

    /// Waits a grace period, after which the records written before the call are final. One caller at a time, which is
    /// also the one that reads.
    pub fn settle(&self) {
        for cpu in &self.cpus {
            cpu.ring.mark_to_settle();
        }
        self.host.grace_period();
        for cpu in &self.cpus {
            cpu.ring.settle();
        }
    }
}

impl Loaded {
    /// Is this the program with `major` for `module`?
    pub(crate) fn is(&self, module: &[u8], major: u16) -> bool {
        self.major == major && self.module == label(module)
    }
}

/// The state of a probe, for a query.
pub(super) fn status(loaded: &Loaded, probe: &Probe, halted: bool) -> ProbeStatus {
    let suspended = if loaded.is_suspended(probe.group) {
        PROBE_SUSPENDED
    } else {
        0
    };
    let (skipped, hits, late) = probe.turns();
    let counts = &probe.counts;
    ProbeStatus {
        major: loaded.major,
        minor: probe.minor,
        state: probe.state_code(),
        group: probe.selected.0,
        type_: probe.selected.1,
        flags: suspended | if halted { PROBE_HALTED } else { 0 },
        address: probe.address,
        watch: probe.watchpoint.map_or(0, |what| what.kind() as u32),
        watch_len: probe.watchpoint.map_or(0, |what| what.len().into()),
        process: probe.watchpoint.map_or(0, |_| loaded.process),
        reserved: 0,
        device: loaded.file.device,
        inode: loaded.file.inode,
        resume: probe.resume_code,
        locals: loaded.locals.len() as u32,
        hits,
        skipped,
        suspended: counts.suspended.load(Ordering::Relaxed),
        missed: counts.missed.load(Ordering::Relaxed),
        faulted: counts.faulted.load(Ordering::Relaxed),
        late,
        exceptions: counts.exceptions.load(Ordering::Relaxed),
        overflows: counts.overflows.load(Ordering::Relaxed),
        unavailable: counts.unavailable.load(Ordering::Relaxed),
        lost: counts.lost.load(Ordering::Relaxed),
        unfollowed: counts.unfollowed.load(Ordering::Relaxed),
        undelivered: counts.undelivered.load(Ordering::Relaxed),
        reason: probe.refusal.reason,
        detail: probe.refusal.detail,
        refused_at: probe.refusal.address,
        facts: probe.refusal.facts,
        label: probe.label,
        module: loaded.module,
    }
}

impl<H: Host> Drop for Engine<H> {
    fn drop(&mut self) {
        // Text that cannot be restored keeps its breakpoints: what they refer to must then stay.
        if self.remove_all().is_err() || self.clear_sentries().is_err() {
            core::mem::forget(core::mem::take(&mut self.control.get_mut().programs));
        } else {
            let control = self.lock();
            self.forget_calls(&control);
        }
    }
}
