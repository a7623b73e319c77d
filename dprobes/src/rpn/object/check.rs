//! The checks of an object, from the header inwards.

use core::mem::offset_of;

use super::layout::{self, kind};
use super::{Field, ModType, Object, ObjectError, Watch, WatchKind, find_string, map};
use crate::rpn::op::Op;
use crate::rpn::{exception, limits};

/// Where in the object a field is.
macro_rules! at {
    ($base:expr, $record:ident . $field:ident) => {
        $base + offset_of!(layout::$record, $field)
    };
}

pub(super) fn limit(
    offset: usize,
    field: Field,
    found: impl Into<u64>,
    limit: impl Into<u64>,
) -> Result<(), ObjectError> {
    let (found, limit) = (found.into(), limit.into());
    if found > limit {
        Err(ObjectError::Limit {
            offset,
            field,
            found,
            limit,
        })
    } else {
        Ok(())
    }
}

pub(super) fn value(good: bool, offset: usize, field: Field, found: impl Into<u64>) -> Result<(), ObjectError> {
    if good {
        Ok(())
    } else {
        Err(ObjectError::Value {
            offset,
            field,
            found: found.into(),
        })
    }
}

pub(super) fn zero(offset: usize, bytes: &[u8]) -> Result<(), ObjectError> {
    match bytes.iter().position(|byte| *byte != 0) {
        Some(at) => value(false, offset + at, Field::Reserved, bytes.get(at).copied().unwrap_or(1)),
        None => Ok(()),
    }
}

/// Checks the header alone; returns the length of the object it describes, which is `len`.
pub(super) fn header(header: &layout::Header, len: usize) -> Result<u64, ObjectError> {
    if header.magic != layout::MAGIC {
        return Err(ObjectError::Magic { found: header.magic });
    }
    let version = header.version.get();
    value(
        version == layout::VERSION,
        at!(0, Header.version),
        Field::Version,
        version,
    )?;
    let header_len = header.header_len.get();
    let size = size_of::<layout::Header>();
    value(
        usize::from(header_len) == size,
        at!(0, Header.header_len),
        Field::HeaderLength,
        header_len,
    )?;

    limit(
        at!(0, Header.points),
        Field::Points,
        header.points.get(),
        limits::POINTS_MAX,
    )?;
    limit(
        at!(0, Header.locals),
        Field::Locals,
        header.locals.get(),
        limits::LOCALS_MAX,
    )?;
    limit(
        at!(0, Header.globals),
        Field::Globals,
        header.globals.get(),
        limits::GLOBALS_MAX,
    )?;
    limit(at!(0, Header.maps), Field::Maps, header.maps.get(), limits::MAPS_MAX)?;
    limit(
        at!(0, Header.relocations),
        Field::Relocations,
        header.relocations.get(),
        limits::RELOCATIONS_MAX,
    )?;
    limit(
        at!(0, Header.lines),
        Field::Lines,
        header.lines.get(),
        limits::LINES_MAX,
    )?;
    limit(
        at!(0, Header.code_len),
        Field::Code,
        header.code_len.get(),
        limits::CODE_MAX,
    )?;
    limit(
        at!(0, Header.strings_len),
        Field::Strings,
        header.strings_len.get(),
        limits::STRINGS_MAX,
    )?;
    let needed = size as u64
        + u64::from(header.points.get()) * size_of::<layout::Point>() as u64
        + u64::from(header.locals.get()) * size_of::<layout::Str>() as u64
        + u64::from(header.globals.get()) * size_of::<layout::Str>() as u64
        + u64::from(header.maps.get()) * size_of::<layout::Map>() as u64
        + u64::from(header.relocations.get()) * size_of::<layout::Relocation>() as u64
        + u64::from(header.lines.get()) * size_of::<layout::Line>() as u64
        + u64::from(header.code_len.get())
        + u64::from(header.strings_len.get());
    if needed != len as u64 {
        return Err(ObjectError::Length { len, needed });
    }
    let total_len = header.total_len.get();
    value(
        u64::from(total_len) == needed,
        at!(0, Header.total_len),
        Field::TotalLength,
        total_len,
    )?;
    Ok(needed)
}

