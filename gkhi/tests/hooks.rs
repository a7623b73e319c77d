//! What hooks and exits do, in this process.

mod process;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use gkhi::{Error, ExitWith, Flow, Host, Image, Name, Registry, Shared, State, Verdict, fire, hook};
use process::registry;

hook! {
    static NONE: fn() = "none";
    static ONE: fn(a: u64) = "one";
    static CHANGE: fn(len: &mut u32) = "change";
    static FIVE: fn(a: u64, b: u32, c: i8, d: bool, e: &str_ref) = "five";
    static EIGHT: fn(a: u8, b: i16, c: u32, d: u64, e: &u64, f: i32, g: f64, h: &mut u64) = "eight";
    static RETURNS: fn(a: u64) -> i32 = "returns";
    static RETURNS_8: fn(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64, h: u64) -> u64 = "returns_8";
    static RETURNS_UNIT: fn(a: u64, b: u64) -> () = "returns_unit";
    static ONLY: exclusive fn(a: u64) = "only";
    static FLAG: generic fn(a: u64) = "flag";
    static FLAG_RETURNS: generic fn(a: u64) -> u64 = "flag_returns";
}

#[allow(non_camel_case_types)]
type str_ref = &'static str;

static IMAGE: Image = gkhi::image!(c"hooks");

#[inline(never)]
fn pass_none() {
    fire!(NONE);
}
#[inline(never)]
fn pass_one(a: u64) -> u64 {
    fire!(ONE, a);
    a + 1
}
#[inline(never)]
fn pass_change(mut len: u32) -> u32 {
    fire!(CHANGE, ref len);
    len
}
#[inline(never)]
fn pass_five(a: u64, e: &'static str) {
    fire!(FIVE, a, 2, -3, true, &e);
}
#[inline(never)]
fn pass_eight(a: u8, mut h: u64) -> u64 {
    let e = 5;
    fire!(EIGHT, a, -2, 3, 4, &e, -6, 7.5, &mut h);
    h
}
#[inline(never)]
fn pass_returns(a: u64) -> i32 {
    fire!(return RETURNS, a);
    -100
}
#[inline(never)]
fn pass_returns_mapped(a: u64) -> Result<(), i32> {
    fire!(return RETURNS, a => |code| Err(code));
    Ok(())
}
#[inline(never)]
fn pass_returns_8(a: u64) -> u64 {
    fire!(return RETURNS_8, a, 2, 3, 4, 5, 6, 7, 8);
    0
}
#[inline(never)]
fn pass_returns_unit(reached: &mut bool) {
    fire!(return RETURNS_UNIT, 1, 2);
    *reached = true;
}
#[inline(never)]
fn pass_flag(a: u64) -> u64 {
    fire!(generic FLAG, a);
    fire!(generic return FLAG_RETURNS, a);
    a
}

