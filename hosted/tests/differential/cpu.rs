//! Which instructions this CPU has, by CPUID.

use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

use iced_x86::{Code, CpuidFeature};

/// Does this CPU have an instruction, going by CPUID? What no bit is known for is taken for absent.
pub fn has(code: Code) -> bool {
    static KNOWN: OnceLock<Vec<bool>> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let has_all = |code: Code| code.cpuid_features().iter().all(|feature| has_feature(*feature));
        Code::values().map(has_all).collect()
    });
    known[code as usize]
}

fn has_feature(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    // Leaf, subleaf, register (EAX to EDX), bit: SDM volume 2, CPUID; AMD's APM volume 3, appendix E.
    let (leaf, subleaf, register, bit) = match feature {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::X64 | F::CPUID => return true,
        F::MULTIBYTENOP | F::PAUSE | F::FPU287 | F::FPU387 => return true,
        F::FPU => (1, 0, 3, 0),
        F::TSC => (1, 0, 3, 4),
        F::MSR => (1, 0, 3, 5),
        F::CX8 => (1, 0, 3, 8),
        F::SEP => (1, 0, 3, 11),
        F::CMOV => (1, 0, 3, 15),
        F::CLFSH => (1, 0, 3, 19),
        F::MMX => (1, 0, 3, 23),
        F::FXSR => (1, 0, 3, 24),
        F::SSE => (1, 0, 3, 25),
        F::SSE2 => (1, 0, 3, 26),
        F::SSE3 => (1, 0, 2, 0),
        F::PCLMULQDQ => (1, 0, 2, 1),
        F::MONITOR => (1, 0, 2, 3),
        F::SSSE3 => (1, 0, 2, 9),
        F::FMA => (1, 0, 2, 12),
        F::CMPXCHG16B => (1, 0, 2, 13),
        F::SSE4_1 => (1, 0, 2, 19),
        F::SSE4_2 => (1, 0, 2, 20),
        F::MOVBE => (1, 0, 2, 22),
        F::POPCNT => (1, 0, 2, 23),
        F::AES => (1, 0, 2, 25),
        F::XSAVE => (1, 0, 2, 27),
        F::AVX => (1, 0, 2, 28),
        F::F16C => (1, 0, 2, 29),
        F::RDRAND => (1, 0, 2, 30),
        F::FSGSBASE => (7, 0, 1, 0),
        F::BMI1 => (7, 0, 1, 3),
        F::HLE => (7, 0, 1, 4),
        F::AVX2 => (7, 0, 1, 5),
        F::BMI2 => (7, 0, 1, 8),
        F::INVPCID => (7, 0, 1, 10),
        F::RTM => (7, 0, 1, 11),
        F::AVX512F => (7, 0, 1, 16),
        F::AVX512DQ => (7, 0, 1, 17),
        F::RDSEED => (7, 0, 1, 18),
        F::ADX => (7, 0, 1, 19),
        F::SMAP => (7, 0, 1, 20),
        F::AVX512_IFMA => (7, 0, 1, 21),
        F::CLFLUSHOPT => (7, 0, 1, 23),
        F::CLWB => (7, 0, 1, 24),
        F::AVX512CD => (7, 0, 1, 28),
        F::SHA => (7, 0, 1, 29),
        F::AVX512BW => (7, 0, 1, 30),
        F::AVX512VL => (7, 0, 1, 31),
        F::AVX512_VBMI => (7, 0, 2, 1),
        F::PKU => (7, 0, 2, 4),
        F::WAITPKG => (7, 0, 2, 5),
        F::AVX512_VBMI2 => (7, 0, 2, 6),
        F::GFNI => (7, 0, 2, 8),
        F::VAES => (7, 0, 2, 9),
        F::VPCLMULQDQ => (7, 0, 2, 10),
        F::AVX512_VNNI => (7, 0, 2, 11),
        F::AVX512_BITALG => (7, 0, 2, 12),
        F::AVX512_VPOPCNTDQ => (7, 0, 2, 14),
        F::RDPID => (7, 0, 2, 22),
        F::CLDEMOTE => (7, 0, 2, 25),
        F::MOVDIRI => (7, 0, 2, 27),
        F::MOVDIR64B => (7, 0, 2, 28),
        F::AVX512_VP2INTERSECT => (7, 0, 3, 8),
        F::SERIALIZE => (7, 0, 3, 14),
        F::AVX512_FP16 => (7, 0, 3, 23),
        F::AVX_VNNI => (7, 1, 0, 4),
        F::AVX512_BF16 => (7, 1, 0, 5),
        F::AVX_IFMA => (7, 1, 0, 23),
        F::SHA512 => (7, 1, 0, 0),
        F::SM3 => (7, 1, 0, 1),
        F::SM4 => (7, 1, 0, 2),
        F::CMPCCXADD => (7, 1, 0, 7),
        F::AVX_VNNI_INT8 => (7, 1, 3, 4),
        F::AVX_NE_CONVERT => (7, 1, 3, 5),
        F::AVX_VNNI_INT16 => (7, 1, 3, 10),
        F::XSAVEOPT => (0xd, 1, 0, 0),
        F::XSAVEC => (0xd, 1, 0, 1),
        F::XSAVES => (0xd, 1, 0, 3),
        F::PTWRITE => (0x14, 0, 1, 4),
        F::SVM => (0x8000_0001, 0, 2, 2),
        F::LZCNT => (0x8000_0001, 0, 2, 5),
        F::SSE4A => (0x8000_0001, 0, 2, 6),
        F::PREFETCHW => (0x8000_0001, 0, 2, 8),
        F::XOP => (0x8000_0001, 0, 2, 11),
        F::FMA4 => (0x8000_0001, 0, 2, 16),
        F::TBM => (0x8000_0001, 0, 2, 21),
        F::MONITORX => (0x8000_0001, 0, 2, 29),
        F::SYSCALL => (0x8000_0001, 0, 3, 11),
        F::RDTSCP => (0x8000_0001, 0, 3, 27),
        F::D3NOWEXT => (0x8000_0001, 0, 3, 30),
        F::D3NOW => (0x8000_0001, 0, 3, 31),
        F::CLZERO => (0x8000_0008, 0, 1, 0),
        F::RDPRU => (0x8000_0008, 0, 1, 4),
        F::MCOMMIT => (0x8000_0008, 0, 1, 8),
        F::WBNOINVD => (0x8000_0008, 0, 1, 9),
        _ => return false,
    };
    if __cpuid(leaf & 0x8000_0000).eax < leaf {
        return false;
    }
    let found = __cpuid_count(leaf, subleaf);
    [found.eax, found.ebx, found.ecx, found.edx][register] >> bit & 1 != 0
}
