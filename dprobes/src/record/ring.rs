//! One ring of records per CPU: lock-free, one writer (the CPU's hits), one reader.
//!
//! The writer is the path of a hit on that CPU. It is never re-entered: a hit inside a hit does not log. The reader is
//! whoever drains the ring, one at a time. A third party, the fault path of any CPU, may turn a provisional record into
//! a discarded one. When a record does not fit it is dropped and counted; or, in a [flight recorder](MODE_NEWEST), the oldest ones give
//! way to it, and are counted.
//!
//! A record whose instruction may still fault is *provisional*, and the reader stops in front of it until the ring has
//! been [settled](Ring::settle) after a grace period: then no CPU and no preempted task is inside that instruction's
//! slot any more, so that it has completed, or its fault has discarded the record.
//!
//! In a flight recorder the writer may take a record away while it is being read. Both move the tail by a compare-and-exchange, and who fails has
//! lost the record to the other. The writer moves the tail first, then comes a release fence, and then it writes over the record; a reader copies the
//! record, then comes an acquire fence, and then it looks at the tail, or moves it: a copy with anything of the new record in it is never taken for one.
//! Those who map the ring, who cannot move the tail, read in the same way.

use alloc::boxed::Box;

use super::header::{Header, RecordState};
use crate::mem::{self, OutOfMemory};
use crate::sync::{AtomicU64, Ordering, fence};

const HEADER_WORDS: usize = Header::SIZE / 8;

/// In [`Control::mode`]: the newest records are kept, and the oldest give way. Otherwise the oldest are kept, and those that do not fit dropped.
pub(crate) const MODE_NEWEST: u64 = 1;

/// In [`Control::mode`]: nothing is recorded; what comes is counted as lost.
pub(crate) const MODE_FROZEN: u64 = 2;

/// What others see of a ring who map it, [`RingControl`](crate::wire::RingControl): alone in its page.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct Control {
    /// Where the writer will write next. Written by the writer.
    head: AtomicU64,
    /// The oldest record. Written by the reader; in a flight recorder by the writer, too.
    tail: AtomicU64,
    /// Provisional records before this position are final. Written by the reader.
    settled: AtomicU64,
    /// Records dropped because the ring was full or frozen. Written by the writer.
    lost: AtomicU64,
    /// Provisional ones that were. Written by the writer; a fault takes them back.
    lost_provisionally: AtomicU64,
    /// Records that have given way to newer ones. Written by the writer.
    overwritten: AtomicU64,
    /// [`MODE_NEWEST`] and [`MODE_FROZEN`].
    mode: AtomicU64,
}

/// A ring of records. Positions count 64-bit words since the beginning and never wrap in practice.
#[derive(Debug)]
pub(crate) struct Ring {
    words: Box<[AtomicU64]>,
    /// The writer's own copy of the head.
    next: AtomicU64,
    control: Box<Control>,
    /// Up to where records will be final after the grace period that is under way. Written by the reader.
    to_settle: AtomicU64,
    /// How many of the provisional losses are final. Written by the reader.
    lost_settled: AtomicU64,
    /// How many will be after the grace period that is under way. Written by the reader.
    lost_to_settle: AtomicU64,
    /// How many losses the reader has been told about. Written by the reader.
    lost_told: AtomicU64,
}

impl Ring {
    /// A ring of `1 << log2_words` words.
    pub(crate) fn new(log2_words: u32) -> Result<Self, OutOfMemory> {
        let zero = || AtomicU64::new(0);
        Ok(Ring {
            words: mem::boxed_slice(1 << log2_words, |_| AtomicU64::new(0))?,
            next: zero(),
            control: mem::boxed(Control {
                head: zero(),
                tail: zero(),
                settled: zero(),
                lost: zero(),
                lost_provisionally: zero(),
                overwritten: zero(),
                mode: zero(),
            })?,
            to_settle: zero(),
            lost_settled: zero(),
            lost_to_settle: zero(),
            lost_told: zero(),
        })
    }

    /// Where its memory is: the control block and the words.
    pub(crate) fn memory(&self) -> (&Control, &[AtomicU64]) {
        (&self.control, &self.words)
    }

    /// Whether the newest or the oldest records are kept, and whether any.
    pub(crate) fn mode(&self) -> u64 {
        self.control.mode.load(Ordering::Relaxed)
    }

    /// Switches some bits of the mode on or off. Anybody may call this, a hit too.
    pub(crate) fn set_mode(&self, bits: u64, on: bool) {
        if on {
            self.control.mode.fetch_or(bits, Ordering::Relaxed);
        } else {
            self.control.mode.fetch_and(!bits, Ordering::Relaxed);
        }
    }