#[test]
fn every_number_of_arguments_arrives() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    static ON_NONE: ExitWith<()> = NONE::exit(c"t", (), |_| {
        CALLS.fetch_add(1, Relaxed);
        Flow::Continue
    });
    static ON_ONE: ExitWith<AtomicU64> = ONE::exit(c"t", AtomicU64::new(0), |sum, a| {
        sum.fetch_add(a, Relaxed);
        Flow::Continue
    });
    static ON_CHANGE: ExitWith<()> = CHANGE::exit(c"t", (), |_, len| {
        *len *= 2;
        Flow::Continue
    });
    fn on_five(_: &(), a: u64, b: u32, c: i8, d: bool, e: &str_ref) -> Flow {
        assert_eq!((a, b, c, d, *e), (1, 2, -3, true, "five"));
        CALLS.fetch_add(1, Relaxed);
        Flow::Continue
    }
    static ON_FIVE: ExitWith<()> = FIVE::exit(c"t", (), on_five);
    static ON_EIGHT: ExitWith<()> = EIGHT::exit(c"t", (), |_, a, b, c, d, e, f, g, h| {
        assert_eq!((a, b, c, d, *e, f, g, *h), (1, -2, 3, 4, 5, -6, 7.5, 8));
        *h = 80;
        Flow::Continue
    });
    static ON_RETURNS_8: ExitWith<()> = RETURNS_8::exit(c"t", (), |_, a, b, c, d, e, f, g, h| {
        Verdict::Return([a, b, c, d, e, f, g, h].iter().fold(0, |n, digit| n * 10 + digit))
    });
    // As the only exit, and in a chain.
    static SECOND_EIGHT: ExitWith<()> = EIGHT::exit(c"second", (), |_, a, b, c, d, e, f, g, h| {
        assert_eq!((a, b, c, d, *e, f, g, *h), (1, -2, 3, 4, 5, -6, 7.5, 80));
        *h += 1;
        Flow::Terminate
    });

    let mut registry = registry(&IMAGE);
    let all = [&*ON_NONE, &*ON_ONE, &*ON_CHANGE, &*ON_FIVE, &*ON_EIGHT, &*ON_RETURNS_8];
    for exit in all {
        registry.register(exit).unwrap();
    }
    let pass = || {
        pass_none();
        pass_one(7);
        pass_five(1, "five");
        (pass_change(21), pass_eight(1, 8), pass_returns_8(1))
    };
    assert_eq!(pass(), (21, 8, 0));
    registry.arm(&all).unwrap();
    assert_eq!(pass(), (42, 80, 12_345_678));
    assert_eq!(CALLS.load(Relaxed), 2);
    assert_eq!(ON_ONE.data().load(Relaxed), 7);
    registry.register(&SECOND_EIGHT).unwrap();
    registry.arm(&[&SECOND_EIGHT]).unwrap();
    assert_eq!(pass(), (42, 81, 12_345_678));
    registry.disarm(&all).unwrap();
    registry.disarm(&[&SECOND_EIGHT]).unwrap();
    assert_eq!(pass(), (21, 8, 0));
    assert_eq!(registry.exit(&ON_EIGHT).unwrap().calls, 2);
    assert_eq!(registry.exit(&SECOND_EIGHT).unwrap().calls, 1);
    for hook in registry.hooks() {
        assert_eq!((hook.inside, hook.jumping), (0, 0), "{:?}", hook.hook.name());
    }
    for exit in all {
        registry.deregister(exit).unwrap();
    }
    registry.deregister(&SECOND_EIGHT).unwrap();
}

#[test]
fn answers() {
    static CODE: AtomicU64 = AtomicU64::new(0);
    static FIRST: ExitWith<()> = RETURNS::exit(c"first", (), |_, a| match a {
        0 => Verdict::Continue,
        1 => Verdict::Terminate,
        _ => Verdict::Return(-5),
    });
    static NEXT: ExitWith<()> = RETURNS::exit(c"next", (), |_, _| {
        CODE.fetch_add(1, Relaxed);
        Verdict::Return(9)
    });
    static UNIT: ExitWith<()> = RETURNS_UNIT::exit(c"unit", (), |_, a, b| {
        if CODE.load(Relaxed) == a + b {
            Verdict::Return(())
        } else {
            Verdict::Continue
        }
    });
    let mut registry = registry(&IMAGE);
    for exit in [&*FIRST, &*NEXT, &*UNIT] {
        registry.register(exit).unwrap();
    }
    registry.arm(&[&FIRST, &UNIT]).unwrap();
    assert_eq!([0, 1, 2].map(pass_returns), [-100, -100, -5]);
    assert_eq!([0, 1, 2].map(pass_returns_mapped), [Ok(()), Ok(()), Err(-5)]);
    registry.arm(&[&NEXT]).unwrap();
    assert_eq!([0, 1, 2].map(pass_returns), [9, -100, -5]);
    assert_eq!(CODE.load(Relaxed), 1);
    let mut reached = false;
    pass_returns_unit(&mut reached);
    assert!(reached);
    CODE.store(3, Relaxed);
    reached = false;
    pass_returns_unit(&mut reached);
    assert!(!reached);
    for exit in [&*FIRST, &*NEXT, &*UNIT] {
        registry.deregister(exit).unwrap();
    }
}

