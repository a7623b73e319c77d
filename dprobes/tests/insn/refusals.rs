//! What cannot be probed: numbers, words, and the page about it.

use dprobes::insn::Refusal;

const PAGE: &str = include_str!("../../../docs/instructions.md");

#[test]
fn numbers_are_stable() {
    let numbers = Refusal::ALL.map(|refusal| refusal as u32);
    assert_eq!(numbers, [1, 2, 5, 6, 10, 12, 13, 14, 15, 16]);
    for code in 0..1000 {
        let known = Refusal::from_code(code);
        assert_eq!(known.is_some(), numbers.contains(&code));
        assert!(known.is_none_or(|refusal| refusal as u32 == code));
    }
}

#[test]
fn each_is_explained() {
    let rows: Vec<&str> = PAGE
        .split("## What cannot be probed")
        .nth(1)
        .expect("the section")
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| number"))
        .collect();
    assert_eq!(rows.len(), Refusal::ALL.len());
    for (refusal, row) in Refusal::ALL.iter().zip(rows) {
        let start = format!("| {} | {refusal:?} |", *refusal as u32);
        assert!(row.starts_with(&start), "{row}\ndoes not begin with {start}");
        assert!(refusal.to_string().len() > 20 && !refusal.to_string().ends_with('.'));
    }
}
