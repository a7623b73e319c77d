//! Object to text to object is the identity, and no text makes the assembler panic.

mod common;

use common::piece;
use dprobes::rpn::object::layout::{self, Header, kind};
use dprobes::rpn::object::{self, Object};
use dprobes::rpn::op::{Op, Operand};
use dprobes::rpn::reg::Reg;
use proptest::prelude::*;
use rpn_asm::{DisassembleError, Options, assemble, disassemble};
use std::fmt::Write;
use std::path::Path;

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    std::fs::read_to_string(path).unwrap()
}

const EXAMPLES: [&str; 3] = ["openat.rpn", "inject.rpn", "first-failure.rpn"];

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

/// An instruction of the table with an operand in its range; branches as an index into the instructions.
fn instruction() -> impl Strategy<Value = (Op, u64)> {
    let value = prop_oneof![any::<u64>(), 0u64..300, any::<i8>().prop_map(|n| i64::from(n) as u64)];
    let with_text = |op: &Op| !matches!(op.byte(), 0x0e..=0x10 | 0x1c..=0x28 | 0x48 | 0x49 | 0x5d..=0x61 | 0x70..=0x89 | 0x8c..=0x98 | 0x9d..);
    let all: Vec<Op> = Op::ALL.iter().copied().filter(with_text).collect();
    (prop::sample::select(all), value)
}

/// A program made of bytes, not of text.
#[derive(Debug, Clone)]
struct Raw {
    handlers: Vec<(Vec<(Op, u64)>, u32)>,
    locals: Vec<String>,
    lines: Vec<Option<u32>>,
    place: (u8, u64, String),
    numbers: (u16, u16, u64, u64, u32, bool),
}

fn raw() -> impl Strategy<Value = Raw> {
    let name = prop_oneof![
        "[a-z_][a-z0-9_]{0,6}",
        "[a-z]{1,3}\\.[a-z]{1,3}\\.[0-9]",
        "[ -~\u{e9}\u{2028}]{1,8}",
        Just("__FILE__".to_owned()),
    ];
    let place = (0u8..4, any::<u64>(), name.clone()).prop_map(|(k, v, s)| match k {
        kind::SYMBOL => (k, v, s),
        kind::SOURCE => (k, (v % u64::from(u32::MAX)) + 1, s),
        _ => (k, v, String::new()),
    });
    let handler = (prop::collection::vec(instruction(), 0..30), 0u32..500);
    let local = prop_oneof![Just(String::new()), "[a-z_]{2,9}", "[a-z]\\.[a-z]"];
    (
        prop::collection::vec(handler, 1..4),
        prop::collection::btree_set(local, 0..5),
        prop::collection::vec(prop::option::weighted(0.9, 1u32..2000), 100),
        place,
        any::<(u16, u16, u64, u64, u32, bool)>(),
    )
        .prop_map(|(handlers, locals, lines, place, numbers)| Raw {
            handlers,
            locals: locals.into_iter().collect(),
            lines,
            place,
            numbers,
        })
}

