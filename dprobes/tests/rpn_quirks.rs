//! Hazards of the original that must not come back; the numbers are those of its description.

mod rpn;

use std::sync::atomic::{AtomicU64, Ordering};

use dprobes::record::element::{Element, Elements};
use dprobes::rpn::exception;
use dprobes::rpn::interp::{End, Outcome, Variables, Workspace, run};
use dprobes::rpn::limits::{self, INSTRUCTION_BUDGET, TRACE_NAME_MAX};
use dprobes::rpn::variables::Pool;
use dprobes::rpn::verify::Fault;
use rpn::build::Builder;
use rpn::env::{Hostile, Machine};
use rpn::random::Rng;

fn run_in(ws: &mut Workspace, builder: &Builder, locals: &[AtomicU64]) -> Outcome {
    let program = builder.verify().unwrap();
    let mut machine = Machine::new().with(0x1000, b"a long string, longer than the log\0");
    run(&program, 0, ws, &mut machine, &Variables::of_locals(locals))
}

fn words(ws: &Workspace) -> Vec<u64> {
    let words = Elements::new(ws.log()).map(|element| match element.unwrap() {
        Element::Words(words) => words.iter().collect::<Vec<_>>(),
        other => panic!("words, not {other:?}"),
    });
    words.flatten().collect()
}

fn raised(outcome: &Outcome) -> (u64, u64, u64) {
    match outcome.end {
        End::Exception { exception: e, .. } => (e.code, e.parm1, e.parm2),
        other => panic!("an exception, not {other:?}"),
    }
}

/// Q1: logmax could become more than the buffer has.
#[test]
fn q1_the_log_never_exceeds_its_limit() {
    let mut ws = Box::new(Workspace::new());
    for logmax in [0, 1, 2, 3, 10, 11, 500, 1023, 1024] {
        let fill = "l: sx l; push -1; push 0x1000; log str; push 7; log 1; push 100; push 0x1000; log mrf; jmp l";
        let builder = Builder::text(fill, 0).logmax(logmax).jmpmax(1000);
        let program = builder.verify().unwrap();
        let mut env = Hostile {
            rng: Rng(u64::from(logmax)),
            asked: 0,
        };
        let outcome = run(&program, 0, &mut ws, &mut env, &Variables::default());
        assert!(ws.log().len() <= usize::from(logmax));
        assert!(Elements::new(ws.log()).all(|element| element.is_ok()));
        assert!(outcome.log_overflow);
    }
}

/// Q3: the first pop or conditional jump read behind the stack.
#[test]
fn q3_the_empty_stack_is_empty() {
    let mut ws = Box::new(Workspace::new());
    assert!(matches!(
        Builder::text("log 1; exit", 0).verify().unwrap_err().fault,
        Fault::Underflow { depth: 0, .. }
    ));
    assert!(matches!(
        Builder::text("jz a; a: exit", 0).verify().unwrap_err().fault,
        Fault::Underflow { depth: 0, .. }
    ));
    let ring = Builder::text("jnz a; log 1; exit; a: abort", 0).ex_mask(0);
    assert_eq!(run_in(&mut ws, &ring, &[]).end, End::Exit);
    assert_eq!(words(&ws), [0]);
}

