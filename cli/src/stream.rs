//! The stream of records: cut into records as the bytes come in.

use dprobes::record::header::{Header, RecordState};

/// A longer record is taken for garbage: a program can log a few kilobytes at most.
const LONGEST: u32 = 1 << 20;

/// One entry of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// What a probe logged: the head of its record and its elements. If it is provisional, its instruction had not completed when the machine stopped, as
    /// far as is known.
    Record(Header, &'a [u8]),
    /// This many records of this CPU were lost here.
    Lost { cpu: u32, count: u64 },
}

/// The stream is not what it should be. Nothing after this can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamError {
    /// What begins at this byte, counted from the start of the stream, is no record.
    Malformed { at: u64 },
    /// It ends inside the record that begins at this byte, having this many bytes of it.
    Truncated { at: u64, left: usize },
}

/// Bytes that came in and are not consumed yet.
#[derive(Debug, Default)]
pub struct Stream {
    bytes: Vec<u8>,
    /// Consumed bytes at the front of `bytes`.
    start: usize,
    /// Consumed bytes in all.
    consumed: u64,
}

impl Stream {
    /// Adds bytes that came in.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next entry that is there as a whole, `None` when more bytes are needed.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, StreamError> {
        loop {
            let at = self.consumed;
            let malformed = StreamError::Malformed { at };
            let bytes = &self.bytes[self.start..];
            let Some((head, _)) = bytes.split_first_chunk::<8>() else {
                return Ok(None);
            };
            let head = u64::from_le_bytes(*head);
            let (state, length) = (head as u32, (head >> 32) as u32);
            if !length.is_multiple_of(8) || !(Header::SIZE as u32..=LONGEST).contains(&length) {
                return Err(malformed);
            }
            if bytes.len() < length as usize {
                return Ok(None);
            }
            let start = self.start;
            self.start += length as usize;
            self.consumed += u64::from(length);
            let record = &self.bytes[start..self.start];
            let header = Header::parse(record).ok_or(malformed)?;
            const PUBLISHED: u32 = RecordState::Published as u32;
            const PROVISIONAL: u32 = RecordState::Provisional as u32;
            const DISCARDED: u32 = RecordState::Discarded as u32;
            const LOST: u32 = RecordState::Lost as u32;
            match state {
                // Those of a kernel that has panicked before it was known.
                PUBLISHED | PROVISIONAL => {
                    let elements = record.get(Header::SIZE..Header::SIZE + header.elements as usize);
                    return Ok(Some(Entry::Record(header, elements.ok_or(malformed)?)));
                }
                LOST => {
                    return Ok(Some(Entry::Lost {
                        cpu: header.cpu,
                        count: header.facts,
                    }));
                }
                DISCARDED => {}
                _ => return Err(malformed),
            }
        }
    }

    /// To be called at the end of the stream: is anything left over?
    pub fn finish(&self) -> Result<(), StreamError> {
        match self.bytes.len() - self.start {
            0 => Ok(()),
            left => Err(StreamError::Truncated {
                at: self.consumed,
                left,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(header: &Header, elements: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = header.to_words().iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend_from_slice(elements);
        bytes.resize(header.length as usize, 0);
        bytes
    }

    fn record(state: RecordState, minor: u16, elements: &[u8]) -> Vec<u8> {
        let length = (Header::SIZE + elements.len()).next_multiple_of(8) as u32;
        let header = Header {
            state: state as u32,
            length,
            minor,
            elements: elements.len() as u32,
            facts: 9,
            ..Header::default()
        };
        bytes(&header, elements)
    }

    /// Minor codes and elements of all entries; a lost record shows as its count.
    fn drain(stream: &mut Stream) -> Result<Vec<(u64, Vec<u8>)>, StreamError> {
        let mut all = Vec::new();
        while let Some(entry) = stream.next_entry()? {
            all.push(match entry {
                Entry::Record(header, elements) => (u64::from(header.minor), elements.to_vec()),
                Entry::Lost { count, .. } => (count, vec![]),
            });
        }
        Ok(all)
    }

    fn sample() -> Vec<u8> {
        [
            record(RecordState::Published, 1, b"abc"),
            record(RecordState::Discarded, 2, b"gone"),
            record(RecordState::Lost, 3, b""),
            record(RecordState::Published, 4, b"12345678"),
        ]
        .concat()
    }

    #[test]
    fn entries_come_out_whole_however_the_bytes_came_in() {
        let expected = vec![(1, b"abc".to_vec()), (9, vec![]), (4, b"12345678".to_vec())];
        let sample = sample();
        for chunk in [1, 7, 8, 72, 79, sample.len()] {
            let mut stream = Stream::default();
            let mut all = Vec::new();
            for part in sample.chunks(chunk) {
                stream.feed(part);
                all.extend(drain(&mut stream).unwrap());
            }
            assert_eq!(all, expected, "in chunks of {chunk}");
            assert_eq!(stream.finish(), Ok(()));
        }
    }

    #[test]
    fn an_end_inside_a_record_is_an_error() {
        let sample = sample();
        let last = (sample.len() - 80) as u64;
        let mut stream = Stream::default();
        stream.feed(&sample[..sample.len() - 1]);
        assert_eq!(drain(&mut stream).unwrap().len(), 2);
        assert_eq!(stream.finish(), Err(StreamError::Truncated { at: last, left: 79 }));
    }

    #[test]
    fn contradicting_lengths_are_an_error() {
        let good = record(RecordState::Published, 1, b"abc");
        let header = Header::parse(&good).unwrap();
        for bad in [
            Header { length: 0, ..header },
            Header { length: 81, ..header },
            Header { length: !7, ..header },
            Header { elements: 9, ..header },
            Header {
                elements: u32::MAX,
                ..header
            },
            Header { state: 77, ..header },
        ] {
            let mut stream = Stream::default();
            stream.feed(&good);
            let mut wrong = good.clone();
            for (to, word) in wrong.chunks_exact_mut(8).zip(bad.to_words()) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            stream.feed(&wrong);
            stream.feed(&[0; 16]);
            assert!(stream.next_entry().unwrap().is_some());
            assert_eq!(
                stream.next_entry(),
                Err(StreamError::Malformed { at: good.len() as u64 }),
                "{bad:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn garbage_ends_in_an_error_or_waits_for_more(chunks in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let mut stream = Stream::default();
            for chunk in chunks {
                stream.feed(&chunk);
                if drain(&mut stream).is_err() {
                    break;
                }
            }
            let _ = stream.finish();
        }

        #[test]
        fn a_flipped_bit_never_panics(bit in 0usize..8 * 300, cut in 0usize..400) {
            let mut bytes = sample();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes.truncate(cut);
            let mut stream = Stream::default();
            stream.feed(&bytes);
            let _ = drain(&mut stream);
            let _ = stream.finish();
        }
    }
}