#[test]
fn generic_hooks_need_no_patching() {
    static ON_FLAG: ExitWith<AtomicU64> = FLAG::exit(c"t", AtomicU64::new(0), |sum, a| {
        sum.fetch_add(a, Relaxed);
        Flow::Continue
    });
    static ON_FLAG_RETURNS: ExitWith<()> = FLAG_RETURNS::exit(c"t", (), |_, a| Verdict::Return(a * 2));
    let mut registry = registry(&IMAGE);
    registry.register(&ON_FLAG).unwrap();
    registry.register(&ON_FLAG_RETURNS).unwrap();
    assert_eq!(pass_flag(4), 4);
    let syncs = registry.host().syncs.load(Relaxed);
    registry.arm(&[&ON_FLAG, &ON_FLAG_RETURNS]).unwrap();
    assert_eq!(registry.host().syncs.load(Relaxed), syncs, "no text is changed");
    assert_eq!(pass_flag(4), 8);
    assert_eq!(ON_FLAG.data().load(Relaxed), 4);
    registry.deregister(&ON_FLAG).unwrap();
    registry.deregister(&ON_FLAG_RETURNS).unwrap();
    assert_eq!(pass_flag(4), 4);
}

#[test]
fn a_hook_that_is_exclusive_takes_one() {
    static A: ExitWith<()> = ONLY::exit(c"a", (), |_, _| Flow::Continue);
    static B: ExitWith<()> = ONLY::exit(c"b", (), |_, _| Flow::Continue);
    #[inline(never)]
    fn pass() {
        fire!(ONLY, 1);
    }
    let mut registry = registry(&IMAGE);
    registry.register(&A).unwrap();
    assert_eq!(
        registry.register(&A),
        Err(Error::AlreadyRegistered { exit: Name::new(c"a") })
    );
    let error = registry.register(&B).unwrap_err();
    assert_eq!(error, Error::HookTaken { by: Name::new(c"a") });
    assert_eq!(error.code(), -1);
    registry.arm(&[&A]).unwrap();
    pass();
    assert_eq!(registry.exit(&A).unwrap().calls, 1);
    registry.deregister(&A).unwrap();
    registry.register(&B).unwrap();
    registry.deregister(&B).unwrap();
}

#[test]
fn rules_hold_for_sets() {
    static BASE: ExitWith<()> = ONE::exit(c"base", (), |_, _| Flow::Continue);
    static NEEDS: ExitWith<()> =
        ONE::exit(c"needs", (), |_, _| Flow::Continue).requires(&const { [Name::new(c"base")] });
    static HATES: ExitWith<()> =
        ONE::exit(c"hates", (), |_, _| Flow::Continue).conflicts(&const { [Name::new(c"base")] });
    static ALONE: ExitWith<()> = ONE::exit(c"alone", (), |_, _| Flow::Continue).exclusive();
    let (base, needs, hates, alone) = (BASE.name(), NEEDS.name(), HATES.name(), ALONE.name());
    let mut registry = registry(&IMAGE);
    for exit in [&*BASE, &*NEEDS, &*HATES, &*ALONE] {
        registry.register(exit).unwrap();
    }
    let missing = Err(Error::Requires {
        exit: needs,
        missing: base,
    });
    assert_eq!(registry.arm(&[&NEEDS]), missing);
    registry.arm(&[&NEEDS, &BASE]).unwrap();
    assert_eq!(registry.disarm(&[&BASE]), missing);
    assert_eq!(registry.deregister(&BASE).map(|_| ()), missing);
    assert_eq!(
        registry.arm(&[&HATES]),
        Err(Error::Conflict {
            exit: hates,
            with: base
        })
    );
    assert_eq!(
        registry.arm(&[&ALONE]),
        Err(Error::Exclusive {
            exit: alone,
            with: base
        })
    );
    let states = |registry: &gkhi::Registry<process::Process>| {
        [&*BASE, &*NEEDS, &*HATES, &*ALONE].map(|exit| registry.exit(exit).unwrap().state == State::Armed)
    };
    assert_eq!(states(&registry), [true, true, false, false]);
    registry.switch(&[&BASE, &NEEDS], &[&ALONE]).unwrap();
    assert_eq!(states(&registry), [false, false, false, true]);
    registry.switch(&[&ALONE], &[&HATES]).unwrap();
    assert_eq!(states(&registry), [false, false, true, false]);
    for exit in [&*NEEDS, &*BASE, &*HATES, &*ALONE] {
        registry.deregister(exit).unwrap();
    }
}

