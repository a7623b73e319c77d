//! The grace period under a model checker: `src/grace.rs` as it is, with passes and a registry that do what the assembly and
//! `src/registry/settle.rs` do. A pass is counted by locked instructions, as on hosts whose counters are shared.

use loom::sync::Arc;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use loom::sync::atomic::{AtomicU64, AtomicUsize, fence};
use loom::thread;

#[path = "../src/grace.rs"]
#[allow(unreachable_pub, dead_code, reason = "a module of the crate")]
mod grace;

/// A hook: what a pass touches.
struct Hook {
    phase: AtomicUsize,
    current: AtomicUsize,
    begun: [AtomicU64; 2],
    left: [AtomicU64; 2],
    /// Which exits are in valid memory.
    alive: [AtomicU64; 2],
    called: [AtomicU64; 2],
}

impl Hook {
    fn new() -> Self {
        let pair = || [AtomicU64::new(0), AtomicU64::new(0)];
        Hook {
            phase: AtomicUsize::new(0),
            current: AtomicUsize::new(0),
            begun: pair(),
            left: pair(),
            alive: [AtomicU64::new(1), AtomicU64::new(1)],
            called: pair(),
        }
    }

    /// The out-of-line code of a site.
    fn pass(&self) -> usize {
        let phase = self.phase.load(Relaxed);
        self.begun[phase].fetch_add(1, SeqCst);
        fence(SeqCst);
        let exit = self.current.load(Acquire);
        assert_eq!(self.alive[exit].load(Relaxed), 1, "called after it was deregistered");
        self.called[exit].fetch_add(1, Relaxed);
        self.left[phase].fetch_add(1, SeqCst);
        exit
    }

    fn settle(&self, phase: &mut usize) {
        fence(SeqCst);
        let Ok(()) = grace::settle(&Passes(self), phase);
    }
}

struct Passes<'h>(&'h Hook);

impl grace::Phases for Passes<'_> {
    type Stop = std::convert::Infallible;

    fn choose(&self, phase: usize) {
        self.0.phase.store(phase, SeqCst);
    }

    fn is_drained(&self, phase: usize) -> bool {
        let left = self.0.left[phase].load(SeqCst);
        fence(SeqCst);
        self.0.begun[phase].load(SeqCst) == left
    }

    fn wait(&self) -> Result<(), Self::Stop> {
        thread::yield_now();
        Ok(())
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn no_exit_is_called_after_it_was_deregistered() {
    check(|| {
        let hook = Arc::new(Hook::new());
        let passing = {
            let hook = Arc::clone(&hook);
            thread::spawn(move || {
                hook.pass();
                hook.pass();
            })
        };
        let mut phase = 0;
        hook.current.store(1, SeqCst);
        hook.settle(&mut phase);
        hook.alive[0].store(0, Relaxed);
        // Once more, the other way, so that a straggler meets phases that are used again.
        hook.alive[0].store(1, Relaxed);
        hook.current.store(0, SeqCst);
        hook.settle(&mut phase);
        hook.alive[1].store(0, Relaxed);
        passing.join().unwrap();
        assert_eq!(hook.called[0].load(Relaxed) + hook.called[1].load(Relaxed), 2);
    });
}

#[test]
fn two_passes_at_once() {
    check(|| {
        let hook = Arc::new(Hook::new());
        let passing = [(); 2].map(|()| {
            let hook = Arc::clone(&hook);
            thread::spawn(move || hook.pass())
        });
        let mut phase = 0;
        hook.current.store(1, SeqCst);
        hook.settle(&mut phase);
        hook.alive[0].store(0, Relaxed);
        for thread in passing {
            thread.join().unwrap();
        }
    });
}

/// Two hooks of a set: gates, one store, and passes of one after the other.
#[test]
fn a_set_becomes_visible_at_one_moment() {
    const GATE: usize = 2;

    struct Set {
        current: [AtomicUsize; 2],
        live: AtomicU64,
    }

    impl Set {
        fn pass(&self, hook: usize) -> bool {
            match self.current[hook].load(Acquire) {
                GATE => self.live.load(Acquire) >= 1,
                target => target == 1,
            }
        }
    }

    check(|| {
        let set = Arc::new(Set {
            current: [AtomicUsize::new(0), AtomicUsize::new(0)],
            live: AtomicU64::new(0),
        });
        let passing = [[0, 1], [1, 0]].map(|order| {
            let set = Arc::clone(&set);
            thread::spawn(move || {
                let [first, second] = order.map(|hook| set.pass(hook));
                assert!(second || !first, "the second pass has not seen what the first has");
            })
        });
        for current in &set.current {
            current.store(GATE, SeqCst);
        }
        set.live.store(1, SeqCst);
        for current in &set.current {
            current.store(1, SeqCst);
        }
        for thread in passing {
            thread.join().unwrap();
        }
    });
}