/// Q4: exception code, handler and stack leaked from one hit to the next.
#[test]
fn q4_nothing_leaks_from_one_hit_to_the_next() {
    let mut ws = Box::new(Workspace::new());
    let dirty = Builder::text(
        "push 7; dup 255; dup 255; sx h; call f; exit; h: abort; f: sx h; call g; ret; g: push 9; push 8; push 0x8000; rx",
        0,
    );
    for _ in 0..3 {
        run_in(&mut ws, &dirty, &[]);
        let last = run_in(&mut ws, &Builder::text("push x; log 3; exit", 0), &[]);
        assert_eq!((last.end, words(&ws)), (End::Exit, vec![0; 3]));

        run_in(&mut ws, &dirty, &[]);
        let handler = run_in(&mut ws, &Builder::text("push 0; push mem, u8; exit", 0), &[]);
        assert_eq!(raised(&handler), (1, 0, 0));

        run_in(&mut ws, &dirty, &[]);
        let ret = run_in(&mut ws, &Builder::text("call f; push 1; log 1; exit; f: ret", 0), &[]);
        assert_eq!((ret.end, words(&ws)), (End::Exit, vec![1]));

        run_in(&mut ws, &dirty, &[]);
        let stack = run_in(&mut ws, &Builder::text("log 64; exit", 0).ex_mask(0), &[]);
        assert_eq!((stack.end, words(&ws)), (End::Exit, vec![0; 64]));

        run_in(&mut ws, &dirty, &[]);
        let log = run_in(&mut ws, &Builder::text("exit", 0), &[]);
        assert_eq!(
            (log.log_len, log.major, log.minor, log.log_overflow, ws.log()),
            (0, None, None, false, &[][..])
        );
    }
}

/// Q5: the most negative number divided by -1 faulted.
#[test]
fn q5_division_never_faults() {
    let mut ws = Box::new(Workspace::new());
    let outcome = run_in(
        &mut ws,
        &Builder::text("push 0x8000000000000000; push -1; idiv; exit", 0),
        &[],
    );
    assert_eq!(raised(&outcome), (u64::from(exception::DIV_BY_ZERO), 0, 0));
}

/// Q7: a word of 64 bits was moved as 16 bytes.
#[test]
fn q7_a_word_of_memory_is_one_word() {
    let mut ws = Box::new(Workspace::new());
    let text = "push 5; push 0x1000; push mem, u64; log 1; log 1; push 0x1000; push 1; pop mem, u64; exit";
    assert_eq!(run_in(&mut ws, &Builder::text(text, 0), &[]).end, End::Exit);
    assert_eq!(words(&ws), [u64::from_le_bytes(*b"a long s"), 5]);
}

/// Q8: the index of a local variable could be their number.
#[test]
fn q8_the_last_local_variable_is_the_last() {
    let mut ws = Box::new(Workspace::new());
    let locals = [AtomicU64::new(0), AtomicU64::new(0)];
    assert_eq!(
        run_in(&mut ws, &Builder::text("push 1; inc lv; inc lv, 1; exit", 2), &locals).end,
        End::Exit
    );
    assert_eq!(locals[1].load(Ordering::Relaxed), 2);
    assert_eq!(
        raised(&run_in(&mut ws, &Builder::text("push 2; inc lv; exit", 2), &locals)),
        (0x40, 1, 2)
    );
    assert_eq!(
        raised(&run_in(&mut ws, &Builder::text("push 0; inc lv; exit", 0), &[])),
        (0x40, 1, 0)
    );
    let error = Builder::text("inc lv, 2; exit", 2).verify().unwrap_err();
    assert_eq!(error.fault, Fault::Local { found: 2, count: 2 });
    // Fewer variables than the program was verified with is the host's mistake, but not a reason to fall.
    assert_eq!(
        raised(&run_in(&mut ws, &Builder::text("inc lv, 1; exit", 2), &locals[..1])),
        (0x40, 1, 1)
    );
}

/// Q9: strings and memory were cut silently, and a string could exceed the limit by three bytes.
#[test]
fn q9_truncation_is_reported_and_exact() {
    let mut ws = Box::new(Workspace::new());
    for text in [
        "push 30; push 0x1000; log str; exit",
        "push 30; push 0x1000; log mrf; exit",
    ] {
        for logmax in 0..40 {
            let outcome = run_in(&mut ws, &Builder::text(text, 0).logmax(logmax), &[]);
            assert_eq!(outcome.end, End::Exit);
            assert_eq!(outcome.log_overflow, logmax < 33);
            let expected = if logmax < 3 { 0 } else { usize::from(logmax).min(33) };
            assert_eq!(ws.log().len(), expected);
            let outcome = run_in(&mut ws, &Builder::text(text, 0).logmax(logmax).ex_mask(0x3fff), &[]);
            if logmax < 33 {
                assert_eq!(
                    raised(&outcome),
                    (u64::from(exception::LOG_OVERFLOW), u64::from(logmax), 0)
                );
            } else {
                assert_eq!(outcome.end, End::Exit);
            }
        }
    }
}

