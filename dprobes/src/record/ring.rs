//! One ring of records per CPU: lock-free, one writer (the CPU's hits), one reader.
//!
//! The writer is the path of a hit on that CPU. It is never re-entered: a hit inside a hit does not log. The reader is
//! whoever drains the ring, one at a time. A third party, the fault path of any CPU, may turn a provisional record into
//! a discarded one. When a record does not fit it is dropped and counted.
//!
//! A record whose instruction may still fault is *provisional*, and the reader stops in front of it until the ring has
//! been [settled](Ring::settle) after a grace period: then no CPU and no preempted task is inside that instruction's
//! slot any more, so that it has completed, or its fault has discarded the record.

use alloc::boxed::Box;

use super::header::{Header, RecordState};
use crate::mem::{self, OutOfMemory};
use crate::sync::{AtomicU64, Ordering};

const HEADER_WORDS: usize = Header::SIZE / 8;

/// A ring of records. Positions count 64-bit words since the beginning and never wrap in practice.
#[derive(Debug)]
pub(crate) struct Ring {
    words: Box<[AtomicU64]>,
    /// Where the writer will write next. Written by the writer.
    head: AtomicU64,
    /// What the reader has consumed. Written by the reader.
    tail: AtomicU64,
    /// Provisional records before this position are final. Written by the reader.
    settled: AtomicU64,
    /// Up to where they will be after the grace period that is under way. Written by the reader.
    to_settle: AtomicU64,
    /// Records dropped because the ring was full. Written by the writer.
    lost: AtomicU64,
    /// Provisional ones that were. Written by the writer; a fault takes them back.
    lost_provisionally: AtomicU64,
    /// How many of those are final. Written by the reader.
    lost_settled: AtomicU64,
    /// How many will be after the grace period that is under way. Written by the reader.
    lost_to_settle: AtomicU64,
    /// How many of those the reader has been told about. Written by the reader.
    lost_told: AtomicU64,
}

impl Ring {
    /// A ring of `1 << log2_words` words.
    pub(crate) fn new(log2_words: u32) -> Result<Self, OutOfMemory> {
        Ok(Ring {
            words: mem::boxed_slice(1 << log2_words, |_| AtomicU64::new(0))?,
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            to_settle: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            lost_provisionally: AtomicU64::new(0),
            lost_settled: AtomicU64::new(0),
            lost_to_settle: AtomicU64::new(0),
            lost_told: AtomicU64::new(0),
        })
    }

    fn word(&self, position: u64) -> Option<&AtomicU64> {
        // The length is a power of two, so that this is always inside.
        self.words.get(position as usize & (self.words.len() - 1))
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
        self.head.load(Ordering::Relaxed)
    }

