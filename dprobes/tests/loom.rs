//! What CPUs share without a lock, under a model checker: the ring of records, the table of sites, the chain of probes, and the order in
//! which a probe is taken out. The first three are the engine's own files, compiled over loom's atomics.
//!
//! What each model would find was tried by weakening one operation at a time:
//!
//! | weakened to `Relaxed`, or left out | fails in |
//! |---|---|
//! | ring: the store of the head in `push` | [`a_reader_sees_whole_records`] |
//! | ring: the load of the head in `read` | [`a_reader_sees_whole_records`] |
//! | ring: the test against the tail in `push` | [`a_record_is_not_overwritten_while_it_is_read`] |
//! | flight recorder: a copy in `read` taken although the exchange of the tail has failed | [`a_record_that_gives_way_is_not_read_in_part`] |
//! | flight recorder: the exchange of the first word in `make_room`, a load instead | [`a_record_is_discarded_or_gives_way_and_is_counted_once`] |
//! | table: the stores of the key and of the value in `add`, both | [`a_key_comes_with_its_value`] |
//! | table: the swap of the entries in `reserve` | [`a_table_that_grows_loses_nothing`] |
//! | ring: the stop in front of a provisional record in `read` | [`what_is_discarded_is_not_read_and_what_is_settled_is`] |
//! | chain: the store in `link` | [`a_probe_is_linked_whole`] |
//! | chain: `unlink` that cuts off what follows | [`one_of_two_leaves_the_other_every_hit`] |
//! | calls: the exchange in `begin` by a load and a store | [`calls_do_not_mix`] |
//! | removal: the core sync before memory is freed | [`without_the_last_sync_a_trap_uses_what_is_freed`] and its like, in every run |
//!
//! The fences around a copy in a flight recorder are needed by the rules of the language and not found by a model: loom never has a load see a store that is
//! executed later, so that the exchange of the tail behind the copy sees the writer's in any case.
#![allow(dead_code, reason = "the models use a part of each file")]

extern crate alloc;

use std::ptr;

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
}
mod host {
    pub(crate) use dprobes::host::Task;
}

#[path = "../src/probe/calls.rs"]
mod calls;
#[path = "../src/probe/chain.rs"]
mod chain;
#[path = "../src/record/header.rs"]
#[allow(clippy::wrong_self_convention, reason = "a name of the crate's public interface")]
mod header;
#[path = "../src/mem.rs"]
mod mem;
#[path = "../src/record/ring.rs"]
mod ring;
#[path = "../src/probe/table.rs"]
mod table;

use calls::{Call, Calls};
use chain::{Chain, Linked};
use header::{Header, RecordState};
use ring::{MODE_NEWEST, Ring};
use sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use table::Table;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 10_000;
    builder.check(model);
}

// ---- what is kept for calls ----

/// Tasks on two CPUs want the same place. Whoever has it finds what it has put there, and nobody finds anything else.
#[test]
fn calls_do_not_mix() {
    check(|| {
        let calls = Arc::new(Calls::new(1, 1).unwrap());
        let run = |calls: &Calls, task: u64| {
            let call = Call { task, frame: 16, of: 1 };
            let kept = calls.begin(call, &[task; 8]);
            assert_eq!(calls.end(call), kept.then_some([task; 8]));
            kept
        };
        let other = {
            let calls = Arc::clone(&calls);
            thread::spawn(move || run(&calls, 200))
        };
        let ours = run(&calls, 100);
        assert!(other.join().unwrap() || ours, "one of them has had it");
        assert!(run(&calls, 300), "it is free again");
    });
}

// ---- the ring ----

fn record(number: u64, state: RecordState) -> (Header, [u8; 8]) {
    let header = Header {
        state: state as u32,
        ..Header::new(number, (1, 1), 0, number, &host::Task::default(), 8)
    };
    (header, number.to_le_bytes())
}