/// Q14: the count of a fault record did not match its payload.
#[test]
fn q14_a_fault_element_has_the_length_it_says() {
    let mut ws = Box::new(Workspace::new());
    run_in(
        &mut ws,
        &Builder::text("push 1; push 0x123456789a; log str; exit", 0),
        &[],
    );
    assert_eq!(ws.log(), [0xff, 8, 0, 0x9a, 0x78, 0x56, 0x34, 0x12, 0, 0, 0]);
    assert!(Elements::new(ws.log()).eq([Ok(Element::Fault(0x12_3456_789a))]));
}

/// Q15: `dup n` made n copies, `dup` one more.
#[test]
fn q15_both_forms_of_dup_make_as_many_copies() {
    let mut ws = Box::new(Workspace::new());
    for n in 0..5 {
        let outcome = |text: String, ws: &mut Workspace| {
            assert_eq!(run_in(ws, &Builder::text(&text, 0), &[]).end, End::Exit);
            words(ws)
        };
        let mut expected = vec![7; n];
        expected.push(1);
        let rest = n + 1;
        assert_eq!(
            outcome(format!("push 1; push 7; dup {n}; log {rest}; exit"), &mut ws),
            expected
        );
        let operands = format!("push {rest}; pop lv, 0; push 1; push {n}; push 7; dup; push lv, 0; log; exit");
        let program = Builder::text(&operands, 1);
        assert_eq!(run_in(&mut ws, &program, &[AtomicU64::new(0)]).end, End::Exit);
        assert_eq!(words(&ws), expected);
    }
}

/// Jumps were limited, but calls, handlers and long loops were not: a program could keep a CPU for ever.
#[test]
fn every_program_ends() {
    let mut ws = Box::new(Workspace::new());
    let locals = [AtomicU64::new(0)];
    let budget = (u64::from(exception::MAX_JMPS), u64::from(INSTRUCTION_BUDGET), 0);
    let body = "inc lv, 0; ".repeat(1000);
    // A loop that is long rather than frequent.
    let builder = Builder::text(&format!("l: {body} jmp l"), 1);
    assert_eq!(raised(&run_in(&mut ws, &builder, &locals)), budget);
    let executed = locals[0].swap(0, Ordering::Relaxed);
    assert!((990_000..=1_001_000).contains(&executed), "{executed}");
    // Its handler gets a little more, once.
    let builder = Builder::text(&format!("sx h; l: {body} jmp l; h: sx h; jmp l"), 1);
    assert_eq!(raised(&run_in(&mut ws, &builder, &locals)), budget);
    let executed = locals[0].swap(0, Ordering::Relaxed);
    assert!((1_000_000..=1_012_000).contains(&executed), "{executed}");
    // Handlers that raise.
    let builder = Builder::text("h: sx h; push 0; push mem, u8; exit", 0);
    assert_eq!(raised(&run_in(&mut ws, &builder, &locals)), budget);
    let builder = Builder::text("sx h; push 3; push 2; push 1; h: sx h; rx", 0);
    assert_eq!(raised(&run_in(&mut ws, &builder, &locals)), budget);
    // Calls that call, 2 to the power of 32 times.
    let mut text = String::from("call f0; exit; ");
    for i in 0..31 {
        text += &format!("f{i}: call f{}; call f{}; ret; ", i + 1, i + 1);
    }
    text += "f31: inc lv, 0; ret";
    assert_eq!(raised(&run_in(&mut ws, &Builder::text(&text, 1), &locals)), budget);
    // Memory and copies cost more than other instructions.
    let builder = Builder::text("l: push 0x1000; push mem, u8; ros 1; inc lv, 0; jmp l", 1);
    locals[0].store(0, Ordering::Relaxed);
    let outcome = run_in(&mut ws, &builder, &locals);
    assert_eq!(raised(&outcome), (u64::from(exception::MAX_JMPS), 65_535, 0));
    let builder = Builder::text("l: push 1; dup 255; ros 255; inc lv, 0; jmp l", 1);
    locals[0].store(0, Ordering::Relaxed);
    assert_eq!(raised(&run_in(&mut ws, &builder, &locals)), budget);
    assert!(locals[0].load(Ordering::Relaxed) < 4000);
}