/// Checks everything the header check left.
pub(super) fn object(object: &Object<'_>, len: usize) -> Result<(), ObjectError> {
    let header = object.header;
    let strings_at = len - object.strings.len();
    if let Some((at, _)) = object.strings.char_indices().find(|(_, c)| c.is_control()) {
        return Err(ObjectError::Text {
            offset: strings_at + at,
        });
    }
    let modtype = header.modtype;
    value(
        ModType::from_byte(modtype).is_some(),
        at!(0, Header.modtype),
        Field::ModuleType,
        modtype,
    )?;
    let flags = header.flags;
    value(
        flags & !layout::AUTO_STACK_TRACE == 0,
        at!(0, Header.flags),
        Field::HeaderFlags,
        flags,
    )?;
    value(header.major.get() != 0, at!(0, Header.major), Field::Major, 0u8)?;
    limit(
        at!(0, Header.logmax),
        Field::LogMax,
        header.logmax.get(),
        limits::LOG_MAX,
    )?;
    limit(
        at!(0, Header.ex_logmax),
        Field::ExLogMax,
        header.ex_logmax.get(),
        limits::EX_LOG_MAX,
    )?;
    limit(
        at!(0, Header.heapmax),
        Field::HeapMax,
        header.heapmax.get(),
        limits::HEAP_MAX,
    )?;
    let name_len = header.name.len.get();
    value(name_len != 0, at!(0, Header.name), Field::Name, name_len)?;
    string(object, at!(0, Header.name), Field::Name, header.name, limits::NAME_MAX)?;
    string(
        object,
        at!(0, Header.source),
        Field::Source,
        header.source,
        limits::NAME_MAX,
    )?;
    let points = header.points.get();
    value(points != 0, at!(0, Header.points), Field::Points, points)?;
    zero(at!(0, Header.reserved), &header.reserved)?;

    let mut base = size_of::<layout::Header>();
    for raw in object.points {
        point(object, base, raw)?;
        base += size_of::<layout::Point>();
    }
    let names = [(object.locals, Field::LocalName), (object.globals, Field::GlobalName)];
    for (names, field) in names {
        for name in names {
            // What is shared is shared by name.
            let named = field == Field::LocalName || name.len.get() != 0;
            value(named, base, field, 0_u8)?;
            string(object, base, field, *name, limits::VARIABLE_NAME_MAX)?;
            base += size_of::<layout::Str>();
        }
    }
    base = map::check(object, base)?;
    let mut next = 1;
    for raw in object.relocations {
        relocation(object, base, raw, next)?;
        next = raw.offset.get() + Op::Push.size() as u32;
        base += size_of::<layout::Relocation>();
    }
    let mut next = 0;
    for line in object.lines {
        let offset = line.offset.get();
        let inside = offset >= next && offset < header.code_len.get();
        value(inside, at!(base, Line.offset), Field::LineOffset, offset)?;
        value(line.line.get() != 0, at!(base, Line.line), Field::LineNumber, 0u8)?;
        next = offset + 1;
        base += size_of::<layout::Line>();
    }
    Ok(())
}

pub(super) fn string(
    object: &Object<'_>,
    at: usize,
    field: Field,
    string: layout::Str,
    max: u32,
) -> Result<(), ObjectError> {
    let (start, len) = (string.offset.get(), string.len.get());
    limit(at, field, len, max)?;
    match find_string(object.strings, string) {
        Some(_) => Ok(()),
        None => Err(ObjectError::StringRange {
            offset: at,
            field,
            start,
            len,
        }),
    }
}