/// Reads what is final: the number of each record, and how many the ring says are lost. A record is whole.
fn read(ring: &Ring) -> (Vec<u64>, u64) {
    let mut out = [0; 256];
    let written = ring.read(0, &mut out);
    let mut rest = &out[..written];
    let (mut numbers, mut lost) = (Vec::new(), 0);
    while let Some(header) = Header::parse(rest) {
        if header.state == RecordState::Lost as u32 {
            lost += header.facts;
        } else {
            let number = header.address;
            assert_eq!(header.time, number, "half a record");
            assert_eq!(rest[Header::SIZE..][..8], number.to_le_bytes(), "half a record");
            numbers.push(number);
        }
        rest = &rest[header.length as usize..];
    }
    (numbers, lost)
}

fn push(ring: &Ring, number: u64, state: RecordState) -> bool {
    let (header, elements) = record(number, state);
    ring.push(&header, &elements)
}

// The reader is the thread that is spawned: loom remembers the last access to each atomic only, and would not try what the writer's own
// load of the head hides from it.

#[test]
fn a_reader_sees_whole_records() {
    check(|| {
        let ring = Arc::new(Ring::new(5).unwrap());
        let reader = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || read(&ring).0)
        };
        assert!(push(&ring, 1, RecordState::Published));
        assert!(push(&ring, 2, RecordState::Published));
        let mut all = reader.join().unwrap();
        all.extend(read(&ring).0);
        assert_eq!(all, [1, 2]);
    });
}

#[test]
fn a_record_is_not_overwritten_while_it_is_read() {
    check(|| {
        // Room for one record of ten words.
        let ring = Arc::new(Ring::new(4).unwrap());
        assert!(push(&ring, 1, RecordState::Published));
        let reader = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || read(&ring))
        };
        let pushed = u64::from(push(&ring, 2, RecordState::Published));
        let (mut all, mut lost) = reader.join().unwrap();
        for _ in 0..2 {
            let (more, more_lost) = read(&ring);
            all.extend(more);
            lost += more_lost;
        }
        assert_eq!(all.len() as u64 + lost, 2, "nothing is lost uncounted");
        assert_eq!(all.len() as u64, 1 + pushed);
    });
}

#[test]
fn what_is_discarded_is_not_read_and_what_is_settled_is() {
    check(|| {
        let ring = Arc::new(Ring::new(6).unwrap());
        // The CPU in whose slot the instruction is: it faults and is hit again, or completes. Who settles waits until it is out.
        let slot = Arc::new(Mutex::new(()));
        let writer = {
            let (ring, slot) = (Arc::clone(&ring), Arc::clone(&slot));
            thread::spawn(move || {
                let _inside = slot.lock().unwrap();
                assert!(push(&ring, 1, RecordState::Provisional));
                assert!(ring.discard(1, 0));
                assert!(push(&ring, 2, RecordState::Provisional));
            })
        };
        ring.mark_to_settle();
        drop(slot.lock().unwrap());
        ring.settle();
        let (early, _) = read(&ring);
        writer.join().unwrap();
        ring.mark_to_settle();
        ring.settle();
        let (late, _) = read(&ring);
        assert_eq!([early, late].concat(), [2]);
    });
}

/// A flight recorder with room for one record of ten words.
fn recorder() -> Ring {
    let ring = Ring::new(4).unwrap();
    ring.set_mode(MODE_NEWEST, true);
    ring
}

#[test]
fn a_record_that_gives_way_is_not_read_in_part() {
    check(|| {
        let ring = Arc::new(recorder());
        assert!(push(&ring, 1, RecordState::Published));
        let reader = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || read(&ring))
        };
        assert!(push(&ring, 2, RecordState::Published));
        let (mut all, mut lost) = reader.join().unwrap();
        for _ in 0..2 {
            let (more, more_lost) = read(&ring);
            all.extend(more);
            lost += more_lost;
        }
        assert!([1, 2].ends_with(&all) && !all.is_empty(), "{all:?}");
        assert_eq!(all.len() as u64 + lost, 2, "nothing is lost uncounted");
    });
}

#[test]
fn a_record_is_discarded_or_gives_way_and_is_counted_once() {
    check(|| {
        let ring = Arc::new(recorder());
        assert!(push(&ring, 1, RecordState::Provisional));
        let faulting = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || u64::from(ring.discard(1, 0)))
        };
        assert!(push(&ring, 2, RecordState::Published));
        let discarded = faulting.join().unwrap();
        let (first, mut lost) = read(&ring);
        let (rest, more) = read(&ring);
        lost += more;
        assert_eq!([first, rest].concat(), [2]);
        assert_eq!(discarded + lost, 1, "discarded {discarded}, lost {lost}");
    });
}

