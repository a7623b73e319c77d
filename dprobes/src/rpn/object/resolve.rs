//! Changing an object in place: where its points are, and what words of its code are.

use core::fmt;
use core::mem::offset_of;

use crc::{CRC_32_ISO_HDLC, Crc, Table};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::layout::{self, Header, kind};
use super::{Location, ModType, Object, ObjectError, Place, Relocation, find_string};

/// Sixteen bytes at a time: an object with 50,000 points has megabytes.
static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

const CHECKSUM_AT: usize = offset_of!(Header, checksum);
const CHECKSUM_END: usize = CHECKSUM_AT + size_of::<U32>();

/// The checksum an object should have.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(bytes.get(..CHECKSUM_AT).unwrap_or(bytes));
    digest.update(&[0; CHECKSUM_END - CHECKSUM_AT]);
    digest.update(bytes.get(CHECKSUM_END..).unwrap_or(&[]));
    digest.finalize()
}

/// Writes the length and the checksum of an object whose other bytes are in place.
///
/// # Errors
/// [`ObjectError::TooShort`], or [`ObjectError::Limit`] for more bytes than a length can say.
pub fn seal(bytes: &mut [u8]) -> Result<(), ObjectError> {
    let len = bytes.len();
    let too_short = ObjectError::TooShort {
        len,
        needed: size_of::<Header>(),
    };
    let total_len = u32::try_from(len).map_err(|_| ObjectError::Limit {
        offset: offset_of!(Header, total_len),
        field: super::Field::TotalLength,
        found: len as u64,
        limit: u64::from(u32::MAX),
    })?;
    let (header, _) = Header::mut_from_prefix(bytes).map_err(|_| too_short)?;
    header.total_len.set(total_len);
    let checksum = checksum(bytes);
    let (header, _) = Header::mut_from_prefix(bytes).map_err(|_| too_short)?;
    header.checksum.set(checksum);
    Ok(())
}

/// Why an object could not be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveError<E> {
    /// It is not an object.
    Object(ObjectError),
    /// A location was not found.
    Location {
        /// Which point.
        point: u32,
        /// Why.
        error: E,
    },
    /// A symbol in the code was not found.
    Symbol {
        /// Offset of its word in the code.
        offset: u32,
        /// Why.
        error: E,
    },
}

impl<E: fmt::Display> fmt::Display for ResolveError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(error) => error.fmt(f),
            Self::Location { point, error } => write!(f, "point {point}: {error}"),
            Self::Symbol { offset, error } => write!(f, "byte {offset} of the code: {error}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for ResolveError<E> {}

impl<E> From<ObjectError> for ResolveError<E> {
    fn from(error: ObjectError) -> Self {
        Self::Object(error)
    }
}

/// Replaces every location the engine does not understand by the place that `find` knows, and every symbol in the code by the
/// address that `find_symbol` knows, in place. `find` gets the point's index and its location: a symbol, a source line or, in a
/// program for user space, an address.
///
/// # Errors
/// When the bytes are not an object, or with the first error of `find` or `find_symbol`. The bytes are to be discarded then.
pub fn resolve<E>(
    bytes: &mut [u8],
    mut find: impl FnMut(u32, Location<'_>) -> Result<Place, E>,
    mut find_symbol: impl FnMut(Relocation<'_>) -> Result<u64, E>,
) -> Result<(), ResolveError<E>> {
    let object = Object::parse(bytes)?;
    let user = object.modtype() == ModType::User;
    let (points_len, relocations_len) = (object.points.len(), object.relocations.len());
    let (code_len, strings_len) = (object.code.len(), object.strings.len());
    // Between the points and the relocations.
    let skipped = (object.locals.len() + object.globals.len()) * size_of::<layout::Str>() + size_of_val(object.maps);
    let lens = [points_len, skipped, relocations_len, code_len, strings_len];
    // Parsing proved that the bytes can be cut like this.
    let Some((points, relocations, code, strings)) = cut(bytes, lens) else {
        return Ok(());
    };
    for (index, raw) in (0..).zip(points) {
        let location = raw.location(strings);
        let understood = match location {
            // In user space that is an address in the file, which processes have somewhere else; or a port, which is watched.
            Location::Place(Place::Absolute(_)) => !user || raw.watch != 0,
            Location::Place(Place::ModuleOffset(_)) => true,
            Location::Symbol { .. } | Location::Source { .. } => false,
        };
        if understood {
            continue;
        }
        let place = find(index, location).map_err(|error| ResolveError::Location { point: index, error })?;
        let (kind, value) = match place {
            Place::Absolute(address) => (kind::ABSOLUTE, address),
            Place::ModuleOffset(offset) => (kind::MODULE_OFFSET, offset),
        };
        raw.kind = kind;
        raw.value.set(value);
        raw.symbol = layout::Str::default();
    }
    for raw in relocations {
        if raw.symbol.len.get() == 0 {
            continue;
        }
        let (offset, addend) = (raw.offset.get(), raw.addend.get());
        let symbol = find_string(strings, raw.symbol).unwrap_or("");
        let address = find_symbol(Relocation { offset, symbol, addend })
            .map_err(|error| ResolveError::Symbol { offset, error })?;
        let word = code.get_mut(offset as usize..).and_then(|rest| rest.first_chunk_mut());
        if let Some(word) = word {
            *word = address.wrapping_add_signed(addend).to_le_bytes();
        }
        raw.symbol = layout::Str::default();
        raw.addend.set(0);
    }
    Ok(seal(bytes)?)
}

type Parts<'a> = (
    &'a mut [layout::Point],
    &'a mut [layout::Relocation],
    &'a mut [u8],
    &'a str,
);

/// The points, relocations, code and strings of an object.
fn cut(bytes: &mut [u8], [points, skipped, relocations, code, strings]: [usize; 5]) -> Option<Parts<'_>> {
    let len = bytes.len();
    let (bytes, strings) = bytes.split_at_mut_checked(len.checked_sub(strings)?)?;
    let len = bytes.len();
    let (bytes, code) = bytes.split_at_mut_checked(len.checked_sub(code)?)?;
    let bytes = bytes.get_mut(size_of::<Header>()..)?;
    let (points, rest) = <[layout::Point]>::mut_from_prefix_with_elems(bytes, points).ok()?;
    let rest = rest.get_mut(skipped..)?;
    let (relocations, _) = <[layout::Relocation]>::mut_from_prefix_with_elems(rest, relocations).ok()?;
    Some((points, relocations, code, core::str::from_utf8(strings).ok()?))
}
