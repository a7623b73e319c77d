//! Object to text to object is the identity, and no text makes the assembler panic.

mod common;

use common::{piece, program};
use dprobes::rpn::object::layout::{self, Header};
use dprobes::rpn::object::{self, Object};
use dprobes::rpn::op::Op;
use dprobes::rpn::reg::Reg;
use proptest::prelude::*;
use rpn_asm::{DisassembleError, Options, assemble, disassemble};
use std::fmt::Write;
use std::path::Path;

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    std::fs::read_to_string(path).unwrap()
}

const EXAMPLES: [&str; 14] = [
    "allocators.rpn",
    "corrupted.rpn",
    "failure-stack.rpn",
    "first-failure.rpn",
    "forks.rpn",
    "getenv.rpn",
    "inject.rpn",
    "latency.rpn",
    "openat.rpn",
    "page-faults.rpn",
    "read-sizes.rpn",
    "root-exec.rpn",
    "short-reads.rpn",
    "window.rpn",
];

fn ret() -> Options {
    Options {
        defines: vec!["RET=0x1f".into()],
        ..Options::default()
    }
}

#[track_caller]
fn identity(object: &[u8]) -> String {
    let text = disassemble(object).unwrap();
    let again = assemble("another.name", &text, &Options::default()).unwrap_or_else(|e| panic!("{text}\n{e}"));
    assert_eq!(disassemble(&again.object).unwrap(), text);
    assert!(again.object == object, "{text}");
    text
}

