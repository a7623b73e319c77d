//! Objects: what is accepted, and what is refused and why.

mod rpn;

use dprobes::rpn::exception::{DEFAULT_MASK, MASK_BITS};
use dprobes::rpn::limits;
use dprobes::rpn::object::layout::{self, kind};
use dprobes::rpn::object::{Field, Location, ModType, Object, ObjectError, Place, ResolveError, resolve, seal};
use rpn::build::Builder;

const HEADER: usize = size_of::<layout::Header>();
const POINT: usize = size_of::<layout::Point>();

/// An object that uses everything.
fn rich() -> Builder {
    let mut builder = Builder::text("nop; exit; abort", 2);
    builder.header.id.set(7);
    builder.header.source = builder.string("opens.rpn");
    builder.locals[0] = builder.string("opens");
    let global = builder.string("größe");
    builder.globals.push(global);
    builder.points[0].code_end.set(2);
    let symbol = builder.string("do_sys_openat2");
    let point = builder.point(2, 3);
    point.kind = kind::SYMBOL;
    point.symbol = symbol;
    point.value.set(-3_i64 as u64);
    point.opcode[..2].copy_from_slice(&[0x0f, 0x1f]);
    point.opcode_len = 2;
    point.minor.set(9);
    point.group.set(3);
    point.type_.set(4);
    point.pass_count.set(5);
    point.max_hits.set(6);
    point.flags.set(layout::LOG_ON_FAULT);
    point.line.set(12);
    builder.lines.push(layout::Line {
        offset: 0.into(),
        line: 4.into(),
    });
    builder.lines.push(layout::Line {
        offset: 2.into(),
        line: 13.into(),
    });
    builder
}

#[test]
fn everything_is_read_back() {
    let bytes = rich().bytes();
    let object = Object::parse(&bytes).unwrap();
    assert_eq!(object.modtype(), ModType::Kernel);
    assert_eq!(object.name(), "kernel");
    assert_eq!(object.source(), "opens.rpn");
    assert_eq!((object.major(), object.id()), (1, 7));
    assert_eq!(
        (object.logmax(), object.ex_logmax(), object.jmpmax()),
        (1024, 1024, 65_535)
    );
    assert!(object.locals().eq(["opens", ""]));
    assert!(object.globals().eq(["größe"]));
    assert!(object.lines().eq([(0, 4), (2, 13)]));
    assert_eq!(
        [0, 1, 2, 99].map(|offset| object.line_at(offset)),
        [Some(4), Some(4), Some(13), Some(13)]
    );
    assert_eq!(object.code(), [0x00, 0x0d, 0x0b]);
    let [first, second] = [0, 1].map(|index| object.point(index).unwrap());
    assert!(object.point(2).is_none());
    assert_eq!(object.points().len(), 2);
    assert_eq!(
        first.location(),
        Location::Place(Place::Absolute(0xffff_ffff_8100_0000))
    );
    assert_eq!(first.display(), "do_sys_openat2+0x0");
    assert_eq!(first.ex_mask(), DEFAULT_MASK);
    assert!(!first.log_on_fault());
    assert_eq!(first.code(), 0..2);
    assert_eq!(
        second.location(),
        Location::Symbol {
            name: "do_sys_openat2",
            addend: -3
        }
    );
    assert_eq!(second.opcode(), [0x0f, 0x1f]);
    assert_eq!(
        (second.minor(), second.group(), second.type_(), second.line()),
        (9, 3, 4, 12)
    );
    assert_eq!((second.pass_count(), second.max_hits()), (5, 6));
    assert!(second.log_on_fault());
    assert_eq!(second.code(), 2..3);
}

#[test]
fn an_object_without_lines_has_no_line() {
    let bytes = Builder::text("exit", 0).bytes();
    assert_eq!(Object::parse(&bytes).unwrap().line_at(0), None);
}

