//! Patching running code: transactions of places that are several bytes long.
//!
//! All or nothing: every place is checked before the first is written, and what was written is undone when a write fails. The protocol is
//! that of cross-modifying code (SDM volume 3, 9.1.3), and the number of core syncs does not depend on the number of places:
//!
//! 1. `int3` over every first byte; sync. From here on no CPU begins to execute an old instruction there.
//! 2. Every byte but the first; sync.
//! 3. Every first byte; sync.
//!
//! Places of one byte need only the store and one sync. A CPU that meets the `int3` raises #BP; the owner of the place says where it goes
//! on, as [`Shared::on_breakpoint`](crate::Shared::on_breakpoint) does for sites.

/// Longest instruction sequence that is replaced as a whole.
pub const CHANGE_MAX: usize = 16;

pub(crate) const INT3: u8 = 0xcc;

/// Text, as a host gives access to it. One caller at a time.
pub trait Text {
    /// Copies text at `address`.
    ///
    /// # Errors
    /// [`Unreadable`] when there is none.
    fn read_text(&self, address: usize, bytes: &mut [u8]) -> Result<(), Unreadable>;

    /// Writes text through an alias that is writable and not executable; `writes` is sorted as the caller had it, so that a host may
    /// keep a page mapped from one to the next. One byte is a single store.
    ///
    /// # Errors
    /// [`Unwritable`]: writes before its index are done, the others are not.
    fn write_text(&self, writes: &[Write]) -> Result<(), Unwritable>;

    /// Returns when every CPU has executed a serialising instruction after the call began (SDM volume 3, 9.3), and has left
    /// the #BP handler that it was in. It is also a full memory barrier on every CPU.
    ///
    /// The caller holds no lock that an interrupt handler could want, and has interrupts on.
    fn sync_cores(&self);
}

/// Text could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// Text could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwritable {
    /// The first of the writes that was not done.
    pub index: usize,
}

/// Bytes for one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Write {
    /// Where the first goes.
    pub address: usize,
    /// How many of `bytes` count: 1..=16.
    pub len: u32,
    /// Must be zero.
    pub reserved: u32,
    /// The bytes.
    pub bytes: [u8; CHANGE_MAX],
}

impl Write {
    /// No bytes for no place: room for one.
    pub const NONE: Self = Write {
        address: 0,
        len: 0,
        reserved: 0,
        bytes: [0; CHANGE_MAX],
    };

    /// The bytes that count.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len as usize).unwrap_or(&self.bytes)
    }
}

/// One place of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Where the instruction begins.
    pub address: usize,
    /// How many bytes: 1..=16.
    pub len: usize,
    /// What is there.
    pub old: [u8; CHANGE_MAX],
    /// What will be.
    pub new: [u8; CHANGE_MAX],
}

impl Change {
    /// From `old` to `new`, of the same length.
    #[must_use]
    pub fn new<const N: usize>(address: usize, old: [u8; N], new: [u8; N]) -> Self {
        const { assert!(N > 0 && N <= CHANGE_MAX) };
        let mut change = Change {
            address,
            len: N,
            old: [0; CHANGE_MAX],
            new: [0; CHANGE_MAX],
        };
        if let (Some(first), Some(second)) = (change.old.first_chunk_mut(), change.new.first_chunk_mut()) {
            (*first, *second) = (old, new);
        }
        change
    }

    fn old(&self) -> &[u8] {
        self.side(Way::Back)
    }

    /// What is there when a step has gone this way.
    fn side(&self, way: Way) -> &[u8] {
        let side = match way {
            Way::There => &self.new,
            Way::Back => &self.old,
        };
        side.get(..self.len).unwrap_or(side)
    }
}

/// The places of a transaction. They are gone through several times, in the same order each time, and need not be stored.
pub trait Changes {
    /// Calls `visit` with each, until it says so.
    ///
    /// # Errors
    /// What `visit` returned.
    fn visit(&self, visit: &mut dyn FnMut(&Change) -> Result<(), CommitError>) -> Result<(), CommitError>;
}

