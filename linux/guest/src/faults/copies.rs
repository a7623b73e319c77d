//! A probe on every instruction of the routines that copy from and to user space, while they succeed, bring memory in, and fail.

use std::arch::asm;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use dprobes::wire::{ProbeStatus, Reason};
use libtest_mimic::Failed;
use rustix::mm::MprotectFlags;
use rustix::thread::gettid;

use super::area::{Area, PAGE};
use crate::device::Device;
use crate::machine::{Module, Symbols};
use crate::{Outcome, ensure, program};

/// Those of Linux 6.1; which of the first ones is used depends on the CPU.
const ROUTINES: &[&str] = &[
    "copy_user_enhanced_fast_string",
    "copy_user_generic_string",
    "copy_user_generic_unrolled",
    ".Lcopy_user_handle_tail",
    "copy_user_short_string",
    "__copy_user_nocache",
    "_copy_from_user",
    "_copy_to_user",
    "_copy_from_iter",
    "_copy_to_iter",
    "copy_page_from_iter_atomic",
    "fault_in_readable",
    "clear_user_erms",
    "clear_user_rep_good",
    "clear_user_original",
    "__get_user_1",
    "__get_user_2",
    "__get_user_4",
    "__get_user_8",
    "__get_user_nocheck_4",
    "__get_user_nocheck_8",
    "__put_user_1",
    "__put_user_2",
    "__put_user_4",
    "__put_user_8",
    "__put_user_nocheck_4",
    "__put_user_nocheck_8",
    "strncpy_from_user",
    "strnlen_user",
    "strndup_user",
    "futex_wake_op",
    "futex_get_value_locked",
    "futex_cmpxchg_value_locked",
    "futex_lock_pi_atomic",
    "fault_in_user_writeable",
];

/// A system call: whatever memory it is given, the kernel copes.
fn call(number: u64, arguments: [u64; 6]) -> i64 {
    let result;
    // SAFETY: the calls below write to an `Area` alone, which nothing refers to, and change nothing else of this process but what they return.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0], in("rsi") arguments[1], in("rdx") arguments[2],
            in("r10") arguments[3], in("r8") arguments[4], in("r9") arguments[5],
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

mod number {
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const OPEN: u64 = 2;
    pub const CLOSE: u64 = 3;
    pub const LSEEK: u64 = 8;
    pub const IOCTL: u64 = 16;
    pub const READV: u64 = 19;
    pub const PIPE: u64 = 22;
    pub const GETCWD: u64 = 79;
    pub const PRCTL: u64 = 157;
    pub const FUTEX: u64 = 202;
    pub const GETCPU: u64 = 309;
    pub const MEMFD_CREATE: u64 = 319;
    pub const GET_ROBUST_LIST: u64 = 274;
}

/// How the memory is that a call is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    There,
    Dropped,
    HalfThere,
    NotAccessible,
    NotMapped,
}

const STATES: [State; 5] = [
    State::There,
    State::Dropped,
    State::HalfThere,
    State::NotAccessible,
    State::NotMapped,
];

/// Files that the calls use.
struct Files {
    zero: i64,
    file: i64,
}

/// One thing that user space asks of the kernel, with memory at an address whose page ends 64 bytes later.
struct Request {
    name: &'static str,
    /// Does the kernel try without paging in first, and then once more? What is carried out depends on where the page is.
    tries_twice: bool,
    run: fn(&Files, u64) -> Vec<i64>,
}

const fn once(name: &'static str, run: fn(&Files, u64) -> Vec<i64>) -> Request {
    Request {
        name,
        tries_twice: false,
        run,
    }
}

const fn twice(name: &'static str, run: fn(&Files, u64) -> Vec<i64>) -> Request {
    Request {
        name,
        tries_twice: true,
        run,
    }
}

fn pipe() -> [u64; 2] {
    let mut ends = [0u32; 2];
    let address = ends.as_mut_ptr().expose_provenance() as u64;
    call(number::PIPE, [address, 0, 0, 0, 0, 0]);
    ends.map(u64::from)
}

