//! The memory of the made-up machine: ranges that somebody put there, and nothing between them.

use std::fmt;

use dprobes::rpn::BadAddress;

/// May a program write to a range?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It can only be read.
    ReadOnly,
    /// It can be read and written.
    ReadWrite,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Region {
    start: u64,
    bytes: Vec<u8>,
    access: Access,
}

impl Region {
    /// The offset of an address in it.
    fn offset(&self, addr: u64) -> Option<usize> {
        let offset = usize::try_from(addr.checked_sub(self.start)?).ok()?;
        (offset < self.bytes.len()).then_some(offset)
    }

    /// The address of its last byte.
    fn last(&self) -> u64 {
        self.start + (self.bytes.len() as u64 - 1)
    }
}

/// Why a range cannot be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapError {
    /// It has no byte.
    Empty {
        /// Where it should be.
        start: u64,
    },
    /// It ends behind the last address.
    PastEnd {
        /// Where it should be.
        start: u64,
        /// Bytes it has.
        length: usize,
    },
    /// Some of its bytes are mapped already.
    Overlap {
        /// Where it should be.
        start: u64,
        /// Where the range begins that is there.
        other: u64,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { start } => write!(f, "the memory at {start:#x} has no byte"),
            Self::PastEnd { start, length } => {
                write!(f, "{length} bytes of memory at {start:#x} go past the last address")
            }
            Self::Overlap { start, other } => {
                write!(f, "the memory at {start:#x} overlaps the memory at {other:#x}")
            }
        }
    }
}

impl std::error::Error for MapError {}

/// Bytes that are not what they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The address of the first.
    pub start: u64,
    /// What they were.
    pub before: Vec<u8>,
    /// What they are.
    pub after: Vec<u8>,
}

/// Ranges of bytes at addresses. Every other address is as bad as one that is not mapped on a live machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// By address; they do not overlap.
    regions: Vec<Region>,
}

impl Memory {
    /// Adds a range.
    ///
    /// # Errors
    /// Why it cannot be there.
    pub fn map(&mut self, start: u64, bytes: Vec<u8>, access: Access) -> Result<(), MapError> {
        let length = bytes.len();
        let Some(more) = (length as u64).checked_sub(1) else {
            return Err(MapError::Empty { start });
        };
        let last = start.checked_add(more).ok_or(MapError::PastEnd { start, length })?;
        let at = self.regions.partition_point(|region| region.last() < start);
        if let Some(next) = self.regions.get(at)
            && next.start <= last
        {
            let other = next.start;
            return Err(MapError::Overlap { start, other });
        }
        self.regions.insert(at, Region { start, bytes, access });
        Ok(())
    }

    fn find(&self, addr: u64) -> Option<usize> {
        let at = self.regions.partition_point(|region| region.last() < addr);
        self.regions
            .get(at)
            .is_some_and(|region| region.offset(addr).is_some())
            .then_some(at)
    }

    /// Can the byte at an address be read, or written?
    #[must_use]
    pub fn allows(&self, addr: u64, write: bool) -> bool {
        self.find(addr)
            .is_some_and(|at| !write || self.regions[at].access == Access::ReadWrite)
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// The first byte that is not there.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
        let mut done = 0;
        while done < buf.len() {
            let bad = BadAddress {
                addr: addr.saturating_add(done as u64),
            };
            let here = addr.checked_add(done as u64).ok_or(bad)?;
            let region = &self.regions[self.find(here).ok_or(bad)?];
            let from = region.offset(here).ok_or(bad)?;
            let part = (buf.len() - done).min(region.bytes.len() - from);
            buf[done..done + part].copy_from_slice(&region.bytes[from..from + part]);
            done += part;
        }
        Ok(())
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// The first byte that is not there or can only be read; those before it have been written.
    pub fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), BadAddress> {
        let mut done = 0;
        while done < bytes.len() {
            let bad = BadAddress {
                addr: addr.saturating_add(done as u64),
            };
            let here = addr.checked_add(done as u64).ok_or(bad)?;
            let at = self.find(here).ok_or(bad)?;
            let region = &mut self.regions[at];
            if region.access == Access::ReadOnly {
                return Err(bad);
            }
            let from = region.offset(here).ok_or(bad)?;
            let part = (bytes.len() - done).min(region.bytes.len() - from);
            region.bytes[from..from + part].copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
        Ok(())
    }

    /// What differs from what was there before, in runs of bytes; the ranges must be the same.
    #[must_use]
    pub fn changes(&self, before: &Memory) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for (now, then) in self.regions.iter().zip(&before.regions) {
            for (at, (after, before)) in (now.start..=u64::MAX).zip(now.bytes.iter().zip(&then.bytes)) {
                if after == before {
                    continue;
                }
                match changes.last_mut() {
                    Some(last) if last.start + last.after.len() as u64 == at => {
                        last.before.push(*before);
                        last.after.push(*after);
                    }
                    _ => changes.push(Change {
                        start: at,
                        before: vec![*before],
                        after: vec![*after],
                    }),
                }
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let mut memory = Memory::default();
        memory.map(0x2000, vec![4, 5], Access::ReadOnly).unwrap();
        memory.map(0x1ffe, vec![2, 3], Access::ReadWrite).unwrap();
        memory.map(u64::MAX, vec![9], Access::ReadWrite).unwrap();
        memory
    }

    #[test]
    fn ranges_that_touch_are_read_as_one_and_the_first_bad_byte_is_said() {
        let memory = memory();
        let mut buf = [0; 4];
        memory.read(0x1ffe, &mut buf).unwrap();
        assert_eq!(buf, [2, 3, 4, 5]);
        for (addr, length, bad) in [
            (0x1ffd, 1, 0x1ffd),
            (0x1ffe, 5, 0x2002),
            (u64::MAX, 2, u64::MAX),
            (0, 1, 0),
        ] {
            let read = memory.read(addr, &mut vec![0; length]);
            assert_eq!(read, Err(BadAddress { addr: bad }), "{addr:#x} {length}");
        }
        memory.read(u64::MAX, &mut [0]).unwrap();
        memory.read(77, &mut []).unwrap();
    }

    #[test]
    fn what_is_read_only_stays() {
        let mut memory = memory();
        let before = memory.clone();
        assert_eq!(memory.write(0x1fff, &[7, 8]), Err(BadAddress { addr: 0x2000 }));
        let change = Change {
            start: 0x1fff,
            before: vec![3],
            after: vec![7],
        };
        assert_eq!(memory.changes(&before), [change]);
        assert!(memory.allows(0x2001, false) && !memory.allows(0x2001, true) && !memory.allows(0x2002, false));
        assert!(memory.allows(0x1ffe, true));
    }

    #[test]
    fn ranges_do_not_overlap() {
        let mut memory = memory();
        let overlap = |start, other| Err(MapError::Overlap { start, other });
        assert_eq!(
            memory.map(0x1ff0, vec![0; 15], Access::ReadWrite),
            overlap(0x1ff0, 0x1ffe)
        );
        assert_eq!(memory.map(0x2001, vec![0], Access::ReadWrite), overlap(0x2001, 0x2000));
        assert_eq!(
            memory.map(5, vec![], Access::ReadWrite),
            Err(MapError::Empty { start: 5 })
        );
        assert_eq!(
            memory.map(u64::MAX - 1, vec![0; 3], Access::ReadWrite),
            Err(MapError::PastEnd {
                start: u64::MAX - 1,
                length: 3
            })
        );
        memory.map(0x2002, vec![0], Access::ReadWrite).unwrap();
    }
}
