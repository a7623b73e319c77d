//! Objects: what is accepted, and what is refused and why.

mod rpn;

use dprobes::rpn::exception::{DEFAULT_MASK, MASK_BITS};
use dprobes::rpn::limits;
use dprobes::rpn::object::layout::{self, kind, map_kind};
use dprobes::rpn::object::{
    Field, Location, Map, MapKind, ModType, Object, ObjectError, Place, Relocation, ResolveError, resolve, seal,
};
use rpn::build::{Builder, assemble};

const HEADER: usize = size_of::<layout::Header>();
const POINT: usize = size_of::<layout::Point>();

/// An object that uses everything.
fn rich() -> Builder {
    let mut builder = Builder::text("nop; exit; push 0; push 0; abort", 2).heap(100);
    builder.header.id.set(7);
    builder.header.source = builder.string("opens.rpn");
    builder.locals[0] = builder.string("opens");
    let global = builder.string("größe");
    builder.globals.push(global);
    builder.points[0].code_end.set(2);
    let symbol = builder.string("do_sys_openat2");
    let point = builder.point(2, 21);
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
    point.heap.set(50);
    builder = builder.map(map_kind::AVG, 1, 1).map(map_kind::LINEAR, 0, 3);
    let name = builder.string("sizes");
    let linear = &mut builder.maps[1];
    linear.name = name;
    linear.min.set(-100);
    linear.max.set(300);
    linear.step.set(10);
    for (offset, addend) in [(3, 8), (12, -1)] {
        let symbol = builder.string("jiffies");
        builder.relocations.push(layout::Relocation {
            offset: offset.into(),
            symbol,
            addend: addend.into(),
        });
    }
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
    assert_eq!(object.code(), assemble("nop; exit; push 0; push 0; abort"));
    assert_eq!((object.heapmax(), object.auto_stack_trace()), (100, false));
    let avg = Map {
        name: "map0",
        kind: MapKind::Avg,
        keys: 1,
        entries: 1,
    };
    let linear = Map {
        name: "sizes",
        kind: MapKind::Linear {
            min: -100,
            max: 300,
            step: 10,
        },
        keys: 0,
        entries: 3,
    };
    assert!(object.maps().eq([avg, linear]));
    // The head, the entries in whole lines of 128 bytes, and two places of four bytes to find the entry by.
    assert_eq!((avg.operands(), avg.bytes()), (2, 128 + 128 + 2 * 4));
    // Without keys there is one entry, which needs no finding.
    assert_eq!(
        (linear.operands(), linear.bytes()),
        (1, 128 + (42_u64 * 8).next_multiple_of(128))
    );
    let relocation = |offset, addend| Relocation {
        offset,
        symbol: "jiffies",
        addend,
    };
    assert!(object.relocations().eq([relocation(3, 8), relocation(12, -1)]));
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
    assert!(second.log_on_fault() && !second.suspended());
    assert_eq!(second.code(), 2..21);
    assert_eq!((first.heap(), second.heap()), (100, 50));
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
    let maps = tables + 3 * 8;
    let relocations = maps + 2 * 40;
    let lines = relocations + 2 * 20;
    let strings = lines + 2 * 8 + 21;
    type Case = (fn(&mut Builder), ObjectError);
    #[rustfmt::skip]
    let cases: Vec<Case> = vec![
        (|b| b.header.magic[0] = b'd', ObjectError::Magic { found: *b"dPROBES\x1a" }),
        (|b| b.header.version.set(1), value(8, F::Version, 1)),
        (|b| b.header.header_len.set(97), value(10, F::HeaderLength, 97)),
        (|b| b.header.modtype = 3, value(20, F::ModuleType, 3)),
        (|b| b.header.flags = 2, value(21, F::HeaderFlags, 2)),
        (|b| b.header.major.set(0), value(22, F::Major, 0)),
        (|b| b.header.logmax.set(1025), limit(28, F::LogMax, 1025, 1024)),
        (|b| b.header.ex_logmax.set(1025), limit(30, F::ExLogMax, 1025, 1024)),
        (|b| b.locals.resize(257, b.locals[0]), limit(34, F::Locals, 257, 256)),
        (|b| b.globals.resize(257, b.globals[0]), limit(36, F::Globals, 257, 256)),
        (|b| b.header.heapmax.set(16_385), limit(38, F::HeapMax, 16_385, 16_384)),
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
        (|b| b.header.reserved[17] = 9, value(95, F::Reserved, 9)),
        (|b| b.points[1].kind = 4, value(second, F::LocationKind, 4)),
        (|b| b.points[1].kind = kind::ABSOLUTE, value(second + 24, F::Symbol, 14)),
        (|b| b.points[0].kind = kind::SYMBOL, value(HEADER + 24, F::Symbol, 0)),
        (|b| (b.points[1].kind, b.points[1].value) = (kind::SOURCE, 0.into()), value(second + 16, F::LineNumber, 0)),
        (|b| b.points[1].kind = kind::SOURCE,
            limit(second + 16, F::LineNumber, -3_i64 as u64, u64::from(u32::MAX))),
        (|b| b.points[1].opcode_len = 16, limit(second + 1, F::OpcodeLength, 16, 15)),
        (|b| b.points[1].opcode_len = 1, value(second + 65, F::Reserved, 0x1f)),
        (|b| b.points[1].flags.set(8), value(second + 2, F::Flags, 8)),
        (|b| b.points[1].ex_mask.set(0x4000), value(second + 10, F::ExMask, 0x4000)),
        (|b| b.points[0].watch = 5, value(HEADER + 79, F::WatchKind, 5)),
        (|b| b.points[0].watch_len = 1, value(HEADER + 82, F::WatchLength, 1)),
        (|b| (b.points[0].watch, b.points[0].watch_len) = (1, 0), value(HEADER + 82, F::WatchLength, 0)),
        (|b| (b.points[0].watch, b.points[0].watch_len) = (1, 2), value(HEADER + 82, F::WatchLength, 2)),
        (|b| (b.points[0].watch, b.points[0].watch_len) = (2, 3), value(HEADER + 82, F::WatchLength, 3)),
        (|b| (b.points[0].watch, b.points[0].watch_len) = (3, 8), value(HEADER + 82, F::WatchLength, 8)),
        (|b| (b.points[0].watch, b.points[0].watch_len) = (4, 16), value(HEADER + 82, F::WatchLength, 16)),
        // What belongs to an instruction in text, what has no port, and where there are no data.
        (|b| (b.points[1].watch, b.points[1].watch_len) = (2, 8), value(second + 1, F::OpcodeLength, 2)),
        (|b| { (b.points[0].watch, b.points[0].watch_len) = (2, 8); b.points[0].flags.set(layout::LOG_ON_FAULT); },
            value(HEADER + 2, F::Flags, 1)),
        (|b| { (b.points[0].watch, b.points[0].watch_len) = (3, 1); b.points[0].kind = kind::MODULE_OFFSET; },
            value(HEADER, F::LocationKind, 1)),
        (|b| {
            (b.points[0].watch, b.points[0].watch_len) = (4, 1);
            (b.points[0].kind, b.points[0].symbol) = (kind::SOURCE, b.points[1].symbol);
            b.points[0].value.set(1);
        }, value(HEADER, F::LocationKind, 3)),
        (|b| b.points[1].heap.set(101), limit(second + 80, F::Heap, 101, 100)),
        (|b| b.points[1].reserved[4] = 1, value(second + 87, F::Reserved, 1)),
        (|b| b.globals[0].len.set(0), value(tables + 16, F::GlobalName, 0)),
        (|b| b.maps.resize(65, b.maps[0]), limit(76, F::Maps, 65, 64)),
        (|b| b.maps[0].kind = 7, value(maps, F::MapKind, 7)),
        (|b| b.maps[0].keys = 5, limit(maps + 1, F::MapKeys, 5, 4)),
        (|b| b.maps[0].reserved.set(0x100), value(maps + 3, F::Reserved, 1)),
        (|b| b.maps[0].entries.set(0), value(maps + 4, F::MapEntries, 0)),
        (|b| b.maps[0].entries.set(65_537), limit(maps + 4, F::MapEntries, 65_537, 65_536)),
        (|b| b.maps[0].min.set(1), value(maps + 8, F::Reserved, 1)),
        (|b| b.maps[0].max.set(-1), value(maps + 16, F::Reserved, 0xff)),
        (|b| b.maps[0].step.set(1), value(maps + 24, F::Reserved, 1)),
        (|b| b.maps[0].name.len.set(0), value(maps + 32, F::MapName, 0)),
        (|b| b.maps[0].name.len.set(256), limit(maps + 32, F::MapName, 256, 255)),
        (|b| b.maps[1].name = b.maps[0].name, value(maps + 40 + 32, F::MapName, 4)),
        (|b| b.maps[1].min.set(300), value(maps + 40 + 8, F::MapRange, 300)),
        (|b| b.maps[1].step.set(0), value(maps + 40 + 24, F::MapStep, 0)),
        (|b| b.maps[1].step.set(7), value(maps + 40 + 24, F::MapStep, 7)),
        (|b| { b.maps[1].max.set(-100 + 1025); b.maps[1].step.set(1); },
            limit(maps + 40 + 24, F::MapBuckets, 1025, 1024)),
        // The range is counted as it is, not as a signed number.
        (|b| { b.maps[1].min.set(i64::MIN); b.maps[1].max.set(i64::MAX); b.maps[1].step.set(1); },
            limit(maps + 40 + 24, F::MapBuckets, u64::MAX, 1024)),
        // 65,536 entries of two keys and forty and two steps, and twice as many places to find them by.
        (|b| { b.maps[1].entries.set(65_536); b.maps[1].keys = 2; },
            limit(maps + 40 + 4, F::MapBytes, 264 + 128 + ((2 + 42) * 8 + 2 * 4) * 65_536, 16 << 20)),
        (|b| b.relocations.resize(200_000, b.relocations[0]), limit(72, F::Relocations, 200_000, (1 << 20) / 9)),
        (|b| b.relocations[0].offset.set(0), value(relocations, F::RelocationOffset, 0)),
        (|b| b.relocations[0].offset.set(4), value(relocations, F::RelocationOffset, 4)),
        (|b| b.relocations[1].offset.set(3), value(relocations + 20, F::RelocationOffset, 3)),
        (|b| b.relocations[1].offset.set(u32::MAX), value(relocations + 20, F::RelocationOffset, u64::from(u32::MAX))),
        (|b| { b.code.truncate(19); b.points[1].code_end.set(19); }, value(relocations + 20, F::RelocationOffset, 12)),
        (|b| b.relocations[0].symbol.len.set(1024), limit(relocations + 4, F::Symbol, 1024, 1023)),
        (|b| b.relocations[0].symbol.len.set(0), value(relocations + 12, F::RelocationAddend, 8)),
        (|b| b.points[1].display.len.set(1024), limit(second + 32, F::Display, 1024, 1023)),
        (|b| b.points[1].symbol.len.set(1024), limit(second + 24, F::Symbol, 1024, 1023)),
        (|b| b.points[1].code_end.set(22), limit(second + 60, F::CodeEnd, 22, 21)),
        (|b| b.points[1].code_start.set(21), value(second + 56, F::CodeStart, 21)),
        (|b| { b.code.resize(65_538, 0); b.points[1].code_end.set(65_538); },
            limit(second + 56, F::Handler, 65_536, 65_535)),
        (|b| b.locals[1].len.set(256), limit(tables + 8, F::LocalName, 256, 255)),
        (|b| b.lines[1].offset.set(0), value(lines + 8, F::LineOffset, 0)),
        (|b| b.lines[1].offset.set(21), value(lines + 8, F::LineOffset, 21)),
        (|b| b.lines[0].line.set(0), value(lines + 4, F::LineNumber, 0)),
        (|b| b.strings[1] = 0xff, ObjectError::Text { offset: strings + 1 }),
        (|b| b.strings[2] = b'\n', ObjectError::Text { offset: strings + 2 }),
        (|b| b.strings[2] = 0, ObjectError::Text { offset: strings + 2 }),
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
    let name = builder.string("one");
    builder.globals.resize(usize::from(limits::GLOBALS_MAX), name);
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
    for at in [34, 36, 56, 60, 64, 68, 72, 76] {
        let mut bytes = rich().bytes();
        let width = if at < 40 || at == 76 { 2 } else { 4 };
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
    let point = builder.point(2, 21);
    (point.kind, point.symbol) = (kind::SOURCE, file);
    point.value.set(77);
    let mut bytes = builder.bytes();
    let mut asked = Vec::new();
    let mut symbols = Vec::new();
    let find = |index, location: Location<'_>| {
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
    };
    let find_symbol = |relocation: Relocation<'_>| {
        symbols.push(format!("{} {}", relocation.symbol, relocation.addend));
        Ok(0x1000)
    };
    resolve(&mut bytes, find, find_symbol).unwrap();
    assert_eq!(symbols, ["jiffies 8", "jiffies -1"]);
    assert_eq!(asked, ["1 do_sys_openat2 -3", "2 open.c:77"]);
    let object = Object::parse(&bytes).unwrap();
    let places: Vec<_> = object.points().map(|point| point.location()).collect();
    assert_eq!(places[1], Location::Place(Place::Absolute(0x1234)));
    assert_eq!(places[2], Location::Place(Place::ModuleOffset(0x56)));
    // The words for people stay.
    assert_eq!(object.point(1).unwrap().display(), "do_sys_openat2+0x0");
    assert_eq!(object.code(), assemble("nop; exit; push 0x1008; push 0xfff; abort"));
    assert_eq!(object.relocations().count(), 0);
    // There is nothing left to do.
    let before = bytes.clone();
    resolve(&mut bytes, |_, _| Err(()), |_| Err(())).unwrap();
    assert_eq!(bytes, before);
}

#[test]
fn a_symbol_that_is_not_found_names_its_point() {
    let mut bytes = rich().bytes();
    let error = resolve(&mut bytes, |_, _| Err("no such symbol"), |_| Ok(0)).unwrap_err();
    assert_eq!(
        error,
        ResolveError::Location {
            point: 1,
            error: "no such symbol"
        }
    );
    let place = Place::Absolute(0);
    let error = resolve(&mut bytes, |_, _| Ok(place), |_| Err("no such symbol")).unwrap_err();
    assert_eq!(
        error,
        ResolveError::Symbol {
            offset: 3,
            error: "no such symbol"
        }
    );
    let error = resolve(&mut bytes[1..], |_, _| Err("unused"), |_| Err("unused")).unwrap_err();
    assert!(matches!(error, ResolveError::Object(ObjectError::Magic { .. })));
}
