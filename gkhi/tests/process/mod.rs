//! This process as a host: text written through `/proc/self/mem`, SIGTRAP for the transient breakpoints, membarrier for core syncs.
#![allow(dead_code, reason = "each test uses a part")]

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use gkhi::text::{Text, Unreadable, Unwritable, Write};
use gkhi::{Counters, Host, Image, Registry, Shared};

pub static SHARED: Shared = Shared::new();
/// SIGTRAPs that were taken at sites.
pub static TRAPS: AtomicU64 = AtomicU64::new(0);

pub struct Process {
    memory: File,
    pub syncs: AtomicU64,
    pub relaxes: AtomicU64,
    /// Writes fail from this one on.
    pub fail_after: AtomicUsize,
    /// Not only the one.
    pub fail_for_good: AtomicBool,
    free: Mutex<Vec<usize>>,
}

pub const REGISTER: i32 = libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;
pub const SYNC: i32 = libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE;

pub fn membarrier(command: i32) {
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    assert_eq!(result, 0, "membarrier({command}): {}", std::io::Error::last_os_error());
}

extern "C" fn on_trap(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO its context, for as long as it runs.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let rip = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
    match SHARED.on_breakpoint(*rip as usize - 1) {
        Some(next) => {
            TRAPS.fetch_add(1, Ordering::Relaxed);
            *rip = next as i64;
        }
        None => std::process::abort(),
    }
}

impl Process {
    pub fn new() -> Self {
        membarrier(REGISTER);
        // SAFETY: all zeros are a valid `sigaction`, and the handler has the signature that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_trap as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            assert_eq!(libc::sigaction(libc::SIGTRAP, &action, std::ptr::null_mut()), 0);
        }
        Process {
            memory: OpenOptions::new()
                .read(true)
                .write(true)
                .open("/proc/self/mem")
                .unwrap(),
            syncs: AtomicU64::new(0),
            relaxes: AtomicU64::new(0),
            fail_after: AtomicUsize::new(usize::MAX),
            fail_for_good: AtomicBool::new(false),
            free: Mutex::new(Vec::new()),
        }
    }
}

impl Text for Process {
    fn read_text(&self, address: usize, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.memory.read_exact_at(bytes, address as u64).map_err(|_| Unreadable)
    }

    fn write_text(&self, writes: &[Write]) -> Result<(), Unwritable> {
        for (index, write) in writes.iter().enumerate() {
            let left = self.fail_after.load(Ordering::Relaxed);
            if left == 0 {
                // Once: what undoes it may write again.
                if !self.fail_for_good.load(Ordering::Relaxed) {
                    self.fail_after.store(usize::MAX, Ordering::Relaxed);
                }
                return Err(Unwritable { index });
            }
            if left != usize::MAX {
                self.fail_after.store(left - 1, Ordering::Relaxed);
            }
            self.memory
                .write_all_at(write.bytes(), write.address as u64)
                .map_err(|_| Unwritable { index })?;
        }
        Ok(())
    }

    fn sync_cores(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        membarrier(SYNC);
    }
}

// SAFETY: counters are leaked boxes, reached from GS, whose base is zero in a process, by their address.
unsafe impl Host for Process {
    fn cpus(&self) -> usize {
        1
    }

    fn alloc_counters(&self) -> Option<usize> {
        let free = self.free.lock().unwrap().pop();
        let place = free.unwrap_or_else(|| Box::leak(Box::new(Counters::new())) as *const Counters as usize);
        // SAFETY: a leaked box, made here or given back by `free_counters`.
        unsafe { &*(place as *const Counters) }.clear();
        Some(place)
    }

    fn free_counters(&self, offset: usize) {
        self.free.lock().unwrap().push(offset);
    }

    fn counters(&self, cpu: usize, offset: usize) -> Option<&Counters> {
        // SAFETY: `alloc_counters` made the offset of the address of a leaked box.
        (cpu == 0).then(|| unsafe { &*(offset as *const Counters) })
    }

    fn relax(&self) {
        self.relaxes.fetch_add(1, Ordering::Relaxed);
        std::thread::yield_now();
    }

    fn stack(&self) -> Option<Range<usize>> {
        thread_local!(static STACK: Cell<(usize, usize)> = const { Cell::new((0, 0)) });
        if STACK.get().1 == 0 {
            // SAFETY: all zeros are room for attributes, which are initialised, read and destroyed in this order.
            unsafe {
                let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
                assert_eq!(libc::pthread_getattr_np(libc::pthread_self(), &mut attributes), 0);
                let (mut start, mut size) = (std::ptr::null_mut(), 0);
                assert_eq!(libc::pthread_attr_getstack(&attributes, &mut start, &mut size), 0);
                libc::pthread_attr_destroy(&mut attributes);
                STACK.set((start as usize, start as usize + size));
            }
        }
        let (start, end) = STACK.get();
        Some(start..end)
    }
}

/// The registry of this process, with the program's own sites. Tests take turns.
pub fn registry(image: &'static Image) -> MutexGuard<'static, Registry<Process>> {
    static REGISTRY: OnceLock<Mutex<Registry<Process>>> = OnceLock::new();
    let registry = REGISTRY.get_or_init(|| {
        let mut registry = Registry::new(Process::new(), &SHARED);
        registry.add_image(image).unwrap();
        Mutex::new(registry)
    });
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}
