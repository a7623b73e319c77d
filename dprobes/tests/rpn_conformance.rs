//! What each instruction does: the cases of rpn/conformance.txt.

mod rpn;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use dprobes::record::element::{Element, Elements};
use dprobes::rpn::exception;
use dprobes::rpn::interp::{End, Variables, Workspace, run};
use dprobes::rpn::op::Op;
use dprobes::rpn::reg::Reg;
use dprobes::rpn::variables::Pool;
use rpn::build::{Builder, number};
use rpn::env::Machine;

fn machine() -> Machine {
    let mut ram = b"abc\0\x80\x80\x80\x80\x88\x77\x66\x55\x44\x33\x22\x11".to_vec();
    ram.extend(0x10..0x40);
    let mut machine = Machine::new().with(0x1000, &ram).with_rom(0x2000, b"0123456789abcdef");
    machine.ports = (0x40..0x48).chain(0xfffc..=0xffff).zip(0x10..).collect();
    machine.kernel_stack = vec![0xffff_ffff_8100_0000, 0xffff_ffff_8100_1111, 0xffff_ffff_8100_2222];
    machine
}

/// The cases: settings, program, results.
fn cases() -> impl Iterator<Item = (Vec<(String, String)>, String, Vec<String>)> {
    let lines = include_str!("rpn/conformance.txt").lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (program, results) = line.split_once("=>").expect(line);
            let (settings, program) = match program.trim().strip_prefix('[') {
                Some(rest) => rest.split_once(']').expect(line),
                None => ("", program),
            };
            let setting = |word: &str| {
                let (key, value) = word.split_once('=').unwrap_or((word, ""));
                (key.to_owned(), value.to_owned())
            };
            (
                settings.split_whitespace().map(setting).collect(),
                program.trim().to_owned(),
                results.split('|').map(|result| result.trim().to_owned()).collect(),
            )
        })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!(" {byte:02x}")).collect()
}

fn numbers(words: impl IntoIterator<Item = u64>) -> String {
    words.into_iter().map(|word| format!(" {word:#x}")).collect()
}

/// Numbers as this test prints them.
fn canonical(result: &str) -> String {
    let (word, rest) = result.split_once(' ').unwrap_or((result, ""));
    let bytes = |rest: &str| {
        rest.split_whitespace()
            .map(|byte| format!(" {byte}"))
            .collect::<String>()
    };
    let many = |rest: &str| numbers(rest.split_whitespace().map(number));
    match word {
        "str" | "mem" | "raw" => format!("{word} {rest}").trim().to_owned(),
        "reg" | "ram" => {
            let (what, rest) = rest.split_once(' ').unwrap();
            if word == "reg" {
                format!("reg {what}{}", many(rest))
            } else {
                format!("ram{}{}", many(what), bytes(rest))
            }
        }
        "st" => format!("st {}", canonical(rest)),
        "user" => format!("user {}", canonical(rest)),
        _ if rest.is_empty() => word.to_owned(),
        _ => format!("{word}{}", many(rest)),
    }
}

/// `KIND/KEYS,...`: the kinds of maps.
fn map(text: &str) -> (u8, u8) {
    let (kind, keys) = text.split_once('/').unwrap_or((text, "0"));
    let kinds = ["count", "sum", "min", "max", "avg", "log2"];
    let kind = kinds.iter().position(|known| *known == kind).expect("a kind of map");
    (kind as u8, number(keys) as u8)
}

