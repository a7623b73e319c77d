//! Maps: what a program adds values to.

use core::mem::offset_of;

use super::check::{limit, string, value, zero};
use super::layout::{self, map_kind};
use super::{Field, Object, ObjectError};
use crate::aggregate::{Kind, Linear, Spec, SpecError};
use crate::rpn::limits;

/// What a map keeps of the values that were added under the same keys. Values are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// How many there were.
    Count,
    /// Their sum.
    Sum,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// Sum and number, exactly.
    Avg,
    /// How many were negative, 0, 1, 2 to 3, 4 to 7, and so on.
    Log2,
    /// How many were in each of the steps of a range, and below and above it.
    Linear {
        /// The least value of the first step.
        min: i64,
        /// The value behind the last step; a multiple of `step` from `min`.
        max: i64,
        /// Values in a step.
        step: u64,
    },
}

/// A map of a parsed object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it keeps.
    pub kind: MapKind,
    /// Words that are its key: 0 to 4.
    pub keys: u8,
    /// Different keys it has room for, on each CPU.
    pub entries: u32,
}

impl MapKind {
    /// Whether `agg` takes a value for it.
    pub const fn takes_value(self) -> bool {
        !matches!(self, Self::Count)
    }
}

impl Map<'_> {
    /// Words that `agg` takes from the stack for it.
    pub const fn operands(&self) -> u16 {
        self.keys as u16 + self.kind.takes_value() as u16
    }

    /// What the engine makes of it.
    ///
    /// # Errors
    /// [`SpecError`]. The maps of a parsed object have none.
    pub const fn spec(&self) -> Result<Spec, SpecError> {
        let kind = match self.kind {
            MapKind::Count => Kind::Count,
            MapKind::Sum => Kind::Sum,
            MapKind::Min => Kind::Min,
            MapKind::Max => Kind::Max,
            MapKind::Avg => Kind::Avg,
            MapKind::Log2 => Kind::Log2,
            MapKind::Linear { min, max, step } => match Linear::new(min, max, step) {
                Ok(linear) => Kind::Linear(linear),
                Err(error) => return Err(error),
            },
        };
        Spec::new(kind, self.keys as u32, self.entries)
    }

    /// Bytes it takes on each CPU, exactly: see [`Spec::bytes_per_cpu`]. 0 if there is no such map.
    pub const fn bytes(&self) -> u64 {
        match self.spec() {
            Ok(spec) => spec.bytes_per_cpu(),
            Err(_) => 0,
        }
    }
}

impl layout::Map {
    fn known_kind(&self) -> Option<MapKind> {
        Some(match self.kind {
            map_kind::COUNT => MapKind::Count,
            map_kind::SUM => MapKind::Sum,
            map_kind::MIN => MapKind::Min,
            map_kind::MAX => MapKind::Max,
            map_kind::AVG => MapKind::Avg,
            map_kind::LOG2 => MapKind::Log2,
            map_kind::LINEAR => MapKind::Linear {
                min: self.min.get(),
                max: self.max.get(),
                step: self.step.get(),
            },
            _ => return None,
        })
    }

    /// The map, once parsing has proved the fields.
    pub(super) fn map<'a>(&self, object: &Object<'a>) -> Map<'a> {
        Map {
            name: object.string(self.name),
            kind: self.known_kind().unwrap_or(MapKind::Count),
            keys: self.keys,
            entries: self.entries.get(),
        }
    }
}

/// Checks the maps, which begin at byte `base` of the object; returns where they end.
pub(super) fn check(object: &Object<'_>, mut base: usize) -> Result<usize, ObjectError> {
    let mut bytes = 0_u64;
    for (number, raw) in object.maps.iter().enumerate() {
        let at = |field: usize| base + field;
        check_kind(raw, base)?;
        limit(
            at(offset_of!(layout::Map, keys)),
            Field::MapKeys,
            raw.keys,
            limits::MAP_KEYS_MAX,
        )?;
        let reserved = raw.reserved.get().to_le_bytes();
        zero(at(offset_of!(layout::Map, reserved)), &reserved)?;
        let entries = raw.entries.get();
        let entries_at = at(offset_of!(layout::Map, entries));
        value(entries != 0, entries_at, Field::MapEntries, entries)?;
        limit(entries_at, Field::MapEntries, entries, limits::MAP_ENTRIES_MAX)?;
        let name_at = at(offset_of!(layout::Map, name));
        let name_len = raw.name.len.get();
        value(name_len != 0, name_at, Field::MapName, name_len)?;
        string(object, name_at, Field::MapName, raw.name, limits::VARIABLE_NAME_MAX)?;
        let map = raw.map(object);
        // A program has few of them.
        let twice = object
            .maps
            .iter()
            .take(number)
            .any(|other| other.map(object).name == map.name);
        value(!twice, name_at, Field::MapName, name_len)?;
        bytes += map.bytes();
        limit(entries_at, Field::MapBytes, bytes, limits::MAP_BYTES_MAX)?;
        base += size_of::<layout::Map>();
    }
    Ok(base)
}

fn check_kind(raw: &layout::Map, base: usize) -> Result<(), ObjectError> {
    let (min_at, step_at) = (
        base + offset_of!(layout::Map, min),
        base + offset_of!(layout::Map, step),
    );
    match raw.known_kind() {
        None => value(false, base, Field::MapKind, raw.kind),
        Some(MapKind::Linear { min, max, step }) => {
            value(min < max, min_at, Field::MapRange, min.cast_unsigned())?;
            let range = max.wrapping_sub(min).cast_unsigned();
            value(range.checked_rem(step) == Some(0), step_at, Field::MapStep, step)?;
            limit(step_at, Field::MapBuckets, range / step.max(1), limits::MAP_BUCKETS_MAX)
        }
        Some(_) => {
            zero(min_at, &raw.min.get().to_le_bytes())?;
            zero(base + offset_of!(layout::Map, max), &raw.max.get().to_le_bytes())?;
            zero(step_at, &raw.step.get().to_le_bytes())
        }
    }
}
