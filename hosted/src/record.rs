//! Records, as tests want them.

use dprobes::record::element::{Element, Elements};
use dprobes::record::header::{Header, RecordState};

/// One record of the engine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its head.
    pub header: Header,
    /// The elements after it.
    body: Vec<u8>,
}

impl Record {
    /// Its elements.
    ///
    /// # Panics
    /// When the engine has written bytes that are not elements.
    pub fn elements(&self) -> impl Iterator<Item = Element<'_>> {
        Elements::new(&self.body).map(|element| element.expect("the engine writes elements"))
    }

    /// The words that the program has logged, in the order of the record.
    #[must_use]
    pub fn words(&self) -> Vec<u64> {
        let mut words = Vec::new();
        for element in self.elements() {
            if let Element::Words(logged) = element {
                words.extend(logged.iter());
            }
        }
        words
    }

    /// Major and minor code.
    #[must_use]
    pub fn codes(&self) -> (u16, u16) {
        (self.header.major, self.header.minor)
    }

    /// When this says that records were lost, how many.
    #[must_use]
    pub fn lost(&self) -> Option<u64> {
        (self.header.state == RecordState::Lost as u32).then_some(self.header.facts)
    }

    /// Cuts a stream into records.
    ///
    /// # Panics
    /// When the engine has written a stream that cannot be cut.
    pub(crate) fn parse_all(mut stream: &[u8]) -> Vec<Record> {
        let mut records = Vec::new();
        while !stream.is_empty() {
            let header = Header::parse(stream).expect("the engine writes whole records");
            let (record, rest) = stream.split_at(header.length as usize);
            let body = record[Header::SIZE..][..header.elements as usize].to_vec();
            records.push(Record { header, body });
            stream = rest;
        }
        records
    }
}
