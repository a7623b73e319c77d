//! What each instruction does: one table, dprobes/tests/rpn/conformance.txt, that runs on the host, in a test kernel and in Linux, on the
//! same made-up machine. What a program does is written in the words of the table, and must be what the table says, to the byte.

#![no_std]
#![warn(missing_docs)]

extern crate alloc;

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use dprobes::record::element::{Element, Elements};
use dprobes::rpn::exception;
use dprobes::rpn::interp::{End, Variables, Workspace, run};
use dprobes::rpn::object::Object;
use dprobes::rpn::reg::Reg;
use dprobes::rpn::variables::Pool;
use dprobes::rpn::verify::verify;
use zerocopy::FromZeros;

#[path = "../../../dprobes/tests/rpn/machine.rs"]
mod machine;

use machine::Machine;

/// A program, where it runs, and what it does.
#[derive(Debug)]
pub struct Case {
    /// Its text.
    pub program: &'static str,
    /// Its object.
    pub object: &'static [u8],
    /// The current task has user mode.
    pub user: bool,
    /// The values of its local variables.
    pub locals: &'static [u64],
    /// The values of its global variables.
    pub globals: &'static [u64],
    /// The bytes of the log are shown as they are.
    pub raw: bool,
    /// What it does.
    pub expected: &'static str,
}

/// All of the table.
pub static CASES: &[Case] = include!(concat!(env!("OUT_DIR"), "/cases.rs"));

/// What became of the cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many were run.
    pub cases: u64,
    /// How many did something else than the table says.
    pub failed: u64,
    /// A number that depends on every byte of what all of them did.
    pub digest: u64,
}