// ---- the table and the chain ----

/// Something a trap finds: loom sees to it that it is written before it is read, and not read while it is freed.
struct Node {
    next: AtomicPtr<Node>,
    contents: UnsafeCell<u64>,
    hits: AtomicU64,
}

impl Linked for Node {
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

impl Node {
    /// Lives for ever; that it is freed is a write to its contents.
    fn leak(contents: u64) -> &'static Self {
        Box::leak(Box::new(Node {
            next: AtomicPtr::new(ptr::null_mut()),
            contents: UnsafeCell::new(contents),
            hits: AtomicU64::new(0),
        }))
    }

    fn pointer(&self) -> *mut Self {
        ptr::from_ref(self).cast_mut()
    }

    fn contents(&self) -> u64 {
        // SAFETY: loom ends the model if anybody writes.
        self.contents.with(|contents| unsafe { *contents })
    }

    fn free(&self) {
        // SAFETY: loom ends the model if anybody reads.
        self.contents.with_mut(|contents| unsafe { *contents = u64::MAX });
    }
}

/// As small as it can be, so that it grows and has collisions soon.
type Small = Table<Node, 4>;

#[test]
fn a_key_comes_with_its_value() {
    check(|| {
        let table = Arc::new(Small::new().unwrap());
        let reader = {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                // SAFETY: null or a node, which lives for ever.
                let found = unsafe { table.get(8).as_ref() };
                let other = unsafe { table.get(16).as_ref() };
                assert!(found.is_none_or(|node| node.contents() == 8));
                assert!(other.is_none_or(|node| node.contents() == 16));
            })
        };
        table.insert(8, Node::leak(8).pointer());
        table.insert(16, Node::leak(16).pointer());
        reader.join().unwrap();
        assert!(!table.get(8).is_null() && !table.get(16).is_null());
    });
}

#[test]
fn a_table_that_grows_loses_nothing() {
    check(|| {
        let table = Arc::new(Small::new().unwrap());
        table.insert(8, Node::leak(8).pointer());
        table.insert(16, Node::leak(16).pointer());
        let reader = {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                // SAFETY: as above.
                let stays = unsafe { table.get(8).as_ref() }.expect("it is there all the time");
                assert_eq!(stays.contents(), 8);
                let goes = unsafe { table.get(16).as_ref() };
                assert!(goes.is_none_or(|node| node.contents() == 16));
            })
        };
        table.remove(16);
        let retired = table.reserve(1).unwrap();
        assert!(!retired.is_empty(), "the model is about a table that grows");
        table.insert(24, Node::leak(24).pointer());
        reader.join().unwrap();
        drop(retired);
        assert!(table.get(16).is_null());
    });
}

#[test]
fn a_probe_is_linked_whole() {
    check(|| {
        let chain = Arc::new(Chain::new());
        chain.link(Node::leak(1));
        let reader = {
            let chain = Arc::clone(&chain);
            thread::spawn(move || chain.iter().map(Node::contents).collect::<Vec<_>>())
        };
        chain.link(Node::leak(2));
        chain.link(Node::leak(3));
        let seen = reader.join().unwrap();
        assert!([1, 2, 3].starts_with(&seen) && !seen.is_empty(), "{seen:?}");
    });
}

// ---- taking out ----

const INT3: usize = 0xcc;
const ORIGINAL: usize = 0x90;
const ADDRESS: u64 = 8;

/// A kernel with one probed instruction.
struct Kernel {
    text: AtomicUsize,
    table: Small,
    site: &'static Node,
    chain: Chain<Node>,
    /// One for each CPU that may trap. A trap holds it, as it masks interrupts: a core sync interrupts every CPU, which therefore has been
    /// outside a trap since, and knows what was done before.
    cpus: [Mutex<()>; 2],
}

