//! Records for the tests of rendering.

use dprobes::record::element::{prefix, token};
use dprobes::record::header::Header;
use proptest::prelude::*;

pub fn header() -> Header {
    let mut name = [0; 16];
    name[..3].copy_from_slice(b"cat");
    Header {
        time: 12_345_678_901,
        address: 0xffff_ffff_8120_0009,
        major: 1,
        minor: 1,
        cpu: 1,
        pid: 4242,
        tid: 4242,
        uid: 1000,
        name,
        ..Header::default()
    }
}

fn element(token: u8, count: usize, payload: &[u8]) -> Vec<u8> {
    [&prefix(token, count as u16), payload].concat()
}

pub fn string(bytes: &[u8]) -> Vec<u8> {
    element(token::STRING, bytes.len(), bytes)
}

pub fn memory(bytes: &[u8]) -> Vec<u8> {
    element(token::MEMORY, bytes.len(), bytes)
}

pub fn words(token: u8, words: &[u64]) -> Vec<u8> {
    let payload: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    element(token, words.len(), &payload)
}

pub fn fault(address: u64) -> Vec<u8> {
    element(token::FAULT, 8, &address.to_le_bytes())
}

/// Elements of which most are good, and garbage.
pub fn any_elements() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let list = || proptest::collection::vec(any::<u64>(), 0..4);
    let element = prop_oneof![
        bytes().prop_map(|bytes| string(&bytes)),
        any::<String>().prop_map(|text| string(text.as_bytes())),
        bytes().prop_map(|bytes| memory(&bytes)),
        (2u8..10, list()).prop_map(|(token, list)| words(token, &list)),
        any::<u64>().prop_map(fault),
        bytes(),
    ];
    (proptest::collection::vec(element, 0..5), 0usize..8).prop_map(|(elements, cut)| {
        let mut all = elements.concat();
        all.truncate(all.len().saturating_sub(cut));
        all
    })
}
