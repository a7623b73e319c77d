//! A second interpreter, from the definition of the language: it executes the bytes of the object, knows nothing of
//! verified programs, and cares for nothing but being obvious.

mod record;
mod stack;
mod step;
mod system;

use std::collections::{BTreeMap, HashMap};

use dprobes::rpn::object::Object;
use dprobes::rpn::op::Op;

use super::env::Machine;
use record::Shown;
use stack::Stack;

const BUDGET: i64 = 1_000_000;
const GRACE: i64 = 10_000;

/// The number of an allocated variable is this and more.
pub const POOL_FIRST: u64 = 0x1_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exit,
    ExitTo(u8),
    Abort,
    Remove,
    Exception {
        code: u64,
        parm1: u64,
        parm2: u64,
        offset: u32,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub end: End,
    pub major: Option<u16>,
    pub minor: Option<u16>,
    pub log: Vec<u8>,
    pub log_overflow: bool,
    /// All of the second record, or nothing.
    pub trace_record: Vec<u8>,
    pub trace_overflow: bool,
}

/// Variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    pub locals: Vec<u64>,
    /// Those of the system.
    pub globals: Vec<u64>,
    /// Which of them the program names.
    pub slots: Vec<u16>,
    /// Those of the call.
    pub call: [u64; 8],
    /// Allocated ones.
    pub local_pool: Vec<Option<u64>>,
    pub global_pool: Vec<Option<u64>>,
}

impl World {
    fn global(&self, index: usize) -> u64 {
        self.globals[usize::from(self.slots[index])]
    }
}

/// What was seen of the language: how often each instruction was executed, and which exceptions each raised.
pub struct Seen {
    /// By opcode.
    pub executed: [u64; 256],
    /// The instruction, the code, the first parameter where that is a class, and whether a handler got it.
    pub raised: BTreeMap<(Op, u16, u64, bool), u64>,
}

impl Seen {
    pub fn new() -> Self {
        Self {
            executed: [0; 256],
            raised: BTreeMap::new(),
        }
    }
}

struct Frame {
    /// Where it was called.
    called: usize,
    /// Where to go on behind the call; nowhere from the handler of the probe.
    back: Option<usize>,
    handler: Option<usize>,
    /// The caller's SBP.
    sbp: usize,
    shown: Shown,
}

enum Stop {
    End(End),
    /// An exception of the machine.
    Raise(u16, u64, u64),
    /// The `rx` instruction.
    Rx,
    /// The budget is used up.
    Exhausted,
}

struct Naive<'a> {
    object: &'a Object<'a>,
    code: &'a [u8],
    numbers: HashMap<usize, i64>,
    machine: &'a mut Machine,
    world: &'a mut World,
    seen: &'a mut Seen,
    stack: Stack,
    sbp: usize,
    frames: Vec<Frame>,
    log: Vec<u8>,
    logmax: usize,
    /// Length of the log before the last logging instruction.
    previous: usize,
    traces: Vec<u8>,
    ex_logmax: usize,
    traces_cut: u64,
    /// Blocks in the order in which they were allocated.
    heap: Vec<(u64, Vec<u8>)>,
    heap_size: usize,
    handles: u64,
    jmpmax: u64,
    jumps: u64,
    budget: i64,
    grace: bool,
    mask: u16,
    last: (u64, u64, u64),
    major: Option<u16>,
    minor: Option<u16>,
    log_overflow: bool,
}

/// Runs the handler of the first point. The stack-trace record is that of a module `name` with these facts.
pub fn run(
    object: &Object<'_>,
    machine: &mut Machine,
    world: &mut World,
    seen: &mut Seen,
    (name, facts): (&[u8], [u64; 4]),
) -> Outcome {
    let point = object.point(0).unwrap();
    let range = point.code();
    let mut numbers = HashMap::new();
    let mut offset = range.start as usize;
    while offset < range.end as usize {
        numbers.insert(offset, numbers.len() as i64);
        offset += Op::from_byte(object.code()[offset]).unwrap().size();
    }
    let mut naive = Naive {
        object,
        code: object.code(),
        numbers,
        machine,
        world,
        seen,
        stack: Stack::new(point.ex_mask() & 0x2000 == 0),
        sbp: 0,
        frames: vec![Frame {
            called: range.start as usize,
            back: None,
            handler: None,
            sbp: 0,
            shown: Shown::default(),
        }],
        log: Vec::new(),
        logmax: usize::from(object.logmax()),
        previous: 0,
        traces: Vec::new(),
        ex_logmax: usize::from(object.ex_logmax()),
        traces_cut: 0,
        heap: Vec::new(),
        heap_size: usize::from(point.heap()),
        handles: 0,
        jmpmax: u64::from(object.jmpmax()),
        jumps: 0,
        budget: BUDGET,
        grace: false,
        mask: point.ex_mask(),
        last: (0, 0, 0),
        major: None,
        minor: None,
        log_overflow: false,
    };
    let end = naive.run(range.start as usize);
    let trace_record = naive.trace_record(name, facts);
    Outcome {
        end,
        major: naive.major,
        minor: naive.minor,
        log: naive.log,
        log_overflow: naive.log_overflow,
        trace_record,
        trace_overflow: naive.traces_cut != 0,
    }
}

