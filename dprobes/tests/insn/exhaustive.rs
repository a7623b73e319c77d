//! Every opcode of every map with every ModRM byte and many prefixes, against iced-x86.

use crate::oracle::{Agreement, check_certain, compare};
use iced_x86::InstructionInfoFactory;

/// Counts what agrees, and fails with the first differences and their number.
#[derive(Default)]
struct Tally {
    instructions: u64,
    invalid: u64,
    lenient: u64,
    differences: Vec<String>,
    certain: InfoFactory,
}

struct InfoFactory(InstructionInfoFactory);

impl Default for InfoFactory {
    fn default() -> InfoFactory {
        InfoFactory(InstructionInfoFactory::new())
    }
}

impl Tally {
    fn compare(&mut self, bytes: &[u8]) {
        match compare(bytes) {
            Ok(Agreement::Instruction(insn)) => {
                self.instructions += 1;
                self.differences.extend(check_certain(&insn, &mut self.certain.0).err());
            }
            Ok(Agreement::Neither) => self.invalid += 1,
            Ok(Agreement::Lenient(_)) => self.lenient += 1,
            Err(what) => self.differences.push(what),
        }
    }

    fn finish(self, what: &str) {
        println!(
            "{what}: {} instructions, {} invalid, {} lenient",
            self.instructions, self.invalid, self.lenient
        );
        let count = self.differences.len();
        let mut shown = self.differences;
        shown.truncate(20);
        assert!(
            count == 0,
            "{what}: {count} differences, among them\n{}",
            shown.join("\n")
        );
        assert!(self.instructions > 1000, "{what}: nearly nothing is an instruction");
    }
}

/// Prefix combinations: each that has an effect alone, those that act on each other, and both orders where order
/// counts.
const PREFIXES: &[&[u8]] = &[
    &[],
    &[0x66],
    &[0xf2],
    &[0xf3],
    &[0xf0],
    &[0x67],
    &[0x64],
    &[0x65, 0x2e],
    &[0x2e],
    &[0x48],
    &[0x4f],
    &[0x41],
    &[0x44],
    &[0x66, 0x48],
    &[0x48, 0x66],
    &[0x66, 0xf2],
    &[0xf2, 0x66],
    &[0x66, 0xf3],
    &[0xf2, 0xf3],
    &[0xf3, 0xf2],
    &[0xf3, 0x48],
    &[0xf2, 0x48],
    &[0xf2, 0x66, 0x48],
    &[0x67, 0x66],
    &[0x67, 0x48],
    &[0x67, 0xf3],
    &[0x67, 0xf2],
    &[0xf0, 0x48],
    &[0xf0, 0x66],
    &[0xf0, 0xf2],
    &[0xf0, 0xf3],
    &[0x48, 0x41],
    &[0x66, 0x66, 0x66, 0x2e],
];

/// ModRM bytes that between them have every mod, a SIB byte, no base, and RIP-relative addressing.
const MODRM: &[u8] = &[
    0x00, 0x04, 0x05, 0x0c, 0x44, 0x85, 0x94, 0xc0, 0xc8, 0xd1, 0xda, 0xe3, 0xe8, 0xf5, 0xff,
];

/// What follows the ModRM byte: SIB without and with base, small and large displacements.
const TAILS: &[[u8; 8]] = &[[0; 8], [0x25, 0xff, 0xff, 0xff, 0x7f, 0x80, 0x01, 0xfe]];

#[test]
fn legacy_maps() {
    let mut tally = Tally::default();
    for escape in [&[][..], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]] {
        for prefixes in PREFIXES {
            for opcode in 0..=255 {
                for modrm in 0..=255 {
                    for tail in TAILS {
                        let bytes = [prefixes, escape, &[opcode, modrm], tail].concat();
                        tally.compare(&bytes);
                    }
                }
            }
        }
    }
    tally.finish("legacy maps");
}

#[test]
fn operations_of_3dnow() {
    let mut tally = Tally::default();
    for operation in 0..=255 {
        for modrm in 0..=255 {
            let mut bytes = vec![0x0f, 0x0f, modrm];
            // The operation comes last; everything before it is the operation too.
            bytes.extend([operation; 6]);
            tally.compare(&bytes);
        }
    }
    tally.finish("3DNow!");
}

#[test]
fn vex() {
    let mut tally = Tally::default();
    for opcode in 0..=255 {
        for modrm in MODRM.iter().copied() {
            for p0 in 0..=255 {
                tally.compare(&[0xc5, p0, opcode, modrm]);
                for p1 in [
                    0x78, 0x79, 0x7a, 0x7b, 0x7c, 0x7d, 0x00, 0xf8, 0xf9, 0xfa, 0xfb, 0xfd, 0x81,
                ] {
                    tally.compare(&[0xc4, p0, p1, opcode, modrm]);
                }
            }
        }
    }
    tally.finish("VEX");
}

#[test]
fn xop() {
    let mut tally = Tally::default();
    for opcode in 0..=255 {
        for modrm in 0..=255 {
            for p0 in [0xe0, 0xe8, 0xe9, 0xea, 0xeb, 0x48, 0x29, 0x0a, 0xff] {
                for p1 in [0x78, 0x7c, 0xf8, 0x30, 0x79] {
                    tally.compare(&[0x8f, p0, p1, opcode, modrm]);
                }
            }
        }
    }
    tally.finish("XOP");
}

#[test]
fn evex() {
    let mut tally = Tally::default();
    for opcode in 0..=255 {
        for modrm in MODRM.iter().copied() {
            for p0 in 0..=255 {
                for p1 in [0x7c, 0x7d, 0x7e, 0x7f, 0xfc, 0xfd, 0xfe, 0xff, 0x78, 0x04, 0x95] {
                    for p2 in [0x08, 0x48, 0x09, 0xd8] {
                        tally.compare(&[0x62, p0, p1, p2, opcode, modrm]);
                    }
                }
            }
        }
    }
    tally.finish("EVEX");
}

/// VEX, EVEX and XOP are no instructions after 66, F2, F3, LOCK or REX; other prefixes are fine.
#[test]
fn prefixes_before_vector_prefixes() {
    let mut tally = Tally::default();
    for vector in [
        &[0xc5, 0xf8, 0x58, 0xc0][..],
        &[0xc4, 0xe2, 0x79, 0x58, 0xc0],
        &[0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0],
    ] {
        for first in 0..=255 {
            for second in 0..=255 {
                tally.compare(&[&[first, second], vector].concat());
            }
        }
    }
    tally.finish("prefixes of vector instructions");
}