fn close(files: impl IntoIterator<Item = u64>) {
    for file in files {
        call(number::CLOSE, [file, 0, 0, 0, 0, 0]);
    }
}

/// Writes to a pipe from one address, reads it to another.
fn through_a_pipe(from: u64, to: u64, length: u64) -> Vec<i64> {
    let [reader, writer] = pipe();
    let written = call(number::WRITE, [writer, from, length, 0, 0, 0]);
    // What is not there is not waited for.
    close([writer]);
    let read = call(number::READ, [reader, to, length, 0, 0, 0]);
    close([reader]);
    vec![written, read]
}

const FIONBIO: u64 = 0x5421;
const FIONREAD: u64 = 0x541b;
const FUTEX_LOCK_PI: u64 = 6;
const FUTEX_UNLOCK_PI: u64 = 7;
const FUTEX_WAKE_OP: u64 = 5;
const FUTEX_CMP_REQUEUE: u64 = 4;
const PR_GET_PDEATHSIG: u64 = 2;
const PR_GET_TID_ADDRESS: u64 = 40;

const REQUESTS: &[Request] = &[
    once("pipe", |_, at| through_a_pipe(at, at, 200)),
    once("a page through a pipe", |_, at| {
        through_a_pipe(at - 1000, at - 999, PAGE as u64)
    }),
    once("zeros", |files, at| {
        vec![call(number::READ, [files.zero as u64, at + 3, 150, 0, 0, 0])]
    }),
    once("a number from the kernel", |_, at| {
        let [reader, writer] = pipe();
        let result = call(number::IOCTL, [reader, FIONREAD, at + 62, 0, 0, 0]);
        close([reader, writer]);
        vec![result]
    }),
    once("a number to the kernel", |_, at| {
        let [reader, writer] = pipe();
        let result = call(number::IOCTL, [reader, FIONBIO, at + 61, 0, 0, 0]);
        close([reader, writer]);
        vec![result]
    }),
    once("numbers", |_, at| {
        vec![
            call(number::PRCTL, [PR_GET_PDEATHSIG, at + 62, 0, 0, 0, 0]),
            call(number::PRCTL, [PR_GET_TID_ADDRESS, at + 60, 0, 0, 0, 0]),
            call(number::GETCPU, [at + 62, 0, 0, 0, 0, 0]).min(0),
            call(number::GET_ROBUST_LIST, [0, at + 60, at + 80, 0, 0, 0]),
        ]
    }),
    once("a path", |_, at| vec![call(number::OPEN, [at + 1, 0, 0, 0, 0, 0])]),
    once("a string", |_, at| {
        let memory = call(number::MEMFD_CREATE, [at + 5, 0, 0, 0, 0, 0]);
        close([memory as u64]);
        vec![memory.min(0)]
    }),
    once("a vector", |files, at| {
        vec![call(number::READV, [files.zero as u64, at + 56, 1, 0, 0, 0])]
    }),
    once("a folder", |_, at| {
        vec![call(number::GETCWD, [at + 63, 100, 0, 0, 0, 0])]
    }),
    twice("a file", |files, at| {
        call(number::LSEEK, [files.file as u64, 0, 0, 0, 0, 0]);
        vec![call(number::WRITE, [files.file as u64, at + 2, 300, 0, 0, 0])]
    }),
    twice("a futex", |_, at| {
        let second = at + 64;
        // Add 1 to the second word; then wake on both, if what was there is 0.
        let add = 1 << 28 | 1 << 12;
        vec![
            call(number::FUTEX, [FUTEX_WAKE_OP, at, 1, 1, second, add].swapped()),
            call(number::FUTEX, [FUTEX_CMP_REQUEUE, second, 1, 1, at, 1].swapped()),
            call(number::FUTEX, [FUTEX_LOCK_PI, second + 8, 0, 0, 0, 0].swapped()),
            call(number::FUTEX, [FUTEX_UNLOCK_PI, second + 8, 0, 0, 0, 0].swapped()),
        ]
    }),
];

/// FUTEX's operation is its second argument.
trait Swapped {
    fn swapped(self) -> Self;
}

