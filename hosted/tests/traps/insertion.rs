//! What is refused, and what goes together.

use dprobes::host::Prohibited;
use dprobes::insn::Refusal;
use dprobes::probe::{InsertError, PointError, RemoveError};
use hosted::CodeBuffer;

use crate::support::{Session, address, instructions, object, point, session};
use crate::victims::*;

/// Why a point with this address and attributes is refused.
fn refusal(session: &Session, at: u64, attributes: &str) -> PointError {
    let before = session.status().len();
    match session.insert(&object(50, &point(at, 1, attributes, "exit"))) {
        Err(InsertError::Point {
            point: 0,
            address,
            error,
        }) => {
            assert_eq!(address, at);
            assert_eq!(session.status().len(), before, "nothing has changed");
            error
        }
        other => panic!("{at:#x}: {other:?}"),
    }
}

#[test]
fn only_instruction_boundaries_are_accepted() {
    let session = session();
    let start = address(victim_arithmetic as *const ());
    let boundaries = instructions(&session, start);
    for at in start..*boundaries.last().unwrap() {
        if boundaries.contains(&at) {
            session.insert_text(1, &point(at, 1, "", "exit"));
            session.remove_program(1);
        } else {
            let instruction = *boundaries.iter().rfind(|boundary| **boundary < at).unwrap();
            let next = *boundaries.iter().find(|boundary| **boundary > at).unwrap();
            assert_eq!(refusal(&session, at, ""), PointError::NotBoundary { instruction, next });
        }
    }
    // A breakpoint that is in place does not move the boundaries.
    session.insert_text(1, &point(boundaries[1], 1, "", "exit"));
    let error = refusal(&session, boundaries[1] + 2, "");
    assert_eq!(
        error,
        PointError::NotBoundary {
            instruction: boundaries[1],
            next: boundaries[2],
        }
    );
}

#[test]
fn the_opcode_must_match() {
    let session = session();
    let at = address(victim_load as *const ());
    session.insert_text(1, &point(at, 1, "opcode = 0x90", "exit"));
    session.remove_program(1);
    let error = refusal(&session, at, "opcode = 0xcc");
    assert_eq!(
        error,
        PointError::Opcode {
            len: 1,
            expected: 0xcc,
            found: 0x90
        }
    );
}

#[test]
fn places_that_must_not_be_probed_are_refused() {
    let session = session();
    let data = 5_u64;
    let refused = |at: u64| refusal(&session, at, "");
    assert_eq!(
        refused(&raw const data as u64),
        PointError::Prohibited(Prohibited::NotText)
    );
    assert_eq!(refused(8), PointError::Prohibited(Prohibited::NotText));
    assert_eq!(
        refused(libc::getpid as *const () as u64),
        PointError::Prohibited(Prohibited::NotText)
    );
    // The engine, its host, and what they consist of.
    let engine = hosted::install as *const () as u64;
    assert_eq!(refused(engine), PointError::Prohibited(Prohibited::Excluded));
    let decode = dprobes::insn::Insn::decode as *const () as u64;
    assert_eq!(refused(decode), PointError::Prohibited(Prohibited::Excluded));
    let core = <str as ToOwned>::to_owned as *const () as u64;
    assert_eq!(refused(core), PointError::Prohibited(Prohibited::Excluded));
}

