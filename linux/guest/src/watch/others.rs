//! Other users of the debug registers: perf, and a debugger.

use std::fs::File;
use std::io::{self, Read};
use std::mem::offset_of;
use std::ops::Range;
use std::os::fd::{FromRawFd, RawFd};
use std::process::{Child, Command};

use crate::machine;

/// What perf_event_open(2) is told: its first version, which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    bp_addr: u64,
    bp_len: u64,
}

const PERF_TYPE_BREAKPOINT: u32 = 5;
const PERF_FLAG_PINNED: u64 = 1 << 2;
const HW_BREAKPOINT_W: u32 = 2;

/// Writes to a place, counted by perf on every CPU.
pub struct PerfWatch {
    counters: Vec<File>,
}

impl PerfWatch {
    /// Has perf count the writes to so many bytes at an address.
    pub fn on_all_cpus(address: u64, len: u64) -> io::Result<Self> {
        Self::on(0..machine::cpus(), address, len)
    }

    /// The same on one CPU.
    pub fn on_cpu(cpu: usize, address: u64, len: u64) -> io::Result<Self> {
        Self::on(cpu..cpu + 1, address, len)
    }

    fn on(cpus: Range<usize>, address: u64, len: u64) -> io::Result<Self> {
        let attr = PerfEventAttr {
            kind: PERF_TYPE_BREAKPOINT,
            size: size_of::<PerfEventAttr>() as u32,
            flags: PERF_FLAG_PINNED,
            bp_type: HW_BREAKPOINT_W,
            bp_addr: address,
            bp_len: len,
            ..PerfEventAttr::default()
        };
        let counters = cpus.map(|cpu| {
            // SAFETY: the kernel reads `size` bytes of the attributes; the other arguments are numbers: all processes, this CPU, no
            // group, closed in programs that are executed.
            let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, cpu, -1, 8) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: a descriptor that the kernel has just given out, to nobody else.
            Ok(unsafe { File::from_raw_fd(fd as RawFd) })
        });
        Ok(PerfWatch {
            counters: counters.collect::<io::Result<_>>()?,
        })
    }

    /// How many there were on all CPUs.
    pub fn count(&mut self) -> io::Result<u64> {
        let mut sum = 0;
        for counter in &mut self.counters {
            let mut count = [0; 8];
            counter.read_exact(&mut count)?;
            sum += u64::from_ne_bytes(count);
        }
        Ok(sum)
    }
}

/// A process that is traced by this one, and stopped, with a watchpoint as gdb sets it.
pub struct Debugger {
    child: Child,
}

impl Debugger {
    /// Starts a process and watches a word of it.
    pub fn watching() -> io::Result<Self> {
        /// DR7: the first register, for this task, four bytes that are written.
        const FIRST: u64 = 1 | 0b1101 << 16;
        let debugger = Debugger {
            child: Command::new("sleep").arg("1000").spawn()?,
        };
        let pid = debugger.child.id().cast_signed();
        let mut status = 0;
        // SAFETY: numbers only; the status may be written.
        let stopped = unsafe {
            libc::ptrace(libc::PTRACE_ATTACH, pid, 0, 0) == 0 && libc::waitpid(pid, &raw mut status, 0) == pid
        };
        if !stopped {
            return Err(io::Error::last_os_error());
        }
        let register = |number: usize| offset_of!(libc::user, u_debugreg) + number * 8;
        for (number, value) in [(0, 0x40_0000), (7, FIRST)] {
            // SAFETY: numbers only; it changes the traced process.
            if unsafe { libc::ptrace(libc::PTRACE_POKEUSER, pid, register(number), value) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(debugger)
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