impl Swapped for [u64; 6] {
    fn swapped(mut self) -> Self {
        self.swap(0, 1);
        self
    }
}

/// What a request returned, and what is in the memory afterwards.
type Ending = (Vec<i64>, u64);

const EFAULT: i64 = -14;

/// Runs one request with memory in one state.
fn run(files: &Files, request: &Request, state: State) -> io::Result<Ending> {
    let area = Area::of_file(fs::File::open(PATTERN)?)?;
    match state {
        State::There => area.touch(),
        // Never touched: nothing is mapped yet.
        State::Dropped | State::NotMapped => {}
        State::HalfThere => {
            area.touch();
            area.protect(2, MprotectFlags::empty())?;
        }
        State::NotAccessible => {
            area.protect(1, MprotectFlags::empty())?;
            area.protect(2, MprotectFlags::empty())?;
        }
    }
    let at = match state {
        // The last bytes of the first page of every address space.
        State::NotMapped => PAGE as u64 - 64,
        _ => area.page(2) - 64,
    };
    let results = (request.run)(files, at);
    let all = MprotectFlags::READ | MprotectFlags::WRITE;
    area.protect(1, all)?;
    area.protect(2, all)?;
    Ok((results, area.sum()))
}

const PATTERN: &str = "/tmp/pattern";

/// A thread that runs requests when it is asked to, and nothing else: what it leaves in the rings is known.
struct Worker {
    tid: i32,
    orders: Sender<(usize, State)>,
    results: Receiver<io::Result<Ending>>,
}

impl Worker {
    fn start() -> Result<Self, Failed> {
        let (orders, to_do) = channel::<(usize, State)>();
        let (done, results) = channel();
        let (say, tid) = channel();
        thread::spawn(move || {
            say.send(gettid().as_raw_nonzero().get()).expect("it is waited for");
            let open = |path: &[u8], flags| {
                call(
                    number::OPEN,
                    [path.as_ptr().expose_provenance() as u64, flags, 0o600, 0, 0, 0],
                )
            };
            let files = Files {
                zero: open(b"/dev/zero\0", 0),
                file: open(b"/tmp/written\0", 0o102),
            };
            for (request, state) in to_do {
                if done.send(run(&files, &REQUESTS[request], state)).is_err() {
                    return;
                }
            }
        });
        Ok(Worker {
            tid: tid.recv()?,
            orders,
            results,
        })
    }

    fn run(&self, request: usize, state: State) -> Result<Ending, Failed> {
        self.orders.send((request, state))?;
        Ok(self.results.recv()??)
    }
}

/// How often the worker completed each instruction in a request.
type Completions = BTreeMap<u64, u64>;

/// Where the instructions of a routine begin; nothing if this kernel does not have it.
fn instructions(device: &Device, symbols: &Symbols, name: &str) -> Result<Vec<u64>, Failed> {
    let Some(Range { start: mut at, end }) = symbols.function(name) else {
        return Ok(Vec::new());
    };
    let mut begins = Vec::new();
    while at < end {
        begins.push(at);
        // The refusal of what is behind the first byte of an instruction says where the next one begins.
        at = match device.insert(&program::at(1, &[at + 1], program::COUNT)) {
            Err(refused) if refused.reason() == Reason::NotBoundary => refused.reply.facts[1],
            Err(_) => at + 1,
            Ok(()) => {
                device.remove("kernel", 1)?;
                at + 1
            }
        };
    }
    Ok(begins)
}

/// Probes every instruction of these that can be probed, as one program, and says which those are.
fn probe_all(device: &Device, mut places: Vec<u64>, tid: i32) -> Result<Vec<u64>, Failed> {
    let ours = format!("push tid\npush {tid}\nsub\njz mine%\nabort\nmine%: push r, rip\nlog 1\nexit");
    loop {
        match device.insert(&program::at(1, &places, &ours)) {
            Ok(()) => return Ok(places),
            Err(refused) if refused.reply.point != 0 || refused.reply.address != 0 => {
                places.remove(refused.reply.point as usize);
            }
            Err(refused) => return Err(refused.into()),
        }
    }
}