/// Local variables are shared by all CPUs: increments are not lost.
#[test]
fn increments_are_atomic() {
    let program = Builder::text("inc lv, 0; push 1; inc lv; dec lv, 2; push 2; dec lv; exit", 3)
        .verify()
        .unwrap();
    let locals: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut ws = Box::new(Workspace::new());
                for _ in 0..100_000 {
                    run(
                        &program,
                        0,
                        &mut ws,
                        &mut Machine::new(),
                        &Variables::of_locals(&locals),
                    );
                }
            });
        }
    });
    let values: Vec<u64> = locals.iter().map(|local| local.load(Ordering::Relaxed)).collect();
    assert_eq!(values, [200_000, 200_000, 0_u64.wrapping_sub(400_000)]);
}

fn elements(ws: &Workspace) -> Vec<Element<'_>> {
    Elements::new(ws.traces()).map(|element| element.unwrap()).collect()
}

/// Q4: neither does anything of the log's lengths, frames, heap and traces leak.
#[test]
fn q4_lengths_frames_heap_and_traces_are_fresh() {
    let mut ws = Box::new(Workspace::new());
    let dirty = "push 5; push 5; restore sbp; log 1; push 8; malloc; push 1; push 1; trace lv; call f; exit; \
        f: push 0; push 1; trace pv; log st; abort";
    let dirty = Builder::text(dirty, 2).heap(8).ex_logmax(70);
    let locals = [AtomicU64::new(0), AtomicU64::new(0)];
    for _ in 0..3 {
        assert_eq!(run_in(&mut ws, &dirty, &locals).end, End::Abort);
        let text = "push lp; push plp; push stp; save sbp; save tsp; log 5; exit";
        assert_eq!(run_in(&mut ws, &Builder::text(text, 0), &[]).end, End::Exit);
        assert_eq!(words(&ws), [4, 0, 0, 0, 0]);

        assert_eq!(run_in(&mut ws, &dirty, &locals).end, End::Abort);
        let heap = Builder::text("push 1; push 0; pushh u8, 1; exit", 0).heap(8);
        assert_eq!(raised(&run_in(&mut ws, &heap, &[])), (0x200, 1, 0));

        assert_eq!(run_in(&mut ws, &dirty, &locals).end, End::Abort);
        let heap = Builder::text("push 8; malloc; push 0; pushh u64, 1; log 1; exit", 0).heap(8);
        assert_eq!(run_in(&mut ws, &heap, &[]).end, End::Exit);
        assert_eq!(words(&ws), [0]);

        assert_eq!(run_in(&mut ws, &dirty, &locals).end, End::Abort);
        let trace = run_in(&mut ws, &Builder::text("log st; exit", 2), &locals);
        assert_eq!(
            (trace.end, trace.traced, trace.trace_overflow),
            (End::Exit, true, false)
        );
        assert_eq!(elements(&ws).len(), 2);
    }
    let quiet = run_in(&mut ws, &Builder::text("exit", 0), &[]);
    assert_eq!(
        (quiet.traced, quiet.trace_overflow, ws.traces()),
        (false, false, &[][..])
    );
    assert_eq!(ws.trace_record(b"kernel", [1, 2, 3, 4]), None);
}