#[test]
fn returns() {
    let text = |place| {
        format!("name = \"/bin/true\"; modtype = user; major = 1\noffset = return({place})\nminor = 1\n        exit\n")
    };
    for place in ["main", "0x1000", "\"odd name\"", "return"] {
        let assembled = assemble("return.rpn", &text(place), &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        let object = Object::parse(&assembled.object).unwrap();
        assert!(object.points().all(|point| point.returns()));
        assert!(identity(&assembled.object).contains("= return("));
    }
    let text = "name = \"kernel\"; modtype = kernel; major = 1\naddress = return(0xffffffff81000000)\nminor = 1\n        exit\n";
    let assembled = assemble("return.rpn", text, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    assert!(identity(&assembled.object).contains("address    = return(0xffffffff81000000)"));
    let wrong = text.replace("0xffffffff81000000", "main");
    assert!(assemble("return.rpn", &wrong, &Options::default()).is_err());
    let text = |place| {
        format!("name = \"/bin/true\"; modtype = user; major = 1\noffset = return({place})\nminor = 1\n        exit\n")
    };
    for place in ["main + 4", "main", ""] {
        let wrong = text(place).replace("main)", "main");
        assert!(assemble("return.rpn", &wrong, &Options::default()).is_err(), "{wrong}");
    }
}

#[test]
fn examples() {
    for name in EXAMPLES {
        let assembled = assemble(name, &example(name), &ret()).unwrap_or_else(|e| panic!("{e}"));
        assert!(assembled.warnings.is_empty(), "{}", assembled.warnings);
        assembled.verify().unwrap_or_else(|e| panic!("{e}"));
        identity(&assembled.object);
    }
}

#[test]
fn items_of_the_first_example() {
    let assembled = assemble("openat.rpn", &example("openat.rpn"), &Options::default()).unwrap();
    let o = Object::parse(&assembled.object).unwrap();
    assert_eq!(
        (o.name(), o.modtype(), o.major()),
        ("kernel", object::ModType::Kernel, 1)
    );
    assert_eq!((o.logmax(), o.source()), (512, "openat.rpn"));
    assert_eq!(o.locals().collect::<Vec<_>>(), ["opens"]);
    let point = o.point(0).unwrap();
    assert_eq!(
        point.location(),
        object::Location::Symbol {
            name: "do_sys_openat2",
            addend: 0
        }
    );
    assert_eq!((point.minor(), point.max_hits(), point.line()), (1, 100_000, 8));
    assert!(!point.log_on_fault());
    let code = [
        &[Op::IncLv.byte(), 0, 0][..],
        &[Op::Push.byte(), 255, 0, 0, 0, 0, 0, 0, 0],
        &[Op::PushR.byte(), Reg::Rsi.number() as u8, 0],
        &[Op::LogStr.byte()],
        &[Op::PushR.byte(), Reg::Rdi.number() as u8, 0],
        &[Op::Log.byte(), 1, 0],
        &[Op::Exit.byte()],
    ]
    .concat();
    assert_eq!(o.code(), code);
    let lines: Vec<_> = o.lines().map(|(_, line)| line).collect();
    assert_eq!(lines, [12, 13, 14, 15, 16, 17, 18]);
}

#[test]
fn locations_in_all_their_forms() {
    let head =
        "name = \"kernel\"\nmodtype = kmod\nmajor = 3\nlogonfault = yes\nex_mask = LOG_OVERFLOW | USER\ntype = 7\n";
    let places = [
        ("offset = f", "f"),
        ("offset = f + 0x10 - 2 * 4", "f+0x8"),
        ("offset = 4 + f", "f+0x4"),
        ("offset = (f) - 0x10", "f-0x10"),
        ("offset = f + (-0x7fffffffffffffff - 1)", "f-0x8000000000000000"),
        ("offset = work.isra.0 + 1", "work.isra.0+0x1"),
        ("offset = \"odd name\" + 1", "odd name+0x1"),
        ("offset = \"__LINE__\"", "__LINE__"),
        ("offset = 0x1234", "0x1234"),
        ("address = 0xffffffff81000000", "0xffffffff81000000"),
        ("offset = \"fs/open.c\":1234", "fs/open.c:1234"),
        ("offset = 5\ndisplay = \"here\"", "here"),
    ];
    let mut text = head.to_owned();
    for (n, (place, _)) in places.iter().enumerate() {
        write!(
            text,
            "{place}\nminor = {n}\nopcode = 0x55, 0x48\ngroup = 2\npass_count = 5\nexit\n"
        )
        .unwrap();
    }
    let assembled = assemble("t.rpn", &text, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let o = Object::parse(&assembled.object).unwrap();
    let displays: Vec<_> = o.points().map(|p| p.display()).collect();
    assert_eq!(displays, places.map(|(_, d)| d));
    for p in o.points() {
        assert_eq!((p.group(), p.type_(), p.pass_count()), (2, 7, 5));
        assert_eq!((p.ex_mask(), p.log_on_fault()), (0x9000, true));
        assert_eq!(p.opcode(), [0x55, 0x48]);
    }
    identity(&assembled.object);
}

#[test]
fn lines_are_where_the_author_wrote_them() {
    let text = "#define TWO nop; nop\nname = \"kernel\"; modtype = kernel; major = 1\noffset = f; minor = 1\nTWO\n\
        #line 100 \"generated.c\"\nTWO\nnop /* a\ncomment */ ; nop\n#line 0\nnop\n#line 7\nexit\n";
    let assembled = assemble("t.rpn", text, &Options::default()).unwrap();
    let o = Object::parse(&assembled.object).unwrap();
    assert_eq!(o.source(), "generated.c");
    let lines: Vec<_> = o.lines().collect();
    assert_eq!(lines, [(0, 4), (1, 4), (2, 100), (3, 100), (4, 101), (5, 102), (7, 7)]);
    assert_eq!(o.point(0).unwrap().line(), 3);
    identity(&assembled.object);
}

#[test]
fn resolved_objects_have_text_too() {
    let mut object = assemble("first-failure.rpn", &example("first-failure.rpn"), &ret())
        .unwrap()
        .object;
    let place = object::Place::Absolute(0xffff_ffff_8120_001f);
    object::resolve(&mut object, |_, _| Ok::<_, std::convert::Infallible>(place), |_| Ok(0)).unwrap();
    let text = identity(&object);
    assert!(text.contains("address    = 0xffffffff8120001f"), "{text}");
    assert!(text.contains("display    = \"do_sys_openat2+0x1f\""), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The assembler against an encoder that shares nothing with it but the tables of instructions and registers.
    #[test]
    fn assembled_code_is_what_it_should_be(program in program()) {
        let text = program.text();
        let assembled = assemble("t.rpn", &text, &Options::default()).map_err(|e| TestCaseError::fail(format!("{text}\n{e}")))?;
        let o = Object::parse(&assembled.object).unwrap();
        let code = program.code();
        prop_assert_eq!(o.code(), code.bytes);
        prop_assert_eq!(o.points().map(|p| p.code()).collect::<Vec<_>>(), code.handlers);
        let symbols = code.symbols.iter().map(|(offset, symbol, addend)| object::Relocation { offset: *offset, symbol, addend: *addend });
        prop_assert_eq!(o.relocations().collect::<Vec<_>>(), symbols.collect::<Vec<_>>());
        let lines: Vec<_> = code.starts.iter().zip(program.lines.iter().cycle()).filter_map(|(s, l)| Some((*s, (*l)?))).collect();
        prop_assert_eq!(o.lines().collect::<Vec<_>>(), lines);
        prop_assert_eq!((o.major(), o.id(), o.heapmax(), o.auto_stack_trace()), (program.major, program.id, program.heapmax, program.auto_stack_trace));
        prop_assert!(o.locals().eq(program.locals.iter().map(String::as_str)));
        prop_assert!(o.globals().eq(program.globals.iter().map(String::as_str)));
        prop_assert!(o.maps().eq((0..program.maps.len()).map(|n| program.map(n))));
        for (point, probe) in o.points().zip(&program.probes) {
            prop_assert_eq!((point.minor(), point.group(), point.suspended()), (probe.minor, probe.group, probe.suspended()));
            prop_assert_eq!(point.watch(), probe.watch);
            prop_assert_eq!((point.pass_count(), point.max_hits(), point.log_on_fault()), (probe.counts.0, probe.counts.1, probe.log_on_fault));
            prop_assert_eq!(point.heap(), probe.heap.unwrap_or(program.heapmax));
        }
        identity(&assembled.object);
    }

    /// When symbols have become addresses the text has no symbols, and the rest of it is the same.
    #[test]
    fn resolved_objects_have_the_same_text_without_symbols(program in program(), address: u64) {
        // Where a watchpoint can be: there is no text for another one.
        let address = (address.cast_signed() << 8 >> 8).cast_unsigned() & !7;
        let mut object = assemble("t.rpn", &program.text(), &Options::default()).unwrap().object;
        object::resolve(&mut object, |_, _| Ok::<_, ()>(object::Place::Absolute(address)), |_| Ok(address)).unwrap();
        let text = disassemble(&object).unwrap();
        let again = assemble("t.rpn", &text, &Options::default()).unwrap_or_else(|e| panic!("{text}\n{e}")).object;
        let (a, b) = (Object::parse(&object).unwrap(), Object::parse(&again).unwrap());
        prop_assert_eq!(b.relocations().count(), 0);
        prop_assert_eq!(a.code(), b.code());
        prop_assert_eq!(disassemble(&again).unwrap(), text);
        if program.code().symbols.is_empty() {
            prop_assert_eq!(object, again);
        }
    }

    /// Objects that no assembler made: there is text for them that assembles to the same program, or a reason why not.
    #[test]
    fn damaged_objects_have_text_or_a_reason(program in program(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut object = assemble("t.rpn", &program.text(), &Options::default()).unwrap().object;
        let start = size_of::<Header>();
        let at = start + at.index(object.len() - start);
        object[at] = byte;
        object::seal(&mut object).unwrap();
        match disassemble(&object) {
            Err(DisassembleError::Object(_)) => prop_assert!(Object::parse(&object).is_err()),
            Err(_) => {}
            Ok(text) => {
                // What is out of range has text, which is refused.
                if let Ok(again) = assemble("t.rpn", &text, &Options::default()) {
                    let (a, b) = (Object::parse(&object).unwrap(), Object::parse(&again.object).unwrap());
                    // A word that is a symbol has no value of its own.
                    let words: Vec<_> = a.relocations().map(|r| r.offset as usize).collect();
                    let mut code = a.code().to_owned();
                    words.iter().for_each(|w| code[*w..*w + 8].fill(0));
                    prop_assert_eq!(code, b.code());
                    prop_assert_eq!(a.points().map(|p| p.location()).collect::<Vec<_>>(), b.points().map(|p| p.location()).collect::<Vec<_>>());
                    prop_assert_eq!(a.maps().collect::<Vec<_>>(), b.maps().collect::<Vec<_>>());
                    prop_assert_eq!(a.relocations().collect::<Vec<_>>(), b.relocations().collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = assemble("t.rpn", &text, &Options::default()).map_err(|e| e.to_string());
    }

    /// Pieces of the language in any order, which get further than any characters do.
    #[test]
    fn no_tokens_make_it_panic(pieces in prop::collection::vec(piece(), 0..60)) {
        let text = pieces.concat();
        for text in [text.clone(), format!("name=\"k\"\nmodtype=kernel\nmajor=1\nvars=a,b\noffset=f\nminor=1\n{text}")] {
            match assemble("t.rpn", &text, &Options::default()) {
                Ok(a) => _ = (disassemble(&a.object).unwrap(), a.verify().map_err(|e| e.to_string()), a.warnings.to_string()),
                Err(e) => {
                    prop_assert!(!e.is_empty());
                    for d in e.iter() {
                        prop_assert!(!d.message().is_empty());
                    }
                    prop_assert!(e.to_string().contains("error"));
                }
            }
        }
    }

    /// Examples with something cut out, put in twice or replaced.
    #[test]
    fn no_change_to_an_example_makes_it_panic(
        which in 0..EXAMPLES.len(), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), with in prop_oneof![piece(), any::<String>()],
    ) {
        let text = example(EXAMPLES[which]);
        let mut cut = [from.index(text.len()), to.index(text.len())].map(|mut i| { while !text.is_char_boundary(i) { i -= 1 } i });
        cut.sort_unstable();
        let [a, b] = cut;
        for text in [
            format!("{}{with}{}", &text[..a], &text[b..]),
            format!("{}{with}{}", &text[..b], &text[a..]),
            format!("{}{with}{}", &text[..a], &text[a..]),
        ] {
            match assemble("t.rpn", &text, &ret()) {
                Ok(a) => {
                    let _ = a.verify().map_err(|e| e.to_string());
                    identity(&a.object);
                }
                Err(e) => prop_assert!(e.to_string().contains("error")),
            }
        }
    }
}

#[test]
fn the_format_is_the_one_these_tests_know() {
    assert_eq!(
        (size_of::<Header>(), size_of::<layout::Point>(), layout::VERSION),
        (96, 88, 2)
    );
}
