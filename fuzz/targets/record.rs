//! The record stream, as the command reads it: the entries are the same however the bytes come in, and the elements of each are read to
//! their end or to an error.
#![no_main]

use dprobes::record::element::{Element, Elements};
use libfuzzer_sys::fuzz_target;

#[path = "../../cli/src/stream.rs"]
#[allow(dead_code, reason = "the command uses more of it")]
mod stream;

use stream::{Entry, Stream};

/// What a stream has, and how it ends.
fn read(bytes: &[u8], piece: usize) -> Vec<String> {
    let mut stream = Stream::default();
    let mut seen = Vec::new();
    for piece in bytes.chunks(piece) {
        stream.feed(piece);
        loop {
            match stream.next_entry() {
                Ok(Some(entry)) => {
                    seen.push(format!("{entry:?}"));
                    if let Entry::Record(_, elements) = entry {
                        walk(elements);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    seen.push(format!("{error:?}"));
                    return seen;
                }
            }
        }
    }
    seen
}

fn walk(bytes: &[u8]) {
    let mut errors = 0;
    for element in Elements::new(bytes) {
        match element {
            Ok(Element::Words(words)) => assert_eq!(words.iter().count(), words.len()),
            Ok(_) => {}
            Err(_) => errors += 1,
        }
    }
    // Nothing behind an error is read.
    assert!(errors <= 1);
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    walk(bytes);
    assert_eq!(read(bytes, usize::from(piece) + 1), read(bytes, bytes.len().max(1)));
});