/// Q6: any number of words could be restored, and any length set.
#[test]
fn q6_nothing_reaches_behind_its_buffer() {
    let mut ws = Box::new(Workspace::new());
    let text = |text: &str, mask: u16| Builder::text(text, 0).ex_mask(mask);
    for mask in [0x2fff, 0x0fff] {
        for word in [1025_u64, 1 << 16, 1 << 32, u64::MAX, 1 << 63] {
            for (insn, class) in [
                ("restore tsp", 10),
                ("restore sbp", 10),
                ("pop lp", 11),
                ("pop stp", 11),
            ] {
                let builder = text(&format!("log st; push 1; log 1; push {word}; {insn}; exit"), mask);
                assert_eq!(raised(&run_in(&mut ws, &builder, &[])), (0x40, class, word), "{insn}");
                assert!(
                    Elements::new(ws.log())
                        .chain(Elements::new(ws.traces()))
                        .all(|element| element.is_ok())
                );
            }
            // Positions wrap in a ring, and are refused elsewhere.
            for base in ["tsp", "sbp"] {
                for program in [
                    format!("push {word}; push {base}; exit"),
                    format!("push {word}; push 1; pop {base}; exit"),
                    format!("push {word}; push 1; copy {base}; exit"),
                ] {
                    let outcome = run_in(&mut ws, &text(&program, mask), &[]);
                    if mask == 0x0fff {
                        assert_eq!(outcome.end, End::Exit, "{program}");
                    } else {
                        assert_eq!(raised(&outcome).0, 0x2000, "{program}");
                    }
                }
            }
        }
    }
    // A length inside an element is none that a reader could make sense of.
    for at in 1..11 {
        let builder = text(&format!("push 1; log 1; push {at}; pop lp; exit"), 0x2fff);
        assert_eq!(raised(&run_in(&mut ws, &builder, &[])), (0x40, 11, at));
        assert_eq!(words(&ws), [1]);
    }
}

/// Q10: a word read from the heap was pushed twice, a bound was off by one, a block without bytes could not be freed, and the
/// heaps of two CPUs could overlap.
#[test]
fn q10_the_heap_keeps_its_bounds() {
    let mut ws = Box::new(Workspace::new());
    let heap = |text: &str| Builder::text(text, 0).heap(16);
    let outcome = run_in(
        &mut ws,
        &heap(
            "push 2; push 1; push 16; malloc; push 0; poph u64, 2; push 1; push 0; pushh u64, 2; save tsp; log 3; exit",
        ),
        &[],
    );
    assert_eq!((outcome.end, words(&ws)), (End::Exit, vec![2, 2, 1]));
    for (width, bytes) in [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8)] {
        let last = 16 - bytes;
        let good = format!(
            "push 7; push 16; malloc; push {last}; poph {width}, 1; push 1; push {last}; pushh {width}, 1; log 1; exit"
        );
        assert_eq!(run_in(&mut ws, &heap(&good), &[]).end, End::Exit, "{width}");
        assert_eq!(words(&ws), [7]);
        let offset = last + 1;
        for bad in [
            format!("push 7; push 16; malloc; push {offset}; poph {width}, 1; exit"),
            format!("push 16; malloc; push {offset}; pushh {width}, 1; exit"),
        ] {
            assert_eq!(raised(&run_in(&mut ws, &heap(&bad), &[])), (0x400, 1, 16), "{bad}");
        }
    }
    let outcome = run_in(&mut ws, &heap("push 0; malloc; free; push 0; malloc; log 1; exit"), &[]);
    assert_eq!((outcome.end, words(&ws)), (End::Exit, vec![2]));
    // Each CPU has a heap of its own, of the greatest size.
    let program = Builder::text(
        "push 16384; malloc; push 16383; push 9; push 1; push 16383; poph u8, 1; pushh u8, 1; log 1; exit",
        0,
    )
    .heap(16_384)
    .verify()
    .unwrap();
    let mut other = Box::new(Workspace::new());
    for ws in [&mut ws, &mut other] {
        let outcome = run(&program, 0, ws, &mut Machine::new(), &Variables::default());
        assert_eq!((outcome.end, words(ws)), (End::Exit, vec![9]));
    }
}

