//! A probed instruction that faults: the process sees the fault of the original instruction, and each completion leaves one
//! record.

use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use hosted::CodeBuffer;
use libc::{SIGFPE, SIGILL, SIGSEGV, c_int, c_void, siginfo_t, ucontext_t};

use crate::support::{Session, address, instructions, point, session_with};
use crate::victims::*;

/// What the process's handler has seen last, and how often it was called.
static SEEN: Seen = Seen {
    calls: AtomicU64::new(0),
    signal: AtomicI32::new(0),
    rip: AtomicU64::new(0),
    address: AtomicU64::new(0),
    flags: AtomicU64::new(0),
};

struct Seen {
    calls: AtomicU64,
    signal: AtomicI32,
    rip: AtomicU64,
    address: AtomicU64,
    flags: AtomicU64,
}

impl Seen {
    fn get(&self) -> (u64, c_int, u64, u64) {
        let load = |value: &AtomicU64| value.load(Ordering::SeqCst);
        (
            load(&self.calls),
            self.signal.load(Ordering::SeqCst),
            load(&self.rip),
            load(&self.address),
        )
    }
}

/// Where the handler continues; 0: it makes the page at the fault's address accessible and tries again.
static CONTINUE_AT: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's, or what the host passes on.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<ucontext_t>()) };
    let registers = &mut context.uc_mcontext.gregs;
    // SAFETY: faults have an address.
    let fault = unsafe { info.si_addr() } as u64;
    SEEN.calls.fetch_add(1, Ordering::SeqCst);
    SEEN.signal.store(signal, Ordering::SeqCst);
    SEEN.rip
        .store(registers[libc::REG_RIP as usize] as u64, Ordering::SeqCst);
    SEEN.flags
        .store(registers[libc::REG_EFL as usize] as u64, Ordering::SeqCst);
    SEEN.address.store(fault, Ordering::SeqCst);
    match CONTINUE_AT.load(Ordering::SeqCst) {
        0 => {
            let page = (fault & !0xfff) as *mut c_void;
            // SAFETY: the tests make faults in pages of their own only. `mprotect` is a mere system call.
            let done = unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE) };
            if done != 0 {
                // SAFETY: ends the process, with the message that there is.
                unsafe { libc::abort() };
            }
        }
        address => registers[libc::REG_RIP as usize] = address as i64,
    }
}

/// The process's own handlers, which are there before the engine comes. Dropping this puts back what was before them.
struct Handlers(Vec<(c_int, libc::sigaction)>);

impl Handlers {
    fn install() -> Self {
        SEEN.calls.store(0, Ordering::SeqCst);
        CONTINUE_AT.store(0, Ordering::SeqCst);
        let install = |signal| {
            // SAFETY: zeros are a valid action, and the handler is made for this.
            unsafe {
                let mut action: libc::sigaction = mem::zeroed();
                let mut old: libc::sigaction = mem::zeroed();
                action.sa_sigaction = on_fault as unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
                action.sa_flags = libc::SA_SIGINFO;
                assert_eq!(libc::sigaction(signal, &raw const action, &raw mut old), 0);
                (signal, old)
            }
        };
        Handlers([SIGSEGV, SIGFPE, SIGILL, libc::SIGBUS].map(install).to_vec())
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        for (signal, old) in &self.0 {
            // SAFETY: what was there before.
            unsafe { libc::sigaction(*signal, old, ptr::null_mut()) };
        }
    }
}

fn session_and_handlers() -> (Session, Handlers) {
    let mut handlers = None;
    let session = session_with(|process| {
        handlers = Some(Handlers::install());
        process
    });
    (session, handlers.unwrap())
}

/// A page without access.
struct Page(*mut c_void);

impl Page {
    fn new() -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing.
        let page = unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED);
        Page(page)
    }

    fn address(&self) -> u64 {
        self.0 as u64
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: this one's mapping.
        unsafe { libc::munmap(self.0, 4096) };
    }
}

#[test]
fn a_load_faults_at_its_own_address_and_leaves_one_record() {
    let (session, _handlers) = session_and_handlers();
    let page = Page::new();
    let place = instructions(&session, address(victim_load as *const ()))[1];
    session.insert_text(1, &point(place, 1, "", "inc lv, a\npush r, rdi\nlog 1\nexit"));
    assert_eq!(victim_load(page.address() + 16), 1);
    assert_eq!(SEEN.get(), (1, SIGSEGV, place, page.address() + 16));
    let probe = session.only_probe();
    assert_eq!((probe.hits, probe.faulted), (1, 1));
    assert_eq!(session.variables(1, 1), [2], "the program ran for both attempts");
    let records = session.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].words(), [page.address() + 16]);
    // The page is there now.
    assert_eq!(victim_load(page.address()), 1);
    assert_eq!(session.records().len(), 1);
    assert_eq!(SEEN.get().0, 1);
}

