//! Returns of functions, as the engine sees them: calls that the host follows, and tells it of when they have returned. The host here is made up, and so
//! is its text, which nobody executes; what a real one does is tried on Linux.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dprobes::host::{
    BadAddress, CallWords, ExitTo, Function, Host, Patch, Prohibited, ReturnError, Task, TrapFrame, WriteTextError,
};
use dprobes::probe::{Engine, InsertError, InsertOptions, Insertion, PointError};
use dprobes::trap::Verdict;
use dprobes::wire::ProbeStatus;

const TEXT: u64 = 0x10_0000;
const SLOTS: u64 = 0x11_0000;
/// Each function has so many bytes.
const FUNCTION: u64 = 16;
const INT3: u8 = 0xcc;

/// What is in the functions, one after the other; the rest of each is `int3`.
const CODE: [&[u8]; 6] = [
    // mov eax, 1; ret
    &[0xb8, 1, 0, 0, 0, 0xc3],
    // endbr64; mov rax, [rdi]; ret
    &[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x8b, 0x07, 0xc3],
    // jmp to itself: it never returns
    &[0xeb, 0xfe],
    // a jump to the last, which jumps back: neither does
    &[0x90, 0xe9, 26, 0, 0, 0, 0x90],
    // jmp rax: it may
    &[0x90, 0xff, 0xe0],
    // back to the one that jumps here
    &[0x90, 0xe9, 0xda, 0xff, 0xff, 0xff],
];

/// What the host was asked to follow: the number and the words.
type Followed = Vec<(u64, CallWords)>;

struct Following {
    memory: Mutex<Vec<u8>>,
    followed: Mutex<Followed>,
    again: Mutex<Vec<u64>>,
    /// How many functions are followed.
    attached: AtomicUsize,
    /// Is there no room for another call?
    full: AtomicBool,
}

impl Default for Following {
    fn default() -> Self {
        let mut memory = vec![INT3; (SLOTS + 0x1000 - TEXT) as usize];
        for (start, code) in (0..).step_by(FUNCTION as usize).zip(CODE) {
            memory[start..start + code.len()].copy_from_slice(code);
        }
        Following {
            memory: Mutex::new(memory),
            followed: Mutex::default(),
            again: Mutex::default(),
            attached: AtomicUsize::new(0),
            full: AtomicBool::new(false),
        }
    }
}

impl Host for Following {
    fn cpu(&self) -> usize {
        0
    }
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
        let bad = BadAddress { addr: address };
        let start = usize::try_from(address.checked_sub(TEXT).ok_or(bad)?).unwrap();
        let memory = self.memory.lock().unwrap();
        buf.copy_from_slice(memory.get(start..start + buf.len()).ok_or(bad)?);
        Ok(())
    }
    fn write(&self, address: u64, _: &[u8]) -> Result<(), BadAddress> {
        Err(BadAddress { addr: address })
    }
    fn now(&self) -> u64 {
        0
    }
    fn task(&self) -> Task {
        Task::default()
    }
    fn user_registers(&self) -> Option<TrapFrame> {
        None
    }
    fn set_user_registers(&self, _: &TrapFrame) -> bool {
        false
    }
    fn msr(&self, _: u32) -> Option<u64> {
        None
    }
    fn writable(&self, _: u64) -> bool {
        false
    }
    fn kernel_stack(&self, _: &TrapFrame, _: &mut [u64]) -> Option<usize> {
        None
    }
    fn exit_to(&self, _: &ExitTo, _: &TrapFrame, _: &[u8]) -> bool {
        false
    }
    fn request_reap(&self) {}
    fn cpu_count(&self) -> usize {
        1
    }
    fn slot_area(&self) -> Range<u64> {
        SLOTS..SLOTS + 0x1000
    }
    fn probeable(&self, address: u64) -> Result<Function, Prohibited> {
        let start = address / FUNCTION * FUNCTION;
        (TEXT..TEXT + FUNCTION * CODE.len() as u64)
            .contains(&address)
            .then_some(Function {
                start,
                end: start + FUNCTION,
            })
            .ok_or(Prohibited::NotText)
    }
    fn module_base(&self, _: &[u8]) -> Option<u64> {
        None
    }
    fn write_text(&self, patches: &[Patch]) -> Result<(), WriteTextError> {
        let mut memory = self.memory.lock().unwrap();
        for patch in patches {
            let start = (patch.address - TEXT) as usize;
            memory[start..start + patch.bytes().len()].copy_from_slice(patch.bytes());
        }
        Ok(())
    }
    fn sync_cores(&self) {}
    fn grace_period(&self) {}

    fn follow_return(&self, number: u64, _: &TrapFrame, words: &CallWords) -> bool {
        let room = !self.full.load(Ordering::Relaxed);
        if room {
            self.followed.lock().unwrap().push((number, *words));
        }
        room
    }
    fn follow_again(&self, number: u64, _: &TrapFrame) {
        self.again.lock().unwrap().push(number);
    }
    fn attach_return(&self, _: Function) -> Result<(), ReturnError> {
        self.attached.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn detach_return(&self) {
        self.attached.fetch_sub(1, Ordering::Relaxed);
    }
}