    fn index(&self, position: u64) -> usize {
        // The length is a power of two, so that this is always inside.
        position as usize & (self.words.len() - 1)
    }

    fn word(&self, position: u64) -> Option<&AtomicU64> {
        self.words.get(self.index(position))
    }

    fn load(&self, position: u64) -> u64 {
        self.word(position).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn store(&self, position: u64, value: u64) {
        if let Some(word) = self.word(position) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Where the next record will be; a mark for [`publish_since`](Self::publish_since).
    #[inline]
    pub(crate) fn mark(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    fn head(&self) -> u64 {
        self.control.head.load(Ordering::Acquire)
    }

    fn tail(&self) -> u64 {
        self.control.tail.load(Ordering::Acquire)
    }

    /// Appends a record; false when it did not fit and was counted as lost. Only the owning CPU calls this.
    pub(crate) fn push(&self, header: &Header, elements: &[u8]) -> bool {
        let needed = u64::from(header.length / 8);
        let head = self.next.load(Ordering::Relaxed);
        let mode = self.mode();
        let has_room = match mode & (MODE_NEWEST | MODE_FROZEN) {
            0 => head.wrapping_sub(self.tail()) + needed <= self.words.len() as u64,
            MODE_NEWEST => self.make_room(head, needed),
            _ => false,
        };
        if !has_room {
            let provisional = header.state == RecordState::Provisional as u32;
            let lost = if provisional {
                &self.control.lost_provisionally
            } else {
                &self.control.lost
            };
            lost.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let words = header.to_words();
        let mut at = head + words.len() as u64;
        // Nearly always in one piece, which costs a load and a store for each word.
        match self.words.get(self.index(head)..).and_then(<[_]>::first_chunk) {
            Some(places) => {
                let places: &[AtomicU64; Header::SIZE / 8] = places;
                for (place, word) in places.iter().zip(words) {
                    place.store(word, Ordering::Relaxed);
                }
            }
            None => {
                for (position, word) in (head..at).zip(words) {
                    self.store(position, word);
                }
            }
        }
        let (chunks, rest) = elements.as_chunks::<8>();
        for chunk in chunks {
            self.store(at, u64::from_le_bytes(*chunk));
            at += 1;
        }
        if !rest.is_empty() {
            self.store(at, rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
        self.next.store(head + needed, Ordering::Relaxed);
        self.control.head.store(head + needed, Ordering::Release);
        true
    }

    /// Takes the oldest records away until there is room for one of `needed` words; false when it would not fit into an empty ring.
    fn make_room(&self, head: u64, needed: u64) -> bool {
        if needed > self.words.len() as u64 {
            return false;
        }
        let mut tail = self.tail();
        // Each turn the tail gets nearer to the head, by this or by the reader.
        while head.wrapping_sub(tail) + needed > self.words.len() as u64 {
            let length = self.load(tail) >> 35;
            let next = tail + length.max(1);
            match self
                .control
                .tail
                .compare_exchange(tail, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Err(moved) => tail = moved,
                Ok(_) => {
                    // See the beginning of this file.
                    fence(Ordering::Release);
                    // The fault path of another CPU may be about to discard it: one of the two is first.
                    let last = self.word(tail).map_or(0, |word| word.swap(0, Ordering::AcqRel));
                    if last as u32 != RecordState::Discarded as u32 {
                        self.control.overwritten.fetch_add(1, Ordering::Relaxed);
                    }
                    tail = next;
                }
            }
        }
        true
    }

    /// Makes the provisional records since `mark` final: their instruction has completed. Only the owning CPU calls this.
    #[inline]
    pub(crate) fn publish_since(&self, mark: u64) {
        // Records that are final may have been read, and their place have been used again.
        let from = mark.max(self.tail());
        self.for_each(from, self.mark(), |position, first, _| {
            if first as u32 == RecordState::Provisional as u32 {
                self.store(position, with_state(first, RecordState::Published));
            }
        });
    }

    /// Discards the newest provisional record of the probe at `address` by the task with this cookie, together with the record of
    /// its stack traces, and says whether there was one. Any CPU may call this, in a fault.
    pub(crate) fn discard(&self, address: u64, cookie: u64) -> bool {
        let from = self.control.settled.load(Ordering::Acquire).max(self.tail());
        let (mut before, mut newest) = (None, None);
        self.for_each(from, self.head(), |position, first, words| {
            let header = Header::from_words(&words());
            if header.state == RecordState::Provisional as u32 && header.address == address && header.facts == cookie {
                before = newest;
                newest = Some((position, first, header));
            }
        });
        let discard = |(position, first, _): (u64, u64, Header)| {
            self.word(position).is_some_and(|word| {
                let discarded = with_state(first, RecordState::Discarded);
                word.compare_exchange(first, discarded, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            })
        };
        let Some(newest) = newest else { return false };
        let traces = newest.2.codes() == Header::TRACES;
        let of_same_hit = before.filter(|before| traces && before.2.time == newest.2.time);
        let discarded = discard(newest);
        of_same_hit.is_some_and(discard) || discarded
    }

    /// Discards the provisional records from `from` to `to`, positions that [`mark`](Self::mark) gave. Any CPU may call this, in a
    /// fault.
    pub(crate) fn discard_range(&self, from: u64, to: u64) {
        // Records that are final may have been read, and their place have been used again.
        let from = from.max(self.tail());
        self.for_each(from, to, |position, first, _| {
            if first as u32 == RecordState::Provisional as u32
                && let Some(word) = self.word(position)
            {
                // A record that has been read gives its place to another one.
                let discarded = with_state(first, RecordState::Discarded);
                let _ = word.compare_exchange(first, discarded, Ordering::AcqRel, Ordering::Relaxed);
            }
        });
    }

    /// The instruction has faulted whose hit left provisional records that did not fit: they are not lost. Any CPU may call this, in a
    /// fault.
    pub(crate) fn take_back_losses(&self, count: u64) {
        self.control.lost_provisionally.fetch_sub(count, Ordering::Relaxed);
    }

    /// Losses that are final.
    fn final_losses(&self) -> u64 {
        let provisional = self.control.lost_provisionally.load(Ordering::Relaxed);
        self.control.lost.load(Ordering::Relaxed)
            + self.control.overwritten.load(Ordering::Relaxed)
            + provisional.min(self.lost_settled.load(Ordering::Relaxed))
    }

    /// Visits the records from `from` to `to`: position, first word, and a way to get the header's words. Those that the writer takes away
    /// meanwhile are passed over.
    fn for_each(&self, from: u64, to: u64, mut visit: impl FnMut(u64, u64, &dyn Fn() -> [u64; HEADER_WORDS])) {
        let mut at = from;
        while at < to {
            let first = self.load(at);
            fence(Ordering::Acquire);
            let tail = self.tail();
            if at < tail {
                at = tail;
                continue;
            }
            visit(at, first, &|| self.header_words(at));
            let length = first >> 35;
            if length == 0 {
                return;
            }
            at += length;
        }
    }

    fn header_words(&self, at: u64) -> [u64; HEADER_WORDS] {
        let mut words = [0; HEADER_WORDS];
        for (offset, word) in (0..).zip(&mut words) {
            *word = self.load(at + offset);
        }
        words
    }

    /// Notes where the ring ends now, before a grace period.
    pub(crate) fn mark_to_settle(&self) {
        self.to_settle.store(self.head(), Ordering::Relaxed);
        let lost = self.control.lost_provisionally.load(Ordering::Relaxed);
        self.lost_to_settle.store(lost, Ordering::Relaxed);
    }

    /// After the grace period: everything before the place noted is final.
    pub(crate) fn settle(&self) {
        self.control
            .settled
            .store(self.to_settle.load(Ordering::Relaxed), Ordering::Release);
        let lost = self.control.lost_provisionally.load(Ordering::Relaxed);
        let settled = self.lost_to_settle.load(Ordering::Relaxed).min(lost);
        self.lost_settled.store(settled, Ordering::Relaxed);
    }

    /// Does the reader stop in front of a provisional record, or is there one that did not fit?
    pub(crate) fn has_provisional(&self) -> bool {
        let lost = self.control.lost_provisionally.load(Ordering::Relaxed);
        let mut found = lost > self.lost_settled.load(Ordering::Relaxed);
        self.for_each(self.tail(), self.head(), |position, first, _| {
            found |= first as u32 == RecordState::Provisional as u32
                && position >= self.control.settled.load(Ordering::Acquire);
        });
        found
    }

    /// Copies final records into `out`, as many whole ones as fit, and frees them. Returns the bytes written. One
    /// reader at a time. A loss is told by a record of its own, when there is room for it.
    pub(crate) fn read(&self, cpu: usize, out: &mut [u8]) -> usize {
        let mut written = self.tell_lost(cpu, out);
        let head = self.head();
        let settled = self.control.settled.load(Ordering::Acquire);
        let mut at = self.tail();
        while at < head {
            let first = self.word(at).map_or(0, |word| word.load(Ordering::Acquire));
            fence(Ordering::Acquire);
            let tail = self.tail();
            if tail != at {
                at = tail;
                continue;
            }
            let length = first >> 35;
            let state = first as u32;
            if length == 0 || (state == RecordState::Provisional as u32 && at >= settled) {
                break;
            }
            let bytes = if state == RecordState::Discarded as u32 {
                0
            } else {
                let Some(place) = out
                    .get_mut(written..)
                    .and_then(|rest| rest.get_mut(..length as usize * 8))
                else {
                    break;
                };
                self.copy(at, RecordState::Published, place);
                length as usize * 8
            };
            // What was copied is a record if the writer has not taken its place meanwhile.
            fence(Ordering::Acquire);
            let moved = self
                .control
                .tail
                .compare_exchange(at, at + length, Ordering::AcqRel, Ordering::Acquire);
            match moved {
                Ok(_) => {
                    written += bytes;
                    at += length;
                }
                Err(tail) => at = tail,
            }
        }
        written
    }

    /// Copies the record at a position, with this state; as many words as there is room for.
    fn copy(&self, at: u64, state: RecordState, out: &mut [u8]) {
        let mut header = Header::from_words(&self.header_words(at));
        header.state = state as u32;
        header.facts = 0;
        let body = (at + HEADER_WORDS as u64..).map(|position| self.load(position));
        let (chunks, _) = out.as_chunks_mut::<8>();
        for (chunk, word) in chunks.iter_mut().zip(header.to_words().into_iter().chain(body)) {
            *chunk = word.to_le_bytes();
        }
    }

    /// Copies the newest records into `out`, as many whole ones as fit, and leaves them in the ring: for a machine that is about to stop. A record
    /// whose instruction is not known to have completed is [`RecordState::Provisional`]. What is lost, or does not fit, is told by a record of its
    /// own. Returns the bytes written. Nobody is writing.
    pub(crate) fn save(&self, cpu: usize, out: &mut [u8]) -> usize {
        let Some(room) = out.len().checked_sub(Header::SIZE) else {
            return 0;
        };
        let (tail, head) = (self.tail(), self.head());
        let mut total = 0;
        self.for_each(tail, head, |_, first, _| total += kept_bytes(first));
        // The oldest ones do not fit.
        let (mut from, mut skipped) = (tail, 0);
        self.for_each(tail, head, |position, first, _| {
            if total > room {
                total -= kept_bytes(first);
                skipped += u64::from(kept_bytes(first) > 0);
                from = position + (first >> 35);
            }
        });
        let losses = self.control.lost.load(Ordering::Relaxed)
            + self.control.lost_provisionally.load(Ordering::Relaxed)
            + self.control.overwritten.load(Ordering::Relaxed);
        let lost = losses.saturating_sub(self.lost_told.load(Ordering::Relaxed)) + skipped;
        let mut written = 0;
        if let Some(place) = out.get_mut(..Header::SIZE).filter(|_| lost > 0) {
            write_lost(cpu, lost, place);
            written = Header::SIZE;
        }
        let settled = self.control.settled.load(Ordering::Acquire);
        self.for_each(from, head, |position, first, _| {
            let bytes = kept_bytes(first);
            let provisional = first as u32 == RecordState::Provisional as u32 && position >= settled;
            let state = if provisional {
                RecordState::Provisional
            } else {
                RecordState::Published
            };
            if let Some(place) = out.get_mut(written..).and_then(|rest| rest.get_mut(..bytes)) {
                self.copy(position, state, place);
                written += bytes;
            }
        });
        written
    }

    /// Writes a record that says how many were lost since the last one, if any were and it fits.
    fn tell_lost(&self, cpu: usize, out: &mut [u8]) -> usize {
        let lost = self.final_losses();
        let told = self.lost_told.load(Ordering::Relaxed);
        let Some((place, _)) = out.split_at_mut_checked(Header::SIZE).filter(|_| lost > told) else {
            return 0;
        };
        write_lost(cpu, lost.wrapping_sub(told), place);
        self.lost_told.store(lost, Ordering::Relaxed);
        Header::SIZE
    }
}

/// Writes the record that so many were lost.
fn write_lost(cpu: usize, count: u64, place: &mut [u8]) {
    let header = Header {
        state: RecordState::Lost as u32,
        length: Header::SIZE as u32,
        cpu: cpu as u32,
        facts: count,
        ..Header::default()
    };
    let (chunks, _) = place.as_chunks_mut::<8>();
    for (chunk, word) in chunks.iter_mut().zip(header.to_words()) {
        *chunk = word.to_le_bytes();
    }
}

/// The length in bytes of a record with this first word, if it is to be read.
fn kept_bytes(first: u64) -> usize {
    if first as u32 == RecordState::Discarded as u32 {
        return 0;
    }
    (first >> 35) as usize * 8
}

/// The first word of a record with another state; the length stays.
fn with_state(first: u64, state: RecordState) -> u64 {
    first >> 32 << 32 | u64::from(state as u32)
}