#[test]
fn a_counting_probe_counts_completions_too() {
    let (session, _handlers) = session_and_handlers();
    let page = Page::new();
    let place = instructions(&session, address(victim_load as *const ()))[1];
    session.insert_text(1, &point(place, 1, "", "inc lv, a\nabort"));
    assert_eq!(victim_load(page.address() + 16), 1);
    let probe = session.only_probe();
    assert_eq!((probe.hits, probe.faulted, session.variables(1, 1)), (1, 1, vec![2]));
}

#[test]
fn logonfault_keeps_the_record_of_the_attempt() {
    let (session, _handlers) = session_and_handlers();
    let page = Page::new();
    let place = instructions(&session, address(victim_load as *const ()))[1];
    session.insert_text(
        1,
        &point(place, 1, "logonfault = yes", "inc lv, a\npush lv, a\nlog 1\nexit"),
    );
    assert_eq!(victim_load(page.address()), 1);
    let words: Vec<_> = session.records().iter().map(|record| record.words()[0]).collect();
    assert_eq!(words, [1, 2]);
}

#[test]
fn a_fault_does_not_use_up_max_hits() {
    let (session, _handlers) = session_and_handlers();
    let page = Page::new();
    let place = instructions(&session, address(victim_load as *const ()))[1];
    session.insert_text(1, &point(place, 1, "max_hits = 1", "push 1\nlog 1\nexit"));
    assert_eq!(victim_load(page.address()), 1);
    let probe = session.only_probe();
    assert_eq!((probe.hits, probe.faulted, probe.late), (1, 1, 0));
    assert_eq!(session.records().len(), 1);
}

/// The record of an earlier hit of the same thread, whose instruction has completed, is not the one to be discarded.
#[test]
fn a_fault_without_a_record_does_not_take_an_earlier_one() {
    let (session, _handlers) = session_and_handlers();
    let (page, value) = (Page::new(), 5_u64);
    let place = instructions(&session, address(victim_load as *const ()))[1];
    // Logs the first time only.
    let code = "push lv, a\ninc lv, a\njnz silent\nlog 1\nexit\nsilent: abort";
    session.insert_text(1, &point(place, 1, "", code));
    assert_eq!(victim_load(&raw const value as u64), 6);
    assert_eq!(victim_load(page.address()), 1);
    assert_eq!(SEEN.get().0, 1);
    assert_eq!(session.records().len(), 1);
}

#[test]
fn two_programs_at_a_faulting_instruction_keep_one_record_each() {
    let (session, _handlers) = session_and_handlers();
    let page = Page::new();
    let place = instructions(&session, address(victim_load as *const ()))[1];
    session.insert_text(1, &point(place, 1, "", "push 1\nlog 1\nexit"));
    session.insert_text(2, &point(place, 1, "", "push 2\nlog 1\nexit"));
    assert_eq!(victim_load(page.address()), 1);
    let words: Vec<_> = session.records().iter().map(|record| record.words()[0]).collect();
    assert_eq!(words, [1, 2]);
    for probe in session.status() {
        assert_eq!((probe.hits, probe.faulted), (1, 1));
    }
}

#[test]
fn a_division_by_zero_names_the_original_instruction() {
    let (session, _handlers) = session_and_handlers();
    let places = instructions(&session, address(victim_divide as *const ()));
    session.insert_text(1, &point(places[2], 1, "", "push r, rax\nlog 1\nexit"));
    assert_eq!(victim_divide(42, 6), 7);
    CONTINUE_AT.store(places[3], Ordering::SeqCst);
    assert_eq!(victim_divide(42, 0), 42);
    assert_eq!(SEEN.get(), (1, SIGFPE, places[2], places[2]));
    let probe = session.only_probe();
    assert_eq!((probe.hits, probe.faulted), (1, 1));
    assert_eq!(session.records().len(), 1, "of the division that completed");
}