impl Kernel {
    fn armed(probes: &[&'static Node]) -> Arc<Self> {
        let kernel = Kernel {
            text: AtomicUsize::new(ORIGINAL),
            table: Small::new().unwrap(),
            site: Node::leak(ADDRESS),
            chain: Chain::new(),
            cpus: [Mutex::new(()), Mutex::new(())],
        };
        kernel.table.insert(ADDRESS, kernel.site.pointer());
        for probe in probes {
            kernel.chain.link(probe);
        }
        kernel.text.store(INT3, Ordering::Relaxed);
        Arc::new(kernel)
    }

    fn sync_cores(&self) {
        for cpu in &self.cpus {
            drop(cpu.lock().unwrap());
        }
    }

    /// A CPU executes the instruction: once, whatever it has fetched. It masks interrupts as it takes the trap, or later.
    fn execute(&self, cpu: usize, masked_at_once: bool) {
        let mut masked = masked_at_once.then(|| self.cpus[cpu].lock().unwrap());
        if self.text.load(Ordering::Relaxed) == ORIGINAL {
            return;
        }
        if masked.is_none() {
            masked = Some(self.cpus[cpu].lock().unwrap());
        }
        // SAFETY: null or a node, which lives for ever.
        match unsafe { self.table.get(ADDRESS).as_ref() } {
            Some(site) => {
                assert_eq!(site.contents(), ADDRESS);
                for probe in self.chain.iter() {
                    probe.contents();
                    probe.hits.fetch_add(1, Ordering::Relaxed);
                }
            }
            None => assert_eq!(self.text.load(Ordering::Relaxed), ORIGINAL, "nobody's breakpoint"),
        }
        drop(masked);
    }

    /// Both CPUs execute it while `remove` runs.
    fn run(kernel: &Arc<Self>, masked_at_once: bool, remove: impl Fn(&Self)) {
        let executing = [0, 1].map(|cpu| {
            let kernel = Arc::clone(kernel);
            thread::spawn(move || kernel.execute(cpu, masked_at_once))
        });
        remove(kernel);
        for thread in executing {
            thread.join().unwrap();
        }
    }
}

/// The order of `Engine::remove`, with a core sync at the places that `syncs` says.
fn take_out(masked_at_once: bool, syncs: [bool; 2]) {
    check(move || {
        let probe = Node::leak(1);
        Kernel::run(&Kernel::armed(&[probe]), masked_at_once, |kernel| {
            kernel.text.store(ORIGINAL, Ordering::Relaxed);
            if syncs[0] {
                kernel.sync_cores();
            }
            kernel.chain.unlink(probe);
            kernel.table.remove(ADDRESS);
            if syncs[1] {
                kernel.sync_cores();
            }
            let hits = probe.hits.load(Ordering::Relaxed);
            probe.free();
            kernel.site.free();
            assert!(hits <= 2);
        });
    });
}

#[test]
fn nothing_is_freed_under_a_trap() {
    take_out(true, [true, true]);
}

#[test]
fn nothing_is_freed_under_a_trap_that_is_late() {
    take_out(false, [true, true]);
}

#[test]
#[should_panic]
fn without_the_last_sync_a_trap_uses_what_is_freed() {
    take_out(false, [true, false]);
}

/// The trap that finds no site finds no breakpoint either, because the site left the table after the breakpoint the text.
#[test]
fn a_late_trap_needs_no_sync_to_be_known_as_such() {
    take_out(true, [false, true]);
    take_out(false, [false, true]);
}

/// Of two probes at the place one is taken out; the breakpoint stays.
fn take_one_of_two(sync: bool) {
    check(move || {
        let (goes, stays) = (Node::leak(1), Node::leak(2));
        let kernel = Kernel::armed(&[goes, stays]);
        Kernel::run(&kernel, true, |kernel| {
            kernel.chain.unlink(goes);
            if sync {
                kernel.sync_cores();
            }
            goes.free();
        });
        assert_eq!(stays.hits.load(Ordering::Relaxed), 2, "the other one has every hit");
    });
}

#[test]
fn one_of_two_leaves_the_other_every_hit() {
    take_one_of_two(true);
}

#[test]
#[should_panic]
fn without_the_sync_one_of_two_is_used_when_freed() {
    take_one_of_two(false);
}
