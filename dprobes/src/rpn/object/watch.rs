//! Watchpoints: a point on what the CPU does with a location, instead of on an instruction's text.

use core::fmt;

/// What a watchpoint watches for. The names are those of the debug registers' R/W fields (SDM volume 3, 18.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WatchKind {
    /// The instruction at the address is about to be executed.
    Execute = 1,
    /// Something has been written there.
    Write = 2,
    /// The I/O port has been read or written.
    Io = 3,
    /// Something there has been read or written, but not fetched as an instruction.
    ReadWrite = 4,
}

impl WatchKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Execute, Self::Write, Self::Io, Self::ReadWrite];

    /// From its number in an object.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Execute),
            2 => Some(Self::Write),
            3 => Some(Self::Io),
            4 => Some(Self::ReadWrite),
            _ => None,
        }
    }

    /// Its name in the language.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Write => "write",
            Self::Io => "io",
            Self::ReadWrite => "rw",
        }
    }

    /// How many bytes one watchpoint can watch.
    #[must_use]
    pub const fn lengths(self) -> &'static [u8] {
        match self {
            // SDM volume 3, 18.2.5: the length of an instruction breakpoint must be one byte.
            Self::Execute => &[1],
            // No instruction moves eight bytes at a port.
            Self::Io => &[1, 2, 4],
            Self::Write | Self::ReadWrite => &[1, 2, 4, 8],
        }
    }
}

/// What is watched for, and how many bytes of it: a combination that the debug registers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Watch {
    kind: WatchKind,
    len: u8,
}

impl Watch {
    /// `None` for a length that this kind does not have.
    #[must_use]
    pub fn new(kind: WatchKind, len: u8) -> Option<Self> {
        kind.lengths().contains(&len).then_some(Watch { kind, len })
    }

    /// What is watched for.
    #[must_use]
    pub const fn kind(self) -> WatchKind {
        self.kind
    }

    /// How many bytes are watched: 1, 2, 4 or 8.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub const fn len(self) -> u8 {
        self.len
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.len)
    }
}

/// A location that can be watched: only [`new`](Self::new) makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Watchpoint {
    address: u64,
    watch: Watch,
}

/// Why a location cannot be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum LocationError {
    /// The address is not a multiple of the length: the CPU ignores the low bits (SDM volume 3, 18.2.5), and would watch other bytes.
    Unaligned = 1,
    /// The address is not canonical, so that nothing can be there.
    NotCanonical = 2,
    /// There are 65,536 ports.
    NoPort = 3,
}

impl LocationError {
    /// From its number in a reply.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Unaligned),
            2 => Some(Self::NotCanonical),
            3 => Some(Self::NoPort),
            _ => None,
        }
    }
}

impl Watchpoint {
    /// Checks a location.
    ///
    /// # Errors
    /// [`LocationError`]
    pub const fn new(address: u64, watch: Watch) -> Result<Self, LocationError> {
        // Bits 63 to 56 are the same for all canonical addresses, with four levels of page tables or five.
        let top = address.cast_signed() >> 56;
        if !address.is_multiple_of(watch.len as u64) {
            return Err(LocationError::Unaligned);
        }
        match watch.kind {
            WatchKind::Io if address > u16::MAX as u64 => return Err(LocationError::NoPort),
            _ if top != 0 && top != -1 => return Err(LocationError::NotCanonical),
            _ => {}
        }
        Ok(Watchpoint { address, watch })
    }

    /// The first byte, or the first port.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// The last byte, or the last port.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.address + (self.watch.len as u64 - 1)
    }

    /// What is watched for.
    #[must_use]
    pub const fn kind(&self) -> WatchKind {
        self.watch.kind
    }

    /// How many bytes are watched: 1, 2, 4 or 8. The address is a multiple of it.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub const fn len(&self) -> u8 {
        self.watch.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn each_kind_has_its_lengths_and_a_number_of_its_own() {
        for kind in WatchKind::ALL {
            assert_eq!(WatchKind::from_byte(kind as u8), Some(kind));
            for len in 0..=u8::MAX {
                let good = match kind {
                    WatchKind::Execute => len == 1,
                    WatchKind::Io => matches!(len, 1 | 2 | 4),
                    WatchKind::Write | WatchKind::ReadWrite => matches!(len, 1 | 2 | 4 | 8),
                };
                assert_eq!(Watch::new(kind, len).is_some(), good, "{kind:?} {len}");
            }
        }
        let known: Vec<u8> = (0..=u8::MAX).filter(|n| WatchKind::from_byte(*n).is_some()).collect();
        assert_eq!(known, [1, 2, 3, 4]);
    }

    #[test]
    fn a_location_is_aligned_and_can_be_there() {
        let at = |address, kind, len| Watchpoint::new(address, Watch::new(kind, len).unwrap()).err();
        for len in [1, 2, 4, 8_u8] {
            for low in 0..16 {
                let expected = (low % u64::from(len) != 0).then_some(LocationError::Unaligned);
                assert_eq!(at(0xffff_8000_0000_0000 + low, WatchKind::Write, len), expected);
                assert_eq!(at(0x7fff_0000 + low, WatchKind::ReadWrite, len), expected);
            }
        }
        assert_eq!(at(0xfffc, WatchKind::Io, 4), None);
        assert_eq!(at(0x1_0000, WatchKind::Io, 1), Some(LocationError::NoPort));
        assert_eq!(
            at(0x8000_0000_0000_0000, WatchKind::Execute, 1),
            Some(LocationError::NotCanonical)
        );
        assert_eq!(
            at(0x7f00_0000_0000_0000, WatchKind::Write, 8),
            Some(LocationError::NotCanonical)
        );
        assert_eq!(at(u64::MAX, WatchKind::Execute, 1), None);
        assert_eq!(at(0, WatchKind::ReadWrite, 8), None);
    }
}