#[test]
fn a_set_that_cannot_be_patched_is_not_armed_at_all() {
    static ON_ONE: ExitWith<()> = ONE::exit(c"t", (), |_, _| Flow::Continue);
    static ON_NONE: ExitWith<()> = NONE::exit(c"t", (), |_| Flow::Continue);
    static ON_FLAG: ExitWith<()> = FLAG::exit(c"t", (), |_, _| Flow::Continue);
    let mut registry = registry(&IMAGE);
    let set = [&*ON_ONE, &*ON_FLAG, &*ON_NONE];
    for exit in set {
        registry.register(exit).unwrap();
    }
    // Two places are written three times each.
    for good in 0..6 {
        registry.host().fail_after.store(good, Relaxed);
        let error = registry.arm(&set).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Text {
                    error: gkhi::text::CommitError::Unwritable { .. },
                    ..
                }
            ),
            "{error}"
        );
        pass_one(1);
        pass_none();
        pass_flag(1);
        for exit in set {
            let info = registry.exit(exit).unwrap();
            assert_eq!((info.calls, info.state), (0, State::Registered));
        }
        for hook in registry.hooks() {
            for site in registry.sites(hook.hook) {
                if let Some(address) = site.address() {
                    let mut found = [0; 5];
                    gkhi::text::Text::read_text(registry.host(), address, &mut found).unwrap();
                    assert_eq!(found, gkhi::NOP);
                }
            }
        }
    }
    registry.arm(&set).unwrap();
    registry.host().fail_after.store(3, Relaxed);
    registry.disarm(&set).unwrap();
    pass_one(1);
    pass_none();
    assert_eq!(
        registry.exit(&ON_ONE).unwrap().calls,
        0,
        "what still jumps calls nothing"
    );
    // The next transaction makes NOPs of them.
    registry.arm(&set).unwrap();
    registry.disarm(&set).unwrap();
    assert!(registry.hooks().all(|hook| hook.jumping == 0));
    for exit in set {
        registry.deregister(exit).unwrap();
    }
}

#[test]
fn sites_that_can_be_written_no_more_call_nothing_until_they_can() {
    static ON_ONE: ExitWith<()> = ONE::exit(c"t", (), |_, _| Flow::Continue);
    static ON_NONE: ExitWith<()> = NONE::exit(c"t", (), |_| Flow::Continue);
    let mut registry = registry(&IMAGE);
    let set = [&*ON_ONE, &*ON_NONE];
    for exit in set {
        registry.register(exit).unwrap();
    }
    let fail = |registry: &Registry<process::Process>, after| {
        registry.host().fail_for_good.store(after != usize::MAX, Relaxed);
        registry.host().fail_after.store(after, Relaxed);
    };
    let mut calls = 0;
    for arming in [true, false] {
        for good in 1..6 {
            if !arming {
                registry.arm(&set).unwrap();
            }
            fail(&registry, good);
            if arming {
                let error = registry.arm(&set).unwrap_err();
                let Error::Text {
                    hook,
                    error: gkhi::text::CommitError::Stuck { .. },
                } = error
                else {
                    panic!("{error}");
                };
                assert!([ONE.name(), NONE.name()].contains(&hook), "{error}");
                // Again it cannot be written.
                let error = registry.arm(&set).unwrap_err();
                assert_eq!(error.code(), -25);
            } else {
                registry.disarm(&set).unwrap();
            }
            // Through breakpoints, some of them, which stay.
            pass_one(1);
            pass_none();
            assert_eq!(registry.exit(&ON_ONE).unwrap().calls, calls);
            assert_eq!(registry.exit(&ON_NONE).unwrap().calls, calls);
            fail(&registry, usize::MAX);
            registry.arm(&set).unwrap();
            pass_one(1);
            pass_none();
            calls += 1;
            assert_eq!(registry.exit(&ON_ONE).unwrap().calls, calls);
            assert_eq!(registry.exit(&ON_NONE).unwrap().calls, calls);
            registry.disarm(&set).unwrap();
            assert!(registry.hooks().all(|hook| hook.jumping == 0));
        }
    }
    for exit in set {
        registry.deregister(exit).unwrap();
    }
}