    /// Appends a record; false when it did not fit and was counted as lost. Only the owning CPU calls this.
    pub(crate) fn push(&self, header: &Header, elements: &[u8]) -> bool {
        let needed = u64::from(header.length / 8);
        let head = self.head.load(Ordering::Relaxed);
        let used = head.wrapping_sub(self.tail.load(Ordering::Acquire));
        if used + needed > self.words.len() as u64 {
            let provisional = header.state == RecordState::Provisional as u32;
            let lost = if provisional {
                &self.lost_provisionally
            } else {
                &self.lost
            };
            lost.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let mut at = head;
        for word in header.to_words() {
            self.store(at, word);
            at += 1;
        }
        let (chunks, rest) = elements.as_chunks::<8>();
        for chunk in chunks {
            self.store(at, u64::from_le_bytes(*chunk));
            at += 1;
        }
        if !rest.is_empty() {
            self.store(at, rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
        self.head.store(head + needed, Ordering::Release);
        true
    }

    /// Makes the provisional records since `mark` final: their instruction has completed. Only the owning CPU calls this.
    #[inline]
    pub(crate) fn publish_since(&self, mark: u64) {
        // Records that are final may have been read, and their place have been used again.
        let from = mark.max(self.tail.load(Ordering::Acquire));
        self.for_each(from, self.head.load(Ordering::Relaxed), |position, first, _| {
            if first as u32 == RecordState::Provisional as u32 {
                self.store(position, with_state(first, RecordState::Published));
            }
        });
    }

    /// Discards the newest provisional record of the probe at `address` by the task with this cookie, together with the record of
    /// its stack traces, and says whether there was one. Any CPU may call this, in a fault.
    pub(crate) fn discard(&self, address: u64, cookie: u64) -> bool {
        let from = self
            .settled
            .load(Ordering::Acquire)
            .max(self.tail.load(Ordering::Acquire));
        let (mut before, mut newest) = (None, None);
        self.for_each(from, self.head.load(Ordering::Acquire), |position, first, words| {
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
        let from = from.max(self.tail.load(Ordering::Acquire));
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
        self.lost_provisionally.fetch_sub(count, Ordering::Relaxed);
    }

    /// Losses that are final.
    fn final_losses(&self) -> u64 {
        let provisional = self.lost_provisionally.load(Ordering::Relaxed);
        self.lost.load(Ordering::Relaxed) + provisional.min(self.lost_settled.load(Ordering::Relaxed))
    }

    /// Visits the records from `from` to `to`: position, first word, and a way to get the header's words.
    fn for_each(&self, from: u64, to: u64, mut visit: impl FnMut(u64, u64, &dyn Fn() -> [u64; HEADER_WORDS])) {
        let mut at = from;
        while at < to {
            let first = self.load(at);
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
        self.to_settle
            .store(self.head.load(Ordering::Acquire), Ordering::Relaxed);
        let lost = self.lost_provisionally.load(Ordering::Relaxed);
        self.lost_to_settle.store(lost, Ordering::Relaxed);
    }

    /// After the grace period: everything before the place noted is final.
    pub(crate) fn settle(&self) {
        self.settled
            .store(self.to_settle.load(Ordering::Relaxed), Ordering::Release);
        let lost = self.lost_provisionally.load(Ordering::Relaxed);
        let settled = self.lost_to_settle.load(Ordering::Relaxed).min(lost);
        self.lost_settled.store(settled, Ordering::Relaxed);
    }

    /// Does the reader stop in front of a provisional record, or is there one that did not fit?
    pub(crate) fn has_provisional(&self) -> bool {
        let tail = self.tail.load(Ordering::Relaxed);
        let lost = self.lost_provisionally.load(Ordering::Relaxed);
        let mut found = lost > self.lost_settled.load(Ordering::Relaxed);
        self.for_each(tail, self.head.load(Ordering::Acquire), |position, first, _| {
            found |=
                first as u32 == RecordState::Provisional as u32 && position >= self.settled.load(Ordering::Acquire);
        });
        found
    }

    /// Copies final records into `out`, as many whole ones as fit, and frees them. Returns the bytes written. One
    /// reader at a time. A loss is told by a record of its own, when there is room for it.
    pub(crate) fn read(&self, cpu: usize, out: &mut [u8]) -> usize {
        let mut written = self.tell_lost(cpu, out);
        let head = self.head.load(Ordering::Acquire);
        let settled = self.settled.load(Ordering::Acquire);
        let mut at = self.tail.load(Ordering::Relaxed);
        while at < head {
            let Some(word) = self.word(at) else { break };
            let first = word.load(Ordering::Acquire);
            let length = (first >> 35) * 8;
            let state = first as u32;
            if length == 0 || (state == RecordState::Provisional as u32 && at >= settled) {
                break;
            }
            if state != RecordState::Discarded as u32 {
                let Some(place) = out.get_mut(written..).and_then(|rest| rest.get_mut(..length as usize)) else {
                    break;
                };
                let mut header = Header::from_words(&self.header_words(at));
                header.state = RecordState::Published as u32;
                header.facts = 0;
                let body = (at + HEADER_WORDS as u64..).map(|position| self.load(position));
                let (chunks, _) = place.as_chunks_mut::<8>();
                for (chunk, word) in chunks.iter_mut().zip(header.to_words().into_iter().chain(body)) {
                    *chunk = word.to_le_bytes();
                }
                written += length as usize;
            }
            at += length / 8;
            self.tail.store(at, Ordering::Release);
        }
        written
    }

    /// Writes a record that says how many were lost since the last one, if any were and it fits.
    fn tell_lost(&self, cpu: usize, out: &mut [u8]) -> usize {
        let lost = self.final_losses();
        let told = self.lost_told.load(Ordering::Relaxed);
        let Some((place, _)) = out.split_at_mut_checked(Header::SIZE).filter(|_| lost > told) else {
            return 0;
        };
        let header = Header {
            state: RecordState::Lost as u32,
            length: Header::SIZE as u32,
            cpu: cpu as u32,
            facts: lost.wrapping_sub(told),
            ..Header::default()
        };
        let (chunks, _) = place.as_chunks_mut::<8>();
        for (chunk, word) in chunks.iter_mut().zip(header.to_words()) {
            *chunk = word.to_le_bytes();
        }
        self.lost_told.store(lost, Ordering::Relaxed);
        Header::SIZE
    }
}

/// The first word of a record with another state; the length stays.
fn with_state(first: u64, state: RecordState) -> u64 {
    first >> 32 << 32 | u64::from(state as u32)
}