const fn function(index: u64) -> u64 {
    TEXT + index * FUNCTION
}

fn assemble(text: &str) -> Vec<u8> {
    let assembled = rpn_asm::assemble("test.rpn", text, &rpn_asm::Options::default());
    assembled.unwrap_or_else(|error| panic!("{error}")).object
}

/// A program with probes, each with its place and its handler.
fn program(major: u16, probes: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("name = \"kernel\"; modtype = kernel; major = {major}; vars = count, sum\n");
    for (minor, (place, handler)) in probes.iter().enumerate() {
        text += &format!("address = {place}\nminor = {minor}\n{handler}\n");
    }
    assemble(&text)
}

fn at(index: u64) -> String {
    format!("{:#x}", function(index))
}

fn return_of(index: u64) -> String {
    format!("return({:#x})", function(index))
}

const COUNTS: &str = "inc lv, count; abort";
const KEEPS: &str = "push r, rdi; pop cv, 2; abort";
const ADDS: &str = "push cv, 2; push lv, sum; add; pop lv, sum; abort";

fn engine() -> Engine<Following> {
    Engine::new(Following::default()).unwrap()
}

/// A call begins, with an argument.
fn call(engine: &Engine<Following>, address: u64, argument: u64) -> TrapFrame {
    let mut frame = TrapFrame {
        rip: address + 1,
        rsp: 0x5000,
        rdi: argument,
        cs: 0x10,
        ..TrapFrame::default()
    };
    assert_eq!(engine.on_breakpoint(&mut frame), Verdict::Handled);
    frame
}

/// What was followed since this was asked last.
fn followed(engine: &Engine<Following>) -> Followed {
    std::mem::take(&mut engine.host().followed.lock().unwrap())
}

/// All of these calls return, the last first.
fn all_return(engine: &Engine<Following>, calls: Followed) {
    for (number, words) in calls.into_iter().rev() {
        let mut frame = TrapFrame {
            rip: TEXT,
            cs: 0x10,
            ..TrapFrame::default()
        };
        engine.on_return(number, &mut frame, &words);
    }
}

fn states(engine: &Engine<Following>) -> Vec<ProbeStatus> {
    let mut all = Vec::new();
    engine.query(&mut |status| all.push(*status));
    all
}

fn hits(engine: &Engine<Following>) -> Vec<(u64, u64)> {
    states(engine)
        .iter()
        .map(|status| (status.hits, status.unfollowed))
        .collect()
}

fn sum(engine: &Engine<Following>, major: u16) -> u64 {
    let mut locals = [0; 2];
    engine.locals(b"kernel", major, &mut locals).unwrap();
    locals[1]
}

#[test]
fn a_call_keeps_what_its_beginning_has_left() {
    let engine = engine();
    // In whatever order the program has them.
    let object = program(1, &[(&return_of(0), ADDS), (&at(0), KEEPS)]);
    engine.insert(&object).unwrap();
    // Others, with words of their own or without.
    engine.insert(&program(2, &[(&return_of(0), COUNTS)])).unwrap();
    engine
        .insert(&program(3, &[(&at(0), KEEPS), (&return_of(0), ADDS)]))
        .unwrap();
    for argument in [1, 10, 100] {
        call(&engine, function(0), argument);
    }
    let calls = followed(&engine);
    let kept: Vec<_> = calls.iter().map(|(_, words)| words[2]).collect();
    assert_eq!(kept, [1, 0, 1, 10, 0, 10, 100, 0, 100]);
    all_return(&engine, calls);
    assert_eq!((sum(&engine, 1), sum(&engine, 3)), (111, 111));
    assert_eq!(hits(&engine), [(3, 0); 5]);
    engine.remove_all().unwrap();
    assert_eq!(engine.host().attached.load(Ordering::Relaxed), 0);
}

#[test]
fn what_returns_late_is_nobodys() {
    let engine = engine();
    let object = program(1, &[(&return_of(0), COUNTS)]);
    engine.insert(&object).unwrap();
    call(&engine, function(0), 0);
    let calls = followed(&engine);
    engine.remove(b"kernel", 1, &mut |_| {}).unwrap();
    engine.insert(&object).unwrap();
    all_return(&engine, calls);
    assert_eq!(hits(&engine), [(0, 0)]);
}

#[test]
fn calls_for_which_there_is_no_room_are_counted() {
    let engine = engine();
    engine
        .insert(&program(1, &[(&at(0), KEEPS), (&return_of(0), ADDS)]))
        .unwrap();
    call(&engine, function(0), 1);
    engine.host().full.store(true, Ordering::Relaxed);
    call(&engine, function(0), 2);
    call(&engine, function(0), 3);
    all_return(&engine, followed(&engine));
    assert_eq!((hits(&engine), sum(&engine, 1)), (vec![(3, 0), (1, 2)], 1));
}

