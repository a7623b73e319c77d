//! The table on the host.

use std::collections::{BTreeMap, BTreeSet};

use conformance::{CASES, run_all};
use dprobes::rpn::object::Object;
use dprobes::rpn::op::Op;

#[test]
fn every_case_is_as_it_should_be() {
    let totals = run_all(|case, seen| {
        println!("{}\n  expected {}\n  seen     {seen}", case.program, case.expected);
    });
    println!("{totals:x?}");
    assert_eq!(totals.failed, 0, "of {} cases", totals.cases);
    assert_eq!(totals.cases, CASES.len() as u64);
}

#[test]
fn every_instruction_has_three_cases() {
    let mut count: BTreeMap<Op, usize> = Op::ALL.iter().map(|op| (*op, 0)).collect();
    for case in CASES {
        let object = Object::parse(case.object).unwrap();
        let mut here = BTreeSet::new();
        let mut rest = object.code();
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
