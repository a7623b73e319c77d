//! Registers that belong to the CPU and not to the interrupted code's frame, read live.
//!
//! No trap saves them and the engine uses none of them, so that in a handler they hold what the probed instruction would find: in
//! Linux, the vector registers of the task, unless the kernel has put them away. A register that this CPU does not have, that is
//! switched off, or that the privilege level of the engine may not read is `None`; reading never faults.

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;

use crate::rpn::interp::PortWidth;
use crate::rpn::reg::Reg;

mod x87;

/// CR0.EM: x87 and legacy SSE instructions raise an exception (SDM volume 3, 2.5).
const CR0_EM: u64 = 1 << 2;
/// CR0.TS: so do these and AVX, until the kernel has switched their state.
const CR0_TS: u64 = 1 << 3;
/// CR4.OSFXSR: legacy SSE instructions are allowed.
const CR4_OSFXSR: u64 = 1 << 9;
/// CR4.OSXSAVE: XCR0 is there, and says what else is allowed.
const CR4_OSXSAVE: u64 = 1 << 18;
/// XCR0: SSE and AVX state (SDM volume 1, 13.1).
const XCR0_AVX: u64 = 0b110;
/// XCR0: as above, and mask registers, upper halves of zmm0-15, and zmm16-31.
const XCR0_AVX512: u64 = 0b1110_0110;

const IA32_FS_BASE: u32 = 0xc000_0100;
const IA32_GS_BASE: u32 = 0xc000_0101;

/// The words of a register that is not in a frame, the lowest first: a descriptor table's limit, then its base.
pub(super) fn register(register: Reg) -> Option<[u64; 8]> {
    if register == Reg::Xcr0 {
        return xcr0().map(one);
    }
    let ring0 = Ring0::new()?;
    let x87 = |which: fn([u64; 3]) -> u64| ring0.x87().map(which).map(one);
    Some(match register {
        Reg::Cr0 => one(ring0.cr0()),
        Reg::Cr2 => one(ring0.cr2()),
        Reg::Cr3 => one(ring0.cr3()),
        Reg::Cr4 => one(ring0.cr4()),
        Reg::Cr8 => one(ring0.cr8()),
        Reg::Dr0 => one(ring0.dr0()),
        Reg::Dr1 => one(ring0.dr1()),
        Reg::Dr2 => one(ring0.dr2()),
        Reg::Dr3 => one(ring0.dr3()),
        Reg::Dr6 => one(ring0.dr6()),
        Reg::Dr7 => one(ring0.dr7()),
        Reg::Ldtr => one(ring0.ldtr()),
        Reg::Tr => one(ring0.tr()),
        Reg::Gdtr => two(ring0.gdtr()),
        Reg::Idtr => two(ring0.idtr()),
        Reg::FsBase => one(ring0.fs_base()),
        Reg::GsBase => one(ring0.gs_base()),
        Reg::Mxcsr => one(ring0.mxcsr()?),
        Reg::Fcw => x87(|[control, _, _]| control)?,
        Reg::Fsw => x87(|[_, status, _]| status)?,
        Reg::Ftw => x87(|[_, _, tags]| tags)?,
        _ => {
            let number = register.number();
            let width = match number >> 5 {
                4 => Vector::Xmm,
                5 => Vector::Ymm,
                6 => Vector::Zmm,
                // A trap saves it.
                _ => return None,
            };
            ring0.vector(width, (number & 0x1f) as u8)?
        }
    })
}

// The numbers that the vector registers are told by.
const _: () = {
    assert!(Reg::Xmm0.number() == 4 << 5 && Reg::Xmm31.number() == (4 << 5) + 31);
    assert!(Reg::Ymm0.number() == 5 << 5 && Reg::Ymm31.number() == (5 << 5) + 31);
    assert!(Reg::Zmm0.number() == 6 << 5 && Reg::Zmm31.number() == (6 << 5) + 31);
};

fn one(word: u64) -> [u64; 8] {
    [word, 0, 0, 0, 0, 0, 0, 0]
}

fn two([low, high]: [u64; 2]) -> [u64; 8] {
    [low, high, 0, 0, 0, 0, 0, 0]
}