#[test]
fn a_site_that_somebody_else_has_patched_is_named() {
    fn patch(process: &process::Process, address: usize, byte: u8) {
        let mut bytes = [0; 16];
        bytes[0] = byte;
        let write = gkhi::text::Write {
            address,
            len: 1,
            reserved: 0,
            bytes,
        };
        gkhi::text::Text::write_text(process, &[write]).unwrap();
    }
    static EXIT: ExitWith<()> = NONE::exit(c"t", (), |_| Flow::Continue);
    let mut registry = registry(&IMAGE);
    registry.register(&EXIT).unwrap();
    let hook = registry
        .hooks()
        .find(|hook| hook.hook.name() == NONE.name())
        .unwrap()
        .hook;
    let address = registry.sites(hook).next().unwrap().address().unwrap();
    patch(registry.host(), address, 0xcc);
    let error = registry.arm(&[&EXIT]);
    patch(registry.host(), address, 0x0f);
    let Err(Error::Text {
        hook,
        error: gkhi::text::CommitError::Changed { address: at, found },
    }) = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((hook, at, found[0]), (NONE.name(), address, 0xcc));
    registry.deregister(&EXIT).unwrap();
}

#[test]
fn an_exit_inside_itself_is_told_so() {
    static ASK: AtomicBool = AtomicBool::new(false);
    static RESULT: std::sync::Mutex<Option<Result<u64, Error>>> = std::sync::Mutex::new(None);
    static EXIT: ExitWith<()> = ONE::exit(c"self", (), |_, _| {
        if ASK.load(Relaxed) {
            // The lock is held by the test below, on this thread; the exit asks through a pointer that the test gave.
            let registry = REGISTRY.load(Relaxed);
            // SAFETY: the test gave it, waits for this pass on this thread, and does not touch the registry meanwhile.
            let registry = unsafe { &mut *(registry as *mut gkhi::Registry<process::Process>) };
            *RESULT.lock().unwrap() = Some(registry.deregister(&EXIT));
        }
        Flow::Continue
    });
    static REGISTRY: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let mut registry = registry(&IMAGE);
    registry.register(&EXIT).unwrap();
    registry.arm(&[&EXIT]).unwrap();
    REGISTRY.store(&raw mut *registry as usize, Relaxed);
    ASK.store(true, Relaxed);
    pass_one(3);
    ASK.store(false, Relaxed);
    assert_eq!(
        RESULT.lock().unwrap().take(),
        Some(Err(Error::Inside { hook: ONE.name() }))
    );
    assert_eq!(
        registry.exit(&EXIT).unwrap().state,
        State::Registered,
        "disarmed meanwhile"
    );
    pass_one(3);
    assert_eq!(registry.exit(&EXIT).unwrap().calls, 1);
    registry.deregister(&EXIT).unwrap();
}

#[test]
fn watched_exits_count_slow_and_nested_calls() {
    static DEPTH: AtomicU64 = AtomicU64::new(0);
    static EXIT: ExitWith<()> = ONE::exit(c"watched", (), |_, a| {
        if a == 1 && DEPTH.fetch_add(1, Relaxed) < 2 {
            pass_one(1);
        }
        if a == 2 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Flow::Continue
    })
    .watch(1_000_000);
    let mut registry = registry(&IMAGE);
    registry.register(&EXIT).unwrap();
    registry.arm(&[&EXIT]).unwrap();
    pass_one(0);
    let info = registry.exit(&EXIT).unwrap();
    assert_eq!((info.calls, info.nested), (1, 0));
    pass_one(1);
    let info = registry.exit(&EXIT).unwrap();
    assert_eq!((info.calls, info.nested), (4, 2));
    let slow = info.slow;
    pass_one(2);
    assert!(registry.exit(&EXIT).unwrap().slow > slow);
    registry.deregister(&EXIT).unwrap();
}

