//! The fixed head of every record in a ring and in the record stream.

use crate::host::Task;

/// What a record is, and how far it has come. The numbers are those in [`Header::state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum RecordState {
    /// The probed instruction has not completed as far as is known; only inside the ring.
    Provisional = 1,
    /// Final.
    Published = 2,
    /// The probed instruction faulted, it will run again; readers skip it.
    Discarded = 3,
    /// No probe's record: [`Header::facts`] says how many records this CPU lost since the last such record.
    Lost = 4,
}

/// The head of a record: 72 bytes, little-endian, followed by elements (see [`element`](super::element)).
///
/// A record is a multiple of 8 bytes long; [`length`](Self::length) includes the head and the padding at the end, and
/// [`elements`](Self::elements) is the exact length of the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Header {
    /// A [`RecordState`] as a number.
    pub state: u32,
    /// Bytes from this record to the next: a multiple of 8, at least 72.
    pub length: u32,
    /// Host clock in nanoseconds.
    pub time: u64,
    /// Address of the probed instruction.
    pub address: u64,
    /// Major code.
    pub major: u16,
    /// Minor code (the program may have replaced it for this record).
    pub minor: u16,
    /// The CPU the probe fired on.
    pub cpu: u32,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Real user id.
    pub uid: u32,
    /// Length of the elements that follow, in bytes.
    pub elements: u32,
    /// Process name, zero-padded.
    pub name: [u8; 16],
    /// In the ring: the task's cookie. In the stream: for a [`RecordState::Lost`] record how many were lost, else 0.
    pub facts: u64,
}

impl Header {
    /// Its size in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// Major and minor code of the record of a program's stack traces.
    pub const TRACES: (u16, u16) = (0, 0);

    /// The head of a record of `elements` bytes.
    #[must_use]
    pub fn new(address: u64, codes: (u16, u16), cpu: usize, time: u64, task: &Task, elements: usize) -> Self {
        let (major, minor) = codes;
        Header {
            state: RecordState::Provisional as u32,
            length: (Self::SIZE + elements).next_multiple_of(8) as u32,
            time,
            address,
            major,
            minor,
            cpu: cpu as u32,
            pid: task.pid,
            tid: task.tid,
            uid: task.uid,
            elements: elements as u32,
            name: task.name,
            facts: task.cookie,
        }
    }

    /// Major and minor code.
    #[must_use]
    pub(crate) fn codes(&self) -> (u16, u16) {
        (self.major, self.minor)
    }

    /// The head of another record of the same hit, with other codes and elements.
    #[must_use]
    pub(crate) fn with_elements(&self, (major, minor): (u16, u16), elements: usize) -> Self {
        Header {
            length: (Self::SIZE + elements).next_multiple_of(8) as u32,
            elements: elements as u32,
            major,
            minor,
            ..*self
        }
    }

    /// The head as words, the form in which the ring holds it.
    #[must_use]
    pub fn to_words(&self) -> [u64; Self::SIZE / 8] {
        let name = u128::from_le_bytes(self.name);
        [
            u64::from(self.state) | u64::from(self.length) << 32,
            self.time,
            self.address,
            u64::from(self.major) | u64::from(self.minor) << 16 | u64::from(self.cpu) << 32,
            u64::from(self.pid) | u64::from(self.tid) << 32,
            u64::from(self.uid) | u64::from(self.elements) << 32,
            name as u64,
            (name >> 64) as u64,
            self.facts,
        ]
    }

    /// The inverse of [`to_words`](Self::to_words).
    #[must_use]
    pub fn from_words(words: &[u64; Self::SIZE / 8]) -> Self {
        let [w0, time, address, w3, w4, w5, name0, name1, facts] = *words;
        Header {
            state: w0 as u32,
            length: (w0 >> 32) as u32,
            time,
            address,
            major: w3 as u16,
            minor: (w3 >> 16) as u16,
            cpu: (w3 >> 32) as u32,
            pid: w4 as u32,
            tid: (w4 >> 32) as u32,
            uid: w5 as u32,
            elements: (w5 >> 32) as u32,
            name: (u128::from(name0) | u128::from(name1) << 64).to_le_bytes(),
            facts,
        }
    }

    /// Parses the head of a record from a stream; `None` when there are too few bytes or the lengths contradict.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut words = [0; Self::SIZE / 8];
        for (word, bytes) in words.iter_mut().zip(bytes.get(..Self::SIZE)?.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        let header = Self::from_words(&words);
        let needed = Self::SIZE.checked_add(header.elements as usize)?;
        (header.length % 8 == 0 && header.length as usize >= needed).then_some(header)
    }
}

const _: () = assert!(Header::SIZE == 72);