#[test]
fn an_undefined_instruction_names_the_original() {
    let (session, _handlers) = session_and_handlers();
    let places = instructions(&session, address(victim_undefined as *const ()));
    session.insert_text(1, &point(places[1], 1, "", "exit"));
    CONTINUE_AT.store(places[2], Ordering::SeqCst);
    assert_eq!(victim_undefined(), 1);
    assert_eq!(SEEN.get(), (1, SIGILL, places[1], places[1]));
    assert!(session.records().is_empty());
}

/// The engine cannot read the target, and lets the CPU find out: in a single step, which the fault ends.
#[test]
fn what_raises_an_exception_by_itself_completes_by_that() {
    let (session, _handlers) = session_and_handlers();
    // mov eax, 7; ud2; ret
    let code = CodeBuffer::with(&[0xb8, 7, 0, 0, 0, 0x0f, 0x0b, 0xc3]).unwrap();
    let start = code.range().start;
    session.host().register_code("raises", start..start + 8);
    session.insert_text(1, &point(start + 5, 1, "", "inc lv, a\npush r, rip\nlog 1\nexit"));
    CONTINUE_AT.store(start + 7, Ordering::SeqCst);
    // SAFETY: the code is a function without arguments; the handler goes on behind the ud2.
    let run: extern "C" fn() -> u64 = unsafe { mem::transmute(start as *const ()) };
    assert_eq!(run(), 7);
    assert_eq!(SEEN.get(), (1, SIGILL, start + 5, start + 5));
    let status = session.status()[0];
    assert_eq!((status.hits, status.faulted, status.missed), (1, 0, 0));
    let records = session.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].words(), [start + 5]);
    // The code goes before the engine.
    session.remove_program(1);
}

#[test]
fn an_emulated_call_through_bad_memory_faults_as_the_original() {
    let (session, _handlers) = session_and_handlers();
    let page = Page::new();
    let places = instructions(&session, address(victim_call_through as *const ()));
    session.insert_text(1, &point(places[0], 1, "", "inc lv, a\nexit"));
    CONTINUE_AT.store(places[1], Ordering::SeqCst);
    victim_call_through(page.address() + 8);
    assert_eq!(SEEN.get(), (1, SIGSEGV, places[0], page.address() + 8));
    let tf = 1 << 8;
    assert_eq!(SEEN.flags.load(Ordering::SeqCst) & tf, 0, "the step is over");
    let probe = session.only_probe();
    assert_eq!((probe.hits, probe.faulted), (0, 1));
    assert!(session.records().is_empty());
    // Signals are as before.
    // SAFETY: zeros are a valid set, and the call only asks.
    unsafe {
        let mut mask: libc::sigset_t = mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut mask);
        assert_eq!(libc::sigismember(&raw const mask, libc::SIGUSR1), 0);
    }
}

#[test]
fn many_threads_fault_and_each_completion_leaves_one_record() {
    const TURNS: usize = 500;
    let (session, _handlers) = session_and_handlers();
    let place = address(victim_store as *const ());
    session.insert_text(1, &point(place, 1, "", "push r, rdi\nlog 1\nexit"));
    let mut expected: Vec<u64> = std::thread::scope(|scope| {
        let thread = |_| {
            scope.spawn(|| {
                let mut pages = Vec::new();
                for value in 0..TURNS as u64 {
                    let page = Page::new();
                    assert_eq!(victim_store(page.address(), value), value);
                    pages.push(page);
                }
                let addresses: Vec<u64> = pages.iter().map(Page::address).collect();
                addresses
            })
        };
        let threads: Vec<_> = (0..4).map(thread).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let probe = session.only_probe();
    let completions = 4 * TURNS as u64;
    assert_eq!(
        (probe.hits, probe.faulted, SEEN.get().0),
        (completions, completions, completions)
    );
    assert_eq!(probe.lost, 0);
    let mut stored: Vec<u64> = session.records().iter().map(|record| record.words()[0]).collect();
    expected.sort_unstable();
    stored.sort_unstable();
    assert_eq!(stored, expected);
}

/// A fault outside the slots is none of the engine's business.
#[test]
fn other_faults_reach_the_process() {
    let (session, _handlers) = session_and_handlers();
    let page = Page::new();
    let places = instructions(&session, address(victim_load as *const ()));
    session.insert_text(1, &point(places[0], 1, "", "exit"));
    assert_eq!(victim_load(page.address()), 1);
    assert_eq!(SEEN.get(), (1, SIGSEGV, places[1], page.address()));
}
