//! The engine in a test kernel: its host, its traps, and the programs the tests insert.

#![no_std]
#![warn(missing_docs)]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use bootimage::symbols;
use dprobes::insn::Insn;
use dprobes::probe::{Engine, InsertError};
use dprobes::record::element::{Element, Elements};
use dprobes::record::header::Header;
use dprobes::rpn::object::layout::{self, Point};
use dprobes::rpn::object::{Location, Place, resolve, seal};
use dprobes::trap::entry::EngineRef;
use dprobes::trap::idt::{Gate, PatchedGate};
use dprobes::wire::ProbeStatus;
use spin::Once;
use zerocopy::{FromBytes, IntoBytes};

pub mod attach;
mod call;
mod host;
pub mod migrant;
pub mod passes;

pub use call::{Registers, call_with};
pub use host::{Barrier, FACILITY, Kernel, USER_SLOTS};

/// The engine of this kernel.
pub static ENGINE: Once<Engine<Kernel>> = Once::new();

/// How the exception entries find it.
pub struct TheEngine;

impl EngineRef for TheEngine {
    type Host = Kernel;

    const SWAPS_GS: bool = true;

    fn engine() -> Option<&'static Engine<Kernel>> {
        ENGINE.get()
    }
}

/// Exceptions the engine is put in front of: #BP, #DB, and the faults that a copied instruction may raise.
pub const VECTORS: &[u8] = &[0, 1, 3, 5, 6, 7, 11, 12, 13, 14, 16, 17, 19];

/// The engine, with its gates in the descriptor table; made by the first call.
pub fn engine() -> &'static Engine<Kernel> {
    engine_for(VECTORS)
}

/// The engine, in front of these exceptions; made by the first call.
pub fn engine_for(vectors: &[u8]) -> &'static Engine<Kernel> {
    ENGINE.call_once(|| {
        let engine = Engine::new(Kernel::new()).expect("memory for the engine");
        for vector in vectors {
            // It stays patched as long as this kernel runs.
            let _ = patch_gate(*vector);
        }
        engine
    })
}

/// The engine, attached through the kernel's hooks: no gate is patched. Made by the first call.
pub fn engine_by_hooks() -> &'static Engine<Kernel> {
    ENGINE.call_once(|| {
        let engine = Engine::new(Kernel::new()).expect("memory for the engine");
        attach::attach().expect("hooks to attach to");
        engine
    })
}

/// Puts the engine in front of one exception.
pub fn patch_gate(vector: u8) -> PatchedGate {
    // SAFETY: the runtime keeps one writable table for all CPUs, its handlers expect what the CPU pushes, and kernel code is
    // compiled without a red zone.
    unsafe { PatchedGate::install::<TheEngine>(idt(), vector) }.expect("a gate that can be patched")
}

/// The descriptor table.
pub fn idt() -> *mut Gate {
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let mut pointer = Pointer { limit: 0, base: 0 };
    // SAFETY: SIDT writes ten bytes, the size of `Pointer`.
    unsafe { core::arch::asm!("sidt [{}]", in(reg) &raw mut pointer, options(nostack, preserves_flags)) };
    pointer.base as *mut Gate
}

static PROGRAMS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/programs.rs"));

/// The object of tests/programs/NAME.rpn, with `place0`, `place1`, ... at these addresses.
pub fn program(name: &str, places: &[u64]) -> Vec<u8> {
    let (_, object) = PROGRAMS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a program of this name");
    let mut object = object.to_vec();
    let find = |_, location: Location<'_>| match location {
        Location::Symbol { name, addend: 0 } => {
            let index: usize = name
                .strip_prefix("place")
                .and_then(|index| index.parse().ok())
                .ok_or("not a place")?;
            places.get(index).copied().map(Place::Absolute).ok_or("no such place")
        }
        _ => Err("not a symbol"),
    };
    resolve(&mut object, find, |_| Err("a symbol in the code")).expect("an object that can be resolved");
    object
}

/// The object of tests/programs/NAME.rpn, which has one point, with a point at each of these addresses; minor codes count from 1. All
/// have the one handler.
pub fn program_at(name: &str, addresses: &[u64]) -> Vec<u8> {
    let one = program(name, &[0]);
    let (mut header, rest) = layout::Header::read_from_prefix(&one).expect("an object");
    let (mut point, rest) = Point::read_from_prefix(rest).expect("its point");
    header.points.set(addresses.len() as u32);
    let mut object = header.as_bytes().to_vec();
    for (minor, address) in (1..).zip(addresses) {
        point.minor.set(minor);
        point.value.set(*address);
        object.extend_from_slice(point.as_bytes());
    }
    object.extend_from_slice(rest);
    seal(&mut object).expect("an object of moderate length");
    object
}

/// Inserts tests/programs/NAME.rpn with its points at these addresses.
pub fn insert(name: &str, places: &[u64]) -> Result<(), InsertError> {
    engine().insert(&program(name, places))
}

/// The code of an assembly function of the test's own.
pub fn function(name: &str) -> &'static [u8] {
    let function = symbols::function_named(name).expect("a function of this name");
    let len = (function.code.end - function.code.start) as usize;
    // SAFETY: the kernel's text is readable and never unmapped. Breakpoints may come and go in it, a byte at a time.
    unsafe { core::slice::from_raw_parts(function.code.start as *const u8, len) }
}

/// The addresses of a function's instructions. To be asked before there are probes in it.
pub fn instructions(name: &str) -> Vec<u64> {
    let code = function(name);
    let mut at = 0;
    let mut addresses = Vec::new();
    while at < code.len() {
        addresses.push(code.as_ptr() as u64 + at as u64);
        at += Insn::decode(&code[at..]).expect("an instruction").len();
    }
    addresses
}

/// Removes the program with this major code, and gives the final state of its probes.
pub fn remove(major: u16) -> Vec<ProbeStatus> {
    let mut last = Vec::new();
    engine()
        .remove(b"kernel", major, &mut |status| last.push(*status))
        .expect("a program to remove");
    last
}

/// The state of a probe.
pub fn status(major: u16, minor: u16) -> ProbeStatus {
    let mut found = None;
    engine().query(&mut |status| {
        if (status.major, status.minor) == (major, minor) {
            found = Some(*status);
        }
    });
    found.expect("a probe with these codes")
}

/// A record that was read.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its head.
    pub header: Header,
    /// Its elements.
    pub elements: Vec<u8>,
}

impl Record {
    /// The words of its first element of words.
    pub fn words(&self) -> Vec<u64> {
        Elements::new(&self.elements)
            .find_map(|element| match element {
                Ok(Element::Words(words)) => Some(words.iter().collect()),
                _ => None,
            })
            .unwrap_or_default()
    }
}

/// Reads and frees every record, after a grace period, CPU by CPU.
pub fn records() -> Vec<Record> {
    engine().settle();
    let mut records = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    for cpu in 0..bootimage::smp::cpu_count() {
        loop {
            let written = engine().read_records(cpu, &mut buffer);
            if written == 0 {
                break;
            }
            let mut rest = &buffer[..written];
            while let Some(header) = Header::parse(rest) {
                let (record, after) = rest.split_at(header.length as usize);
                let elements = record[Header::SIZE..][..header.elements as usize].to_vec();
                records.push(Record { header, elements });
                rest = after;
            }
        }
    }
    records
}

/// The number that the command line has for a name: `name=number`.
pub fn option(name: &str) -> Option<u64> {
    bootimage::info::boot_info()
        .command_line()
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .map(|number| number.parse().expect("a number"))
}