#[test]
fn what_cannot_be_resumed_is_refused_by_name() {
    let session = session();
    // ud1 eax, eax; ret; syscall; ret; int3; ret
    let code = CodeBuffer::with(&[0x0f, 0xb9, 0xc0, 0xc3, 0x0f, 0x05, 0xc3, 0xcc, 0xc3]).unwrap();
    let start = code.range().start;
    session.host().register_code("refused", start..start + 9);
    let bytes = |at: u64| match refusal(&session, start + at, "") {
        PointError::Instruction { refusal, .. } => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(bytes(0), Refusal::Undefined);
    assert_eq!(bytes(4), Refusal::SystemCall);
    assert_eq!(bytes(7), Refusal::Breakpoint);
}

#[test]
fn one_program_has_each_address_once() {
    let session = session();
    let at = address(victim_add as *const ());
    let twice = point(at, 1, "", "exit") + &point(at, 2, "", "exit");
    let expected = InsertError::Point {
        point: 1,
        address: at,
        error: PointError::Twice,
    };
    assert_eq!(session.insert(&object(1, &twice)), Err(expected));
    assert!(session.status().is_empty());
    assert_eq!(victim_add(1, 2), 4);
}

#[test]
fn a_major_code_is_used_once() {
    let session = session();
    let at = address(victim_add as *const ());
    session.insert_text(1, &point(at, 1, "", "exit"));
    assert_eq!(
        session.insert(&object(1, &point(at, 1, "", "exit"))),
        Err(InsertError::Exists)
    );
    session.remove_program(1);
    session.insert_text(1, &point(at, 1, "", "exit"));
    assert_eq!(session.remove(b"kernel", 2, &mut |_| ()), Err(RemoveError::NotFound));
}

#[test]
fn all_points_or_none() {
    let session = session();
    let (good, bad) = (address(victim_add as *const ()), address(victim_load as *const ()) + 2);
    let both = point(good, 1, "", "inc lv, a\nexit") + &point(bad, 2, "", "exit");
    assert!(matches!(
        session.insert(&object(1, &both)),
        Err(InsertError::Point { point: 1, .. })
    ));
    assert_eq!(victim_add(1, 2), 4);
    assert!(session.status().is_empty() && session.records().is_empty());
}

#[test]
fn several_programs_at_one_address_run_in_the_order_of_insertion() {
    let session = session();
    let at = address(victim_add as *const ());
    let logging = |n: u16| {
        point(
            at,
            n,
            "",
            &format!("push {n}\nlog 1\npush r, rdi\npush 10\nadd\npop r, rdi\nexit"),
        )
    };
    for major in 1..=3 {
        session.insert_text(major, &logging(major));
    }
    let seen = || {
        session
            .records()
            .iter()
            .map(|record| record.words()[0])
            .collect::<Vec<_>>()
    };
    assert_eq!(victim_add(1, 1), 33);
    assert_eq!(seen(), [1, 2, 3]);
    session.remove_program(2);
    assert_eq!(victim_add(1, 1), 23);
    assert_eq!(seen(), [1, 3]);
    session.insert_text(2, &logging(2));
    assert_eq!(victim_add(1, 1), 33);
    assert_eq!(seen(), [1, 3, 2]);
    session.remove_program(1);
    session.remove_program(3);
    assert_eq!(victim_add(1, 1), 13);
    assert_eq!(seen(), [2]);
    session.remove_program(2);
    assert_eq!(victim_add(1, 1), 3);
    assert!(seen().is_empty());
}

#[test]
fn slots_run_out_with_an_error_and_come_back() {
    let session = crate::support::session_with(|process| process.with_slots(1).unwrap());
    // One page: 128 slots.
    let code = CodeBuffer::with(&[&[0x90; 200][..], &[0xc3]].concat()).unwrap();
    let start = code.range().start;
    session.host().register_code("many", start..start + 201);
    let many = |count: u64| {
        (0..count)
            .map(|n| point(start + n, 1, "", "inc lv, a\nabort"))
            .collect::<String>()
    };
    for _ in 0..3 {
        session.insert_text(1, &many(128));
        // SAFETY: the buffer holds a function of this type.
        unsafe { std::mem::transmute::<*const libc::c_void, extern "C" fn()>(code.as_ptr())() };
        assert_eq!(session.variables(1, 1), [128]);
        session.remove_program(1);
        assert_eq!(
            session.insert(&object(1, &many(129))),
            Err(InsertError::NoSlot { slots: 128 })
        );
    }
}

#[test]
fn code_made_at_run_time_is_probed_as_a_module() {
    let session = session();
    // lea rax, [rdi + 1]; ret
    let code = CodeBuffer::with(&[0x48, 0x8d, 0x47, 0x01, 0xc3]).unwrap();
    let start = code.range().start;
    session.host().register_code("jit", start..start + 5);
    let text = "name = \"jit\"\nmodtype = kmod\nmajor = 1\noffset = 4\nminor = 1\npush r, rax\nlog 1\nexit\n";
    let object = rpn_asm::assemble("jit.rpn", text, &rpn_asm::Options::default())
        .unwrap()
        .object;
    session.insert(&object).unwrap();
    // SAFETY: the buffer holds a function of this type.
    let function: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(code.as_ptr()) };
    assert_eq!(function(41), 42);
    assert_eq!(session.records()[0].words(), [42]);
    session.remove(b"jit", 1, &mut |_| ()).unwrap();
    session.host().unregister_code("jit");
}

#[test]
fn what_was_written_over_a_breakpoint_stays() {
    use dprobes::host::{Host as _, Patch};
    let session = session();
    // nop; ret
    let code = CodeBuffer::with(&[0x90, 0xc3]).unwrap();
    let start = code.range().start;
    session.host().register_code("modified", start..start + 2);
    session.insert_text(1, &point(start, 1, "", "inc lv, a\nabort"));
    // As code does that modifies itself: `nop` of another kind.
    session.host().write_text(&[Patch::byte(start, 0xf8)]).unwrap();
    assert_eq!(session.remove_program(1)[0].hits, 0);
    let mut there = [0; 2];
    session.host().read(start, &mut there).unwrap();
    assert_eq!(there, [0xf8, 0xc3]);
}
