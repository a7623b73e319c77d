//! Programs that wait for their module, go in with it and out with it.

use std::ops::Range;

use dprobes::host::SymbolError;
use dprobes::probe::{InsertError, PointError};
use dprobes::wire::{ProbeStatus, Reason, State};
use hosted::CodeBuffer;

use crate::support::{Session, session};

/// `lea rax, [rdi + 1]; ret`, `lea rax, [rdi + 2]; ret`
const CODE: [u8; 10] = [0x48, 0x8d, 0x47, 0x01, 0xc3, 0x48, 0x8d, 0x47, 0x02, 0xc3];

/// Code that comes and goes as module `jit`, with a function `body` and, as if it were for its beginning only, `init`.
struct Jit<'s> {
    session: &'s Session,
    code: CodeBuffer,
}

impl<'s> Jit<'s> {
    fn new(session: &'s Session) -> Self {
        let code = CodeBuffer::with(&CODE).unwrap();
        Jit { session, code }
    }

    fn body(&self) -> Range<u64> {
        let start = self.code.range().start;
        start..start + 5
    }

    fn init(&self) -> Range<u64> {
        self.body().end..self.body().end + 5
    }

    /// It comes, with these symbols.
    fn come(&self, symbols: &[(&str, Range<u64>)]) {
        let host = self.session.host();
        host.register_functions("jit", vec![self.body(), self.init()]);
        for (symbol, range) in symbols {
            host.register_symbol("jit", symbol, range.clone());
        }
        self.session.module_coming(b"jit");
    }

    fn come_with_all(&self) {
        self.come(&[("body", self.body()), ("init", self.init())]);
    }

    fn go(&self) {
        self.session.module_going(self.init());
        self.session.module_going(self.body());
        self.session.host().unregister_code("jit");
        // As whoever gets the memory next.
        assert_eq!(self.bytes(), CODE, "no breakpoint is left");
    }

    fn bytes(&self) -> [u8; 10] {
        use dprobes::host::Host as _;
        let mut bytes = [0; 10];
        self.session.host().read(self.code.range().start, &mut bytes).unwrap();
        bytes
    }

    /// Runs the function at an address of it.
    fn run(&self, function: Range<u64>) -> u64 {
        // SAFETY: there is a function of this type, and the buffer lives.
        let function: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(function.start) };
        function(40)
    }
}

fn object(points: &str) -> Vec<u8> {
    numbered(1, points)
}

fn numbered(major: u16, points: &str) -> Vec<u8> {
    let text = format!("name = \"jit\"\nmodtype = kmod\nmajor = {major}\nvars = count, at\n{points}");
    rpn_asm::assemble("jit.rpn", &text, &rpn_asm::Options::default())
        .unwrap_or_else(|error| panic!("{error}"))
        .object
}

const BODY: &str = "offset = body\nminor = 1\ninc lv, count\nabort\n";
const INIT: &str = "offset = init\nminor = 2\ninc lv, count\nabort\n";

fn states(probes: &[ProbeStatus]) -> Vec<State> {
    let state = |probe: &ProbeStatus| State::from_code(probe.state).unwrap();
    probes.iter().map(state).collect()
}

fn variables<const N: usize>(session: &Session) -> [u64; N] {
    let mut values = [0; N];
    session.locals(b"jit", 1, &mut values).unwrap();
    values
}

#[test]
fn it_waits_and_comes_and_goes_with_its_module() {
    let session = session();
    session.insert(&object(&format!("{BODY}{INIT}"))).unwrap();
    assert_eq!(states(&session.status()), [State::Waiting; 2]);
    assert!(session.status().iter().all(|probe| probe.address == 0));
    let free = session.slots_free();
    for load in 1..=20 {
        // Somewhere else each time.
        let jit = Jit::new(&session);
        jit.come_with_all();
        assert_eq!(states(&session.status()), [State::Armed; 2]);
        assert_eq!((jit.run(jit.init()), jit.run(jit.body())), (42, 41));
        session.module_live(b"jit", jit.init());
        assert_eq!(states(&session.status()), [State::Armed, State::CodeFreed]);
        assert_eq!((jit.run(jit.init()), jit.run(jit.body())), (42, 41));
        jit.go();
        let probes = session.status();
        assert_eq!(states(&probes), [State::Waiting; 2]);
        assert_eq!((probes[0].hits, probes[1].hits), (2 * load, load));
        assert_eq!(variables(&session), [3 * load]);
        assert_eq!(session.slots_free(), free);
    }
    session.remove(b"jit", 1, &mut |_| ()).unwrap();
}

#[test]
fn it_goes_in_at_once_when_its_module_is_there() {
    let session = session();
    let jit = Jit::new(&session);
    jit.come_with_all();
    session.insert(&object(BODY)).unwrap();
    assert_eq!(jit.run(jit.body()), 41);
    // An initialisation that fails, or none: it goes all the same.
    jit.go();
    assert_eq!(states(&session.status()), [State::Waiting]);
    assert_eq!(session.status()[0].hits, 1);
}

#[test]
fn what_came_while_the_initialisation_ran_goes_in_behind_it() {
    let session = session();
    let jit = Jit::new(&session);
    session.insert(&object(BODY)).unwrap();
    let host = session.host();
    host.register_code("jit", jit.body());
    host.register_symbol("jit", "body", jit.body());
    assert_eq!(states(&session.status()), [State::Waiting]);
    session.module_live(b"jit", jit.init());
    assert_eq!(states(&session.status()), [State::Armed]);
    jit.go();
}

