//! Probe programs for the tests, through the real assembler.

use std::fmt::Write;

/// A probe that counts and leaves no record.
pub const COUNT: &str = "inc lv, 0\nabort";

/// A program for the kernel that runs `code` at each address; minor codes count from 1.
pub fn at(major: u16, addresses: &[u64], code: &str) -> Vec<u8> {
    with(major, addresses, "", code)
}

/// The same, with more settings for each probe.
pub fn with(major: u16, addresses: &[u64], settings: &str, code: &str) -> Vec<u8> {
    let mut text = format!("name = \"kernel\"\nmodtype = kernel\nmajor = {major}\nvars = 4\n");
    for (minor, address) in (1..).zip(addresses) {
        // Labels are the program's, not the probe's.
        let code = code.replace('%', &minor.to_string());
        writeln!(text, "\naddress = {address:#x}\nminor = {minor}\n{settings}\n{code}").expect("a string grows");
    }
    assemble(&text)
}

/// Assembles a program.
///
/// # Panics
/// If it has a mistake.
pub fn assemble(text: &str) -> Vec<u8> {
    match rpn_asm::assemble("test.rpn", text, &rpn_asm::Options::default()) {
        Ok(assembled) => assembled.object,
        Err(mistakes) => panic!("{text}\n{mistakes}"),
    }
}