/// Q14: what the elements of a stack-trace record say of their length is true as well.
#[test]
fn q14_every_element_of_a_trace_has_the_length_it_says() {
    let mut ws = Box::new(Workspace::new());
    let locals: Vec<AtomicU64> = (0..4).map(AtomicU64::new).collect();
    let text = "push 0; push 4; trace lv; push 0; push 3; trace pv; call f; exit; f: push 1; push 2; trace lv; log st; log st; ret";
    for ex_logmax in 0..400 {
        let outcome = run_in(&mut ws, &Builder::text(text, 4).ex_logmax(ex_logmax), &locals);
        assert_eq!(outcome.end, End::Exit);
        assert!(ws.traces().len() <= usize::from(ex_logmax));
        assert!(Elements::new(ws.traces()).all(|element| element.is_ok()));
        // Each: 43 of the trace, 19 of each routine, 19 and 35 of its variables; the stack is empty.
        assert_eq!(outcome.trace_overflow, ex_logmax < 2 * (43 + 19 + 19 + 19 + 3 + 35));
    }
}

/// Q16: with an automatic trace, an exception outside of the mask left the code of an earlier one.
#[test]
fn q16_a_trace_shows_its_own_exception() {
    let mut ws = Box::new(Workspace::new());
    let text = "sx h; push 1; push 0; div; exit; h: ros 3; push 0x30; push mem, u8; exit";
    let builder = Builder::text(text, 0).auto_stack_trace().ex_mask(0x2ffe);
    let outcome = run_in(&mut ws, &builder, &[]);
    assert_eq!(raised(&outcome), (1, 0x30, 0));
    let codes: Vec<_> = elements(&ws)
        .into_iter()
        .filter_map(|element| match element {
            Element::Trace {
                code, parm1, handler, ..
            } => Some((code, parm1, handler)),
            _ => None,
        })
        .collect();
    assert_eq!(codes, [(0x20, 0, Some(25)), (1, 0x30, None)]);
    // What is ignored leaves none.
    let builder = Builder::text("push 1; log 1; exit", 0).auto_stack_trace().logmax(0);
    let outcome = run_in(&mut ws, &builder, &[]);
    assert_eq!((outcome.end, outcome.traced), (End::Exit, false));
}

/// Q24: publishing a stack-trace record changed what later records began with.
#[test]
fn q24_a_trace_record_changes_nothing_of_the_record() {
    let mut ws = Box::new(Workspace::new());
    let builder = Builder::text("push 7; log 1; setmin 9; log st; exit", 0);
    let outcome = run_in(&mut ws, &builder, &[]);
    let (log, traces) = (ws.log().to_vec(), ws.traces().to_vec());
    let record = ws.trace_record(b"kernel", [0x1234, 7, 1, 2]).unwrap().to_vec();
    // It can be asked for again, and says the same.
    assert_eq!(ws.trace_record(b"kernel", [0x1234, 7, 1, 2]), Some(record.as_slice()));
    assert_eq!((ws.log(), ws.traces()), (log.as_slice(), traces.as_slice()));
    assert_eq!((outcome.major, outcome.minor), (None, Some(9)));
    let mut elements = Elements::new(&record);
    assert_eq!(elements.next(), Some(Ok(Element::String(b"kernel"))));
    let Some(Ok(Element::Words(facts))) = elements.next() else {
        panic!("words expected");
    };
    assert!(facts.iter().eq([0x1234, 7, 1, 2, 0]));
    let rest: Vec<_> = elements.map(|element| element.unwrap()).collect();
    assert_eq!(
        rest,
        Elements::new(&traces)
            .map(|element| element.unwrap())
            .collect::<Vec<_>>()
    );
    assert_eq!(rest.len(), 2);
}