/// What `cpuid` says: eax, ebx, ecx, edx.
pub(super) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let result = __cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// The time-stamp counter.
pub(super) fn tsc() -> u64 {
    // SAFETY: reads a counter. No kernel that this runs in, nor Linux for its processes, sets CR4.TSD.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// XCR0, wherever there is one: CPUID.1:ECX.OSXSAVE says so at every privilege level.
fn xcr0() -> Option<u64> {
    const OSXSAVE: u32 = 1 << 27;
    let [_, _, features, _] = cpuid(1, 0);
    // SAFETY: CR4.OSXSAVE is set.
    (features & OSXSAVE != 0).then(|| unsafe { xgetbv() })
}

/// # Safety
/// CR4.OSXSAVE is set.
unsafe fn xgetbv() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: by this function's contract XGETBV is allowed, and register 0 always exists.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    u64::from(low) | u64::from(high) << 32
}

/// The width of a vector register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vector {
    Xmm,
    Ymm,
    Zmm,
}

/// Defines functions that read registers which exist wherever there is ring 0.
macro_rules! mov_from {
    ($($name:ident)*) => {
        $(
            fn $name(self) -> u64 {
                let value;
                // SAFETY: allowed in ring 0, and without effect.
                unsafe {
                    asm!(concat!("mov {}, ", stringify!($name)), out(reg) value, options(nomem, nostack, preserves_flags));
                }
                value
            }
        )*
    };
}

/// The engine runs in ring 0: the proof that what ring 0 may read can be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ring0(());

impl Ring0 {
    pub(super) fn new() -> Option<Self> {
        let cs: u16;
        // SAFETY: reading a segment register has no effect.
        unsafe { asm!("mov {0:x}, cs", out(reg) cs, options(nomem, nostack, preserves_flags)) };
        (cs & 3 == 0).then_some(Ring0(()))
    }

    mov_from!(cr0 cr2 cr3 cr4 cr8);
    // Reading a debug register traps if DR7.GD is set, which no kernel sets in a handler unless it debugs itself.
    mov_from!(dr0 dr1 dr2 dr3 dr6 dr7);

    /// Selector of the local descriptor table.
    fn ldtr(self) -> u64 {
        let selector: u64;
        // SAFETY: without effect; in ring 0 allowed with UMIP too.
        unsafe { asm!("sldt {:r}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
        selector & 0xffff
    }

    /// Selector of the task state segment.
    fn tr(self) -> u64 {
        let selector: u64;
        // SAFETY: as above.
        unsafe { asm!("str {:r}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
        selector & 0xffff
    }

    /// Limit and base of the global descriptor table.
    fn gdtr(self) -> [u64; 2] {
        let mut table = Table::default();
        // SAFETY: writes the ten bytes of the structure; in ring 0 allowed with UMIP too.
        unsafe { asm!("sgdt [{}]", in(reg) &raw mut table, options(nostack, preserves_flags)) };
        table.words()
    }

    /// Limit and base of the interrupt descriptor table.
    fn idtr(self) -> [u64; 2] {
        let mut table = Table::default();
        // SAFETY: as above.
        unsafe { asm!("sidt [{}]", in(reg) &raw mut table, options(nostack, preserves_flags)) };
        table.words()
    }

    fn fs_base(self) -> u64 {
        // SAFETY: in ring 0 of long mode the register exists.
        unsafe { rdmsr(IA32_FS_BASE) }
    }

    fn gs_base(self) -> u64 {
        // SAFETY: as above.
        unsafe { rdmsr(IA32_GS_BASE) }
    }

    /// MXCSR.
    fn mxcsr(self) -> Option<u64> {
        if !self.has_legacy_sse() {
            return None;
        }
        let mut value = 0_u32;
        // SAFETY: STMXCSR is allowed, which was checked, and writes four bytes.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        Some(u64::from(value))
    }

    /// The x87 control, status and tag words.
    fn x87(self) -> Option<[u64; 3]> {
        if self.cr0() & (CR0_EM | CR0_TS) != 0 {
            return None;
        }
        // SAFETY: FXSAVE is allowed with these bits clear (SDM volume 2, FXSAVE), and every 64-bit CPU has it.
        Some(unsafe { x87::words() })
    }

    /// A vector register, numbered 0 to 31: its lowest word first, zero above its width.
    fn vector(self, width: Vector, number: u8) -> Option<[u64; 8]> {
        let mut place = Place([0; 8]);
        let known = match (width, number) {
            // Without AVX-512VL the narrow names of 16 to 31 do not exist, but the registers do.
            (Vector::Zmm, _) | (_, 16..) => {
                // SAFETY: the state is switched on, which is checked first.
                self.has_vex(XCR0_AVX512) && unsafe { store_zmm(number, &mut place) }
            }
            // SAFETY: as above.
            (Vector::Ymm, _) => self.has_vex(XCR0_AVX) && unsafe { store_ymm(number, &mut place) },
            // SAFETY: as above.
            (Vector::Xmm, _) => self.has_legacy_sse() && unsafe { store_xmm(number, &mut place) },
        };
        let kept = match width {
            Vector::Xmm => 2,
            Vector::Ymm => 4,
            Vector::Zmm => 8,
        };
        for word in place.0.iter_mut().skip(kept) {
            *word = 0;
        }
        known.then_some(place.0)
    }

    fn has_legacy_sse(self) -> bool {
        self.cr0() & (CR0_EM | CR0_TS) == 0 && self.cr4() & CR4_OSFXSR != 0
    }

    /// Can instructions be executed that need this state in XCR0? A bit of XCR0 can only be set where the CPU has the state.
    fn has_vex(self, state: u64) -> bool {
        self.cr0() & CR0_TS == 0
            && self.cr4() & CR4_OSXSAVE != 0
            // SAFETY: CR4.OSXSAVE is set.
            && unsafe { xgetbv() } & state == state
    }

    /// Reads from an I/O port.
    pub(super) fn port_read(self, port: u16, width: PortWidth) -> u32 {
        let value: u32;
        // SAFETY: ring 0 may access every port. What reading does to the device is what the program's author asked for.
        unsafe {
            match width {
                PortWidth::U8 => {
                    let byte: u8;
                    asm!("in al, dx", in("dx") port, out("al") byte, options(nostack, preserves_flags));
                    value = u32::from(byte);
                }
                PortWidth::U16 => {
                    let word: u16;
                    asm!("in ax, dx", in("dx") port, out("ax") word, options(nostack, preserves_flags));
                    value = u32::from(word);
                }
                PortWidth::U32 => {
                    asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags));
                }
            }
        }
        value
    }

    /// Writes to an I/O port, as many of the low bits as it is wide.
    pub(super) fn port_write(self, port: u16, width: PortWidth, value: u32) {
        // SAFETY: as for reading.
        unsafe {
            match width {
                PortWidth::U8 => {
                    asm!("out dx, al", in("dx") port, in("al") value as u8, options(nostack, preserves_flags));
                }
                PortWidth::U16 => {
                    asm!("out dx, ax", in("dx") port, in("ax") value as u16, options(nostack, preserves_flags));
                }
                PortWidth::U32 => {
                    asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags));
                }
            }
        }
    }
}

