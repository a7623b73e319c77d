//! Probes in user space, as the engine sees them: places in files, whose hits a facility of the host delivers. The host here is made up; what a real
//! one does is tried on Linux.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dprobes::host::{
    BadAddress, ExitTo, FileError, FileId, Function, Host, Patch, Prohibited, Task, TrapFrame, WriteTextError,
};
use dprobes::probe::{Engine, InsertError, PointError};
use dprobes::wire::{ProbeStatus, State};

/// What the file has at every offset.
const BYTE: u8 = 0x90;
/// The length of the file.
const LENGTH: u64 = 0x1000;
/// What the facility does not take.
const REFUSED: u64 = 0x665;

/// What is attached: number, offset, and whether it is for returns, by the host's word for it.
type Attached = BTreeMap<u64, (u64, u64, bool)>;

#[derive(Default)]
struct Facility {
    attached: Mutex<Attached>,
    reap: AtomicBool,
    /// The cookie of the task that runs.
    task: AtomicU64,
}

impl Facility {
    /// The number by which the engine knows a place.
    fn number(&self, offset: u64, returns: bool) -> u64 {
        let attached = self.attached.lock().unwrap();
        let mut found = attached
            .values()
            .filter(|place| (place.1, place.2) == (offset, returns));
        let number = found.next().unwrap().0;
        assert!(found.next().is_none(), "{offset:#x} is attached once");
        number
    }

    fn count(&self) -> usize {
        self.attached.lock().unwrap().len()
    }
}

