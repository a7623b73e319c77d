//! The interpreter against a second one, on random programs.

mod rpn;

use std::sync::atomic::{AtomicU64, Ordering};

use dprobes::rpn::interp::{self, End, Variables, Workspace};
use dprobes::rpn::object::Object;
use dprobes::rpn::verify::verify;
use rpn::env::Machine;
use rpn::naive;
use rpn::random::{RAM, ROM, Rng, program};

fn machine(rng: &mut Rng) -> Machine {
    let mut machine = Machine::new();
    machine.regs = std::array::from_fn(|_| match rng.below(3) {
        0 => RAM + rng.below(128),
        1 => rng.below(10),
        _ => rng.next(),
    });
    let ram: Vec<u8> = (0..128)
        .map(|_| if rng.one_in(6) { 0 } else { rng.next() as u8 })
        .collect();
    machine
        .with(RAM, &ram)
        .with_rom(ROM, b"a string of sixty-three bytes, followed by no zero byte at all.")
}

fn outcome(outcome: interp::Outcome, ws: &Workspace) -> naive::Outcome {
    let end = match outcome.end {
        End::Exit => naive::End::Exit,
        End::Abort => naive::End::Abort,
        End::Remove => naive::End::Remove,
        End::ExitTo(_) => unreachable!("not generated"),
        End::Exception { exception: e, offset } => naive::End::Exception {
            code: e.code,
            parm1: e.parm1,
            parm2: e.parm2,
            offset,
        },
    };
    assert_eq!(outcome.log_len, ws.log().len());
    let log = ws.log().to_vec();
    naive::Outcome {
        end,
        major: outcome.major,
        minor: outcome.minor,
        log,
        log_overflow: outcome.log_overflow,
    }
}

/// Every program that verifies does the same in both.
#[test]
fn random_programs_agree() {
    let wanted = std::env::var("RPN_PROGRAMS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000_000);
    let mut rng = Rng(0x7270_6e31);
    let mut ws = Box::new(Workspace::new());
    let mut verified = 0_u64;
    let mut tried = 0_u64;
    let mut ends = std::collections::BTreeMap::new();
    while verified < wanted {
        tried += 1;
        assert!(tried < 20 * wanted, "only {verified} of {tried} programs verify");
        let seed = rng.0;
        let builder = program(&mut rng);
        let bytes = builder.bytes();
        let object = Object::parse(&bytes).unwrap();
        let Ok(program) = verify(&object) else { continue };
        verified += 1;

        let before = machine(&mut rng);
        let mut values: Vec<u64> = (0..program.locals()).map(|_| rng.below(100)).collect();
        let locals: Vec<AtomicU64> = values.iter().map(|value| AtomicU64::new(*value)).collect();
        let (mut ours, mut theirs) = (before.clone(), before);
        let result = interp::run(&program, 0, &mut ws, &mut ours, &Variables::of_locals(&locals));
        let result = outcome(result, &ws);
        let expected = naive::run(&object, &mut theirs, &mut values);
        let locals: Vec<u64> = locals.iter().map(|local| local.load(Ordering::Relaxed)).collect();
        assert_eq!(
            result,
            expected,
            "seed {seed:#x}: {:?}",
            rpn::random::program(&mut Rng(seed)).code
        );
        assert_eq!(locals, values, "seed {seed:#x}");
        assert_eq!(ours, theirs, "seed {seed:#x}");
        let kind = match result.end {
            naive::End::Exception { code, .. } => {
                dprobes::rpn::exception::name(code).map_or("another code".to_owned(), str::to_owned)
            }
            other => format!("{other:?}"),
        };
        *ends.entry(kind).or_insert(0_u64) += 1;
    }
    println!("{verified} of {tried} programs verified");
    for (kind, count) in ends {
        println!("{kind}: {count}");
    }
}
