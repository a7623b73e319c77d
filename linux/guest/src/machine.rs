//! The machine under test: its symbols, its modules, its CPUs.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::system::{delete_module, finit_module};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Where the kernel has a symbol.
///
/// # Panics
/// If it has none of this name.
pub fn symbol(name: &str) -> u64 {
    find_symbol(name).unwrap_or_else(|| panic!("the kernel has no symbol {name}"))
}

/// Where the kernel, or a module, has a symbol.
pub fn find_symbol(name: &str) -> Option<u64> {
    let list = fs::read_to_string("/proc/kallsyms").expect("/proc/kallsyms can be read");
    list.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let address = fields.next()?;
        (fields.nth(1)? == name).then(|| u64::from_str_radix(address, 16).expect("an address"))
    })
}

/// A loaded module. It is unloaded when this is dropped, and must then be unloadable.
pub struct Module {
    name: &'static str,
    loaded: bool,
}

impl Module {
    /// Loads a module with its parameters.
    pub fn load(name: &'static str, parameters: &str) -> io::Result<Self> {
        let folder = std::env::var_os("DPROBES_MODULES").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        let file = File::open(folder.join(format!("{name}.ko")))?;
        finit_module(&file, &CString::new(parameters)?, 0)?;
        Ok(Module { name, loaded: true })
    }

    /// Loads the module under test, with the parameters that `DPROBES_PARAMETERS` has.
    pub fn dprobes() -> io::Result<Self> {
        Self::load("dprobes", &std::env::var("DPROBES_PARAMETERS").unwrap_or_default())
    }

    /// Leaves it loaded, for it cannot be unloaded any more.
    pub fn leave(mut self) {
        self.loaded = false;
    }

    /// Unloads it now.
    pub fn unload(mut self) -> io::Result<()> {
        self.loaded = false;
        unload(self.name)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.loaded
            && let Err(error) = unload(self.name)
            && !thread::panicking()
        {
            panic!("{} cannot be unloaded: {error}", self.name);
        }
    }
}

/// Unloads a module. A file that was just closed, or an interrupt that holds a reference, may take a moment.
pub fn unload(name: &str) -> io::Result<()> {
    const O_NONBLOCK: i32 = 0o4000;
    let name = CString::new(name)?;
    let begun = Instant::now();
    loop {
        match delete_module(&name, O_NONBLOCK) {
            Err(Errno::AGAIN | Errno::BUSY) if begun.elapsed() < Duration::from_secs(2) => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return Ok(result?),
        }
    }
}

/// The target module: see linux/testmod/target.c.
pub struct Target {
    _module: Module,
}

impl Target {
    /// Loads it, with so many kernel threads that run its function all the time.
    pub fn load(threads: u32) -> io::Result<Self> {
        let module = Module::load("dprobes_target", &format!("threads={threads}"))?;
        Ok(Target { _module: module })
    }

    /// The address of the instruction that is executed once a round.
    pub fn middle(&self) -> u64 {
        let text = parameter("middle");
        u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("an address")
    }

    /// How many rounds were run since it was loaded.
    pub fn rounds(&self) -> u64 {
        parameter("rounds").parse().expect("a number")
    }

    /// Runs rounds in this thread.
    pub fn run(&self, rounds: u64) -> io::Result<()> {
        fs::write("/dev/dprobes_target", rounds.to_string())
    }
}

fn parameter(name: &str) -> String {
    let path = format!("/sys/module/dprobes_target/parameters/{name}");
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}"))
        .trim()
        .to_owned()
}

/// How many CPUs are on line.
pub fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Keeps this thread on one CPU.
pub fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("a thread may be pinned to a CPU that is on line");
}
