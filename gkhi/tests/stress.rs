//! Threads pass hooks while exits are registered, armed in sets, disarmed and deregistered. `GKHI_ROUNDS` sets how often.

mod process;

use std::alloc::{Layout, alloc, dealloc};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};

use gkhi::{ExitWith, Flow, Image, Verdict, fire, hook};

/// What the exits of one pass have done.
#[derive(Default, Clone, Copy)]
struct Seen {
    /// Exits of the set, by bit.
    set: u32,
    /// Calls of exits that are not in the set.
    lone: u32,
}

hook! {
    static LEFT: fn(seen: &mut Seen) = "left";
    static RIGHT: fn(seen: &mut Seen) = "right";
    static ASKED: fn(seen: &mut Seen) -> u64 = "asked";
    static FLAGGED: generic fn(seen: &mut Seen) = "flagged";
}

static IMAGE: Image = gkhi::image!(c"stress");

#[inline(never)]
fn pass_left(seen: &mut Seen) {
    fire!(LEFT, seen);
}
#[inline(never)]
fn pass_right(seen: &mut Seen) {
    fire!(RIGHT, seen);
}
#[inline(never)]
fn pass_asked(seen: &mut Seen) -> u64 {
    fire!(return ASKED, seen);
    0
}
#[inline(never)]
fn pass_flagged(seen: &mut Seen) {
    fire!(generic FLAGGED, seen);
}

const ALIVE: u64 = 0x600d_600d_600d_600d;

/// An exit's data: says whether the memory is still the exit's.
struct Data {
    alive: u64,
    calls: AtomicU64,
    bit: u32,
}

impl Data {
    fn new(bit: u32) -> Self {
        Data {
            alive: ALIVE,
            calls: AtomicU64::new(0),
            bit,
        }
    }

    fn called(&self) {
        // SAFETY: a field of `self`; if the exit is gone, reading what is there instead is what this test is for.
        let alive = unsafe { std::ptr::read_volatile(&self.alive) };
        if alive != ALIVE {
            eprintln!("an exit was called after it had been deregistered");
            std::process::abort();
        }
        self.calls.fetch_add(1, Relaxed);
    }

    fn mark(&self, seen: &mut Seen) -> Flow {
        self.called();
        seen.set |= 1 << self.bit;
        Flow::Continue
    }
}

/// An exit in memory that is poisoned when it is given up.
struct Mortal(*mut ExitWith<Data>);

impl Mortal {
    fn new(exit: ExitWith<Data>) -> Self {
        // SAFETY: the layout is not of size zero.
        let place = unsafe { alloc(Layout::new::<ExitWith<Data>>()) }.cast::<ExitWith<Data>>();
        // SAFETY: fresh memory of this layout.
        unsafe { place.write(exit) };
        Mortal(place)
    }

    fn exit(&self) -> &'static gkhi::Exit {
        // SAFETY: written in `new`, and there until `drop`, before which every test deregisters the exit.
        unsafe { &*self.0 }
    }

    fn calls(&self) -> u64 {
        // SAFETY: as in `exit`.
        unsafe { (*self.0).data().calls.load(SeqCst) }
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout, and nobody else has it: the exit is not registered any more.
        unsafe {
            std::ptr::write_bytes(self.0.cast::<u8>(), 0xdd, size_of::<ExitWith<Data>>());
            dealloc(self.0.cast(), Layout::new::<ExitWith<Data>>());
        }
    }
}

/// Even: nothing is changing, and the set is armed if the number's second bit is set. Odd: changing.
static PHASE: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

const ALL: [u32; 4] = [0b111, 0b1, 0b11, 0b1];

/// Passes all hooks twice; what each pass of a hook has seen.
fn passes() -> [(usize, Seen); 8] {
    let mut seen = [(0, Seen::default()); 8];
    for (index, (hook, seen)) in seen.iter_mut().enumerate() {
        *hook = index % 4;
        match *hook {
            0 => pass_left(seen),
            1 => pass_right(seen),
            2 => assert_eq!(pass_asked(seen), if seen.set == 0 { 0 } else { 77 }),
            _ => pass_flagged(seen),
        }
    }
    seen
}

