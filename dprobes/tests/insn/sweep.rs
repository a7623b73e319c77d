//! Every aligned instruction and every byte offset of real machine code, against iced-x86.

use crate::binaries::{self, Binary};
use crate::oracle::{Agreement, check_certain, compare_at};
use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Offsets per piece of work.
const PIECE: usize = 1 << 20;

#[derive(Default, Debug, Clone, Copy)]
struct Counts {
    instructions: u64,
    invalid: u64,
    lenient: u64,
}

impl Counts {
    fn add(&mut self, agreement: Agreement) {
        match agreement {
            Agreement::Instruction(_) => self.instructions += 1,
            Agreement::Neither => self.invalid += 1,
            Agreement::Lenient(_) => self.lenient += 1,
        }
    }

    fn total(self, other: Counts) -> Counts {
        Counts {
            instructions: self.instructions + other.instructions,
            invalid: self.invalid + other.invalid,
            lenient: self.lenient + other.lenient,
        }
    }
}

/// Compares at every offset of a range.
fn every_offset(text: &[u8], range: std::ops::Range<usize>) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let mut decoder = Decoder::new(64, text, DecoderOptions::NONE);
    for at in range {
        counts.add(compare_at(text, &mut decoder, at)?);
    }
    Ok(counts)
}

/// Compares along the instructions of a section; after bytes that are none, goes on with the next byte.
fn aligned(text: &[u8]) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let mut decoder = Decoder::new(64, text, DecoderOptions::NONE);
    let mut info = InstructionInfoFactory::new();
    let mut at = 0;
    while at < text.len() {
        let agreement = compare_at(text, &mut decoder, at)?;
        counts.add(agreement);
        at += match agreement {
            Agreement::Instruction(insn) => {
                check_certain(&insn, &mut info)?;
                insn.len()
            }
            Agreement::Lenient(_) | Agreement::Neither => 1,
        };
    }
    Ok(counts)
}

/// Work on all pieces with all processors.
fn in_parallel<T: Sync>(pieces: &[T], work: impl Fn(&T) -> Result<Counts, String> + Sync) -> Result<Counts, String> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut counts = Counts::default();
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            counts = counts.total(work(piece)?);
        }
        Ok(counts)
    };
    let processors = std::thread::available_parallelism().map_or(2, |count| count.get());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("no panic"))
            .try_fold(Counts::default(), |sum: Counts, counts: Result<Counts, String>| {
                Ok(sum.total(counts?))
            })
    })
}

fn sweep(binary: &Binary) {
    let started = std::time::Instant::now();
    let along = in_parallel(&binary.sections, |section| aligned(section));
    let along = along.unwrap_or_else(|what| panic!("{}, along its instructions: {what}", binary.name));
    let pieces: Vec<_> = binary
        .sections
        .iter()
        .flat_map(|section| {
            (0..section.len())
                .step_by(PIECE)
                .map(move |from| (section, from..section.len().min(from + PIECE)))
        })
        .collect();
    let offsets = in_parallel(&pieces, |(section, range)| every_offset(section, range.clone()));
    let offsets = offsets.unwrap_or_else(|what| panic!("{}: {what}", binary.name));
    println!(
        "{}: along {along:?}; every offset {offsets:?}; {:?}",
        binary.name,
        started.elapsed()
    );
    assert!(
        along.instructions > 100_000,
        "{}: too little machine code to prove anything",
        binary.name
    );
}

#[test]
fn real_machine_code_decodes_as_iced_says() {
    for binary in binaries::all() {
        sweep(&binary);
    }
}