impl Changes for [Change] {
    fn visit(&self, visit: &mut dyn FnMut(&Change) -> Result<(), CommitError>) -> Result<(), CommitError> {
        self.iter().try_for_each(visit)
    }
}

/// Why a transaction changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitError {
    /// The bytes at `address` are not the expected ones: something else has patched them.
    Changed {
        /// Where the place begins.
        address: usize,
        /// What is there; the length of the expected bytes counts.
        found: [u8; CHANGE_MAX],
    },
    /// There is no text at `address`.
    Unreadable {
        /// Where the place begins.
        address: usize,
    },
    /// The host could not write at `address`; what was written before it has been undone.
    Unwritable {
        /// Where the place begins.
        address: usize,
    },
    /// The host could not write at `address`, and then not undo what was written before: each place is as it was, or as it was to become,
    /// or begins with a breakpoint. [`restore`] tries again.
    Stuck {
        /// Where the place begins.
        address: usize,
    },
    /// A jump from `address` to its out-of-line code does not reach.
    TooFar {
        /// Where the place begins.
        address: usize,
    },
}

impl CommitError {
    /// Where the place begins.
    #[must_use]
    pub const fn address(&self) -> usize {
        match *self {
            CommitError::Changed { address, .. }
            | CommitError::Unreadable { address }
            | CommitError::Unwritable { address }
            | CommitError::Stuck { address }
            | CommitError::TooFar { address } => address,
        }
    }
}

/// Writes in batches, and knows how many writes are done.
struct Writer<'t, T: Text + ?Sized> {
    text: &'t T,
    /// Where a batch is put together.
    room: &'t mut [Write],
    len: usize,
    done: usize,
}

