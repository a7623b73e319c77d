//! Cases in files: blocks that once were not the same, or deserve to be tried each time.
//!
//! ```text
//! # What it is about.
//! at     = 0x12ff0                  where in the code the block begins
//! code   = 9c                       its instructions, one a line
//! code   = 48 81 0c 24 00 01 00 00
//! rdi    = arena+0x41ff8            a register; those that are not named are zero
//! flags  = 0x202
//! ```
//!
//! `fcw`, `mxcsr`, `memory` and `vectors` are numbers, as [`Start`] has them.

use std::fmt::Write;

use crate::arena::Arena;
use crate::block::Block;
use crate::state::{NAMES, Start};

const ARENA: &str = "arena+";

pub fn parse(text: &str, arena: &Arena) -> Result<(Block, Start), String> {
    let mut block = Block {
        at: 0,
        instructions: Vec::new(),
    };
    let mut start = Start {
        registers: [0; 16],
        flags: 0x202,
        fcw: 0x37f,
        mxcsr: 0x1f80,
        memory: 0,
        vectors: 0,
    };
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let wrong = |what: &str| format!("line {}: {what}: {line}", number + 1);
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("not `name = value`"))?;
        let (name, value) = (name.trim(), value.trim());
        if name == "code" {
            let bytes: Result<Vec<u8>, _> = value.split(' ').map(|byte| u8::from_str_radix(byte, 16)).collect();
            block.instructions.push(bytes.map_err(|_| wrong("not bytes"))?);
            continue;
        }
        let value = self::value(value, arena).ok_or_else(|| wrong("not a number"))?;
        match name {
            "at" => block.at = value as usize,
            "flags" => start.flags = value,
            "fcw" => start.fcw = value as u16,
            "mxcsr" => start.mxcsr = value as u32,
            "memory" => start.memory = value as usize,
            "vectors" => start.vectors = value,
            _ => {
                let register = NAMES.iter().position(|known| *known == name);
                start.registers[register.ok_or_else(|| wrong("not a register"))?] = value;
            }
        }
    }
    if block.instructions.is_empty() {
        return Err("there is no code".into());
    }
    Ok((block, start))
}

fn value(text: &str, arena: &Arena) -> Option<u64> {
    let (base, number) = match text.strip_prefix(ARENA) {
        Some(offset) => (arena.start(), offset),
        None => (0, text),
    };
    let number = match number.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => number.parse().ok()?,
    };
    Some(base.wrapping_add(number))
}

pub fn format(block: &Block, start: &Start, arena: &Arena) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "at = {:#x}", block.at);
    for (instruction, at) in block.instructions.iter().zip(block.offsets()) {
        let bytes: Vec<String> = instruction.iter().map(|byte| format!("{byte:02x}")).collect();
        let decoded = crate::block::decode(instruction, at as u64);
        let _ = writeln!(text, "code = {:45} # {decoded}", bytes.join(" "));
    }
    for (name, value) in NAMES.iter().zip(start.registers) {
        let _ = match arena.offset(value) {
            _ if value == 0 => Ok(()),
            Some(offset) => writeln!(text, "{name} = {ARENA}{offset:#x}"),
            None => writeln!(text, "{name} = {value:#x}"),
        };
    }
    let _ = writeln!(text, "flags = {:#x}", start.flags);
    let _ = writeln!(text, "fcw = {:#x}", start.fcw);
    let _ = writeln!(text, "mxcsr = {:#x}", start.mxcsr);
    let _ = writeln!(text, "memory = {}", start.memory);
    let _ = writeln!(text, "vectors = {}", start.vectors);
    text
}
