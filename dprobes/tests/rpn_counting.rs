//! Handlers that only count: marked for what they are, and run as the interpreter runs them.

mod rpn;

use std::sync::atomic::{AtomicU64, Ordering};

use dprobes::rpn::interp::{self, End, Variables, Workspace};
use rpn::build::Builder;
use rpn::env::Machine;
use rpn::random::Rng;

const VARIABLES: u64 = 3;

/// What each variable was before and is after, the locals first.
type Values = Vec<u64>;

fn atomics(values: &[u64]) -> Vec<AtomicU64> {
    values.iter().map(|value| AtomicU64::new(*value)).collect()
}

/// Runs a function on variables with these values.
fn with<T>(before: &Values, run: impl FnOnce(&Variables<'_>) -> T) -> (T, Values) {
    let (locals, globals) = before.split_at(VARIABLES as usize);
    let (locals, globals) = (atomics(locals), atomics(globals));
    let variables = Variables {
        globals: &globals,
        // The system's globals are in another order than the program's, and there are more of them.
        global_slots: &[3, 0, 2],
        ..Variables::of_locals(&locals)
    };
    let result = run(&variables);
    let after = locals.iter().chain(&globals);
    (result, after.map(|value| value.load(Ordering::Relaxed)).collect())
}

/// A handler, and whether it only counts.
fn handler(rng: &mut Rng) -> (String, bool) {
    let mut text = String::new();
    let mut counts = true;
    for _ in 0..rng.below(6) {
        let index = rng.below(VARIABLES);
        if rng.one_in(12) {
            counts = false;
            text += rng.pick(&[
                "nop; ",
                "push 1; ",
                "push 7; pop lv, 0; ",
                "push 1; inc lv; ",
                "jmp end; ",
            ]);
        }
        let (op, class) = (rng.pick(&["inc", "dec"]), rng.pick(&["lv", "gv"]));
        text += &format!("{op} {class}, {index}; ");
    }
    let end = if rng.one_in(6) {
        counts = false;
        rng.pick(&["exit", "remove"])
    } else {
        "abort"
    };
    (format!("{text}end: {end}"), counts)
}

#[test]
fn counting_does_what_the_interpreter_does() {
    let mut rng = Rng(0x0063_6f75_6e74);
    let mut ws = Box::new(Workspace::new());
    let mut marked = 0;
    for _ in 0..20_000 {
        let (text, counts) = handler(&mut rng);
        let program = Builder::text(&text, VARIABLES as u16)
            .globals(VARIABLES as usize)
            .verify()
            .unwrap();
        let counting = program.counting(0);
        assert_eq!(counting.is_some(), counts, "{text}");
        let Some(counting) = counting else { continue };
        marked += 1;
        let before: Values = (0..2 * VARIABLES + 1)
            .map(|_| rng.pick(&[0, 1, u64::MAX, 1 << 63]))
            .collect();
        let (outcome, expected) = with(&before, |variables| {
            interp::run(&program, 0, &mut ws, &mut Machine::new(), variables)
        });
        assert_eq!(outcome.end, End::Abort, "{text}");
        assert!(!outcome.traced && !outcome.log_overflow && ws.log().is_empty());
        assert_eq!(
            with(&before, |variables| counting.run(variables)),
            (true, expected),
            "{text}"
        );
    }
    assert!(marked > 8_000, "only {marked} handlers count");
}

/// A host that gives fewer variables than the program names.
#[test]
fn a_variable_that_is_not_there_is_an_exception() {
    let locals = atomics(&[5, 5]);
    for (text, expected) in [
        ("inc lv, 0; inc lv, 2; inc lv, 1; abort", [6, 5]),
        ("dec gv, 0; abort", [6, 5]),
    ] {
        let program = Builder::text(text, 3).globals(1).verify().unwrap();
        let counting = program.counting(0).expect("a handler that counts");
        assert!(!counting.run(&Variables::of_locals(&locals)));
        let after: Values = locals.iter().map(|local| local.load(Ordering::Relaxed)).collect();
        assert_eq!(after, expected);
        let outcome = interp::run(
            &program,
            0,
            &mut Box::new(Workspace::new()),
            &mut Machine::new(),
            &Variables::of_locals(&atomics(&[0, 0])),
        );
        assert!(matches!(outcome.end, End::Exception { .. }));
    }
}

#[test]
fn there_is_no_handler_for_a_point_that_is_not_there() {
    let program = Builder::text("abort", 0).verify().unwrap();
    assert!(program.counting(0).is_some());
    assert!(program.counting(1).is_none());
}