fn pass_until_stopped() -> u64 {
    let mut rounds = 0;
    let mut extra: Seen = Seen::default();
    while !STOP.load(Relaxed) {
        let before = PHASE.load(SeqCst);
        let seen = passes();
        let after = PHASE.load(SeqCst);
        let mut was_armed = None;
        for (hook, seen) in seen {
            extra.lone = extra.lone.wrapping_add(seen.lone);
            let armed = match seen.set {
                0 => false,
                set if set == ALL[hook] => true,
                set => panic!("a part of the set on hook {hook}: {set:b}"),
            };
            if before == after {
                if before.is_multiple_of(2) {
                    assert_eq!(armed, before & 2 != 0, "nothing was changing");
                }
                // One change, in one direction: towards what follows this phase.
                let arming = before & 3 == 1;
                if before % 2 == 1 && was_armed == Some(arming) {
                    assert_eq!(armed, arming, "hook {hook} has not seen what another has");
                }
            }
            was_armed = Some(armed);
        }
        rounds += 1;
    }
    rounds
}

#[test]
fn every_pass_sees_all_of_a_set_or_nothing_of_it() {
    let rounds: u64 = std::env::var("GKHI_ROUNDS").map_or(400, |rounds| rounds.parse().unwrap());
    let mut registry = process::registry(&IMAGE);
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(pass_until_stopped)).collect();
    let mut calls = 0;
    for round in 0..rounds {
        let left = |name, bit| LEFT::exit(name, Data::new(bit), |data, seen| data.mark(seen));
        let set = [
            Mortal::new(left(c"a", 0)),
            Mortal::new(left(c"b", 1).first()),
            Mortal::new(if round % 3 == 0 {
                left(c"c", 2).watch(1 << 30)
            } else {
                left(c"c", 2).lifo()
            }),
            Mortal::new(RIGHT::exit(c"a", Data::new(0), |data, seen| data.mark(seen))),
            Mortal::new(ASKED::exit(c"a", Data::new(0), |data, seen| {
                data.mark(seen);
                Verdict::Continue
            })),
            Mortal::new(
                ASKED::exit(c"b", Data::new(1), |data, seen| {
                    data.mark(seen);
                    Verdict::Return(77)
                })
                .last(),
            ),
            Mortal::new(FLAGGED::exit(c"a", Data::new(0), |data, seen| data.mark(seen))),
        ];
        // Comes and goes on its own, so that there are chains of changing length, and the first exit of a hook.
        let lone = Mortal::new(if round % 2 == 0 {
            LEFT::exit(c"lone", Data::new(0), |data, seen| {
                data.called();
                seen.lone += 1;
                Flow::Continue
            })
        } else {
            RIGHT::exit(c"lone", Data::new(0), |data, seen| {
                data.called();
                seen.lone += 1;
                Flow::Continue
            })
        });
        for exit in set.iter().chain([&lone]) {
            // SAFETY: the exit stays where it is until it has been deregistered below.
            unsafe { registry.register_raw(exit.exit()).unwrap() };
        }
        let exits = set.each_ref().map(Mortal::exit);
        if round % 4 < 2 {
            registry.arm(&[lone.exit()]).unwrap();
        }
        PHASE.fetch_add(1, SeqCst);
        registry.arm(&exits).unwrap();
        PHASE.fetch_add(1, SeqCst);
        if round % 4 >= 2 {
            registry.arm(&[lone.exit()]).unwrap();
        }
        if round % 5 == 0 {
            std::thread::yield_now();
        }
        PHASE.fetch_add(1, SeqCst);
        registry.disarm(&exits).unwrap();
        PHASE.fetch_add(1, SeqCst);
        for exit in set.iter().chain([&lone]) {
            // SAFETY: it was registered above, with the promise kept until here.
            let counted = unsafe { registry.deregister_raw(exit.exit()).unwrap() };
            assert_eq!(counted, exit.calls(), "exact");
            calls += counted;
        }
    }
    STOP.store(true, Relaxed);
    let passes: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    println!(
        "{rounds} rounds, {passes} x 8 passes, {calls} calls, {} breakpoints taken, {} core syncs, {} looks while waiting",
        process::TRAPS.load(Relaxed),
        registry.host().syncs.load(Relaxed),
        registry.host().relaxes.load(Relaxed)
    );
    assert!(calls > 0);
    assert!(registry.hooks().all(|hook| hook.inside == 0 && hook.jumping == 0));
}