/// Each way to be wrong, with the error it must give.
#[test]
fn what_is_wrong_is_refused_by_name() {
    use Field as F;
    let value = |offset, field, found| ObjectError::Value { offset, field, found };
    let limit = |offset, field, found, limit| ObjectError::Limit {
        offset,
        field,
        found,
        limit,
    };
    let second = HEADER + POINT;
    let tables = HEADER + 2 * POINT;
    type Case = (fn(&mut Builder), ObjectError);
    #[rustfmt::skip]
    let cases: Vec<Case> = vec![
        (|b| b.header.magic[0] = b'd', ObjectError::Magic { found: *b"dPROBES\x1a" }),
        (|b| b.header.version.set(2), value(8, F::Version, 2)),
        (|b| b.header.header_len.set(97), value(10, F::HeaderLength, 97)),
        (|b| b.header.modtype = 3, value(20, F::ModuleType, 3)),
        (|b| b.header.reserved0 = 1, value(21, F::Reserved, 1)),
        (|b| b.header.major.set(0), value(22, F::Major, 0)),
        (|b| b.header.logmax.set(1025), limit(28, F::LogMax, 1025, 1024)),
        (|b| b.header.ex_logmax.set(1025), limit(30, F::ExLogMax, 1025, 1024)),
        (|b| b.locals.resize(257, b.locals[0]), limit(34, F::Locals, 257, 256)),
        (|b| b.globals.resize(257, b.globals[0]), limit(36, F::Globals, 257, 256)),
        (|b| b.header.reserved1.set(0x100), value(39, F::Reserved, 1)),
        (|b| b.header.name.len.set(0), value(40, F::Name, 0)),
        (|b| b.header.name.len.set(4096), limit(40, F::Name, 4096, 4095)),
        (|b| b.header.name.offset.set(u32::MAX),
            ObjectError::StringRange { offset: 40, field: F::Name, start: u32::MAX, len: 6 }),
        (|b| b.header.source.len.set(1000),
            ObjectError::StringRange { offset: 48, field: F::Source, start: 24, len: 1000 }),
        // One byte of a character of two.
        (|b| b.globals[0].len.set(3),
            ObjectError::StringRange { offset: tables + 16, field: F::GlobalName, start: 38, len: 3 }),
        (|b| b.points.clear(), value(56, F::Points, 0)),
        (|b| b.code.resize(1 << 21, 0), limit(64, F::Code, 1 << 21, 1 << 20)),
        (|b| b.header.reserved2[23] = 9, value(95, F::Reserved, 9)),
        (|b| b.points[1].kind = 4, value(second, F::LocationKind, 4)),
        (|b| b.points[1].kind = kind::ABSOLUTE, value(second + 24, F::Symbol, 14)),
        (|b| b.points[0].kind = kind::SYMBOL, value(HEADER + 24, F::Symbol, 0)),
        (|b| (b.points[1].kind, b.points[1].value) = (kind::SOURCE, 0.into()), value(second + 16, F::LineNumber, 0)),
        (|b| b.points[1].kind = kind::SOURCE,
            limit(second + 16, F::LineNumber, -3_i64 as u64, u64::from(u32::MAX))),
        (|b| b.points[1].opcode_len = 16, limit(second + 1, F::OpcodeLength, 16, 15)),
        (|b| b.points[1].opcode_len = 1, value(second + 65, F::Reserved, 0x1f)),
        (|b| b.points[1].flags.set(2), value(second + 2, F::Flags, 2)),
        (|b| b.points[1].ex_mask.set(0x4000), value(second + 10, F::ExMask, 0x4000)),
        (|b| b.points[1].reserved = 1, value(second + 79, F::Reserved, 1)),
        (|b| b.points[1].display.len.set(1024), limit(second + 32, F::Display, 1024, 1023)),
        (|b| b.points[1].symbol.len.set(1024), limit(second + 24, F::Symbol, 1024, 1023)),
        (|b| b.points[1].code_end.set(4), limit(second + 60, F::CodeEnd, 4, 3)),
        (|b| b.points[1].code_start.set(3), value(second + 56, F::CodeStart, 3)),
        (|b| { b.code.resize(65_538, 0); b.points[1].code_end.set(65_538); },
            limit(second + 56, F::Handler, 65_536, 65_535)),
        (|b| b.locals[1].len.set(256), limit(tables + 8, F::LocalName, 256, 255)),
        (|b| b.lines[1].offset.set(0), value(tables + 32, F::LineOffset, 0)),
        (|b| b.lines[1].offset.set(3), value(tables + 32, F::LineOffset, 3)),
        (|b| b.lines[0].line.set(0), value(tables + 28, F::LineNumber, 0)),
        (|b| b.strings[1] = 0xff, ObjectError::Text { offset: tables + 40 + 3 + 1 }),
        (|b| b.strings[2] = b'\n', ObjectError::Text { offset: tables + 40 + 3 + 2 }),
        (|b| b.strings[2] = 0, ObjectError::Text { offset: tables + 40 + 3 + 2 }),
    ];
    for (number, (change, error)) in cases.into_iter().enumerate() {
        let mut builder = rich();
        change(&mut builder);
        let bytes = builder.bytes();
        assert_eq!(Object::parse(&bytes).unwrap_err(), error, "case {number}");
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn limits_themselves_are_fine() {
    let mut builder = Builder::new(vec![0x0d; limits::HANDLER_MAX as usize], limits::LOCALS_MAX);
    builder
        .globals
        .resize(usize::from(limits::GLOBALS_MAX), Default::default());
    builder.points[0].ex_mask.set(MASK_BITS);
    builder.points[0].opcode_len = 15;
    builder.points[0].opcode = [0x90; 15];
    let long = builder.string(&"x".repeat(limits::NAME_MAX as usize));
    builder.header.name = long;
    builder.points[0].display = layout::Str {
        len: limits::SYMBOL_MAX.into(),
        ..long
    };
    builder.locals[255] = layout::Str {
        len: limits::VARIABLE_NAME_MAX.into(),
        ..long
    };
    assert!(Object::parse(&builder.bytes()).is_ok());
    assert!(builder.verify().is_ok());
}

/// Counts that would overflow or reach far outside are limits or lengths, found before they are used.
#[test]
fn absurd_counts_are_refused() {
    for at in [34, 36, 56, 60, 64, 68] {
        let mut bytes = rich().bytes();
        let width = if at < 40 { 2 } else { 4 };
        bytes[at..at + width].fill(0xff);
        assert!(matches!(Object::parse(&bytes), Err(ObjectError::Limit { offset, .. }) if offset == at));
        bytes[at..at + width].fill(0);
        assert!(matches!(Object::parse(&bytes), Err(ObjectError::Length { .. })));
    }
}

#[test]
fn every_truncation_and_every_extension_is_refused() {
    let bytes = rich().bytes();
    for len in 0..bytes.len() {
        let expected = if len < HEADER {
            ObjectError::TooShort { len, needed: HEADER }
        } else {
            ObjectError::Length {
                len,
                needed: bytes.len() as u64,
            }
        };
        assert_eq!(Object::parse(&bytes[..len]).unwrap_err(), expected);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(Object::parse(&longer), Err(ObjectError::Length { .. })));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = rich().bytes();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Object::parse(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn the_total_length_must_be_right() {
    let mut bytes = rich().bytes();
    bytes[12] ^= 1;
    assert!(matches!(
        Object::parse(&bytes),
        Err(ObjectError::Value {
            field: Field::TotalLength,
            ..
        })
    ));
    assert_eq!(seal(&mut [0; 95]), Err(ObjectError::TooShort { len: 95, needed: 96 }));
}

#[test]
fn symbols_are_resolved_in_place() {
    let mut builder = rich();
    let file = builder.string("open.c");
    let point = builder.point(2, 3);
    (point.kind, point.symbol) = (kind::SOURCE, file);
    point.value.set(77);
    let mut bytes = builder.bytes();
    let mut asked = Vec::new();
    resolve(&mut bytes, |index, location| {
        asked.push(match location {
            Location::Symbol { name, addend } => format!("{index} {name} {addend}"),
            Location::Source { file, line } => format!("{index} {file}:{line}"),
            Location::Place(_) => unreachable!(),
        });
        Ok::<_, ()>(if index == 1 {
            Place::Absolute(0x1234)
        } else {
            Place::ModuleOffset(0x56)
        })
    })
    .unwrap();
    assert_eq!(asked, ["1 do_sys_openat2 -3", "2 open.c:77"]);
    let object = Object::parse(&bytes).unwrap();
    let places: Vec<_> = object.points().map(|point| point.location()).collect();
    assert_eq!(places[1], Location::Place(Place::Absolute(0x1234)));
    assert_eq!(places[2], Location::Place(Place::ModuleOffset(0x56)));
    // The words for people stay.
    assert_eq!(object.point(1).unwrap().display(), "do_sys_openat2+0x0");
    // There is nothing left to do.
    let before = bytes.clone();
    resolve(&mut bytes, |_, _| Err(())).unwrap();
    assert_eq!(bytes, before);
}

#[test]
fn a_symbol_that_is_not_found_names_its_point() {
    let mut bytes = rich().bytes();
    let error = resolve(&mut bytes, |_, _| Err("no such symbol")).unwrap_err();
    assert_eq!(
        error,
        ResolveError::Location {
            point: 1,
            error: "no such symbol"
        }
    );
    let error = resolve(&mut bytes[1..], |_, _| Err("unused")).unwrap_err();
    assert!(matches!(error, ResolveError::Object(ObjectError::Magic { .. })));
}
