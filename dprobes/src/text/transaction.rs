//! Transactions that patch live text, one byte a place: all or nothing, expected bytes checked, one core sync for all.
//!
//! A breakpoint is one byte, so that arming and disarming is a single store each, which other CPUs see whole (SDM
//! volume 3, 9.1.1: a byte access is always atomic). The cross-modifying rule of 9.1.3 asks for a serialising instruction
//! on the CPUs that run the code; they may run the old byte until then, which is harmless: before the sync the probe is
//! not said to be armed, and after disarming the site stays known until no late trap can arrive.

use alloc::vec::Vec;

use crate::host::{Host, Patch};
use crate::mem::{self, OutOfMemory};
use crate::sort;

/// `int3`, the breakpoint instruction.
pub(crate) const INT3: u8 = 0xcc;

/// The longest expectation: the longest instruction.
const EXPECTED_MAX: usize = 15;

/// A transaction that has not been committed changes nothing.
pub(crate) struct Transaction<'h, H: Host> {
    host: &'h H,
    places: Vec<Place>,
}

#[derive(Clone, Copy)]
struct Place {
    address: u64,
    expected: [u8; EXPECTED_MAX],
    expected_len: u8,
    new: u8,
}

impl Place {
    fn expected(&self) -> &[u8] {
        self.expected.get(..usize::from(self.expected_len)).unwrap_or(&[])
    }
}

/// Why a transaction changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommitError {
    /// The bytes at `address` are not the expected ones.
    Changed {
        address: u64,
    },
    /// The bytes at `address` cannot be read.
    Unreadable {
        address: u64,
    },
    /// The host could not write at `address`; what was written before it has been undone.
    Unwritable {
        address: u64,
    },
    NoMemory(OutOfMemory),
}

impl<'h, H: Host> Transaction<'h, H> {
    /// Begins an empty transaction with room for `places`.
    pub(crate) fn begin(host: &'h H, places: usize) -> Result<Self, OutOfMemory> {
        Ok(Transaction {
            host,
            places: mem::vec(places)?,
        })
    }

    /// Queues: at `address`, where `expected` is found (up to 15 bytes count), the first byte becomes `new`.
    pub(crate) fn queue(&mut self, address: u64, expected: &[u8], new: u8) -> Result<(), OutOfMemory> {
        let mut place = Place {
            address,
            expected: [0; EXPECTED_MAX],
            expected_len: 0,
            new,
        };
        for (to, from) in place.expected.iter_mut().zip(expected) {
            *to = *from;
            place.expected_len += 1;
        }
        mem::push(&mut self.places, place)
    }

    /// Checks every place, writes every place, and synchronises all CPUs once.
    pub(crate) fn commit(mut self) -> Result<(), CommitError> {
        if self.places.is_empty() {
            return Ok(());
        }
        sort::by_key(&mut self.places, |place| place.address);
        let mut patches = mem::vec(self.places.len()).map_err(CommitError::NoMemory)?;
        let mut undo: Vec<Patch> = mem::vec(self.places.len()).map_err(CommitError::NoMemory)?;
        let mut reader = Reader::new(self.host);
        for place in &self.places {
            let address = place.address;
            let found = reader
                .bytes(address, place.expected().len().max(1))
                .ok_or(CommitError::Unreadable { address })?;
            if !place.expected().is_empty() && *found != *place.expected() {
                return Err(CommitError::Changed { address });
            }
            patches.push(Patch::byte(address, place.new));
            undo.push(Patch::byte(address, found.first().copied().unwrap_or(INT3)));
        }
        let written = self.host.write_text(&patches);
        if let Err(error) = written {
            undo.truncate(error.index);
            // What was just written is writable; if the host says otherwise there is nothing better to do than to report.
            let _ = self.host.write_text(&undo);
        }
        self.host.sync_cores();
        written.map_err(|error| CommitError::Unwritable {
            address: patches.get(error.index).map_or(0, |patch| patch.address),
        })
    }
}

/// Bytes that a [`Reader`] reads at once.
const WINDOW: usize = 256;

/// Reads text at ascending addresses, which are often close to each other: a window at a time.
struct Reader<'h, H: Host> {
    host: &'h H,
    start: u64,
    len: usize,
    window: [u8; WINDOW],
}

impl<'h, H: Host> Reader<'h, H> {
    fn new(host: &'h H) -> Self {
        Reader {
            host,
            start: 0,
            len: 0,
            window: [0; WINDOW],
        }
    }

    /// The `len` bytes at `address`, at most [`EXPECTED_MAX`]; `None` when they cannot be read.
    fn bytes(&mut self, address: u64, len: usize) -> Option<&[u8]> {
        let inside = |start: u64, have: usize| {
            let offset = usize::try_from(address.checked_sub(start)?).ok()?;
            (offset.checked_add(len)? <= have).then_some(offset)
        };
        let offset = match inside(self.start, self.len) {
            Some(offset) => offset,
            None => {
                self.start = address;
                // What is behind the text may not be readable.
                self.len = [WINDOW, len].into_iter().find(|len| self.read(*len))?;
                0
            }
        };
        self.window.get(offset..offset + len)
    }

    fn read(&mut self, len: usize) -> bool {
        let window = self.window.get_mut(..len);
        window.is_some_and(|window| self.host.read(self.start, window).is_ok())
    }
}
