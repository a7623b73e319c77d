//! What a block starts with, and ends with.

use std::arch::asm;
use std::fmt;
use std::mem;
use std::sync::OnceLock;

use crate::arena::{Arena, DATA, IMAGE, LOW, MEMORIES, READ_ONLY, STACK};
use crate::random::Random;

pub const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
];

/// Bytes of the image of x87, SSE, AVX and AVX-512, in the standard format. What is behind is not the program's.
const EXTENDED: usize = 2688;

/// What is not compared: FOP, FIP and FDP, the mask of MXCSR, what FXSAVE leaves alone, and the header.
const UNDEFINED: [std::ops::Range<usize>; 4] = [6..24, 28..32, 416..576, EXTENDED..4096];

/// Registers, as the assembly in [`run`](crate::run) knows them.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct State {
    /// In the order of their numbers in instructions.
    pub registers: [u64; 16],
    pub flags: u64,
    /// DS, ES, GS, SS.
    pub segments: [u16; 4],
    pub gs_base: u64,
    /// May RDGSBASE be used?
    pub has_fsgsbase: u64,
    unused: [u64; 12],
    /// As XSAVE leaves it.
    pub extended: [u8; 4096],
}

const _: () = assert!(mem::offset_of!(State, flags) == 128 && mem::offset_of!(State, segments) == 136);
const _: () = assert!(mem::offset_of!(State, gs_base) == 144 && mem::offset_of!(State, has_fsgsbase) == 152);
const _: () = assert!(mem::offset_of!(State, extended) == 256);

impl State {
    pub fn zero() -> Self {
        State {
            registers: [0; 16],
            flags: 0,
            segments: [0; 4],
            gs_base: 0,
            has_fsgsbase: 0,
            unused: [0; 12],
            extended: [0; 4096],
        }
    }

    /// Takes out what is not defined, or tells where the copy of an instruction was: the addresses of the last x87 instruction and
    /// its operand, and what is not in the image. RF is the CPU's mark on a fault.
    pub fn clean(&mut self) {
        for range in UNDEFINED {
            self.extended[range].fill(0);
        }
        self.flags &= !(1 << 16);
        // Any interrupt makes a null selector 0 (SDM volume 2, IRET: return to an outer privilege level).
        for selector in &mut self.segments {
            if *selector < 4 {
                *selector = 0;
            }
        }
        self.has_fsgsbase = 0;
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: a structure of integers without padding, which lives as long as the slice.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), mem::size_of::<Self>()) }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in NAMES.iter().zip(self.registers).chain([(&"flags", self.flags)]) {
            write!(f, "{name} {value:x} ")?;
        }
        write!(f, "segments {:x?} gs_base {:x} ", self.segments, self.gs_base)?;
        let word = |at: usize, len: usize| {
            self.extended[at..at + len]
                .iter()
                .rev()
                .fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
        };
        writeln!(f, "fcw {:x} fsw {:x} mxcsr {:x}", word(0, 2), word(2, 2), word(24, 4))
    }
}

/// With what a block is started: few numbers, and readable in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    pub registers: [u64; 16],
    pub flags: u64,
    pub fcw: u16,
    pub mxcsr: u32,
    /// Which of the [memories](MEMORIES) there is.
    pub memory: usize,
    /// What the vector and x87 registers are made from.
    pub vectors: u64,
}

/// How many different contents of the vector registers there are.
const VECTORS: u64 = 64;

impl Start {
    pub fn random(random: &mut Random, arena: &Arena) -> Self {
        let mut registers = [0; 16].map(|_: u64| value(random));
        if random.one_in(2) {
            registers[1] = random.below(40) | if random.one_in(3) { random.next() << 32 } else { 0 };
        }
        // Half of them have good addresses only; else blocks would not get far.
        let calm = random.one_in(2);
        let more: &[usize] = if calm { &[11, 13, 14] } else { &[] };
        for pointer in [3, 5, 6, 7, 12, 15].iter().chain(more) {
            registers[*pointer] = if calm {
                let start = if random.one_in(5) {
                    LOW
                } else {
                    arena.address(DATA.start + 512)
                };
                start + random.below(56) * 64 + random.choose(&[0, 0, 0, 8, 1])
            } else {
                pointer_value(random, arena)
            };
        }
        registers[4] = arena.address(STACK.start + STACK.len() / 2) + random.below(16) * 8;
        if random.one_in(8) {
            registers[4] = match random.below(4) {
                0 => arena.address(STACK.start) + random.below(33),
                1 => arena.address(STACK.end) - random.below(33),
                2 => registers[4] + random.below(8),
                _ => pointer_value(random, arena),
            };
        }
        // CF PF AF ZF SF DF OF
        let mut flags = 0x202 | random.next() & 0xcd5;
        if !random.one_in(4) {
            flags &= !0x400;
        }
        if random.one_in(16) {
            flags |= 1 << 18; // AC
        }
        if random.one_in(32) {
            flags |= random.next() & (1 << 21 | 1 << 14); // ID, NT
        }
        let usual = !random.one_in(16);
        Start {
            registers,
            flags,
            fcw: if usual { 0x37f } else { random.next() as u16 },
            mxcsr: if usual { 0x1f80 } else { random.next() as u32 & 0xffff },
            memory: random.below(MEMORIES as u64) as usize,
            vectors: random.below(VECTORS),
        }
    }