/// Runs every request in every state with probes in place, compares with how it was without, and says how many probed instructions were completed.
fn check(device: &Device, worker: &Worker, bare: &BTreeMap<(usize, State), Ending>) -> Result<u64, Failed> {
    let mut total = 0;
    for (index, request) in REQUESTS.iter().enumerate() {
        let mut there = Completions::new();
        for state in STATES {
            let probed = worker.run(index, state)?;
            let mut completions = Completions::new();
            for (header, _) in device.records()? {
                *completions.entry(header.address).or_default() += 1;
            }
            total += completions.values().sum::<u64>();
            let what = format!("{}, {state:?}", request.name);
            let bare = &bare[&(index, state)];
            ensure!(probed == *bare, "{what}: bare {bare:x?}, probed {probed:x?}");
            match state {
                State::There => there = completions,
                // Paging in is nothing that the program notices: each instruction was completed as often.
                State::Dropped if !request.tries_twice => ensure!(
                    completions == there,
                    "{what}: completed {completions:x?}\nwith the memory there: {there:x?}"
                ),
                _ => {}
            }
        }
    }
    Ok(total)
}

pub fn copies_from_and_to_user_space() -> Outcome {
    // Zeros end the strings and make the futexes free.
    let mut pattern = Vec::from_iter((0..4 * PAGE).map(|at| b'a' + (at % 23) as u8));
    pattern[2 * PAGE - 64..2 * PAGE - 60].fill(0);
    pattern[2 * PAGE - 8..2 * PAGE + 40].fill(0);
    fs::write(PATTERN, &pattern)?;
    let worker = Worker::start()?;
    let mut bare = BTreeMap::new();
    for (index, request) in REQUESTS.iter().enumerate() {
        for state in STATES {
            let first = worker.run(index, state)?;
            let again = worker.run(index, state)?;
            ensure!(
                again == first,
                "{}, {state:?}: {first:x?}, then {again:x?}",
                request.name
            );
            bare.insert((index, state), first);
        }
    }
    let of = |wanted: State| {
        bare.iter()
            .filter(move |((_, state), _)| *state == wanted)
            .map(|(_, (results, _))| results)
    };
    ensure!(of(State::There).flatten().all(|result| *result != EFAULT), "{bare:x?}");
    ensure!(
        of(State::NotMapped).all(|results| results.contains(&EFAULT)),
        "{bare:x?}"
    );

    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let symbols = Symbols::read()?;
    let mut routines = Vec::new();
    for name in ROUTINES {
        routines.push((name, instructions(&device, &symbols, name)?));
    }
    let all = Vec::from_iter(routines.iter().flat_map(|(_, places)| places.iter().copied()));
    let found = all.len();
    let armed = probe_all(&device, all, worker.tid)?;
    let completed = check(&device, &worker, &bare);
    let probes: Vec<ProbeStatus> = device.query()?;
    device.remove_all()?;
    let completed = completed?;
    let lost: u64 = probes.iter().map(|probe| probe.lost + probe.late).sum();
    ensure!(lost == 0, "{lost} lost");
    let some = |of: fn(&ProbeStatus) -> u64, places: &[u64]| {
        let of_routine = probes.iter().filter(|probe| places.contains(&probe.address));
        of_routine.filter(|probe| of(probe) > 0).count()
    };
    for (name, places) in &routines {
        let (fired, faulted) = (some(|probe| probe.hits, places), some(|probe| probe.faulted, places));
        println!(
            "    {name}: {} instructions, {fired} fired, {faulted} faulted",
            places.len()
        );
    }
    let (fired, faulted) = (some(|probe| probe.hits, &armed), some(|probe| probe.faulted, &armed));
    let faults: u64 = probes.iter().map(|probe| probe.faulted).sum();
    println!(
        "    {found} instructions, {} probed, {fired} fired, {faulted} of them faulted, {faults} times; \
         the requests completed {completed}",
        armed.len()
    );
    ensure!(
        armed.len() * 100 >= found * 95,
        "{} of {found} can be probed",
        armed.len()
    );
    ensure!(fired > 200 && faulted > 10, "{fired} fired, {faulted} faulted");
    Ok(())
}
