//! What the tests share: one engine at a time, and programs from text.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dprobes::insn::Instructions;
use dprobes::wire::ProbeStatus;
use hosted::{Installed, Process};

/// A process has one set of signal handlers: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// An engine for one test. Fields are dropped in order: the engine before the turn ends.
pub struct Session {
    engine: Installed,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Session {
    type Target = Installed;

    fn deref(&self) -> &Installed {
        &self.engine
    }
}

/// An engine.
pub fn session() -> Session {
    session_with(|process| process)
}

/// An engine over a process that `adjust` has changed. What `adjust` does to signal handlers comes before the engine's.
pub fn session_with(adjust: impl FnOnce(Process) -> Process) -> Session {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let engine = hosted::install(adjust(Process::new().unwrap())).unwrap();
    Session { engine, _turn: turn }
}

impl Session {
    /// Inserts a program with major code `major`, whose text after the header is `points`.
    pub fn insert_text(&self, major: u16, points: &str) {
        self.insert(&object(major, points)).unwrap();
    }

    /// Removes a program, and gives the final state of its probes.
    pub fn remove_program(&self, major: u16) -> Vec<ProbeStatus> {
        let mut last = Vec::new();
        self.remove(b"kernel", major, &mut |status| last.push(*status)).unwrap();
        last
    }

    /// The only probe there is.
    pub fn only_probe(&self) -> ProbeStatus {
        let all = self.status();
        assert_eq!(all.len(), 1);
        all[0]
    }

    /// The first `count` local variables of a program.
    pub fn variables(&self, major: u16, count: usize) -> Vec<u64> {
        let mut values = vec![0; count];
        assert!(
            self.locals(b"kernel", major, &mut values)
                .is_some_and(|there| there >= count)
        );
        values
    }
}

/// A program's object.
pub fn object(major: u16, points: &str) -> Vec<u8> {
    let header = "name = \"kernel\"\nmodtype = kernel\nvars = a, b, c, d\nlogmax = 1024\n";
    let text = format!("{header}major = {major}\n{points}");
    rpn_asm::assemble("test.rpn", &text, &rpn_asm::Options::default())
        .unwrap_or_else(|e| panic!("{e}\n{text}"))
        .object
}

/// A point of a program: `attributes` is what stands between its address and its code, such as `max_hits = 1`.
pub fn point(address: u64, minor: u16, attributes: &str, code: &str) -> String {
    format!("address = {address:#x}\nminor = {minor}\n{attributes}\n{code}\n")
}

/// The address of a function.
pub fn address(function: *const ()) -> u64 {
    function as u64
}

/// The addresses of a function's instructions.
pub fn instructions(session: &Session, function: u64) -> Vec<u64> {
    use dprobes::host::Host as _;
    let bounds = session.host().probeable(function).unwrap();
    assert_eq!(bounds.start, function);
    let mut text = vec![0; (bounds.end - bounds.start) as usize];
    session.host().read(function, &mut text).unwrap();
    Instructions::new(&text)
        .map(|item| function + item.unwrap().0 as u64)
        .collect()
}