    /// The whole state.
    pub fn state(&self) -> State {
        let mut state = State::zero();
        state
            .extended
            .copy_from_slice(&vectors()[(self.vectors % VECTORS) as usize]);
        state.registers = self.registers;
        state.flags = self.flags;
        state.has_fsgsbase = u64::from(has_fsgsbase());
        state.extended[..2].copy_from_slice(&self.fcw.to_le_bytes());
        state.extended[24..28].copy_from_slice(&self.mxcsr.to_le_bytes());
        state
    }
}

/// A number as programs have them: small, 32 bits, at the edges, or anything.
fn value(random: &mut Random) -> u64 {
    match random.below(8) {
        0 | 1 => random.below(64),
        2 => random.next() as u32 as u64,
        3 => (random.next() as i8) as u64,
        4 => random.choose(&[0, 1, u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 31, 0xffff_ffff, 0x8000]),
        _ => random.next(),
    }
}

/// An address: mostly good, else at an edge or where there is nothing.
fn pointer_value(random: &mut Random, arena: &Arena) -> u64 {
    let near = |offset: usize, random: &mut Random| arena.address(offset) + random.below(80) - 72;
    match random.below(20) {
        0 => near(DATA.start + DATA.len() / 2, random),
        1 => near(DATA.start, random) + 72,
        2 => near(DATA.end, random),
        3 => near(READ_ONLY.end, random),
        4 => arena.address(READ_ONLY.start) + random.below(3000),
        // A gap.
        5 => arena.address(READ_ONLY.end) + random.below(4096),
        6 => random.choose(&[
            0,
            8,
            0x8000_0000_0000,
            0x7fff_ffff_fff9,
            u64::MAX,
            0xffff_8000_0000_0000,
        ]),
        7 => arena.address(IMAGE),
        8 => LOW + 64 * random.below(56) + if random.one_in(2) { 0 } else { random.below(64) },
        9..=13 => arena.address(DATA.start + 256) + random.below(48) * 64,
        _ => arena.address(DATA.start + 256) + random.below(4096),
    }
}

/// Contents of the vector and x87 registers, with a header that XRSTOR takes.
fn vectors() -> &'static [[u8; 4096]] {
    static VECTOR_IMAGES: OnceLock<Vec<[u8; 4096]>> = OnceLock::new();
    VECTOR_IMAGES.get_or_init(|| {
        let image = |number| {
            let mut random = Random::new(2000 + number);
            let mut image = [0; 4096];
            // The lower halves of half of them are floating-point numbers of both sizes, special ones among them.
            for (index, word) in image[..EXTENDED].chunks_exact_mut(8).enumerate() {
                let value = match (index + number as usize) % 5 {
                    0 => random.next(),
                    1 => (random.below(2000) as f64 / 8.0 - 50.0).to_bits(),
                    2 => {
                        let single = |random: &mut Random| (random.below(2000) as f32 / 8.0 - 50.0).to_bits();
                        u64::from(single(&mut random)) << 32 | u64::from(single(&mut random))
                    }
                    3 => random.choose(&[0, 1 << 63, 0x7ff0 << 48, 0x7ff8 << 48, 1, 0x7f80_0000_ff80_0001]),
                    _ => random.next() & random.next() & random.next(),
                };
                word.copy_from_slice(&value.to_le_bytes());
            }
            let status = random.next() as u16 & 0x7f7f; // FSW without a pending exception
            image[2..4].copy_from_slice(&(status & 0x7f00).to_le_bytes());
            image[4] = if number % 4 == 0 { 0 } else { random.byte() }; // FTW
            image[5..24].fill(0);
            image[28..32].fill(0);
            image[416..576].fill(0);
            image[512] = 0xe7 & enabled_components() as u8; // XSTATE_BV
            image
        };
        (0..VECTORS).map(image).collect()
    })
}

/// XCR0.
fn enabled_components() -> u32 {
    let low: u32;
    // SAFETY: XGETBV with ECX = 0 reads XCR0; whatever runs these tests has AVX, and with it OSXSAVE.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack, preserves_flags)) };
    low
}

/// Has the kernel allowed RDFSBASE and its relatives?
pub fn has_fsgsbase() -> bool {
    /// From the kernel's arch/x86/include/uapi/asm/hwcap2.h.
    const HWCAP2_FSGSBASE: u64 = 1 << 1;
    // SAFETY: only asks.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & HWCAP2_FSGSBASE != 0 }
}