/// An element in the words of the table.
fn show(element: Element<'_>) -> String {
    let nowhere = |offset: Option<u64>| offset.unwrap_or(u64::MAX);
    match element {
        Element::Memory(bytes) => format!("mem{}", hex(bytes)),
        Element::String(bytes) => format!("str \"{}\"", std::str::from_utf8(bytes).unwrap()),
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
fn observe(settings: &[(String, String)], program: &str, raw: bool) -> Vec<String> {
    let (mut local_values, mut global_values) = (vec![0; 4], vec![0; 2]);
    let mut before = machine();
    let mut builder = Builder::text(program, 0);
    for (key, value) in settings {
        let list = || value.split(',').map(number).collect();
        match key.as_str() {
            "mask" => builder = builder.ex_mask(number(value) as u16),
            "logmax" => builder = builder.logmax(number(value) as u16),
            "ex_logmax" => builder = builder.ex_logmax(number(value) as u16),
            "jmpmax" => builder = builder.jmpmax(number(value) as u16),
            "heap" => builder = builder.heap(number(value) as u16),
            "group" => builder = builder.group(number(value) as u16),
            "auto" => builder = builder.auto_stack_trace(),
            "user" => {
                before.user_regs = Some(std::array::from_fn(|i| 0x2000 + i as u64));
                before.user_stack = vec![0x40_1000, 0x40_2000];
            }
            "maps" => {
                for (kind, keys) in value.split(',').map(map) {
                    builder = builder.map(kind, keys, 8);
                }
            }
            "locals" => local_values = list(),
            "globals" => global_values = list(),
            _ => panic!("no setting: {key}"),
        }
    }
    builder.locals.resize(local_values.len(), Default::default());
    builder = builder.globals(global_values.len());
    let verified = match builder.verify() {
        Ok(verified) => verified,
        Err(error) => return vec![error.to_string()],
    };
    let (locals, globals) = (atomics(&local_values), atomics(&global_values));
    let slots: Vec<u16> = (0..globals.len() as u16).collect();
    let (local_pool, global_pool) = (Pool::new(), Pool::new());
    let variables = Variables {
        locals: &locals,
        globals: &globals,
        global_slots: &slots,
        local_pool: Some(&local_pool),
        global_pool: Some(&global_pool),
        owner: 1,
    };
    let mut after = before.clone();
    let mut ws = Box::new(Workspace::new());
    let outcome = run(&verified, 0, &mut ws, &mut after, &variables);
    assert_eq!(outcome.traced, !ws.traces().is_empty());

    let mut seen = vec![match outcome.end {
        End::Exit => "exit".to_owned(),
        End::Abort => "abort".to_owned(),
        End::Remove => "remove".to_owned(),
        End::ExitTo(facility) => format!("exit_to {facility:#x}"),
        End::Exception { exception: e, .. } => match exception::name(e.code) {
            Some(name) if !program.contains("rx") => format!("{name}{}", numbers([e.parm1, e.parm2])),
            _ => format!("{}{}", e.code, numbers([e.parm1, e.parm2])),
        },
    }];
    if raw {
        seen.push(format!("raw{}", hex(ws.log())));
    } else {
        seen.extend(Elements::new(ws.log()).map(|element| show(element.unwrap())));
    }
    seen.extend(outcome.log_overflow.then(|| "overflow".to_owned()));
    seen.extend(outcome.major.map(|major| format!("major {major:#x}")));
    seen.extend(outcome.minor.map(|minor| format!("minor {minor:#x}")));
    if values(&locals) != local_values {
        seen.push(format!("lv{}", numbers(values(&locals))));
    }
    if values(&globals) != global_values {
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
    seen
}

#[test]
fn every_case_is_as_it_should_be() {
    let mut failed = 0;
    let mut count = 0;
    for (settings, program, results) in cases() {
        count += 1;
        let raw = results.iter().any(|result| result.starts_with("raw"));
        let expected: Vec<String> = results.iter().map(|result| canonical(result)).collect();
        let seen = observe(&settings, &program, raw);
        if seen != expected {
            failed += 1;
            println!("{settings:?} {program}\n  expected {expected:?}\n  seen     {seen:?}");
        }
    }
    println!("{count} cases");
    assert_eq!(failed, 0, "of {count} cases");
}

#[test]
fn every_instruction_has_three_cases() {
    let mut count: BTreeMap<Op, usize> = Op::ALL.iter().map(|op| (*op, 0)).collect();
    for (_, program, _) in cases() {
        let code = rpn::build::assemble(&program);
        let mut here = std::collections::BTreeSet::new();
        let mut rest = code.as_slice();
        while let [byte, ..] = rest {
            let op = Op::from_byte(*byte).unwrap();
            here.insert(op);
            rest = &rest[op.size()..];
        }
        for op in here {
            *count.get_mut(&op).unwrap() += 1;
        }
    }
    let missing: Vec<_> = count.iter().filter(|(_, n)| **n < 3).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
