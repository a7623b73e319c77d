//! The table of what each instruction of the language does, in ring 0.
#![no_std]
#![no_main]

extern crate alloc;

use bootimage::println;
use conformance::{CASES, run_all};

bootimage::test_main! { tests: [every_case_is_as_on_the_host] }

/// What a case does is compared with the table as bytes of text, as on the host and in Linux.
fn every_case_is_as_on_the_host() {
    let totals = run_all(|case, seen| println!("{}: expected {}, seen {seen}", case.program, case.expected));
    println!("{} cases, digest {:#x}", totals.cases, totals.digest);
    assert_eq!(totals.failed, 0);
    assert_eq!(totals.cases, CASES.len() as u64);
}