/// Does a code segment hold 64-bit code (SDM volume 3, 3.4.5: the L flag)?
pub(super) fn is_64_bit(selector: u64) -> bool {
    const L: u32 = 1 << 21;
    let (rights, known): (u32, u8);
    // SAFETY: LAR is allowed at every privilege level, changes the zero flag only, and survives any selector.
    unsafe {
        asm!("lar {0:e}, {2:e}", "setz {1}", out(reg) rights, out(reg_byte) known, in(reg) selector as u32, options(nomem, nostack));
    }
    known == 1 && rights & L != 0
}

/// # Safety
/// The engine runs in ring 0, and the register exists.
unsafe fn rdmsr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: by this function's contract RDMSR does not fault; reading these registers has no effect.
    unsafe {
        asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(low) | u64::from(high) << 32
}

/// What SGDT and SIDT store.
#[derive(Default)]
#[repr(C, packed)]
struct Table {
    limit: u16,
    base: u64,
}

impl Table {
    fn words(&self) -> [u64; 2] {
        [u64::from(self.limit), self.base]
    }
}

/// Room for the widest register.
#[repr(align(64))]
struct Place([u64; 8]);

/// Defines a function that stores the vector register with a number; false when there is none.
macro_rules! store {
    ($function:ident, $mnemonic:literal, $register:literal, $($number:literal)*) => {
        /// # Safety
        /// The instruction can be executed: the CPU has it and its state is switched on.
        unsafe fn $function(number: u8, place: &mut Place) -> bool {
            match number {
                $(
                    // SAFETY: by this function's contract; it writes at most the 64 bytes of the place.
                    $number => unsafe {
                        asm!(
                            concat!($mnemonic, " [{}], ", $register, $number),
                            in(reg) &raw mut *place,
                            options(nostack, preserves_flags),
                        );
                    },
                )*
                _ => return false,
            }
            true
        }
    };
}

store!(store_xmm, "movups", "xmm", 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
store!(store_ymm, "vmovups", "ymm", 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
store!(
    store_zmm, "vmovups", "zmm",
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
);
