//! Some of the points of an object, and points that accept any instruction.

use dprobes::rpn::object::layout::{Header, Line, Map, Point, Relocation, Str};
use dprobes::rpn::object::{Object, ObjectError, seal};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

/// Numbers, and ranges of them: `3`, or `3-7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    first: u16,
    last: u16,
}

impl Numbers {
    /// From an argument.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u16>().ok();
        let range = match text.split_once('-') {
            Some((first, last)) => number(first).zip(number(last)),
            None => number(text).map(|number| (number, number)),
        };
        match range {
            Some((first, last)) if first <= last => Ok(Numbers { first, last }),
            _ => Err("a number from 0 to 65535, or two with a - between them".to_owned()),
        }
    }

    fn has(self, number: u16) -> bool {
        (self.first..=self.last).contains(&number)
    }
}

/// Which points of a program are to be inserted: of these groups, and of these types; all if none is named.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub groups: &'a [Numbers],
    pub types: &'a [Numbers],
}

impl Wanted<'_> {
    /// Is everything wanted?
    pub fn is_all(&self) -> bool {
        self.groups.is_empty() && self.types.is_empty()
    }

    /// Is a point with this group and type wanted?
    pub fn has(&self, group: u16, type_: u16) -> bool {
        let any = |of: &[Numbers], number| of.is_empty() || of.iter().any(|numbers| numbers.has(number));
        any(self.groups, group) && any(self.types, type_)
    }
}

/// A handler of the original code that is kept, and where it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    start: u32,
    end: u32,
    now: u32,
}

/// Where the handlers that are left were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces(Vec<Piece>);

impl Pieces {
    fn of(object: &Object<'_>, kept: &[u32]) -> Self {
        let points = kept.iter().filter_map(|index| object.point(*index));
        let mut handlers: Vec<_> = points.map(|point| (point.code().start, point.code().end)).collect();
        handlers.sort_unstable();
        // Points may share one.
        handlers.dedup();
        let mut now = 0;
        let place = |(start, end)| {
            let piece = Piece { start, end, now };
            now += end - start;
            piece
        };
        Pieces(handlers.into_iter().map(place).collect())
    }

    /// Where a byte of the original code is now, if it is left.
    fn now(&self, offset: u32) -> Option<u32> {
        let piece = self.0.iter().find(|piece| (piece.start..piece.end).contains(&offset))?;
        Some(offset - piece.start + piece.now)
    }

    /// Where a byte of the code was in the original.
    pub fn original(&self, offset: u32) -> Option<u32> {
        let after = self.0.partition_point(|piece| piece.now <= offset);
        let piece = self.0.get(after.checked_sub(1)?)?;
        Some(offset - piece.now + piece.start)
    }
}

/// An object with the points whose index is in `kept`, of another, and with their handlers.
pub fn points(bytes: &[u8], kept: &[u32]) -> Result<(Vec<u8>, Pieces), ObjectError> {
    let object = Object::parse(bytes)?;
    let pieces = Pieces::of(&object, kept);
    let now = |offset: &U32| pieces.now(offset.get()).map(U32::new);
    let Some(parts) = Parts::of(bytes) else {
        return Ok((bytes.to_vec(), pieces));
    };
    let mut points: Vec<Point> = kept
        .iter()
        .filter_map(|index| parts.points.get(*index as usize).copied())
        .collect();
    for point in &mut points {
        let len = point.code_end.get() - point.code_start.get();
        point.code_start = now(&point.code_start).unwrap_or_default();
        point.code_end.set(point.code_start.get() + len);
    }
    let mut relocations = Vec::new();
    relocations.extend(parts.relocations.iter().filter_map(|raw| {
        let offset = now(&raw.offset)?;
        Some(Relocation { offset, ..*raw })
    }));
    let mut lines = Vec::new();
    lines.extend(parts.lines.iter().filter_map(|raw| {
        let offset = now(&raw.offset)?;
        Some(Line { offset, ..*raw })
    }));
    let code: Vec<&[u8]> = pieces
        .0
        .iter()
        .filter_map(|piece| object.code().get(piece.start as usize..piece.end as usize))
        .collect();
    let code = code.concat();
    let mut header = *parts.header;
    header.points.set(points.len() as u32);
    header.relocations.set(relocations.len() as u32);
    header.lines.set(lines.len() as u32);
    header.code_len.set(code.len() as u32);
    let sections: [&[u8]; 7] = [
        header.as_bytes(),
        points.as_bytes(),
        parts.names_and_maps,
        relocations.as_bytes(),
        lines.as_bytes(),
        &code,
        parts.strings,
    ];
    let mut out = sections.concat();
    seal(&mut out)?;
    Ok((out, pieces))
}

/// Has all points of an object accept whatever instruction is there.
pub fn any_opcode(bytes: &mut [u8]) -> Result<(), ObjectError> {
    let count = Object::parse(bytes)?.points().len();
    let points = bytes.get_mut(size_of::<Header>()..).unwrap_or_default();
    if let Ok((points, _)) = <[Point]>::mut_from_prefix_with_elems(points, count) {
        for point in points {
            point.opcode_len = 0;
            point.opcode = Default::default();
        }
    }
    seal(bytes)
}

