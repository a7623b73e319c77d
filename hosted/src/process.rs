//! This process as the host of an engine.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use dprobes::host::{
    BadAddress, ExitTo, Function, Host, Patch, Prohibited, SymbolError, Task, TrapFrame, WriteTextError,
};

use crate::code::{CodeBuffer, CodeError};
use crate::image::{Image, ImageError};
use crate::memory::{self, Alias};
use crate::quiesce;
use crate::signal;
use crate::thread::Cpus;

/// A clock in nanoseconds. It runs in the trap handler: no allocation, no lock, no panic.
pub type Clock = fn() -> u64;

/// Why this process cannot be a host.
#[derive(Debug)]
pub enum ProcessError {
    /// Its executable cannot be understood.
    Image(ImageError),
    /// There is no memory for slots.
    Slots(CodeError),
    /// The kernel has no `membarrier` that serialises cores.
    Membarrier(io::Error),
    /// All real-time signals are used.
    NoSignal,
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcessError::Image(error) => error.fmt(f),
            ProcessError::Slots(error) => error.fmt(f),
            ProcessError::Membarrier(error) => write!(f, "membarrier cannot serialise the cores: {error}"),
            ProcessError::NoSignal => f.write_str("every real-time signal has a handler already"),
        }
    }
}

impl std::error::Error for ProcessError {}

impl From<ImageError> for ProcessError {
    fn from(error: ImageError) -> Self {
        ProcessError::Image(error)
    }
}

/// This process, as the host of an engine. [`install`](fn@crate::install) brings the engine and the process's traps together.
pub struct Process {
    image: &'static Image,
    slots: CodeBuffer,
    pub(crate) cpus: Cpus,
    pub(crate) on_alternate_stack: bool,
    handshake_signal: libc::c_int,
    clock: Clock,
    reap_requested: AtomicBool,
    /// Code made at run time. Only the control path looks.
    regions: RwLock<Vec<Region>>,
}

struct Region {
    name: String,
    /// Its functions, by address.
    functions: Vec<Range<u64>>,
    /// What some of them are called.
    symbols: Vec<(String, Range<u64>)>,
}

impl Region {
    /// The function that an address is in.
    fn function(&self, address: u64) -> Option<Function> {
        let behind = self.functions.partition_point(|function| function.end <= address);
        let Range { start, end } = self.functions.get(behind)?.clone();
        (start <= address).then_some(Function { start, end })
    }
}

impl Process {
    /// How many traps are handled at once, unless [`with_cpus`](Self::with_cpus) says otherwise.
    pub const CPUS: usize = 16;
    /// How many slots there are, unless [`with_slots`](Self::with_slots) says otherwise.
    pub const SLOTS: usize = 4096;

    /// This process.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub fn new() -> Result<Self, ProcessError> {
        quiesce::register().map_err(ProcessError::Membarrier)?;
        Ok(Process {
            image: Image::get()?,
            slots: CodeBuffer::new(Self::SLOTS * Patch::MAX).map_err(ProcessError::Slots)?,
            cpus: Cpus::new(Self::CPUS),
            on_alternate_stack: false,
            handshake_signal: signal::free_real_time_signal().ok_or(ProcessError::NoSignal)?,
            clock: monotonic,
            reap_requested: AtomicBool::new(false),
            regions: RwLock::new(Vec::new()),
        })
    }

    /// Handles at most this many traps at once, each with a ring of its own; further threads wait.
    #[must_use]
    pub fn with_cpus(mut self, count: usize) -> Self {
        self.cpus = Cpus::new(count);
        self
    }

    /// Has room for this many slots, rounded up to whole pages.
    ///
    /// # Errors
    /// [`ProcessError::Slots`].
    pub fn with_slots(mut self, count: usize) -> Result<Self, ProcessError> {
        self.slots = CodeBuffer::new(count * Patch::MAX).map_err(ProcessError::Slots)?;
        Ok(self)
    }

    /// Takes the time from another clock. It runs inside a hit; when it is probed itself, its hits are counted as missed.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Handles traps on the alternate signal stack of threads that have one. Needed where probed code runs with a stack pointer
    /// that is none; such threads should have an [`AlternateStack`](crate::AlternateStack), since the one that Rust
    /// gives them is too small for traps inside traps.
    #[must_use]
    pub fn on_alternate_stack(mut self) -> Self {
        self.on_alternate_stack = true;
        self
    }

    /// The signal that is sent to threads to know where they are.
    #[must_use]
    pub fn handshake_signal(&self) -> i32 {
        self.handshake_signal
    }

    /// Allows probes in code made at run time, as one function from `range.start`, which must stay until it is
    /// [unregistered](Self::unregister_code). A program names it as a kernel module: `modtype = kmod`, `name = "NAME"`.
    pub fn register_code(&self, name: &str, range: Range<u64>) {
        self.register_functions(name, vec![range]);
    }

    /// The same for code that consists of many functions, which do not overlap. The module begins where the first of them does.
    pub fn register_functions(&self, name: &str, mut functions: Vec<Range<u64>>) {
        functions.sort_unstable_by_key(|function| function.start);
        let mut regions = self.regions.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        regions.push(Region {
            name: name.to_owned(),
            functions,
            symbols: Vec::new(),
        });
    }

    /// Gives code that was [registered](Self::register_code) a symbol. There may be several of one name.
    pub fn register_symbol(&self, name: &str, symbol: &str, range: Range<u64>) {
        let mut regions = self.regions.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for region in regions.iter_mut().filter(|region| region.name == name) {
            region.symbols.push((symbol.to_owned(), range.clone()));
        }
    }

    /// Ends what [`register_code`](Self::register_code) or [`register_functions`](Self::register_functions) began. There must be no probes in it any more.
    pub fn unregister_code(&self, name: &str) {
        let mut regions = self.regions.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        regions.retain(|region| region.name != name);
    }

    /// The address of a function of the executable, by its name in the symbol table.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.image.symbol(name)
    }

    /// Has the engine asked to be reaped since this was last called?
    pub fn take_reap_request(&self) -> bool {
        self.reap_requested.swap(false, Ordering::AcqRel)
    }

    fn region<T>(&self, find: impl Fn(&Region) -> Option<T>) -> Option<T> {
        let regions = self.regions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        regions.iter().find_map(find)
    }
}

fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to a local variable; it may be called in a signal handler (POSIX.1, signal-safety).
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    (now.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec as u64)
}

impl Host for Process {
    #[inline]
    fn cpu(&self) -> usize {
        Cpus::current()
    }

    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
        memory::read(address, buf)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        memory::write(address, bytes)
    }

    fn now(&self) -> u64 {
        (self.clock)()
    }

    fn task(&self) -> Task {
        let mut name = [0_u8; 16];
        // SAFETY: the calls are allowed in a signal handler; PR_GET_NAME writes 16 bytes at most.
        let (pid, tid, uid) = unsafe {
            libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr());
            (libc::getpid(), libc::gettid(), libc::getuid())
        };
        Task {
            pid: pid as u32,
            tid: tid as u32,
            uid,
            reserved: 0,
            cookie: tid as u64,
            name,
        }
    }

    fn user_registers(&self) -> Option<TrapFrame> {
        // What a trap interrupts here is user mode itself: the engine has the registers already.
        None
    }

    fn set_user_registers(&self, _: &TrapFrame) -> bool {
        false
    }

    fn msr(&self, _: u32) -> Option<u64> {
        // RDMSR is for ring 0 (SDM volume 2, RDMSR).
        None
    }

    fn writable(&self, address: u64) -> bool {
        memory::writable(address)
    }

    fn kernel_stack(&self, _: &TrapFrame, _: &mut [u64]) -> Option<usize> {
        None
    }

    fn exit_to(&self, _: &ExitTo, _: &TrapFrame, _: &[u8]) -> bool {
        false
    }

    fn request_reap(&self) {
        self.reap_requested.store(true, Ordering::Release);
    }

    fn cpu_count(&self) -> usize {
        self.cpus.count()
    }

    fn slot_area(&self) -> Range<u64> {
        self.slots.range()
    }

    fn probeable(&self, address: u64) -> Result<Function, Prohibited> {
        match self.region(|region| region.function(address)) {
            Some(function) => Ok(function),
            None => self.image.function(address),
        }
    }

    fn module_base(&self, name: &[u8]) -> Option<u64> {
        let start = |region: &Region| region.functions.first().map(|function| function.start);
        self.region(|region| (region.name.as_bytes() == name).then(|| start(region)).flatten())
    }

    fn symbol(&self, module: &[u8], name: &str) -> Result<Range<u64>, SymbolError> {
        if module == b"kernel" {
            return self
                .image
                .symbol(name)
                .map(|start| start..start)
                .ok_or(SymbolError::Unknown);
        }
        let regions = self.regions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let of_module = regions.iter().filter(|region| region.name.as_bytes() == module);
        let mut found = of_module
            .flat_map(|region| &region.symbols)
            .filter(|(symbol, _)| symbol == name);
        match (found.next(), found.next()) {
            (None, _) => Err(SymbolError::Unknown),
            (Some((_, range)), None) => Ok(range.clone()),
            (Some(_), Some(_)) => Err(SymbolError::Ambiguous),
        }
    }

    fn write_text(&self, patches: &[Patch]) -> Result<(), WriteTextError> {
        let alias = Alias::open().map_err(|_| WriteTextError { index: 0 })?;
        for (index, patch) in patches.iter().enumerate() {
            alias
                .write(patch.address, patch.bytes())
                .map_err(|_| WriteTextError { index })?;
        }
        Ok(())
    }

    fn sync_cores(&self) {
        quiesce::serialise();
        quiesce::outside_traps(self.handshake_signal);
    }

    fn grace_period(&self) {
        quiesce::serialise();
        quiesce::outside(self.handshake_signal, self.slots.range());
    }
}