#[test]
fn exits_wait_for_hooks_that_come_and_go() {
    hook! {
        static LATE: fn(a: u64) = "late";
        static OTHER: fn(a: u64, b: u64) = "late";
    }
    // The site of this hook is in this program; it is hidden from the registry by another name.
    static EARLY: ExitWith<AtomicU64> = LATE::exit(c"early", AtomicU64::new(0), |sum, a| {
        sum.fetch_add(a, Relaxed);
        Flow::Continue
    });
    static WRONG: ExitWith<()> = OTHER::exit(c"wrong", (), |_, _, _| Flow::Continue);
    #[inline(never)]
    fn pass() {
        fire!(LATE, 5);
    }
    let mut registry = registry(&IMAGE);
    registry.remove_image(&IMAGE).unwrap();
    assert_eq!(registry.hooks().count(), 0);
    assert_eq!(registry.remove_image(&IMAGE), Err(Error::ImageUnknown));
    for exit in [&*EARLY, &*WRONG] {
        registry.register(exit).unwrap();
        registry.arm(&[exit]).unwrap();
        assert_eq!(registry.exit(exit).unwrap().state, State::Waiting { armed: true });
    }
    pass();
    for round in 1..=3 {
        let added = registry.add_image(&IMAGE).unwrap();
        assert_eq!(added.connected, 1);
        let (name, error) = added.refused.unwrap();
        assert_eq!(name, WRONG.name());
        assert!(matches!(error, Error::WrongPrototype { .. }), "{error}");
        assert_eq!(registry.exit(&EARLY).unwrap().state, State::Armed);
        assert_eq!(registry.waiting().count(), 1);
        pass();
        registry.remove_image(&IMAGE).unwrap();
        pass();
        assert_eq!(EARLY.data().load(Relaxed), 5 * round);
        let info = registry.exit(&EARLY).unwrap();
        assert_eq!((info.calls, info.state), (round, State::Waiting { armed: true }));
    }
    registry.deregister(&EARLY).unwrap();
    registry.deregister(&WRONG).unwrap();
    registry.add_image(&IMAGE).unwrap();
}

/// The pass's assembly cannot be unwound: a panic ends the program, here a child's.
#[test]
fn a_panic_in_an_exit_does_not_unwind_the_pass() {
    static EXIT: ExitWith<()> = ONE::exit(c"panics", (), |_, a| {
        if a == 99 { panic!("on purpose") } else { Flow::Continue }
    });
    static ON_RETURNS: ExitWith<()> = RETURNS::exit(c"panics", (), |_, a| {
        if a == 99 {
            panic!("on purpose")
        } else {
            Verdict::Continue
        }
    });
    let mut registry = registry(&IMAGE);
    let set = [&*EXIT, &*ON_RETURNS];
    for exit in set {
        registry.register(exit).unwrap();
    }
    registry.arm(&set).unwrap();
    let passes: [fn(); 2] = [
        || {
            pass_one(99);
        },
        || {
            pass_returns(99);
        },
    ];
    for pass in passes {
        // SAFETY: the child runs one pass and ends without returning; the parent only waits for it.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                let unwound = std::panic::catch_unwind(pass).is_err();
                libc::_exit(i32::from(unwound));
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            assert!(libc::WIFSIGNALED(status), "not aborted: {status:#x}");
        }
    }
    for exit in set {
        registry.deregister(exit).unwrap();
    }
}

