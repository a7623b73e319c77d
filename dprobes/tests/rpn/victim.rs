//! What bytes may do that nobody meant to be a program: nothing but be refused, or run within their bounds.

use std::sync::atomic::AtomicU64;

use dprobes::record::element::Elements;
use dprobes::rpn::exception::Exception;
use dprobes::rpn::interp::{Dispatch, End, Observer, Stack, Variables, Workspace, run, run_observed};
use dprobes::rpn::limits::{GRACE_BUDGET, INSTRUCTION_BUDGET, STACK_WORDS};
use dprobes::rpn::object::Object;
use dprobes::rpn::op::Op;
use dprobes::rpn::variables::Pool;
use dprobes::rpn::verify::{verify, verify_unfused};

use super::env::Hostile;
use super::random::Rng;

/// What became of the inputs.
#[derive(Debug, Default)]
pub struct Count {
    pub no_object: u64,
    pub refused: u64,
    pub ran: u64,
    pub watched: u64,
    pub instructions: u64,
}

/// A machine on which anything is run that verifies, and which looks whether that stays within its bounds.
pub struct Victim {
    ws: Box<Workspace>,
    env: Hostile,
    locals: Vec<AtomicU64>,
    globals: Vec<AtomicU64>,
    slots: Vec<u16>,
    pools: Box<(Pool, Pool)>,
    pub count: Count,
}

/// Counts the instructions of a run, and sees that each is one of its handler.
struct Watch<'a> {
    code: std::ops::Range<u32>,
    object: Object<'a>,
    instructions: u64,
    inside: bool,
}

impl Observer for Watch<'_> {
    fn instruction(&mut self, offset: u32, stack: Stack<'_>) {
        self.instructions += 1;
        self.inside &= self.code.contains(&offset);
        if self.object.point(0).is_some_and(|point| point.ex_mask() & 0x2000 != 0) {
            self.inside &= stack.depth() <= STACK_WORDS;
        }
    }

    fn exception(&mut self, _: Exception, _: Dispatch) {}
}

impl Victim {
    pub fn new(seed: u64) -> Self {
        Self {
            ws: Box::new(Workspace::new()),
            env: Hostile {
                rng: Rng(seed),
                asked: 0,
            },
            locals: (0..256).map(AtomicU64::new).collect(),
            globals: (0..256).map(AtomicU64::new).collect(),
            // Some are beyond what there is: a mistake of the host's, which must not become ours.
            slots: (0..256).map(|index| index * 7 % 300).collect(),
            pools: Box::new((Pool::new(), Pool::new())),
            count: Count::default(),
        }
    }

    /// Parses, verifies and runs what may be an object.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Ok(object) = Object::parse(bytes) else {
            self.count.no_object += 1;
            return;
        };
        let watched = self.env.rng.one_in(8);
        let program = if watched {
            verify_unfused(&object)
        } else {
            verify(&object)
        };
        let Ok(program) = program else {
            self.count.refused += 1;
            return;
        };
        self.count.ran += 1;
        let variables = Variables {
            locals: &self.locals[..program.locals()],
            globals: &self.globals,
            global_slots: &self.slots[..program.globals()],
            local_pool: Some(&self.pools.0),
            global_pool: Some(&self.pools.1),
            owner: 1,
        };
        for point in 0..program.points().min(3) {
            self.env.asked = 0;
            let code = object.point(point as u32).unwrap().code();
            let length = code.len() as u64;
            // The handler's length is free, before the budget is used up and after.
            let bound = u64::from(INSTRUCTION_BUDGET + GRACE_BUDGET) + 2 * length;
            let (ws, env) = (&mut *self.ws, &mut self.env);
            let outcome = if watched && point == 0 {
                let mut watch = Watch {
                    code: code.clone(),
                    object,
                    instructions: 0,
                    inside: true,
                };
                let outcome = run_observed(&program, point, ws, env, &variables, &mut watch);
                assert!(watch.inside && watch.instructions <= bound);
                self.count.watched += 1;
                self.count.instructions += watch.instructions;
                outcome
            } else {
                run(&program, point, ws, env, &variables)
            };
            // The budget, as seen from outside: one access is charged eight.
            assert!(
                self.env.asked <= 2 * bound / 8 + 3 * length,
                "{} questions by {:x?}",
                self.env.asked,
                &object.code()[code.start as usize..code.end as usize]
            );
            assert_eq!(outcome.log_len, self.ws.log().len());
            assert!(outcome.log_len <= usize::from(object.logmax()));
            assert!(self.ws.traces().len() <= usize::from(object.ex_logmax()));
            assert!(Elements::new(self.ws.log()).all(|element| element.is_ok()));
            let record = self
                .ws
                .trace_record(object.name().as_bytes(), [1, 2, 3, 4])
                .unwrap_or(&[]);
            assert!(Elements::new(record).all(|element| element.is_ok()));
            if let End::Exception { offset, .. } = outcome.end {
                assert!(code.contains(&offset));
                assert!(Op::from_byte(object.code()[offset as usize]).is_some());
            }
        }
    }
}