impl Naive<'_> {
    fn run(&mut self, mut pc: usize) -> End {
        loop {
            let at = pc;
            let op = Op::from_byte(self.code[pc]).unwrap();
            let size = op.size();
            let mut operand = [0; 8];
            operand[..size - 1].copy_from_slice(&self.code[pc + 1..pc + size]);
            let operand = u64::from_le_bytes(operand);
            pc += size;
            self.seen.executed[usize::from(op.byte())] += 1;
            match self.step(at, &mut pc, op, operand) {
                Ok(()) => {}
                Err(Stop::End(end)) => return end,
                Err(stop) => match self.exception(at, op, stop) {
                    Ok(None) => {}
                    Ok(Some(handler)) => pc = handler,
                    Err(end) => return end,
                },
            }
        }
    }

    fn end(&self, at: usize, (code, parm1, parm2): (u64, u64, u64)) -> End {
        End::Exception {
            code,
            parm1,
            parm2,
            offset: at as u32,
        }
    }

    /// Where to go on after an exception; none: behind the instruction.
    fn exception(&mut self, at: usize, op: Op, stop: Stop) -> Result<Option<usize>, End> {
        const EXHAUSTED: (u64, u64, u64) = (4, BUDGET as u64, 0);
        let (code, parm1, parm2) = match stop {
            Stop::End(_) => unreachable!(),
            Stop::Rx => {
                let exception = (self.stack.peek(0), self.stack.peek(1), self.stack.peek(2));
                return self.dispatch(at, op, 0x8000, exception, false);
            }
            Stop::Exhausted if self.grace => {
                self.trace_if_automatic(at, EXHAUSTED, None);
                return Err(self.end(at, EXHAUSTED));
            }
            Stop::Exhausted => {
                self.grace = true;
                self.budget = GRACE;
                (4, BUDGET as u64, 0)
            }
            Stop::Raise(code, parm1, parm2) => (code, parm1, parm2),
        };
        let exception = (u64::from(code), parm1, parm2);
        if self.mask & code == 0 {
            let class = if code == 0x40 { parm1 } else { 0 };
            *self.seen.raised.entry((op, code, class, false)).or_default() += 1;
            // The low twelve bits cannot be ignored.
            if code >= 0x1000 {
                return Ok(None);
            }
            self.trace_if_automatic(at, exception, None);
            return Err(self.end(at, exception));
        }
        self.dispatch(at, op, code, exception, true)
    }

    fn trace_if_automatic(&mut self, at: usize, exception: (u64, u64, u64), handler: Option<usize>) {
        if self.object.auto_stack_trace() {
            self.budget -= self.ex_logmax as i64 / 8;
            self.trace(at, exception, handler);
        }
    }

    /// Gives an exception to the innermost routine that has a handler.
    fn dispatch(
        &mut self,
        at: usize,
        op: Op,
        kind: u16,
        exception: (u64, u64, u64),
        push: bool,
    ) -> Result<Option<usize>, End> {
        self.last = exception;
        let routine = self.frames.iter().rposition(|frame| frame.handler.is_some());
        let handler = routine.and_then(|routine| self.frames[routine].handler);
        // A handler that the budget does not reach is none.
        let cost = handler.map(|handler| (self.numbers[&at] - self.numbers[&handler] + 1).max(0));
        let reached = handler.filter(|_| self.budget >= cost.unwrap());
        let class = if kind == 0x40 { exception.1 } else { 0 };
        *self
            .seen
            .raised
            .entry((op, kind, class, reached.is_some()))
            .or_default() += 1;
        self.trace_if_automatic(at, exception, reached);
        if push {
            if self.stack.wraps(0, 3).is_some() {
                self.stack = Stack::new(false);
            }
            let (code, parm1, parm2) = exception;
            for word in [parm2, parm1, code] {
                self.stack.push(word);
            }
        }
        match (routine, reached) {
            (None, _) => Err(self.end(at, exception)),
            (Some(_), None) => Err(self.end(at, (4, BUDGET as u64, 0))),
            (Some(routine), Some(handler)) => {
                while self.frames.len() > routine + 1 {
                    self.sbp = self.frames.pop().unwrap().sbp;
                }
                self.frames[routine].handler = None;
                self.budget -= cost.unwrap();
                Ok(Some(handler))
            }
        }
    }

    fn charge(&mut self, cost: i64) -> Result<(), Stop> {
        self.budget -= cost;
        if self.budget < 0 { Err(Stop::Exhausted) } else { Ok(()) }
    }

    /// Charges control's way from one instruction to another.
    fn charge_move(&mut self, from: usize, to: usize) -> Result<(), Stop> {
        self.charge((self.numbers[&from] - self.numbers[&to] + 1).max(0))
    }

    fn count_jump(&mut self) -> Result<(), Stop> {
        if self.jumps == self.jmpmax {
            return Err(Stop::Raise(4, self.jmpmax, 0));
        }
        self.jumps += 1;
        Ok(())
    }

    fn jump(&mut self, at: usize, pc: &mut usize, target: usize) -> Result<(), Stop> {
        self.count_jump()?;
        self.charge_move(at, target)?;
        *pc = target;
        Ok(())
    }
}
