//! Control registers of each CPU.

use spin::Once;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

const XSAVE: u32 = 1 << 26;
const AVX: u32 = 1 << 28;

/// Lets SSE, and AVX where the CPU has it, be executed. The kernel itself is compiled without them; a test may probe such instructions.
/// Switches I/O breakpoints on, which every 64-bit CPU has.
pub(crate) fn init() {
    let features = core::arch::x86_64::__cpuid(1).ecx;
    // SAFETY: CR0.WP, paging and long mode stay as they are; FPU and vector state are enabled only where CPUID says they exist.
    unsafe {
        Cr0::update(|cr0| {
            cr0.remove(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED);
            cr0.insert(Cr0Flags::MONITOR_COPROCESSOR | Cr0Flags::NUMERIC_ERROR | Cr0Flags::WRITE_PROTECT);
        });
        Cr4::update(|cr4| cr4.insert(Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE | Cr4Flags::DEBUGGING_EXTENSIONS));
        if features & XSAVE != 0 {
            Cr4::update(|cr4| cr4.insert(Cr4Flags::OSXSAVE));
            let mut state = XCr0Flags::X87 | XCr0Flags::SSE;
            state.set(XCr0Flags::AVX, features & AVX != 0);
            XCr0::write(state);
        }
    }
}

/// Do we run on QEMU's translator (TCG)? It says so in the hypervisor's CPUID leaf.
pub(crate) fn is_qemu_translator() -> bool {
    static ANSWER: Once<bool> = Once::new();
    *ANSWER.call_once(|| {
        let under_hypervisor = core::arch::x86_64::__cpuid(1).ecx & 1 << 31 != 0;
        let leaf = core::arch::x86_64::__cpuid(0x4000_0000);
        let signature = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
        under_hypervisor && signature == [*b"TCGT", *b"CGTC", *b"GTCG"]
    })
}