/// Q25: the module's name was copied without a bound.
#[test]
fn q25_the_name_in_a_trace_record_is_bounded() {
    let mut ws = Box::new(Workspace::new());
    run_in(&mut ws, &Builder::text("log st; exit", 0), &[]);
    for len in [0, 1, 63, 64, 65, 4095] {
        let name: Vec<u8> = (0..len).map(|i| b'a' + (i % 26) as u8).collect();
        let record = ws.trace_record(&name, [1, 2, 3, 4]).unwrap();
        let mut elements = Elements::new(record);
        assert_eq!(
            elements.next(),
            Some(Ok(Element::String(&name[..len.min(TRACE_NAME_MAX)])))
        );
        assert_eq!(elements.filter(Result::is_ok).count(), 3);
    }
    // The greatest trace with the greatest name.
    let outcome = run_in(&mut ws, &Builder::text("push 1024; l: log st; loop l; exit", 0), &[]);
    assert!(outcome.trace_overflow);
    let record = ws.trace_record(&[b'x'; 100], [1, 2, 3, 4]).unwrap();
    assert!(record.len() <= 3 + 64 + 3 + 40 + 1024);
    let Some(Ok(Element::Words(facts))) = Elements::new(record).nth(1) else {
        panic!("words expected");
    };
    // 16 fit, each of 62 bytes.
    assert_eq!(facts.iter().nth(4), Some(1024 - 16));
}

/// What takes long is paid for before it is done, so that code without a jump cannot keep a CPU either.
#[test]
fn what_takes_long_is_paid_for() {
    let mut ws = Box::new(Workspace::new());
    let budget = (u64::from(exception::MAX_JMPS), u64::from(INSTRUCTION_BUDGET), 0);
    for (text, bytes) in [
        ("push 128; log kstack; push 0; pop lp; ", 20),
        ("push 128; log ustack; push 0; pop lp; ", 20),
        ("push 1; push msr; ros 1; ", 12),
        ("push 0x40; push io, u32; ros 1; ", 12),
        ("push r, xmm0; ros 2; ", 5),
        ("push 1023; restore tsp; push 0; restore tsp; ", 20),
        ("push 8000; malloc; free; ", 11),
        ("push 1; push 0; pushh u64, 1000; push 0; restore tsp; ", 31),
        ("log st; purge st; ", 2),
        ("alloc lv; free lv; ", 2),
    ] {
        let repeated = text.repeat((limits::HANDLER_MAX as usize - 20) / bytes);
        let builder = Builder::text(&format!("push 8000; malloc; ros 1; {repeated} exit"), 0).heap(16_384);
        let program = builder.verify().unwrap();
        let pool = Pool::new();
        let variables = Variables {
            local_pool: Some(&pool),
            ..Variables::default()
        };
        let mut machine = Machine::new();
        machine.ports = (0x40..0x44).map(|port| (port, 0)).collect();
        machine.kernel_stack = vec![1; 128];
        let outcome = run(&program, 0, &mut ws, &mut machine, &variables);
        assert_eq!(raised(&outcome), budget, "{text}");
    }
}

/// A pool gives a variable to one at a time, whoever else allocates and frees, and takes back what an owner leaves.
#[test]
fn a_pool_gives_no_variable_twice() {
    let pool = Pool::new();
    std::thread::scope(|scope| {
        for owner in 1..=3 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..2_000_u64 {
                    let mine: Vec<u64> = (0..100).filter_map(|_| pool.alloc(owner)).collect();
                    for index in &mine {
                        let word = u64::from(owner) << 32 | round;
                        let variable = pool.variable(*index).expect("it is allocated");
                        assert_eq!(variable.swap(word, Ordering::Relaxed), 0, "fresh ones are zero");
                    }
                    for index in &mine {
                        let word = pool.variable(*index).expect("it is allocated").load(Ordering::Relaxed);
                        assert_eq!(word, u64::from(owner) << 32 | round);
                        assert!(round % 2 == 0 || pool.free(*index));
                    }
                    pool.free_all(owner);
                }
            });
        }
    });
    let all: std::collections::BTreeSet<u64> = (0..300).filter_map(|_| pool.alloc(9)).collect();
    assert_eq!(all, (0x10000..0x10100).collect());
    assert!(!pool.free(0x0ffff) && !pool.free(0x10100) && pool.free(0x10007) && !pool.free(0x10007));
    assert_eq!(pool.alloc(8), Some(0x10007));
    pool.free_all(9);
    assert!(pool.variable(0x10006).is_none() && pool.variable(0x10007).is_some());
}
