//! Bytes that nobody meant to be a program: they are refused, or run within their bounds. Nothing panics.
//!
//! `DPROBES_RPN_INPUTS` sets the number of inputs, `DPROBES_RPN_SEED` which ones. 100,000,000 take minutes with `cargo test --release`.

mod rpn;

use dprobes::rpn::object::layout::{Header, Point};
use dprobes::rpn::object::seal;
use dprobes::rpn::op::Op;
use rpn::build::Builder;
use rpn::random::{Rng, program};
use rpn::victim::{Count, Victim};

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect(variable))
}

/// Changes a few bytes, most of the time some of the code.
fn damage(rng: &mut Rng, bytes: &mut [u8], code: std::ops::Range<usize>) {
    for _ in 0..1 + rng.below(3) {
        let at = match rng.below(4) {
            0 => rng.below(bytes.len() as u64) as usize,
            1 => rng.below((size_of::<Header>() + size_of::<Point>()) as u64) as usize,
            _ => code.start + rng.below(code.len() as u64) as usize,
        };
        match rng.below(5) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next() as u8,
            2 => bytes[at] = bytes[at].wrapping_add(1),
            3 => bytes[at] = rng.pick(Op::ALL).byte(),
            _ => bytes[at] = rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        }
    }
}

/// Takes instructions out of a program, doubles some, or puts others in; the points stay around all of the code.
fn rearrange(rng: &mut Rng, builder: &mut Builder) {
    let code = &mut builder.code;
    let mut offsets = vec![0];
    while let Some(op) = code.get(*offsets.last().unwrap()).copied().and_then(Op::from_byte) {
        offsets.push(offsets.last().unwrap() + op.size());
    }
    let (a, b) = (rng.pick(&offsets), rng.pick(&offsets));
    let part = a.min(b)..a.max(b).min(a.min(b) + 40);
    match rng.below(3) {
        0 if part.len() < code.len() => _ = code.drain(part),
        1 => {
            let copy = code[part].to_vec();
            let at = rng.pick(&offsets);
            code.splice(at..at, copy);
        }
        _ => {
            let op = rng.pick(Op::ALL);
            let insn = std::iter::once(op.byte())
                .chain(rng.next().to_le_bytes())
                .take(op.size());
            code.splice(a..a, insn.collect::<Vec<_>>());
        }
    }
    let end = builder.code.len() as u32;
    builder.points.iter_mut().for_each(|point| point.code_end.set(end));
}

/// Random bytes; random code in a good object; good programs rearranged, or with a few bytes changed or cut off, most of them sealed
/// again so that the checksum does not protect what is behind it.
#[test]
fn random_and_damaged_bytes_do_no_harm() {
    let total = number("DPROBES_RPN_INPUTS", 3_000_000);
    let mut rng = Rng(number("DPROBES_RPN_SEED", 0x686f_7374));
    let mut victim = Victim::new(rng.next());
    let mut builder = program(&mut rng);
    let (mut seed, mut bytes) = (builder.bytes(), Vec::new());
    for input in 0..total {
        match input % 16 {
            0 => {
                bytes.clear();
                bytes.extend((0..rng.below(300)).map(|_| rng.next() as u8));
                victim.feed(&bytes);
            }
            1 | 2 => {
                let len = 1 + rng.below(24) as usize;
                let mut code: Vec<u8> = (0..len)
                    .map(|_| rng.next() as u8 & rng.pick(&[0x0f, 0x7f, 0xff]))
                    .collect();
                code.push(Op::Exit.byte());
                let mut builder = Builder::new(code, 3);
                builder.points[0]
                    .ex_mask
                    .set(if rng.one_in(3) { 0x0fff } else { 0x2fff });
                victim.feed(&builder.bytes());
            }
            3 => {
                builder = program(&mut rng);
                seed = builder.bytes();
                victim.feed(&seed);
            }
            4 | 5 => {
                let mut other = builder.clone();
                rearrange(&mut rng, &mut other);
                victim.feed(&other.bytes());
            }
            _ => {
                bytes.clone_from(&seed);
                let end = seed.len() - builder.strings.len();
                damage(&mut rng, &mut bytes, end - builder.code.len()..end);
                if rng.one_in(64) {
                    bytes.truncate(rng.below(bytes.len() as u64) as usize);
                }
                if !rng.one_in(64) {
                    let _ = seal(&mut bytes);
                }
                victim.feed(&bytes);
            }
        }
    }
    println!("{total} inputs: {:?}", victim.count);
    // The inputs reach every stage.
    let Count {
        no_object,
        refused,
        ran,
        watched,
        ..
    } = victim.count;
    assert!(no_object > total / 50 && refused > total / 50 && ran > total / 10 && watched > total / 100);
}
