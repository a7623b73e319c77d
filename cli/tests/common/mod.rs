//! Records for the tests of the command.

use dprobes::record::header::{Header, RecordState};

/// A record of probe 1.`minor` that logged a string.
pub fn record(minor: u16, time: u64, cpu: u32, text: &str) -> Vec<u8> {
    record_of(minor, time, cpu, &[&[1, text.len() as u8, 0], text.as_bytes()].concat())
}

/// A record of probe 1.`minor` with these elements.
pub fn record_of(minor: u16, time: u64, cpu: u32, elements: &[u8]) -> Vec<u8> {
    let mut name = [0; 16];
    name[..3].copy_from_slice(b"cat");
    let header = Header {
        state: RecordState::Published as u32,
        length: (Header::SIZE + elements.len()).next_multiple_of(8) as u32,
        time,
        address: 0xffff_ffff_8120_0009,
        major: 1,
        minor,
        cpu,
        pid: 42,
        tid: 42,
        uid: 0,
        elements: elements.len() as u32,
        name,
        facts: 0,
    };
    bytes(&header, elements)
}

/// The record of a loss.
pub fn lost(cpu: u32, count: u64) -> Vec<u8> {
    let header = Header {
        state: RecordState::Lost as u32,
        length: Header::SIZE as u32,
        cpu,
        facts: count,
        ..Header::default()
    };
    bytes(&header, &[])
}

fn bytes(header: &Header, elements: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = header.to_words().iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend_from_slice(elements);
    bytes.resize(header.length as usize, 0);
    bytes
}