#[test]
fn one_that_is_sent_elsewhere_is_no_call() {
    let engine = engine();
    let elsewhere = format!("push {:#x}; pop r, rip; abort", TEXT + 5);
    engine
        .insert(&program(1, &[(&at(0), &elsewhere), (&return_of(0), COUNTS)]))
        .unwrap();
    assert_eq!(call(&engine, function(0), 0).rip, TEXT + 5);
    // With another stack it is one, of which nothing is known.
    engine.remove_all().unwrap();
    let stack = "push 0x6000; pop r, rsp; abort";
    engine
        .insert(&program(1, &[(&at(0), stack), (&return_of(0), COUNTS)]))
        .unwrap();
    call(&engine, function(0), 0);
    assert!(followed(&engine).is_empty());
    assert_eq!(hits(&engine), [(1, 0), (0, 1)]);
}

#[test]
fn limits_are_of_returns() {
    let engine = engine();
    let text = format!(
        "name = \"kernel\"; modtype = kernel; major = 1; vars = count\n\
         address = {}; minor = 0; pass_count = 1; max_hits = 2\n {COUNTS}\n",
        return_of(0)
    );
    engine.insert(&assemble(&text)).unwrap();
    for _ in 0..5 {
        call(&engine, function(0), 0);
    }
    all_return(&engine, followed(&engine));
    let [status] = states(&engine)[..] else { panic!() };
    assert_eq!((status.skipped, status.hits, status.late), (1, 2, 2));
    // Nobody wants to know of any more.
    call(&engine, function(0), 0);
    assert!(followed(&engine).is_empty());
}

#[test]
fn a_first_instruction_that_faults_is_no_second_call() {
    let engine = engine();
    engine
        .insert(&program(1, &[(&at(1), KEEPS), (&return_of(1), ADDS)]))
        .unwrap();
    let place = states(&engine)[0].address;
    assert_eq!(place, function(1) + 4, "behind the endbr64");
    let mut frame = call(&engine, place, 7);
    assert!(engine.on_fault(&mut frame));
    assert_eq!(frame.rip, place);
    let calls = followed(&engine);
    assert_eq!(*engine.host().again.lock().unwrap(), [calls[0].0]);
    let counts: Vec<_> = states(&engine)
        .iter()
        .map(|status| (status.hits, status.faulted))
        .collect();
    assert_eq!(counts, [(0, 1), (0, 0)]);
}

#[test]
fn a_program_takes_the_place_of_another() {
    let both = [(at(0), KEEPS), (return_of(0), ADDS)];
    let only = [[(at(0), COUNTS)], [(return_of(0), COUNTS)]];
    let object = |probes: &[(String, &str)]| {
        let probes: Vec<_> = probes
            .iter()
            .map(|(place, handler)| (place.as_str(), *handler))
            .collect();
        program(1, &probes)
    };
    for before in [&both[..], &only[0], &only[1]] {
        let engine = engine();
        engine.insert(&object(before)).unwrap();
        engine
            .insert_as(
                &object(&both),
                InsertOptions {
                    insertion: Insertion::Replace,
                    ..InsertOptions::default()
                },
                &mut |_| {},
            )
            .unwrap();
        call(&engine, function(0), 5);
        all_return(&engine, followed(&engine));
        assert_eq!((hits(&engine), sum(&engine, 1)), (vec![(1, 0); 2], 5), "{before:?}");
        engine.remove_all().unwrap();
        assert_eq!(engine.host().attached.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn what_cannot_return_is_refused() {
    let engine = engine();
    let refused = |place: &str| match engine.insert(&program(1, &[(place, COUNTS)])) {
        Err(InsertError::Point {
            error: PointError::Return(why),
            ..
        }) => why,
        other => panic!("{place}: {other:?}"),
    };
    assert_eq!(refused(&return_of(2)), ReturnError::NeverReturns);
    assert_eq!(refused(&return_of(3)), ReturnError::NeverReturns);
    assert_eq!(refused(&return_of(5)), ReturnError::NeverReturns);
    let inside = format!("return({:#x})", function(0) + 5);
    assert_eq!(refused(&inside), ReturnError::NotEntry);
    assert_eq!(engine.host().attached.load(Ordering::Relaxed), 0);
    engine.insert(&program(1, &[(&return_of(4), COUNTS)])).unwrap();
    // Variables of a call where there is none.
    let lonely = program(2, &[(&at(0), KEEPS), (&return_of(1), ADDS)]);
    assert!(matches!(
        engine.insert(&lonely),
        Err(InsertError::Point {
            point: 0,
            error: PointError::CallVariables,
            ..
        })
    ));
}