impl Raw {
    fn code(&self) -> (Vec<u8>, Vec<std::ops::Range<u32>>, Vec<u32>) {
        let (mut code, mut ranges, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for (instructions, _) in &self.handlers {
            let begin = code.len();
            let mut all = instructions.clone();
            all.push((Op::Exit, 0));
            let mut offsets = vec![];
            let mut at = begin;
            for (op, _) in &all {
                offsets.push(at);
                at += op.size();
            }
            for ((op, value), offset) in all.iter().zip(&offsets) {
                let value = match op.info().operand {
                    Operand::Branch => {
                        let target = offsets[*value as usize % offsets.len()] as i64;
                        (target - (*offset + op.size()) as i64) as u64
                    }
                    Operand::Reg => {
                        let writable: Vec<_> = Reg::ALL.iter().filter(|r| r.is_writable()).collect();
                        writable[*value as usize % writable.len()].number().into()
                    }
                    Operand::Local => value % self.locals.len().max(1) as u64,
                    _ => *value,
                };
                code.push(op.byte());
                code.extend_from_slice(&value.to_le_bytes()[..op.info().operand.size()]);
            }
            starts.extend(offsets.iter().map(|o| *o as u32));
            ranges.push(begin as u32..code.len() as u32);
        }
        (code, ranges, starts)
    }

    /// Instructions that name a local variable the program does not have cannot be written as text.
    fn sound(mut self) -> Self {
        if self.locals.is_empty() {
            for (instructions, _) in &mut self.handlers {
                instructions.retain(|(op, _)| op.info().operand != Operand::Local);
            }
        }
        self
    }

    /// The text of an object like this, written without the disassembler.
    fn text(&self) -> String {
        let (code, ranges, starts) = self.code();
        let (major, minor, pass, max, id, fault) = self.numbers;
        let mut text = format!("name = \"m\"\nmodtype = user\nmajor = {}\nid = {id}\n", major.max(1));
        if !self.locals.is_empty() {
            let names: Vec<_> = self.locals.iter().map(|n| if n.is_empty() { "_" } else { n }).collect();
            writeln!(text, "vars = {}", names.join(", ")).unwrap();
        }
        let mut lines = self.lines.iter().cycle();
        for range in ranges {
            let (k, value, symbol) = &self.place;
            let symbol: String = symbol.bytes().map(|b| format!("\\{b:03o}")).collect();
            match *k {
                kind::ABSOLUTE => writeln!(text, "address = {value:#x}"),
                kind::MODULE_OFFSET => writeln!(text, "offset = {value}"),
                kind::SYMBOL if value.cast_signed() < 0 => {
                    writeln!(text, "offset = \"{symbol}\" - {:#x} - 1", !value)
                }
                kind::SYMBOL => writeln!(text, "offset = {value} + \"{symbol}\""),
                _ => writeln!(text, "offset = \"{symbol}\" : {value}"),
            }
            .unwrap();
            writeln!(text, "minor = {minor}\npass_count = {pass}\nmax_hits = {max}").unwrap();
            if fault {
                text.push_str("logonfault = yes\n");
            }
            let mut at = range.start;
            while at < range.end {
                let op = Op::from_byte(code[at as usize]).unwrap();
                let mut word = [0; 8];
                let bytes = &code[at as usize + 1..at as usize + op.size()];
                word[..bytes.len()].copy_from_slice(bytes);
                let n = u64::from_le_bytes(word);
                let separator = if op.info().selectors.is_empty() { " " } else { ", " };
                let operand = match op.info().operand {
                    Operand::None => String::new(),
                    Operand::Branch => {
                        let target = i64::from(at) + op.size() as i64 + i64::from(n as i32);
                        assert!(starts.contains(&(target as u32)));
                        format!("{separator}at{target}")
                    }
                    Operand::Reg => format!("{separator}{}", Reg::from_number(n as u16).unwrap()),
                    Operand::Local => format!("{separator}{n}"),
                    _ => format!("{separator}{n:#o}").replace("0o", "0"),
                };
                match lines.next().unwrap() {
                    Some(n) => writeln!(text, "#line {n}").unwrap(),
                    None => writeln!(text, "#line 0").unwrap(),
                }
                writeln!(text, "at{at}: {op}{operand}").unwrap();
                at += op.size() as u32;
            }
        }
        text
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The assembler against an encoder that shares nothing with it but the tables of instructions and registers.
    #[test]
    fn assembled_code_is_what_it_should_be(raw in raw().prop_map(Raw::sound)) {
        let text = raw.text();
        let assembled = assemble("t.rpn", &text, &Options::default()).map_err(|e| TestCaseError::fail(format!("{text}\n{e}")))?;
        let o = Object::parse(&assembled.object).unwrap();
        let (code, ranges, starts) = raw.code();
        prop_assert_eq!(o.code(), code);
        prop_assert_eq!(o.points().map(|p| p.code()).collect::<Vec<_>>(), ranges);
        let lines: Vec<_> = starts.iter().zip(raw.lines.iter().cycle()).filter_map(|(s, l)| Some((*s, (*l)?))).collect();
        prop_assert_eq!(o.lines().collect::<Vec<_>>(), lines);
        identity(&assembled.object);
    }

    /// Objects that no assembler made: there is text for them that assembles to the same program, or a reason why not.
    #[test]
    fn damaged_objects_have_text_or_a_reason(raw in raw().prop_map(Raw::sound), at in any::<prop::sample::Index>(), byte: u8) {
        let mut object = assemble("t.rpn", &raw.text(), &Options::default()).unwrap().object;
        let start = size_of::<Header>();
        let at = start + at.index(object.len() - start);
        object[at] = byte;
        object::seal(&mut object).unwrap();
        match disassemble(&object) {
            Err(DisassembleError::Object(_)) => prop_assert!(Object::parse(&object).is_err()),
            Err(_) => {}
            Ok(text) => {
                // A local variable out of range has text, which is refused.
                if let Ok(again) = assemble("t.rpn", &text, &Options::default()) {
                    let (a, b) = (Object::parse(&object).unwrap(), Object::parse(&again.object).unwrap());
                    prop_assert_eq!(a.code(), b.code());
                    prop_assert_eq!(a.points().map(|p| p.location()).collect::<Vec<_>>(), b.points().map(|p| p.location()).collect::<Vec<_>>());
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
        which in 0usize..3, from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), with in prop_oneof![piece(), any::<String>()],
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
fn points_are_88_bytes_here_too() {
    // The offsets above are those of this version of the format.
    assert_eq!(
        (size_of::<Header>(), size_of::<layout::Point>(), layout::VERSION),
        (96, 88, 2)
    );
}
