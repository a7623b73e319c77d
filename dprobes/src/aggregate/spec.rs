//! What a map is: its kind, how many keys, how many entries.

use super::table::{self, Table};

/// Keys that an entry has at most.
pub const KEYS_MAX: usize = 4;

/// Entries that a CPU's table has at most.
pub const ENTRIES_MAX: u32 = 65_536;

/// Buckets of a linear histogram at most, not counting those for what is below and above.
pub const BUCKETS_MAX: u64 = 1024;

/// Buckets of a power-of-two histogram: negative, 0, 1, 2..=3, 4..=7, and so on up to 2^62..=2^63-1.
pub const LOG2_BUCKETS: usize = 65;

/// Maps of one program at most.
pub const MAPS_MAX: usize = 64;

/// Bytes that the maps of one program take for each CPU, at most: 16 MiB.
pub const BYTES_MAX: u64 = 16 << 20;

/// What a map does with the values it is given. Values are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Counts; there is no value.
    Count,
    /// Adds up, and wraps around at 64 bits.
    Sum,
    /// Keeps the smallest.
    Min,
    /// Keeps the largest.
    Max,
    /// Keeps how many there were and their sum, which is exact: it has 128 bits.
    Avg,
    /// Counts by powers of two: see [`LOG2_BUCKETS`].
    Log2,
    /// Counts by ranges of equal size.
    Linear(Linear),
}

impl Kind {
    /// The number that stands for it in objects and in `MapStatus`: 1 count, 2 sum, 3 min, 4 max, 5 avg,
    /// 6 log2, 7 linear.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Kind::Count => 1,
            Kind::Sum => 2,
            Kind::Min => 3,
            Kind::Max => 4,
            Kind::Avg => 5,
            Kind::Log2 => 6,
            Kind::Linear(_) => 7,
        }
    }

    /// Its name in programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Count => "count",
            Kind::Sum => "sum",
            Kind::Min => "min",
            Kind::Max => "max",
            Kind::Avg => "avg",
            Kind::Log2 => "log2",
            Kind::Linear(_) => "linear",
        }
    }

    /// Does an update come with a value?
    #[must_use]
    pub const fn has_value(self) -> bool {
        !matches!(self, Kind::Count)
    }

    /// Words of the value of an entry, as [`Map::read`](super::Map::read) writes them.
    #[must_use]
    pub const fn value_words(self) -> usize {
        match self {
            Kind::Count | Kind::Sum | Kind::Min | Kind::Max => 1,
            Kind::Avg => 3,
            Kind::Log2 => LOG2_BUCKETS,
            Kind::Linear(linear) => linear.buckets() + 2,
        }
    }

    /// Words of the value of an entry in a table.
    pub(super) const fn table_words(self) -> usize {
        match self {
            Kind::Avg => super::average::WORDS,
            _ => self.value_words(),
        }
    }
}

/// The ranges of a linear histogram; that they are in order is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Linear {
    min: i64,
    step: u64,
    buckets: u16,
    /// `u64::MAX / step`.
    reciprocal: u64,
}

impl Linear {
    /// Ranges of `step` values each, from `min` on and below `max`; what is outside is counted in two more buckets.
    ///
    /// # Errors
    /// [`SpecError::Range`] unless `min < max` and `step != 0`, [`SpecError::Uneven`] unless `max - min` is a multiple of `step`,
    /// [`SpecError::Buckets`] if that are more than [`BUCKETS_MAX`] ranges.
    pub const fn new(min: i64, max: i64, step: u64) -> Result<Self, SpecError> {
        if min >= max || step == 0 {
            return Err(SpecError::Range { min, max, step });
        }
        let width = max.wrapping_sub(min).cast_unsigned();
        if !width.is_multiple_of(step) {
            return Err(SpecError::Uneven { width, step });
        }
        let buckets = width / step;
        if buckets > BUCKETS_MAX {
            return Err(SpecError::Buckets { buckets });
        }
        Ok(Linear {
            min,
            step,
            buckets: buckets as u16,
            reciprocal: u64::MAX / step,
        })
    }

    /// The first value of the first range.
    #[must_use]
    pub const fn min(self) -> i64 {
        self.min
    }

    /// The value after the last of the last range.
    #[must_use]
    pub const fn max(self) -> i64 {
        self.min.wrapping_add_unsigned(self.step * self.buckets as u64)
    }

    /// Values in a range.
    #[must_use]
    pub const fn step(self) -> u64 {
        self.step
    }

    /// How many ranges there are.
    #[must_use]
    pub const fn buckets(self) -> usize {
        self.buckets as usize
    }

    /// The bucket of a value: 0 is below, then the ranges, then above.
    #[inline]
    pub(super) const fn bucket(self, value: i64) -> usize {
        if value < self.min {
            return 0;
        }
        // Both are signed, so that the distance fits into 64 bits without a sign.
        let distance = value.wrapping_sub(self.min).cast_unsigned();
        // The quotient without a division, which takes longer than all the rest: `reciprocal` is less than 1 below 2^64 / step, so that
        // this is the quotient or at most 2 below it.
        let mut quotient = ((distance as u128 * self.reciprocal as u128) >> 64) as u64;
        let mut rest = distance.wrapping_sub(quotient.wrapping_mul(self.step));
        while rest >= self.step {
            rest -= self.step;
            quotient += 1;
        }
        if quotient < self.buckets as u64 {
            quotient as usize + 1
        } else {
            self.buckets as usize + 1
        }
    }
}

