//! Comparing the interpreter with the second one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dprobes::rpn::interp::{self, End, Variables, Workspace};
use dprobes::rpn::limits::POOL_VARIABLES;
use dprobes::rpn::object::Object;
use dprobes::rpn::variables::Pool;
use dprobes::rpn::verify::{verify, verify_unfused};

use super::build::Builder;
use super::env::Machine;
use super::naive::{self, POOL_FIRST, Seen, World};
use super::random::{PORT, RAM, ROM, Rng};

/// Name, address, id, major, minor: what the stack-trace record begins with.
const FACTS: (&[u8], [u64; 4]) = (
    b"a module with a name of more than sixty-four bytes, which a trace cuts short",
    [0xffff_ffff_8100_0000, 7, 1, 2],
);

fn machine(rng: &mut Rng) -> Machine {
    let mut machine = Machine::new();
    let value = |rng: &mut Rng| match rng.below(3) {
        0 => RAM + rng.below(128),
        1 => rng.below(10),
        _ => rng.next(),
    };
    machine.regs = std::array::from_fn(|_| value(rng));
    machine.user_regs = rng.one_in(2).then(|| std::array::from_fn(|_| value(rng)));
    machine.ports = (PORT as u16..).zip([1, 2, 3, 4, 0xfe, 0xff]).collect();
    let stack = |rng: &mut Rng| (0..rng.pick(&[0, 1, 4, 140])).map(|_| rng.next()).collect();
    machine.kernel_stack = stack(rng);
    machine.user_stack = stack(rng);
    let ram: Vec<u8> = (0..128)
        .map(|_| if rng.one_in(6) { 0 } else { rng.next() as u8 })
        .collect();
    machine
        .with(RAM, &ram)
        .with_rom(ROM, b"a string of sixty-three bytes, followed by no zero byte at all.")
}

/// Variables for a program: more in the system than it names, and pools that may be almost used up.
fn world(rng: &mut Rng, object: &Object<'_>) -> World {
    let pool = |rng: &mut Rng| {
        let taken = if rng.one_in(8) {
            POOL_VARIABLES as u64 - rng.below(3)
        } else {
            rng.below(3)
        };
        let mut pool: Vec<Option<u64>> = (0..taken).map(|_| Some(rng.below(9))).collect();
        pool.resize(POOL_VARIABLES, None);
        pool
    };
    let named = object.globals().len() as u16;
    World {
        locals: (0..object.locals().len()).map(|_| rng.below(100)).collect(),
        globals: (0..named + 2).map(|_| rng.below(100)).collect(),
        slots: (0..named).map(|index| named + 1 - index).collect(),
        call: std::array::from_fn(|_| rng.below(100)),
        local_pool: pool(rng),
        global_pool: pool(rng),
    }
}

fn atomics(values: &[u64]) -> Vec<AtomicU64> {
    values.iter().map(|value| AtomicU64::new(*value)).collect()
}

fn values(atomics: &[AtomicU64]) -> Vec<u64> {
    atomics.iter().map(|value| value.load(Relaxed)).collect()
}

fn to_pool(values: &[Option<u64>]) -> Pool {
    let pool = Pool::new();
    let taken = values.iter().filter(|value| value.is_some()).count();
    (0..taken).for_each(|_| _ = pool.alloc(7));
    for (index, value) in (POOL_FIRST..).zip(values) {
        if let (Some(variable), Some(value)) = (pool.variable(index), value) {
            variable.store(*value, Relaxed);
        }
    }
    pool
}

fn from_pool(pool: &Pool) -> Vec<Option<u64>> {
    (POOL_FIRST..)
        .take(POOL_VARIABLES)
        .map(|index| Some(pool.variable(index)?.load(Relaxed)))
        .collect()
}

fn outcome(outcome: interp::Outcome, ws: &mut Workspace) -> naive::Outcome {
    let end = match outcome.end {
        End::Exit => naive::End::Exit,
        End::ExitTo(facility) => naive::End::ExitTo(facility),
        End::Abort => naive::End::Abort,
        End::Remove => naive::End::Remove,
        End::Exception { exception: e, offset } => naive::End::Exception {
            code: e.code,
            parm1: e.parm1,
            parm2: e.parm2,
            offset,
        },
    };
    assert_eq!(outcome.log_len, ws.log().len());
    let log = ws.log().to_vec();
    let (name, facts) = FACTS;
    let trace_record = ws.trace_record(name, facts).unwrap_or(&[]).to_vec();
    assert_eq!(outcome.traced, !trace_record.is_empty());
    naive::Outcome {
        end,
        major: outcome.major,
        minor: outcome.minor,
        log,
        log_overflow: outcome.log_overflow,
        trace_record,
        trace_overflow: outcome.trace_overflow,
    }
}

/// Runs a program in both, if it verifies; whether it does. `prepare` may change the machine and the variables before.
pub fn agrees(
    builder: &Builder,
    rng: &mut Rng,
    ws: &mut Workspace,
    seen: &mut Seen,
    prepare: impl FnOnce(&mut Machine, &mut World),
    what: &dyn Fn() -> String,
) -> bool {
    let bytes = builder.bytes();
    let object = Object::parse(&bytes).unwrap();
    // Without superinstructions nothing else happens.
    let program = if rng.one_in(8) {
        verify_unfused(&object)
    } else {
        verify(&object)
    };
    let Ok(program) = program else { return false };

    let mut before = machine(rng);
    let mut world = world(rng, &object);
    prepare(&mut before, &mut world);
    let (locals, globals) = (atomics(&world.locals), atomics(&world.globals));
    let slots = world.slots.clone();
    let pools = (to_pool(&world.local_pool), to_pool(&world.global_pool));
    let variables = Variables {
        locals: &locals,
        globals: &globals,
        global_slots: &slots,
        local_pool: Some(&pools.0),
        global_pool: Some(&pools.1),
        owner: 3,
    };
    let (mut ours, mut theirs) = (before.clone(), before);
    *ws.call_words() = world.call;
    let result = interp::run(&program, 0, ws, &mut ours, &variables);
    let result = outcome(result, ws);
    let expected = naive::run(&object, &mut theirs, &mut world, seen, FACTS);
    assert_eq!(result, expected, "{}", what());
    let after = World {
        locals: values(&locals),
        globals: values(&globals),
        slots,
        call: *ws.call_words(),
        local_pool: from_pool(&pools.0),
        global_pool: from_pool(&pools.1),
    };
    assert_eq!(after, world, "{}", what());
    assert_eq!(ours, theirs, "{}", what());
    true
}
