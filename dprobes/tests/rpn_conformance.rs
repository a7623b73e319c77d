//! What each instruction does: the cases of rpn/conformance.txt.

mod rpn;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use dprobes::record::element::{Element, Elements};
use dprobes::rpn::exception;
use dprobes::rpn::interp::{End, Variables, Workspace, run};
use dprobes::rpn::op::Op;
use dprobes::rpn::reg::Reg;
use rpn::build::{Builder, number};
use rpn::env::Machine;

fn machine() -> Machine {
    let mut ram = b"abc\0\x80\x80\x80\x80\x88\x77\x66\x55\x44\x33\x22\x11".to_vec();
    ram.extend(0x10..0x40);
    Machine::new().with(0x1000, &ram).with_rom(0x2000, b"0123456789abcdef")
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
                let (key, value) = word.split_once('=').expect(line);
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
        "words" | "locals" | "fault" | "lv" | "major" | "minor" => format!("{word}{}", many(rest)),
        _ if rest.is_empty() => word.to_owned(),
        _ => format!("{word}{}", many(rest)),
    }
}

/// What a program does, in the words of the table.
fn observe(settings: &[(String, String)], program: &str, raw: bool) -> Vec<String> {
    let mut values = vec![0; 4];
    let mut builder = Builder::text(program, 0);
    for (key, value) in settings {
        match key.as_str() {
            "mask" => builder = builder.ex_mask(number(value) as u16),
            "logmax" => builder = builder.logmax(number(value) as u16),
            "jmpmax" => builder = builder.jmpmax(number(value) as u16),
            "locals" => values = value.split(',').map(number).collect(),
            _ => panic!("no setting: {key}"),
        }
    }
    builder.locals.resize(values.len(), Default::default());
    let verified = builder.verify().unwrap_or_else(|error| panic!("{program}: {error}"));
    let locals: Vec<AtomicU64> = values.iter().map(|value| AtomicU64::new(*value)).collect();
    let before = machine();
    let mut after = before.clone();
    let mut ws = Box::new(Workspace::new());
    let outcome = run(&verified, 0, &mut ws, &mut after, &Variables::of_locals(&locals));

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
        seen.extend(Elements::new(ws.log()).map(|element| match element.unwrap() {
            Element::Memory(bytes) => format!("mem{}", hex(bytes)),
            Element::String(bytes) => format!("str \"{}\"", std::str::from_utf8(bytes).unwrap()),
            Element::Words(words) => format!("words{}", numbers(words.iter())),
            Element::Locals(words) => format!("locals{}", numbers(words.iter())),
            Element::Globals(words) => format!("globals{}", numbers(words.iter())),
            Element::Fault(addr) => format!("fault{}", numbers([addr])),
            other => format!("{other:?}"),
        }));
    }
    seen.extend(outcome.log_overflow.then(|| "overflow".to_owned()));
    seen.extend(outcome.major.map(|major| format!("major {major:#x}")));
    seen.extend(outcome.minor.map(|minor| format!("minor {minor:#x}")));
    let locals: Vec<u64> = locals.iter().map(|local| local.load(Ordering::Relaxed)).collect();
    if locals != values {
        seen.push(format!("lv{}", numbers(locals)));
    }
    for reg in Reg::ALL.iter().filter(|reg| reg.is_writable()) {
        let index = usize::from(reg.number());
        if before.regs[index] != after.regs[index] {
            seen.push(format!("reg {reg} {:#x}", after.regs[index]));
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

/// Those whose cases are written; the others follow.
fn has_cases(op: Op) -> bool {
    !matches!(op.byte(), 0x0e..=0x10 | 0x1c..=0x28 | 0x48 | 0x49 | 0x5d..=0x61 | 0x70..=0x89 | 0x8c..=0x98 | 0x9d..)
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
    let missing: Vec<_> = count.iter().filter(|(op, n)| has_cases(**op) && **n < 3).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
