//! The test kernel as a host of the engine.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use bootimage::memory::{self, ExecMemory};
use bootimage::{clock, fault, smp, symbols};
use dprobes::host::{BadAddress, Function, Host, Patch, Prohibited, Task, WriteTextError};

/// Functions whose names begin with this may be probed. All others are what a trap may run, or might be.
pub const TARGET: &str = "target_";

/// Bytes for slots.
const SLOT_BYTES: usize = 1 << 20;

/// The test kernel.
pub struct Kernel {
    slots: ExecMemory,
    reap: AtomicBool,
}

impl Kernel {
    pub(crate) fn new() -> Self {
        Kernel {
            slots: memory::alloc_exec(SLOT_BYTES).expect("memory for slots"),
            reap: AtomicBool::new(false),
        }
    }

    /// Has the engine asked for a reap since this was last called?
    pub fn take_reap_request(&self) -> bool {
        self.reap.swap(false, Ordering::AcqRel)
    }
}

impl Host for Kernel {
    fn cpu(&self) -> usize {
        bootimage::cpu_id()
    }

    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
        fault::probe_read(address, buf).map_err(|fault| BadAddress { addr: fault.address })
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        // SAFETY: what a probe program or an emulated instruction writes to is what its author asked for.
        unsafe { fault::probe_write(address, bytes) }.map_err(|fault| BadAddress { addr: fault.address })
    }

    fn now(&self) -> u64 {
        clock::now_ns()
    }

    fn task(&self) -> Task {
        // One task to a CPU.
        let cpu = bootimage::cpu_id();
        let mut name = *b"cpu0\0\0\0\0\0\0\0\0\0\0\0\0";
        name[3] += cpu as u8;
        Task {
            pid: cpu as u32,
            tid: cpu as u32,
            cookie: cpu as u64,
            name,
            ..Task::default()
        }
    }

    fn request_reap(&self) {
        self.reap.store(true, Ordering::Release);
    }

    fn cpu_count(&self) -> usize {
        smp::cpu_count()
    }

    fn slot_area(&self) -> Range<u64> {
        self.slots.address..self.slots.address + self.slots.len as u64
    }

    fn probeable(&self, address: u64) -> Result<Function, Prohibited> {
        if !memory::text().contains(&address) {
            return Err(Prohibited::NotText);
        }
        let function = symbols::function_at(address).ok_or(Prohibited::NoFunction)?;
        if !function.name.starts_with(TARGET) {
            return Err(Prohibited::Excluded);
        }
        Ok(Function {
            start: function.code.start,
            end: function.code.end,
        })
    }

    fn module_base(&self, _: &[u8]) -> Option<u64> {
        None
    }

    fn write_text(&self, patches: &[Patch]) -> Result<(), WriteTextError> {
        // SAFETY: the engine writes one byte at a time over text that may be running, and whole images only to slots that no CPU
        // runs yet.
        let written = unsafe { memory::write_text(patches.iter().map(|patch| (patch.address, patch.bytes()))) };
        written.map_err(|_| WriteTextError { index: 0 })
    }

    fn sync_cores(&self) {
        smp::sync_cores();
    }

    fn grace_period(&self) {
        smp::sync_cores();
        smp::quiesce(&self.slot_area());
    }
}