fn point(object: &Object<'_>, base: usize, raw: &layout::Point) -> Result<(), ObjectError> {
    let symbolic = match raw.kind {
        kind::ABSOLUTE | kind::MODULE_OFFSET => false,
        kind::SYMBOL => true,
        kind::SOURCE => {
            let line = raw.value.get();
            value(line != 0, at!(base, Point.value), Field::LineNumber, line)?;
            limit(at!(base, Point.value), Field::LineNumber, line, u32::MAX)?;
            true
        }
        other => return value(false, base, Field::LocationKind, other),
    };
    let symbol_len = raw.symbol.len.get();
    value(
        (symbol_len != 0) == symbolic,
        at!(base, Point.symbol),
        Field::Symbol,
        symbol_len,
    )?;
    string(
        object,
        at!(base, Point.symbol),
        Field::Symbol,
        raw.symbol,
        limits::SYMBOL_MAX,
    )?;
    string(
        object,
        at!(base, Point.display),
        Field::Display,
        raw.display,
        limits::SYMBOL_MAX,
    )?;

    let opcode_len = raw.opcode_len;
    limit(
        at!(base, Point.opcode_len),
        Field::OpcodeLength,
        opcode_len,
        limits::OPCODE_MAX as u64,
    )?;
    let beyond = raw.opcode.get(usize::from(opcode_len)..).unwrap_or(&[]);
    zero(at!(base, Point.opcode) + usize::from(opcode_len), beyond)?;
    let flags = raw.flags.get();
    value(
        flags & !(layout::LOG_ON_FAULT | layout::SUSPENDED | layout::RETURNS) == 0,
        at!(base, Point.flags),
        Field::Flags,
        flags,
    )?;
    if flags & layout::RETURNS != 0 {
        let a_function = raw.kind != kind::SOURCE && raw.watch == 0;
        value(a_function, at!(base, Point.kind), Field::LocationKind, raw.kind)?;
    }
    let ex_mask = raw.ex_mask.get();
    value(
        ex_mask & !exception::MASK_BITS == 0,
        at!(base, Point.ex_mask),
        Field::ExMask,
        ex_mask,
    )?;
    limit(
        at!(base, Point.heap),
        Field::Heap,
        raw.heap.get(),
        object.header.heapmax.get(),
    )?;
    zero(at!(base, Point.reserved), &raw.reserved)?;
    watch(base, raw)?;

    let (start, end) = (raw.code_start.get(), raw.code_end.get());
    limit(
        at!(base, Point.code_end),
        Field::CodeEnd,
        end,
        object.header.code_len.get(),
    )?;
    value(start < end, at!(base, Point.code_start), Field::CodeStart, start)?;
    limit(
        at!(base, Point.code_start),
        Field::Handler,
        end - start,
        limits::HANDLER_MAX,
    )
}

/// Checks what makes a point a watchpoint. Its address is the engine's business: it may not be known yet.
fn watch(base: usize, raw: &layout::Point) -> Result<(), ObjectError> {
    let (kind_at, len_at) = (at!(base, Point.watch), at!(base, Point.watch_len));
    if raw.watch == 0 {
        return value(raw.watch_len == 0, len_at, Field::WatchLength, raw.watch_len);
    }
    let kind = WatchKind::from_byte(raw.watch);
    let watch = kind.and_then(|kind| Watch::new(kind, raw.watch_len));
    let Some(watch) = watch else {
        return match kind {
            None => value(false, kind_at, Field::WatchKind, raw.watch),
            Some(_) => value(false, len_at, Field::WatchLength, raw.watch_len),
        };
    };
    // Text is not compared where none is changed, and no instruction runs from a slot.
    value(
        raw.opcode_len == 0,
        at!(base, Point.opcode_len),
        Field::OpcodeLength,
        raw.opcode_len,
    )?;
    let flags = raw.flags.get();
    value(
        flags & layout::LOG_ON_FAULT == 0,
        at!(base, Point.flags),
        Field::Flags,
        flags,
    )?;
    let place_fits = match watch.kind() {
        WatchKind::Io => raw.kind == kind::ABSOLUTE,
        WatchKind::Write | WatchKind::ReadWrite => raw.kind != kind::SOURCE,
        WatchKind::Execute => true,
    };
    value(place_fits, base, Field::LocationKind, raw.kind)
}

/// Checks a relocation whose word may begin at `least` in the code.
fn relocation(object: &Object<'_>, base: usize, raw: &layout::Relocation, least: u32) -> Result<(), ObjectError> {
    let at = raw.offset.get();
    // Whether an instruction begins there is the verifier's business; what is changed is nothing but a word.
    let opcode = (at as usize).checked_sub(1).and_then(|before| object.code.get(before));
    let inside = u64::from(at) + 8 <= object.code.len() as u64;
    value(
        at >= least && inside && opcode == Some(&Op::Push.byte()),
        at!(base, Relocation.offset),
        Field::RelocationOffset,
        at,
    )?;
    string(
        object,
        at!(base, Relocation.symbol),
        Field::Symbol,
        raw.symbol,
        limits::SYMBOL_MAX,
    )?;
    let addend = raw.addend.get();
    value(
        addend == 0 || raw.symbol.len.get() != 0,
        at!(base, Relocation.addend),
        Field::RelocationAddend,
        addend.cast_unsigned(),
    )
}