impl<'t, T: Text + ?Sized> Writer<'t, T> {
    #[inline]
    fn push(&mut self, write: Write) -> Result<(), CommitError> {
        if self.len == self.room.len() {
            self.flush()?;
        }
        match self.room.get_mut(self.len) {
            Some(next) => *next = write,
            None => return Err(CommitError::Unwritable { address: write.address }),
        }
        self.len += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CommitError> {
        let writes = self.room.get(..self.len).unwrap_or(&[]);
        self.len = 0;
        if writes.is_empty() {
            return Ok(());
        }
        let result = self.text.write_text(writes);
        self.done += result.map_or_else(|Unwritable { index }| index, |()| writes.len());
        result.map_err(|Unwritable { index }| CommitError::Unwritable {
            address: writes.get(index).map_or(0, |write| write.address),
        })
    }
}

/// Which part of each place a step writes.
#[derive(Clone, Copy)]
enum Part {
    /// `int3`, or the byte of a place that has only one.
    Trap,
    /// All bytes but the first.
    Tail,
    /// The first byte of a place that has more.
    First,
    /// The first byte.
    Byte,
}

impl Part {
    /// What is written where, if anything; `side` is the whole of what the place is to become.
    #[inline]
    fn of(self, change: &Change, side: &[u8; CHANGE_MAX]) -> Option<Write> {
        let all = u128::from_le_bytes(*side);
        let one = change.len == 1;
        let (skipped, len, bytes) = match self {
            Part::Trap if !one => (0, 1, u128::from(INT3)),
            Part::Tail | Part::First if one => return None,
            Part::Tail => (1, change.len.saturating_sub(1), all >> 8),
            Part::Trap | Part::First | Part::Byte => (0, 1, all & 0xff),
        };
        Some(Write {
            address: change.address.wrapping_add(skipped),
            len: len as u32,
            reserved: 0,
            bytes: bytes.to_le_bytes(),
        })
    }
}

/// Which way a step goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

/// Checks every place, then changes every place. As many writes as there is `room` for are handed to the host at once; it must not be
/// empty.
///
/// While it runs, a CPU that executes a place of more than one byte may take #BP there.
///
/// # Errors
/// Why nothing was changed, or [`CommitError::Stuck`].
pub fn commit<T: Text + ?Sized, C: Changes + ?Sized>(
    text: &T,
    changes: &C,
    room: &mut [Write],
) -> Result<(), CommitError> {
    let (mut any, mut long) = (false, false);
    changes.visit(&mut |change| {
        any = true;
        long |= change.len > 1;
        let mut found = [0; CHANGE_MAX];
        let address = change.address;
        let here = found.get_mut(..change.len).unwrap_or(&mut []);
        text.read_text(address, here)
            .map_err(|Unreadable| CommitError::Unreadable { address })?;
        if *here == *change.old() {
            Ok(())
        } else {
            Err(CommitError::Changed { address, found })
        }
    })?;
    if !any {
        return Ok(());
    }
    let steps: &[Part] = if long {
        &[Part::Trap, Part::Tail, Part::First]
    } else {
        &[Part::Trap]
    };
    for step in steps {
        if let Err((error, done)) = write(text, changes, room, *step, Way::There, usize::MAX) {
            let undone = undo(text, changes, room, *step, done);
            return Err(undone.map_or_else(stuck, |()| error));
        }
        text.sync_cores();
    }
    Ok(())
}

/// Writes one part of the first `limit` places. When it fails, also says how many places are done.
fn write<T: Text + ?Sized, C: Changes + ?Sized>(
    text: &T,
    changes: &C,
    room: &mut [Write],
    part: Part,
    way: Way,
    limit: usize,
) -> Result<(), (CommitError, usize)> {
    let mut writer = Writer {
        text,
        room,
        len: 0,
        done: 0,
    };
    let mut place = 0;
    let result = changes
        .visit(&mut |change| {
            if place < limit {
                let side = match way {
                    Way::There => &change.new,
                    Way::Back => &change.old,
                };
                if let Some(write) = part.of(change, side) {
                    writer.push(write)?;
                }
            }
            place += 1;
            Ok(())
        })
        .and_then(|()| writer.flush());
    result.map_err(|error| {
        let error = match error {
            CommitError::Unwritable { address } if matches!(part, Part::Tail) => CommitError::Unwritable {
                address: address.wrapping_sub(1),
            },
            error => error,
        };
        (error, places_of(changes, part, writer.done))
    })
}

/// How many places are done when `writes` writes of a part are: some places have nothing to write.
fn places_of<C: Changes + ?Sized>(changes: &C, part: Part, writes: usize) -> usize {
    let (mut places, mut left) = (0, writes);
    let _ = changes.visit(&mut |change| {
        if let Some(Write { address, .. }) = part.of(change, &change.old) {
            if left == 0 {
                return Err(CommitError::Unwritable { address });
            }
            left -= 1;
        }
        places += 1;
        Ok(())
    });
    places
}

/// Puts the old bytes back after `step` has failed with `done` places written. What was just written can be written again; if the host
/// says otherwise, it ends there, since to go on would put half of an instruction where a breakpoint stands.
fn undo<T: Text + ?Sized, C: Changes + ?Sized>(
    text: &T,
    changes: &C,
    room: &mut [Write],
    step: Part,
    done: usize,
) -> Result<(), (CommitError, usize)> {
    let all = usize::MAX;
    let (trapped, tails) = match step {
        Part::Trap => (0, 0),
        Part::Tail => (0, done),
        // Some places are whole already.
        Part::First | Part::Byte => (done, all),
    };
    if trapped > 0 {
        write(text, changes, room, Part::Trap, Way::There, trapped)?;
        text.sync_cores();
    }
    if tails > 0 {
        write(text, changes, room, Part::Tail, Way::Back, tails)?;
        text.sync_cores();
    }
    let firsts = if matches!(step, Part::Trap) { done } else { all };
    write(text, changes, room, Part::Byte, Way::Back, firsts)?;
    text.sync_cores();
    Ok(())
}

/// Puts the old bytes back after a transaction has failed with [`CommitError::Stuck`], whatever it has left.
///
/// # Errors
/// [`CommitError::Stuck`] again.
pub fn restore<T: Text + ?Sized, C: Changes + ?Sized>(
    text: &T,
    changes: &C,
    room: &mut [Write],
) -> Result<(), CommitError> {
    undo(text, changes, room, Part::First, usize::MAX).map_err(stuck)
}

fn stuck((error, _): (CommitError, usize)) -> CommitError {
    CommitError::Stuck {
        address: error.address(),
    }
}

#[cfg(test)]
mod tests;
