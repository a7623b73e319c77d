//! Knowing that every thread has gone past a point.
//!
//! A signal is sent to every thread of the process, and each answers from its handler where it was interrupted. The signal is blocked
//! in trap handlers and during single steps, and the kernel delivers a pending SIGTRAP before it: so that an answer proves
//! that the thread is in no trap, not even in one that the kernel has not delivered yet.

use std::fs;
use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use libc::{c_int, c_long, c_void, pid_t, siginfo_t, ucontext_t};

use crate::context;
use crate::signal::errno::Saved;

/// How many threads are asked at once.
const ASKED_AT_ONCE: usize = 256;

/// One thread's answer.
struct Answer {
    rip: AtomicU64,
    /// The round it answers.
    round: AtomicU64,
}

static ANSWERS: [Answer; ASKED_AT_ONCE] = [const {
    Answer {
        rip: AtomicU64::new(0),
        round: AtomicU64::new(0),
    }
}; ASKED_AT_ONCE];

/// Counts answers: the asker sleeps on it.
static ANSWERED: AtomicU32 = AtomicU32::new(0);

/// One asker at a time; the value is the last round.
static ROUND: Mutex<u64> = Mutex::new(0);

/// In the signal's value, below the round.
const INDEX_BITS: u32 = 16;

/// The handler of the signal. All signals are blocked.
pub(crate) unsafe extern "C" fn answer(_: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let _errno = Saved::new();
    // SAFETY: the kernel passes both to a handler with SA_SIGINFO.
    let (info, context) = unsafe { (&*info, &*context.cast::<ucontext_t>()) };
    // SAFETY: the call has no preconditions.
    let pid = unsafe { libc::getpid() };
    // SAFETY: a queued signal has a sender and a value; both are read from a `siginfo_t` of that kind only.
    if info.si_code != libc::SI_QUEUE || unsafe { info.si_pid() } != pid {
        return;
    }
    // SAFETY: as above.
    let value = unsafe { info.si_value() }.sival_ptr as u64;
    let (round, index) = (value >> INDEX_BITS, value & ((1 << INDEX_BITS) - 1));
    let Some(answer) = ANSWERS.get(index as usize) else {
        return;
    };
    answer
        .rip
        .store(context::get(context, libc::REG_RIP), Ordering::Relaxed);
    answer.round.store(round, Ordering::Release);
    ANSWERED.fetch_add(1, Ordering::Release);
    // SAFETY: wakes who waits on a static variable; it is allowed in a signal handler.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            ANSWERED.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        );
    }
}

/// Waits until every other thread has been seen outside a trap.
pub(crate) fn outside_traps(signal: c_int) {
    outside(signal, 0..0);
}

/// Waits until every other thread has been seen outside a trap and outside `area`.
pub(crate) fn outside(signal: c_int, area: Range<u64>) {
    let mut round = ROUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: the calls have no preconditions.
    let (pid, own) = unsafe { (libc::getpid(), libc::gettid()) };
    let mut seen: Vec<pid_t> = vec![own];
    loop {
        // A thread that was created meanwhile has not run old text; but reading the folder while threads end can miss one. So
        // that it is read until it shows nobody new.
        let waiting: Vec<pid_t> = threads().into_iter().filter(|tid| !seen.contains(tid)).collect();
        if waiting.is_empty() {
            return;
        }
        for some in waiting.chunks(ASKED_AT_ONCE) {
            *round += 1;
            for tid in ask(signal, pid, some, *round, &area) {
                seen.push(tid);
            }
        }
    }
}

/// Asks threads, and returns those that were outside, or have ended.
fn ask(signal: c_int, pid: pid_t, threads: &[pid_t], round: u64, area: &Range<u64>) -> Vec<pid_t> {
    let mut open: Vec<(usize, pid_t)> = Vec::with_capacity(threads.len());
    let mut outside = Vec::with_capacity(threads.len());
    for (index, tid) in threads.iter().copied().enumerate() {
        if send(signal, pid, tid, round << INDEX_BITS | index as u64) {
            open.push((index, tid));
        } else {
            outside.push(tid);
        }
    }
    loop {
        let before = ANSWERED.load(Ordering::Acquire);
        open.retain(|(index, tid)| {
            let Some(answer) = ANSWERS.get(*index) else {
                return false;
            };
            if answer.round.load(Ordering::Acquire) != round {
                return true;
            }
            if !area.contains(&answer.rip.load(Ordering::Relaxed)) {
                outside.push(*tid);
            }
            false
        });
        if open.is_empty() {
            return outside;
        }
        if !wait_for_answers(before) {
            open.retain(|(_, tid)| {
                let alive = is_alive(*tid);
                if !alive {
                    outside.push(*tid);
                }
                alive
            });
        }
    }
}

/// Waits until more have answered than `before`; false when that has not happened for a while.
fn wait_for_answers(before: u32) -> bool {
    const PATIENCE: Duration = Duration::from_millis(20);
    let patience = libc::timespec {
        tv_sec: 0,
        tv_nsec: PATIENCE.as_nanos() as c_long,
    };
    // SAFETY: waits on a static variable, for a time that lives as long as the call.
    let woken = unsafe {
        libc::syscall(
            libc::SYS_futex,
            ANSWERED.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            before,
            &raw const patience,
        )
    };
    woken == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ETIMEDOUT)
}

/// Sends the signal with a value; false when there is no such thread any more.
fn send(signal: c_int, pid: pid_t, tid: pid_t, value: u64) -> bool {
    /// The kernel's `siginfo_t` for a queued signal (include/uapi/asm-generic/siginfo.h, `_rt`).
    #[repr(C)]
    struct Queued {
        signal: c_int,
        errno: c_int,
        code: c_int,
        padding: c_int,
        pid: pid_t,
        uid: libc::uid_t,
        value: u64,
        rest: [u64; 12],
    }
    const _: () = assert!(size_of::<Queued>() == size_of::<siginfo_t>());
    loop {
        let info = Queued {
            signal,
            errno: 0,
            code: libc::SI_QUEUE,
            padding: 0,
            pid,
            // SAFETY: the call has no preconditions.
            uid: unsafe { libc::getuid() },
            value,
            rest: [0; 12],
        };
        // SAFETY: the structure is what the call expects.
        if unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, signal, &raw const info) } == 0 {
            return true;
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EAGAIN) {
            return false;
        }
        // The limit of queued signals is reached: some must be taken first.
        std::thread::yield_now();
    }
}

/// The threads of this process.
fn threads() -> Vec<pid_t> {
    let Ok(folder) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Is this a thread that can still take a signal?
fn is_alive(tid: pid_t) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/self/task/{tid}/stat")) else {
        return false;
    };
    // The name, in parentheses, may contain anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// `membarrier` commands (include/uapi/linux/membarrier.h).
mod membarrier {
    pub(super) const PRIVATE_EXPEDITED_SYNC_CORE: libc::c_int = 1 << 5;
    pub(super) const REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: libc::c_int = 1 << 6;
}

/// Announces that [`serialise`] will be used.
pub(crate) fn register() -> io::Result<()> {
    // SAFETY: the call has no preconditions.
    match unsafe {
        libc::syscall(
            libc::SYS_membarrier,
            membarrier::REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
            0,
            0,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns when every running thread has executed a serialising instruction; one that does not run will before it does.
pub(crate) fn serialise() {
    // SAFETY: the call has no preconditions.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, membarrier::PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) };
    assert_eq!(done, 0, "membarrier was registered: {}", io::Error::last_os_error());
}