/// Runs all cases. `differs` gets those that do something else than the table says, and what.
pub fn run_all(mut differs: impl FnMut(&Case, &str)) -> Totals {
    let mut totals = Totals {
        // FNV-1a.
        digest: 0xcbf2_9ce4_8422_2325,
        ..Totals::default()
    };
    for case in CASES {
        let seen = observe(case);
        totals.cases += 1;
        if seen != case.expected {
            totals.failed += 1;
            differs(case, &seen);
        }
        for byte in seen.bytes().chain([b'\n']) {
            totals.digest = (totals.digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    totals
}

/// Something large, without a copy of it on the stack: a kernel's has little room.
fn zeroed<T: FromZeros>() -> Box<T> {
    T::new_box_zeroed().expect("memory")
}

fn machine(case: &Case) -> Machine {
    let mut ram = b"abc\0\x80\x80\x80\x80\x88\x77\x66\x55\x44\x33\x22\x11".to_vec();
    ram.extend(0x10..0x40);
    let mut machine = Machine::new().with(0x1000, &ram).with_rom(0x2000, b"0123456789abcdef");
    machine.ports = (0x40..0x48).chain(0xfffc..=0xffff).zip(0x10..).collect();
    machine.kernel_stack = vec![0xffff_ffff_8100_0000, 0xffff_ffff_8100_1111, 0xffff_ffff_8100_2222];
    if case.user {
        machine.user_regs = Some(core::array::from_fn(|i| 0x2000 + i as u64));
        machine.user_stack = vec![0x40_1000, 0x40_2000];
    }
    machine
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!(" {byte:02x}")).collect()
}

fn numbers(words: impl IntoIterator<Item = u64>) -> String {
    words.into_iter().map(|word| format!(" {word:#x}")).collect()
}

/// An element in the words of the table.
fn show(element: Element<'_>) -> String {
    let nowhere = |offset: Option<u64>| offset.unwrap_or(u64::MAX);
    match element {
        Element::Memory(bytes) => format!("mem{}", hex(bytes)),
        Element::String(bytes) => format!("str \"{}\"", core::str::from_utf8(bytes).unwrap()),
        Element::Words(words) => format!("words{}", numbers(words.iter())),
        Element::Positions(words) => format!("positions{}", numbers(words.iter())),
        Element::Locals(words) => format!("locals{}", numbers(words.iter())),
        Element::Globals(words) => format!("globals{}", numbers(words.iter())),
        Element::KernelStack(words) => format!("kstack{}", numbers(words.iter())),
        Element::UserStack(words) => format!("ustack{}", numbers(words.iter())),
        Element::Fault(addr) => format!("fault{}", numbers([addr])),
        Element::Trace {
            code,
            parm1,
            parm2,
            offset,
            handler,
        } => format!("trace{}", numbers([code, parm1, parm2, offset, nowhere(handler)])),
        Element::Frame { called, back } => format!("frame{}", numbers([called, nowhere(back)])),
    }
}

fn atomics(values: &[u64]) -> Vec<AtomicU64> {
    values.iter().copied().map(AtomicU64::new).collect()
}

fn values(atomics: &[AtomicU64]) -> Vec<u64> {
    atomics.iter().map(|value| value.load(Ordering::Relaxed)).collect()
}

/// What a program does, in the words of the table.
pub fn observe(case: &Case) -> String {
    let object = Object::parse(case.object).expect("an object");
    let program = match verify(&object) {
        Ok(program) => program,
        Err(error) => return error.to_string(),
    };
    let (locals, globals) = (atomics(case.locals), atomics(case.globals));
    let slots: Vec<u16> = (0..globals.len() as u16).collect();
    let (local_pool, global_pool) = (zeroed::<Pool>(), zeroed::<Pool>());
    let variables = Variables {
        locals: &locals,
        globals: &globals,
        global_slots: &slots,
        local_pool: Some(&local_pool),
        global_pool: Some(&global_pool),
        owner: 1,
    };
    let mut after = machine(case);
    let before = after.clone();
    let mut ws = zeroed::<Workspace>();
    let outcome = run(&program, 0, &mut ws, &mut after, &variables);
    assert_eq!(outcome.traced, !ws.traces().is_empty());

    let mut seen = vec![match outcome.end {
        End::Exit => "exit".into(),
        End::Abort => "abort".to_owned(),
        End::Remove => "remove".to_owned(),
        End::ExitTo(facility) => format!("exit_to {facility:#x}"),
        End::Exception { exception: e, .. } => match exception::name(e.code) {
            Some(name) if !case.program.contains("rx") => format!("{name}{}", numbers([e.parm1, e.parm2])),
            _ => format!("{}{}", e.code, numbers([e.parm1, e.parm2])),
        },
    }];
    if case.raw {
        seen.push(format!("raw{}", hex(ws.log())));
    } else {
        seen.extend(Elements::new(ws.log()).map(|element| show(element.unwrap())));
    }
    seen.extend(outcome.log_overflow.then(|| "overflow".to_owned()));
    seen.extend(outcome.major.map(|major| format!("major {major:#x}")));
    seen.extend(outcome.minor.map(|minor| format!("minor {minor:#x}")));
    if values(&locals) != case.locals {
        seen.push(format!("lv{}", numbers(values(&locals))));
    }
    if values(&globals) != case.globals {
        seen.push(format!("gv{}", numbers(values(&globals))));
    }
    for reg in Reg::ALL.iter().filter(|reg| reg.is_writable()) {
        let index = usize::from(reg.number());
        if before.regs[index] != after.regs[index] {
            seen.push(format!("reg {reg} {:#x}", after.regs[index]));
        }
        if let (Some(before), Some(after)) = (before.user_regs, after.user_regs)
            && before[index] != after[index]
        {
            seen.push(format!("user reg {reg} {:#x}", after[index]));
        }
    }
    for (before, after) in before.ram.iter().zip(&after.ram) {
        let differs = |i: &usize| before.bytes[*i] != after.bytes[*i];
        let changed: Vec<usize> = (0..before.bytes.len()).filter(differs).collect();
        if let (Some(first), Some(last)) = (changed.first(), changed.last()) {
            let bytes = hex(&after.bytes[*first..=*last]);
            seen.push(format!("ram {:#x}{bytes}", before.start + *first as u64));
        }
    }
    for (port, byte) in after.ports.iter().filter(|(port, byte)| before.ports[port] != **byte) {
        seen.push(format!("port{}", numbers([u64::from(*port), u64::from(*byte)])));
    }
    for (map, keys, value) in &after.added {
        let words = [&[u64::from(*map)], keys.as_slice(), &[*value]].concat();
        seen.push(format!("agg{}", numbers(words)));
    }
    for (group, suspended) in &after.suspended {
        seen.push(format!("group{}", numbers([u64::from(*group), u64::from(*suspended)])));
    }
    seen.extend(Elements::new(ws.traces()).map(|element| format!("st {}", show(element.unwrap()))));
    seen.extend(outcome.trace_overflow.then(|| "cut".to_owned()));
    seen.join(" | ")
}
