//! Bytes that nobody meant to be a program: they are refused, or run within their bounds. Nothing panics.
//!
//! `RPN_INPUTS` sets the number of inputs.

mod rpn;

use std::sync::atomic::AtomicU64;

use dprobes::record::element::Elements;
use dprobes::rpn::interp::{End, Variables, Workspace, run};
use dprobes::rpn::object::{Object, seal};
use dprobes::rpn::op::Op;
use dprobes::rpn::verify::verify;
use rpn::build::Builder;
use rpn::env::Hostile;
use rpn::random::{Rng, program};

/// What became of the inputs.
#[derive(Debug, Default)]
struct Count {
    no_object: u64,
    refused: u64,
    ran: u64,
}

struct Victim {
    ws: Box<Workspace>,
    env: Hostile,
    locals: Vec<AtomicU64>,
    count: Count,
}

impl Victim {
    fn new(seed: u64) -> Self {
        Self {
            ws: Box::new(Workspace::new()),
            env: Hostile {
                rng: Rng(seed),
                asked: 0,
            },
            locals: (0..256).map(AtomicU64::new).collect(),
            count: Count::default(),
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let Ok(object) = Object::parse(bytes) else {
            self.count.no_object += 1;
            return;
        };
        let Ok(program) = verify(&object) else {
            self.count.refused += 1;
            return;
        };
        self.count.ran += 1;
        for point in 0..program.points().min(3) {
            self.env.asked = 0;
            let outcome = run(
                &program,
                point,
                &mut self.ws,
                &mut self.env,
                &Variables::of_locals(&self.locals[..program.locals()]),
            );
            // The budget, as seen from outside: one access is charged eight, and the straight run is the handler's length.
            let handler = object.point(point as u32).unwrap().code().len() as u64;
            assert!(self.env.asked <= 3 * handler + 20 * 1_010_000 / 8);
            assert_eq!(outcome.log_len, self.ws.log().len());
            assert!(outcome.log_len <= usize::from(object.logmax()));
            assert!(Elements::new(self.ws.log()).all(|element| element.is_ok()));
            if let End::Exception { offset, .. } = outcome.end {
                let code = object.point(point as u32).unwrap().code();
                assert!(code.contains(&offset));
                assert!(Op::from_byte(object.code()[offset as usize]).is_some());
            }
        }
    }
}

fn inputs() -> u64 {
    std::env::var("RPN_INPUTS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(10_000_000)
}

/// Random bytes; random code in a good object; good programs with a few bytes changed or cut off, most of them sealed
/// again so that the checksum does not protect what is behind it.
#[test]
fn random_and_damaged_bytes_do_no_harm() {
    let total = inputs();
    let mut rng = Rng(0x686f_7374);
    let mut victim = Victim::new(1);
    let mut seed = Vec::new();
    for input in 0..total {
        match input % 16 {
            0 => {
                let len = rng.below(300) as usize;
                let bytes: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
                victim.feed(&bytes);
            }
            1 | 2 => {
                let len = 1 + rng.below(24) as usize;
                let mut code: Vec<u8> = (0..len)
                    .map(|_| rng.next() as u8 & if rng.one_in(2) { 0x0f } else { 0x7f })
                    .collect();
                code.push(Op::Exit.byte());
                let mut builder = Builder::new(code, 3);
                builder.points[0]
                    .ex_mask
                    .set(if rng.one_in(3) { 0x0fff } else { 0x2fff });
                victim.feed(&builder.bytes());
            }
            3 => {
                seed = program(&mut rng).bytes();
                victim.feed(&seed);
            }
            _ => {
                let mut bytes = seed.clone();
                for _ in 0..1 + rng.below(3) {
                    let at = rng.below(bytes.len() as u64) as usize;
                    match rng.below(4) {
                        0 => bytes[at] ^= 1 << rng.below(8),
                        1 => bytes[at] = rng.next() as u8,
                        2 => bytes[at] = bytes[at].wrapping_add(1),
                        _ => bytes[at] = rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
                    }
                }
                if rng.one_in(32) {
                    bytes.truncate(rng.below(bytes.len() as u64) as usize);
                }
                if !rng.one_in(32) {
                    let _ = seal(&mut bytes);
                }
                victim.feed(&bytes);
            }
        }
    }
    println!("{:?}", victim.count);
    // The inputs reach every stage.
    let Count {
        no_object,
        refused,
        ran,
    } = victim.count;
    assert!(no_object > total / 50 && refused > total / 50 && ran > total / 50);
}