impl Host for Facility {
    fn cpu(&self) -> usize {
        0
    }
    fn read(&self, address: u64, _: &mut [u8]) -> Result<(), BadAddress> {
        Err(BadAddress { addr: address })
    }
    fn write(&self, address: u64, _: &[u8]) -> Result<(), BadAddress> {
        Err(BadAddress { addr: address })
    }
    fn now(&self) -> u64 {
        0
    }
    fn task(&self) -> Task {
        Task {
            cookie: self.task.load(Ordering::Relaxed),
            ..Task::default()
        }
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
    fn request_reap(&self) {
        self.reap.store(true, Ordering::Relaxed);
    }
    fn cpu_count(&self) -> usize {
        1
    }
    fn slot_area(&self) -> Range<u64> {
        0x10_0000..0x10_1000
    }
    fn probeable(&self, _: u64) -> Result<Function, Prohibited> {
        Err(Prohibited::NotText)
    }
    fn module_base(&self, _: &[u8]) -> Option<u64> {
        None
    }
    fn write_text(&self, patches: &[Patch]) -> Result<(), WriteTextError> {
        assert!(patches.is_empty(), "nothing of user space is in text");
        Ok(())
    }
    fn sync_cores(&self) {}
    fn grace_period(&self) {}

    fn user_file(&self, file: u64) -> Result<FileId, FileError> {
        let inode = file;
        (inode != 0)
            .then_some(FileId { device: 1, inode })
            .ok_or(FileError::NotMappable)
    }
    fn read_user_file(&self, _: u64, offset: u64, buf: &mut [u8]) -> Result<usize, FileError> {
        let len = usize::try_from(LENGTH.saturating_sub(offset)).unwrap().min(buf.len());
        buf[..len].fill(BYTE);
        Ok(len)
    }
    fn attach_user(&self, _: u64, offset: u64, number: u64, returns: bool) -> Result<u64, FileError> {
        if offset == REFUSED {
            return Err(FileError::Instruction);
        }
        let mut attached = self.attached.lock().unwrap();
        let word = attached.keys().last().map_or(1, |last| last + 1);
        attached.insert(word, (number, offset, returns));
        Ok(word)
    }
    fn detach_user(&self, words: &[u64]) {
        let mut attached = self.attached.lock().unwrap();
        for word in words {
            attached.remove(word).expect("it is attached");
        }
    }
}

/// A program with a probe on each of these places, which counts.
fn program(major: u16, places: &[&str], items: &str) -> Vec<u8> {
    let mut text = format!("name = \"/file\"; modtype = user; major = {major}; vars = count\n");
    for (minor, place) in places.iter().enumerate() {
        text += &format!("offset = {place}\nminor = {minor}\n{items}\n inc lv, count\n abort\n");
    }
    rpn_asm::assemble("test.rpn", &text, &rpn_asm::Options::default())
        .unwrap_or_else(|error| panic!("{error}"))
        .object
}

fn states(engine: &Engine<Facility>) -> Vec<ProbeStatus> {
    let mut all = Vec::new();
    engine.query(&mut |status| all.push(*status));
    all
}

fn engine() -> Engine<Facility> {
    Engine::new(Facility::default()).unwrap()
}

fn hit(engine: &Engine<Facility>, offset: u64, times: usize) {
    let number = engine.host().number(offset, false);
    for _ in 0..times {
        engine.on_user_hit(number, &mut TrapFrame::default());
    }
}

#[test]
fn programs_share_a_place_and_leave_it_one_by_one() {
    let engine = engine();
    engine.insert_for(&program(1, &["0x10", "0x20"], ""), Some(7)).unwrap();
    engine.insert_for(&program(2, &["0x20"], ""), Some(7)).unwrap();
    assert_eq!(engine.host().count(), 2);
    hit(&engine, 0x10, 3);
    hit(&engine, 0x20, 5);
    let hits: Vec<_> = states(&engine)
        .iter()
        .map(|status| (status.address, status.inode, status.hits))
        .collect();
    assert_eq!(hits, [(0x10, 7, 3), (0x20, 7, 5), (0x20, 7, 5)]);
    // The same place in another file is another place.
    engine.insert_for(&program(3, &["0x20"], ""), Some(8)).unwrap();
    assert_eq!(engine.host().count(), 3);
    engine.remove(b"/file", 3, &mut |_| {}).unwrap();

    let mut last = Vec::new();
    engine
        .remove(b"/file", 1, &mut |status| last.push(status.hits))
        .unwrap();
    assert_eq!((last, engine.host().count()), (vec![3, 5], 1));
    hit(&engine, 0x20, 1);
    engine.remove_all().unwrap();
    assert_eq!(engine.host().count(), 0);
}

#[test]
fn a_program_is_inserted_whole_or_not_at_all() {
    let engine = engine();
    let refused = engine.insert_for(&program(1, &["0x10", "0x665", "0x20"], ""), Some(7));
    assert_eq!(
        refused,
        Err(InsertError::Point {
            point: 1,
            address: REFUSED,
            error: PointError::File(FileError::Instruction)
        })
    );
    assert_eq!((engine.host().count(), states(&engine).len()), (0, 0));
    let point = |program: &[u8]| match engine.insert_for(program, Some(7)) {
        Err(InsertError::Point { error, .. }) => error,
        other => panic!("{other:?}"),
    };
    let of = |place: &str, items: &str| program(1, &[place], items);
    assert_eq!(point(&of("0x1000", "")), PointError::File(FileError::Outside));
    assert_eq!(point(&program(1, &["0x10", "0x10"], "")), PointError::Twice);
    assert_eq!(point(&of("main", "")), PointError::Unresolved);
    assert!(matches!(point(&of("0x10", "opcode = 0x55")), PointError::Opcode { .. }));
    // What is there is as long as the file.
    assert!(matches!(
        point(&of("0xfff", "opcode = 0x90, 0x90")),
        PointError::Opcode { .. }
    ));
    assert_eq!(
        engine.insert(&of("0x10", "")),
        Err(InsertError::File(FileError::NoFile))
    );
    assert_eq!(
        engine.insert_for(&of("0x10", ""), Some(0)),
        Err(InsertError::File(FileError::NotMappable))
    );
    assert_eq!(engine.host().count(), 0);
    engine.insert_for(&of("0x10", "opcode = 0x90"), Some(7)).unwrap();
    assert_eq!(engine.host().count(), 1);
}

#[test]
fn limits_are_those_of_every_probe() {
    let engine = engine();
    engine
        .insert_for(&program(1, &["0x10"], "pass_count = 2\nmax_hits = 3"), Some(7))
        .unwrap();
    let number = engine.host().number(0x10, false);
    hit(&engine, 0x10, 7);
    assert!(engine.host().reap.load(Ordering::Relaxed));
    engine.reap();
    assert_eq!(engine.host().count(), 0);
    // One that comes too late finds nobody.
    engine.on_user_hit(number, &mut TrapFrame::default());
    let [status] = states(&engine)[..] else { panic!() };
    assert_eq!((status.skipped, status.hits, status.late), (2, 3, 2));
    assert_eq!(State::from_code(status.state), Some(State::Exhausted));
    engine.remove(b"/file", 1, &mut |_| {}).unwrap();
}

#[test]
fn a_function_and_its_return_are_two_places() {
    let engine = engine();
    engine
        .insert_for(&program(1, &["0x10", "return(0x10)"], ""), Some(7))
        .unwrap();
    let (entry, back) = (engine.host().number(0x10, false), engine.host().number(0x10, true));
    for _ in 0..3 {
        engine.on_user_hit(entry, &mut TrapFrame::default());
    }
    engine.on_user_hit(back, &mut TrapFrame::default());
    engine.on_user_return_lost(back);
    engine.on_user_return_lost(back);
    let counts: Vec<_> = states(&engine)
        .iter()
        .map(|status| (status.hits, status.missed, status.unfollowed))
        .collect();
    assert_eq!(counts, [(3, 0, 0), (1, 0, 2)]);
    engine.on_user_return_lost(99);
    engine.remove_all().unwrap();
    assert_eq!(engine.host().count(), 0);
}

#[test]
fn each_call_has_variables_of_its_own() {
    let text = "name = \"/file\"; modtype = user; major = 1; vars = sum, empty\n\
        offset = 0x10; minor = 0\n push r, rdi; pop cv, 5; abort\n\
        offset = return(0x10); minor = 1\n\
        push cv, 5; jnz kept; inc lv, empty; kept: push lv, sum; push 10; mul; add; pop lv, sum; abort\n";
    let assemble = |text: &str| {
        let assembled = rpn_asm::assemble("test.rpn", text, &rpn_asm::Options::default());
        assembled.unwrap_or_else(|error| panic!("{error}")).object
    };
    let engine = engine();
    engine.insert_for(&assemble(text), Some(7)).unwrap();
    let (entry, back) = (engine.host().number(0x10, false), engine.host().number(0x10, true));
    // Linux's selector of 64-bit code in user mode.
    let frame = |rsp: u64, rdi: u64| TrapFrame {
        cs: 0x33,
        rsp,
        rdi,
        ..TrapFrame::default()
    };
    let run = |task| engine.host().task.store(task, Ordering::Relaxed);
    let begin = |rsp: u64, argument: u64| engine.on_user_hit(entry, &mut frame(rsp, argument));
    let end = |rsp: u64| engine.on_user_hit(back, &mut frame(rsp + 8, 0));
    let locals = || {
        let mut locals = [0; 2];
        engine.locals(b"/file", 1, &mut locals).unwrap();
        locals
    };
    run(100);
    begin(0x1000, 1);
    begin(0xf00, 2);
    run(200);
    begin(0xf00, 3);
    run(100);
    end(0xf00);
    run(200);
    end(0xf00);
    run(100);
    end(0x1000);
    assert_eq!(locals(), [231, 0]);
    // One whose beginning nobody has seen, and one whose task has ended meanwhile.
    end(0x1000);
    begin(0x1000, 4);
    engine.on_task_ended(100);
    end(0x1000);
    assert_eq!(locals(), [23100, 2]);
    // As many as a task may have under way, and one more.
    for deep in 0..129 {
        begin(0x8000 - deep * 8, 5);
    }
    let unfollowed: Vec<_> = states(&engine).iter().map(|status| status.unfollowed).collect();
    assert_eq!(unfollowed, [1, 0]);
    engine.remove(b"/file", 1, &mut |_| {}).unwrap();

    // Where there is no call there is none to keep anything for.
    for place in ["0x10", "0x20"] {
        let text = format!(
            "name = \"/file\"; modtype = user; major = 1\noffset = {place}; minor = 0\n push cv, 0; abort\n\
             offset = return(0x30); minor = 1\n push cv, 0; abort\n"
        );
        let Err(InsertError::Point { point, error, .. }) = engine.insert_for(&assemble(&text), Some(7)) else {
            panic!("{place} is accepted");
        };
        assert_eq!((point, error), (0, PointError::CallVariables));
    }
    assert_eq!(engine.host().count(), 0);
}

#[test]
fn many_places_are_found_again() {
    let engine = engine();
    let places: Vec<_> = (0..500).map(|n| format!("{}", n * 7 % 3500)).collect();
    let places: Vec<_> = places.iter().map(String::as_str).collect();
    engine.insert_for(&program(1, &places, ""), Some(7)).unwrap();
    engine.insert_for(&program(2, &places[100..], ""), Some(7)).unwrap();
    assert_eq!(engine.host().count(), 500);
    engine.remove(b"/file", 1, &mut |_| {}).unwrap();
    assert_eq!(engine.host().count(), 400);
    hit(&engine, 700, 2);
    assert_eq!(states(&engine).iter().map(|status| status.hits).sum::<u64>(), 2);
    engine.remove(b"/file", 2, &mut |_| {}).unwrap();
    assert_eq!(engine.host().count(), 0);
}