/// The sections of an object that was parsed.
struct Parts<'a> {
    header: &'a Header,
    points: &'a [Point],
    names_and_maps: &'a [u8],
    relocations: &'a [Relocation],
    lines: &'a [Line],
    strings: &'a [u8],
}

impl<'a> Parts<'a> {
    /// `None` if the bytes are no object.
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = Header::ref_from_prefix(bytes).ok()?;
        let count = |number: U32| usize::try_from(number.get()).ok();
        let (points, rest) = <[Point]>::ref_from_prefix_with_elems(rest, count(header.points)?).ok()?;
        let names = usize::from(header.locals.get()) + usize::from(header.globals.get());
        let len = names * size_of::<Str>() + usize::from(header.maps.get()) * size_of::<Map>();
        let (names_and_maps, rest) = rest.split_at_checked(len)?;
        let (relocations, rest) = <[Relocation]>::ref_from_prefix_with_elems(rest, count(header.relocations)?).ok()?;
        let (lines, rest) = <[Line]>::ref_from_prefix_with_elems(rest, count(header.lines)?).ok()?;
        let strings = rest.get(count(header.code_len)?..)?;
        Some(Parts {
            header,
            points,
            names_and_maps,
            relocations,
            lines,
            strings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dprobes::rpn::verify::verify;
    use pretty_assertions::assert_eq;

    const TEXT: &str = "name = \"kernel\"\nmodtype = kernel\nmajor = 1\nvars = a, b\nmap m = count\n
        offset = one\nminor = 1\ngroup = 1\nopcode = 0x90\n inc lv, a\n push odd\n log 1\n exit\n
        offset = two\nminor = 2\ngroup = 2\ntype = 5\n inc lv, b\n push even\n log 1\n agg m\n exit\n
        offset = three\nminor = 3\ngroup = 7\ntype = 5\n push odd\n log 1\n exit\n";

    fn object() -> Vec<u8> {
        rpn_asm::assemble("t.rpn", TEXT, &rpn_asm::Options::default())
            .unwrap()
            .object
    }

    #[test]
    fn numbers_and_ranges() {
        let has = |text: &str| {
            let numbers = Numbers::parse(text).unwrap();
            (0..10).filter(|number| numbers.has(*number)).collect::<Vec<_>>()
        };
        assert_eq!(has("3"), [3]);
        assert_eq!(has("3-5"), [3, 4, 5]);
        for bad in ["", "-", "3-", "-3", "5-3", "65536", "x", "1,2"] {
            assert!(Numbers::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn points_are_chosen_by_group_and_type() {
        let numbers = |text: &str| Numbers::parse(text).unwrap();
        let (groups, types) = ([numbers("1-2")], [numbers("5")]);
        let wanted = |groups, types| Wanted { groups, types };
        assert!(wanted(&[], &[]).is_all() && wanted(&[], &[]).has(9, 9));
        let both = wanted(&groups, &types);
        assert!(both.has(2, 5) && !both.has(1, 0) && !both.has(7, 5));
        assert!(wanted(&groups, &[]).has(1, 0));
    }

    /// Whatever is chosen is an object that verifies, with the points as they were, and looks for no symbol that it does not need.
    #[test]
    fn every_choice_is_an_object() {
        let bytes = object();
        let all = Object::parse(&bytes).unwrap();
        for choice in 1_u32..8 {
            let kept: Vec<u32> = (0..3).filter(|index| choice & 1 << index != 0).collect();
            let (some, pieces) = points(&bytes, &kept).unwrap();
            let some = Object::parse(&some).unwrap();
            verify(&some).unwrap();
            assert_eq!(some.points().len(), kept.len());
            for (point, index) in some.points().zip(&kept) {
                let original = all.point(*index).unwrap();
                assert_eq!(
                    (point.display(), point.minor(), point.opcode()),
                    (original.display(), original.minor(), original.opcode())
                );
                let handler = |object: &Object<'_>, code: std::ops::Range<u32>| {
                    object.code()[code.start as usize..code.end as usize].to_vec()
                };
                assert_eq!(handler(&some, point.code()), handler(&all, original.code()));
                for (now, was) in point.code().zip(original.code()) {
                    assert_eq!(pieces.original(now), Some(was));
                    assert_eq!(some.line_at(now), all.line_at(was));
                }
            }
            let symbols: Vec<_> = some.relocations().map(|word| word.symbol).collect();
            let expected: Vec<_> = kept
                .iter()
                .map(|index| if *index == 1 { "even" } else { "odd" })
                .collect();
            assert_eq!(symbols, expected);
        }
    }

    #[test]
    fn opcodes_are_left_out() {
        let mut bytes = object();
        any_opcode(&mut bytes).unwrap();
        let object = Object::parse(&bytes).unwrap();
        assert!(object.points().all(|point| point.opcode().is_empty()));
    }
}