/// The bucket of a value in a power-of-two histogram.
#[inline]
pub(super) const fn log2_bucket(value: i64) -> usize {
    if value < 0 {
        0
    } else {
        LOG2_BUCKETS - value.leading_zeros() as usize
    }
}

/// What a map is. Only the check makes one, so that whoever has one can rely on every limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spec {
    kind: Kind,
    keys: u8,
    entries: u32,
}

/// Why there is no such map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecError {
    /// No kind has this number.
    Kind {
        /// The number.
        found: u8,
    },
    /// More keys than [`KEYS_MAX`].
    Keys {
        /// How many.
        found: u32,
    },
    /// No entries, or more than [`ENTRIES_MAX`].
    Entries {
        /// How many.
        found: u32,
    },
    /// `min`, `max` and `step` are given for a kind that has none.
    Unexpected,
    /// The ranges do not ascend.
    Range {
        /// The first value.
        min: i64,
        /// The value after the last.
        max: i64,
        /// Values in a range.
        step: u64,
    },
    /// The last range is cut.
    Uneven {
        /// `max - min`.
        width: u64,
        /// Values in a range.
        step: u64,
    },
    /// More ranges than [`BUCKETS_MAX`].
    Buckets {
        /// How many.
        buckets: u64,
    },
    /// More maps than [`MAPS_MAX`].
    Maps {
        /// How many.
        found: usize,
    },
    /// All maps together take more than [`BYTES_MAX`] for each CPU.
    Bytes {
        /// How many, up to the map that is too much.
        bytes: u64,
    },
}

impl Spec {
    /// A map of this kind with so many keys, of which each CPU's table has so many entries. A map without keys has one entry, whatever
    /// is asked for.
    ///
    /// # Errors
    /// [`SpecError::Keys`], [`SpecError::Entries`].
    pub const fn new(kind: Kind, keys: u32, entries: u32) -> Result<Self, SpecError> {
        if keys > KEYS_MAX as u32 {
            return Err(SpecError::Keys { found: keys });
        }
        if entries == 0 || entries > ENTRIES_MAX {
            return Err(SpecError::Entries { found: entries });
        }
        Ok(Spec {
            kind,
            keys: keys as u8,
            entries,
        })
    }

    /// A map from numbers as they cross a boundary: the kind by its [`code`](Kind::code), and the ranges of a linear histogram, which must be
    /// zero for the other kinds.
    ///
    /// # Errors
    /// [`SpecError`].
    pub const fn from_parts(
        kind: u8,
        keys: u32,
        entries: u32,
        (min, max, step): (i64, i64, u64),
    ) -> Result<Self, SpecError> {
        let kind = match kind {
            1 => Kind::Count,
            2 => Kind::Sum,
            3 => Kind::Min,
            4 => Kind::Max,
            5 => Kind::Avg,
            6 => Kind::Log2,
            7 => match Linear::new(min, max, step) {
                Ok(linear) => Kind::Linear(linear),
                Err(error) => return Err(error),
            },
            _ => return Err(SpecError::Kind { found: kind }),
        };
        if !matches!(kind, Kind::Linear(_)) && (min != 0 || max != 0 || step != 0) {
            return Err(SpecError::Unexpected);
        }
        Spec::new(kind, keys, entries)
    }

    /// What it does with its values.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// How many keys an entry has.
    #[must_use]
    pub const fn keys(&self) -> usize {
        self.keys as usize
    }

    /// How many entries each CPU's table was asked to have.
    #[must_use]
    pub const fn entries(&self) -> u32 {
        self.entries
    }

    /// How many it has: without keys there is one.
    pub(super) const fn capacity(&self) -> usize {
        if self.keys == 0 { 1 } else { self.entries as usize }
    }

    /// Words of an entry in a table.
    pub(super) const fn stride(&self) -> usize {
        self.keys() + self.kind.table_words()
    }

    /// Words that an update takes from the stack: the keys, and the value if there is one.
    #[must_use]
    pub const fn operands(&self) -> usize {
        self.keys() + self.kind.has_value() as usize
    }

    /// Bytes of an entry, as [`Map::read`](super::Map::read) writes it.
    #[must_use]
    pub const fn entry_bytes(&self) -> usize {
        (self.keys() + self.kind.value_words()) * 8
    }

    /// Bytes that it takes for each CPU, exactly.
    #[must_use]
    pub const fn bytes_per_cpu(&self) -> u64 {
        let entries = table::lines(self) * table::LINE_BYTES;
        (size_of::<Table>() + entries + table::index_len(self) * 4) as u64
    }
}

/// Bytes that these maps take together for each CPU.
///
/// # Errors
/// [`SpecError::Maps`], [`SpecError::Bytes`].
pub fn bytes_of_all<'s>(specs: impl IntoIterator<Item = &'s Spec>) -> Result<u64, SpecError> {
    let mut bytes = 0;
    for (number, spec) in (1..).zip(specs) {
        if number > MAPS_MAX {
            return Err(SpecError::Maps { found: number });
        }
        // One map takes less than 2^30 bytes.
        bytes += spec.bytes_per_cpu();
        if bytes > BYTES_MAX {
            return Err(SpecError::Bytes { bytes });
        }
    }
    Ok(bytes)
}
