//! Threads that are stopped by ptrace, so that their registers can be read, and go on as if nothing had happened.
//!
//! They are seized, not attached to, so that no signal is made up; and a stop is waited for that is none of a signal's: one that was on its way is delivered first. A system call
//! that is interrupted is restarted by the kernel, as after a SIGSTOP (signal(7) says which it does not restart).

use std::io;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::held::Registers;

/// How long a thread has to stop: one that waits for a device does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_micros(200);

/// The kernel's largest set of registers, with all of AMX, has 11 KiB.
const REGISTERS_MAX: usize = 64 << 10;

/// Types of notes with registers (elf.h).
pub const GENERAL: u32 = 1;
pub const FLOATING: u32 = 2;
pub const EXTENDED: u32 = 0x202;

/// Why threads cannot be stopped.
#[derive(Debug)]
pub enum StopError {
    /// There is no such process.
    NoProcess,
    /// It is this one.
    Itself,
    /// Somebody else traces the thread: this process.
    Traced { thread: i32, by: i32 },
    /// The kernel does not permit it.
    NotPermitted { thread: i32 },
    /// The thread does not stop in time.
    Stubborn { thread: i32 },
    /// Something else.
    Failed {
        thread: i32,
        doing: &'static str,
        error: io::Error,
    },
}

/// Threads that are stopped, as long as this is there.
#[derive(Debug)]
pub struct Stopped {
    threads: Vec<i32>,
}

impl Stopped {
    /// Stops the threads of a process, but for one that is held already.
    pub fn all_but(process: i32, held: Option<i32>) -> Result<Self, StopError> {
        if i64::from(process) == i64::from(std::process::id()) {
            return Err(StopError::Itself);
        }
        let mut stopped = Stopped { threads: Vec::new() };
        // Those that run may make others: until none is new.
        loop {
            let before = stopped.threads.len();
            for thread in threads_of(process)? {
                if Some(thread) != held && !stopped.threads.contains(&thread) && stop(process, thread)? {
                    stopped.threads.push(thread);
                }
            }
            if stopped.threads.len() == before {
                return Ok(stopped);
            }
        }
    }

    /// Their ids.
    pub fn threads(&self) -> &[i32] {
        &self.threads
    }

    /// What one has in its registers. Which sets there are is the CPU's business, but for the general ones.
    pub fn registers(&self, thread: i32) -> Result<Registers, StopError> {
        let mut registers = Registers::new();
        for kind in [GENERAL, FLOATING, EXTENDED] {
            match register_set(thread, kind) {
                Ok(bytes) => registers.push((kind, bytes)),
                Err(error) if kind == GENERAL => {
                    return Err(match error.raw_os_error() {
                        Some(libc::ESRCH) => StopError::NoProcess,
                        _ => failed(thread, "reading its registers", error),
                    });
                }
                Err(_) => {}
            }
        }
        Ok(registers)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for &thread in &self.threads {
            // One that has been killed meanwhile is waited for, so that its parent can be told.
            if request(libc::PTRACE_DETACH, thread, 0, 0).is_err() {
                let _ = wait(thread);
            }
        }
    }
}

fn failed(thread: i32, doing: &'static str, error: io::Error) -> StopError {
    StopError::Failed { thread, doing, error }
}

fn threads_of(process: i32) -> Result<Vec<i32>, StopError> {
    let folder = std::fs::read_dir(format!("/proc/{process}/task")).map_err(|_| StopError::NoProcess)?;
    Ok(folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

/// Stops a thread; `false`: it has ended.
fn stop(process: i32, thread: i32) -> Result<bool, StopError> {
    match request(libc::PTRACE_SEIZE, thread, 0, 0) {
        Ok(()) => {}
        Err(error) => {
            return match error.raw_os_error() {
                Some(libc::ESRCH) => Ok(false),
                Some(libc::EPERM) => why_not(process, thread),
                _ => Err(failed(thread, "tracing it", error)),
            };
        }
    }
    let stops = request(libc::PTRACE_INTERRUPT, thread, 0, 0);
    let stopped = match stops {
        Ok(()) => wait_for_stop(thread),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(error) => Err(failed(thread, "interrupting it", error)),
    };
    if stopped.is_err() {
        // It is not among those that are detached when this ends. One that runs cannot be; the kernel does it when this process ends.
        let _ = request(libc::PTRACE_DETACH, thread, 0, 0);
    }
    stopped
}

/// Why a thread cannot be traced. One that has ended, and nobody has asked for, needs not to be.
fn why_not(process: i32, thread: i32) -> Result<bool, StopError> {
    let status = std::fs::read_to_string(PathBuf::from(format!("/proc/{process}/task/{thread}/status")));
    let Ok(status) = status else { return Ok(false) };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("State:").is_some_and(|state| state.starts_with(['Z', 'X'])) {
        return Ok(false);
    }
    match field("TracerPid:").and_then(|by| by.parse().ok()) {
        Some(by) if by != 0 => Err(StopError::Traced { thread, by }),
        _ => Err(StopError::NotPermitted { thread }),
    }
}

/// Waits for the stop that was asked for; `false`: the thread has ended instead.
fn wait_for_stop(thread: i32) -> Result<bool, StopError> {
    let begun = Instant::now();
    loop {
        let status = wait(thread).map_err(|error| failed(thread, "waiting for it", error))?;
        match status {
            None if begun.elapsed() > PATIENCE => return Err(StopError::Stubborn { thread }),
            None => sleep(INTERVAL),
            Some(status) if !libc::WIFSTOPPED(status) => return Ok(false),
            Some(status) if status >> 16 == libc::PTRACE_EVENT_STOP => return Ok(true),
            // A signal was there first, and gets where it was going. The stop is still to come.
            Some(status) => match request(libc::PTRACE_CONT, thread, 0, libc::WSTOPSIG(status) as usize) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(failed(thread, "delivering its signal", error));
                }
                _ => {}
            },
        }
    }
}

/// What has become of a traced thread, if that is something new.
fn wait(thread: i32) -> io::Result<Option<i32>> {
    let mut status = 0;
    // SAFETY: the kernel writes the status, which is ours, and nothing else.
    let done = unsafe { libc::waitpid(thread, &raw mut status, libc::WNOHANG | libc::__WALL) };
    match done {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(Some(status)),
    }
}

/// A request that makes the kernel touch no memory of this process.
fn request(request: libc::c_uint, thread: i32, address: usize, data: usize) -> io::Result<()> {
    debug_assert!(matches!(
        request,
        libc::PTRACE_SEIZE | libc::PTRACE_INTERRUPT | libc::PTRACE_CONT | libc::PTRACE_DETACH
    ));
    // SAFETY: these requests take the last two as numbers.
    match unsafe { libc::ptrace(request, thread, address, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn register_set(thread: i32, kind: u32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; REGISTERS_MAX];
    let mut vector = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel writes to no more than the vector's bytes, which are ours, and how many it has written to the vector.
    let done = unsafe { libc::ptrace(libc::PTRACE_GETREGSET, thread, kind as usize, &raw mut vector) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    bytes.truncate(vector.iov_len);
    Ok(bytes)
}