#[test]
fn what_is_refused_says_why_and_holds_the_others_back() {
    let session = session();
    let jit = Jit::new(&session);
    session.insert(&object(&format!("{BODY}{INIT}"))).unwrap();
    let come_without = |symbols: &[(&str, Range<u64>)], reason| {
        jit.come(symbols);
        let probes = session.status();
        assert_eq!(states(&probes), [State::Withheld, State::Refused]);
        assert_eq!((probes[0].reason, probes[1].reason), (0, reason as u32));
        assert_eq!(jit.bytes(), CODE);
        // It is not tried again before the next load.
        session.module_live(b"jit", 0..0);
        assert_eq!(states(&session.status()), [State::Withheld, State::Refused]);
        jit.go();
        let probes = session.status();
        assert_eq!(states(&probes), [State::Waiting; 2]);
        assert_eq!(probes[1].reason, reason as u32);
    };
    let (body, init) = (("body", jit.body()), ("init", jit.init()));
    come_without(std::slice::from_ref(&body), Reason::NoSymbol);
    come_without(&[body.clone(), init.clone(), init.clone()], Reason::AmbiguousSymbol);
    let shifted = jit.init().start + 1..jit.init().end;
    come_without(&[body.clone(), ("init", shifted)], Reason::NotBoundary);
    come_without(&[body.clone(), ("init", 0x1000..0x1005)], Reason::Prohibited);
    jit.come_with_all();
    assert_eq!(states(&session.status()), [State::Armed; 2]);
    assert!(session.status().iter().all(|probe| probe.reason == 0));
    jit.go();
}

#[test]
fn refusals_by_the_distance_and_by_the_opcode() {
    let session = session();
    for (point, reason) in [
        ("offset = body + 5\nminor = 1\nexit\n", Reason::OutsideSymbol),
        ("offset = body\nopcode = 0x90\nminor = 1\nexit\n", Reason::Opcode),
        (
            "offset = body\nminor = 1\npush nowhere_at_all\nlog 1\nexit\n",
            Reason::NoSymbol,
        ),
    ] {
        let jit = Jit::new(&session);
        session.insert(&object(point)).unwrap();
        jit.come_with_all();
        let probe = session.only_probe();
        assert_eq!((states(&[probe]), probe.reason), (vec![State::Refused], reason as u32));
        jit.go();
        session.remove(b"jit", 1, &mut |_| ()).unwrap();
    }
}

#[test]
fn a_module_that_is_there_and_has_no_such_symbol_refuses_the_program() {
    let session = session();
    let jit = Jit::new(&session);
    jit.come(&[("body", jit.body())]);
    assert_eq!(
        session.insert(&object(&format!("{BODY}{INIT}"))),
        Err(InsertError::Point {
            point: 1,
            address: 0,
            error: PointError::Symbol(SymbolError::Unknown),
        })
    );
    assert_eq!(session.status(), []);
    jit.go();
}

#[test]
fn symbols_in_handlers_are_those_of_this_load() {
    let session = session();
    let code = "offset = body\nminor = 1\npush init + 1\npop lv, at\nabort\n";
    session.insert(&object(code)).unwrap();
    for _ in 0..3 {
        let jit = Jit::new(&session);
        jit.come_with_all();
        assert_eq!(jit.run(jit.body()), 41);
        assert_eq!(variables::<2>(&session)[1], jit.init().start + 1);
        jit.go();
    }
}

#[test]
fn a_probe_that_is_used_up_stays_so() {
    let session = session();
    session
        .insert(&object(
            "offset = body\nminor = 1\nmax_hits = 2\ninc lv, count\nabort\n",
        ))
        .unwrap();
    for _ in 0..3 {
        let jit = Jit::new(&session);
        jit.come_with_all();
        assert_eq!(jit.run(jit.body()), 41);
        session.reap_if_requested();
        jit.go();
    }
    let probe = session.only_probe();
    assert_eq!((probe.hits, probe.state), (2, State::Exhausted as u32));
    assert_eq!(variables(&session), [2]);
}

#[test]
fn programs_share_places_at_every_load() {
    let session = session();
    for major in 1..=20 {
        session.insert(&numbered(major, &format!("{BODY}{INIT}"))).unwrap();
    }
    for load in 1..=5 {
        let jit = Jit::new(&session);
        jit.come_with_all();
        assert_eq!((jit.run(jit.init()), jit.run(jit.body())), (42, 41));
        jit.go();
        let probes = session.status();
        assert!(probes.iter().all(|probe| probe.hits == load), "{probes:?}");
    }
    // In another order than they came in.
    for major in [7, 1, 20, 3] {
        session.remove(b"jit", major, &mut |_| ()).unwrap();
        let jit = Jit::new(&session);
        jit.come_with_all();
        assert_eq!(jit.run(jit.body()), 41);
        jit.go();
    }
}

#[test]
fn what_waits_can_be_removed() {
    let session = session();
    session.insert(&object(BODY)).unwrap();
    assert_eq!(session.insert(&object(BODY)), Err(InsertError::Exists));
    session.remove(b"jit", 1, &mut |_| ()).unwrap();
    let jit = Jit::new(&session);
    jit.come_with_all();
    assert_eq!(jit.bytes(), CODE);
    jit.go();
}

#[test]
fn addresses_are_those_of_one_load() {
    let session = session();
    let jit = Jit::new(&session);
    let at = jit.body().start;
    let absolute = object(&format!("address = {at:#x}\nminor = 1\ninc lv, count\nabort\n"));
    assert_eq!(session.insert(&absolute), Err(InsertError::NoModule));
    jit.come_with_all();
    session.insert(&absolute).unwrap();
    jit.go();
    assert_eq!(states(&session.status()), [State::ModuleGone]);
    jit.come_with_all();
    assert_eq!(states(&session.status()), [State::ModuleGone]);
    jit.go();
}