#[test]
fn types_of_the_same_name_are_not_the_same_prototype() {
    mod one {
        pub struct Packet(pub u64);
        gkhi::hook! {
            pub static ARRIVED: fn(packet: &Packet) = "arrived";
        }
    }
    mod other {
        pub struct Packet(pub &'static str);
        gkhi::hook! {
            pub static ARRIVED: fn(packet: &Packet) = "arrived";
        }
    }
    use one::ARRIVED;
    static EXIT: ExitWith<AtomicU64> = other::ARRIVED::exit(c"reads", AtomicU64::new(0), |sum, packet| {
        sum.fetch_add(packet.0.len() as u64, Relaxed);
        Flow::Continue
    });
    let mut registry = registry(&IMAGE);
    let error = registry.register(&EXIT).unwrap_err();
    assert!(matches!(error, Error::WrongPrototype { .. }), "{error}");
    let packet = one::Packet(1);
    fire!(ARRIVED, &packet);
    assert_eq!(packet.0, 1);
}

#[test]
fn what_one_registry_has_no_other_touches() {
    static EXIT: ExitWith<()> = ONE::exit(c"t", (), |_, _| Flow::Continue);
    static AGAIN: Image = gkhi::image!(c"again");
    static OTHER: Shared = Shared::new();
    let mut registry = registry(&IMAGE);
    registry.register(&EXIT).unwrap();
    let unknown = Err(Error::NotRegistered { exit: EXIT.name() });
    let mut other = Registry::new(process::Process::new(), &OTHER);
    assert_eq!(other.arm(&[&EXIT]), unknown);
    assert_eq!(
        other.register(&EXIT),
        Err(Error::AlreadyRegistered { exit: EXIT.name() })
    );
    assert_eq!(other.arm(&[&EXIT]), unknown);
    assert_eq!(other.deregister(&EXIT).map(|_| ()), unknown);
    assert_eq!(other.add_image(&IMAGE), Err(Error::ImageKnown));
    let error = other.add_image(&AGAIN).unwrap_err();
    assert!(matches!(error, Error::OtherRegistry { .. }), "{error}");
    assert_eq!(other.remove_image(&IMAGE), Err(Error::ImageUnknown));
    for hook in registry.hooks() {
        assert_eq!((other.sites(hook.hook).count(), other.exits(hook.hook).count()), (0, 0));
    }
    // The same sections under another name.
    assert_eq!(registry.add_image(&AGAIN), Err(Error::ImageKnown));
    // Two registries with one shared part.
    static LATER: ExitWith<()> = ONE::exit(c"later", (), |_, _| Flow::Continue);
    let mut twin = Registry::new(process::Process::new(), &process::SHARED);
    let taken = Err(Error::OtherRegistry { hook: Name::NONE });
    assert_eq!(twin.register(&LATER), taken);
    registry.deregister(&EXIT).unwrap();
    // Now it is free.
    other.register(&EXIT).unwrap();
    assert_eq!(
        registry.register(&EXIT),
        Err(Error::AlreadyRegistered { exit: EXIT.name() })
    );
    other.deregister(&EXIT).unwrap();
}

#[test]
fn a_pass_that_comes_late_counts_in_memory_that_is_still_the_hooks() {
    let mut registry = registry(&IMAGE);
    registry.remove_image(&IMAGE).unwrap();
    let mut taken = Vec::new();
    for _ in 0..100 {
        taken.push(registry.host().alloc_counters().unwrap());
    }
    // What a pass does that had gone past the site before it became a NOP.
    NONE.__pass();
    let zero = format!("{:?}", gkhi::Counters::new());
    for &place in &taken {
        assert_eq!(format!("{:?}", registry.host().counters(0, place).unwrap()), zero);
    }
    for place in taken {
        registry.host().free_counters(place);
    }
    registry.add_image(&IMAGE).unwrap();
    assert!(registry.hooks().all(|hook| hook.inside == 0));
}

#[test]
fn a_waiting_exit_that_may_not_be_armed_keeps_no_other_from_it() {
    static NEEDS: ExitWith<()> =
        ONE::exit(c"needs", (), |_, _| Flow::Continue).requires(&const { [Name::new(c"nobody")] });
    static FREE: ExitWith<()> = NONE::exit(c"free", (), |_| Flow::Continue);
    let mut registry = registry(&IMAGE);
    registry.remove_image(&IMAGE).unwrap();
    for exit in [&*NEEDS, &*FREE] {
        registry.register(exit).unwrap();
        registry.arm(&[exit]).unwrap();
    }
    let added = registry.add_image(&IMAGE).unwrap();
    let (name, error) = added.refused.unwrap();
    assert_eq!(name, NEEDS.name());
    assert!(matches!(error, Error::Requires { .. }), "{error}");
    assert_eq!(registry.exit(&NEEDS).unwrap().state, State::Registered);
    assert_eq!(registry.exit(&FREE).unwrap().state, State::Armed);
    for exit in [&*NEEDS, &*FREE] {
        registry.deregister(exit).unwrap();
    }
}

#[test]
fn a_set_takes_three_core_syncs() {
    static ON_ONE: ExitWith<()> = ONE::exit(c"t", (), |_, _| Flow::Continue);
    static ON_NONE: ExitWith<()> = NONE::exit(c"t", (), |_| Flow::Continue);
    static ON_FIVE: ExitWith<()> = FIVE::exit(c"t", (), |_, _, _, _, _, _| Flow::Continue);
    let mut registry = registry(&IMAGE);
    let set = [&*ON_ONE, &*ON_NONE, &*ON_FIVE];
    for exit in set {
        registry.register(exit).unwrap();
    }
    let syncs = registry.host().syncs.load(Relaxed);
    registry.arm(&set).unwrap();
    assert_eq!(registry.host().syncs.load(Relaxed), syncs + 3);
    registry.disarm(&set).unwrap();
    for exit in set {
        registry.deregister(exit).unwrap();
    }
}
