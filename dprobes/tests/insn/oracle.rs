//! Compares our view of an instruction with that of iced-x86.

use dprobes::insn::{Encoding, Field, Insn, MAX_LEN, Map, Refusal, Resume, Shadow, StepKind};
use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpAccess, OpKind, Register,
};
use iced_x86::{InstructionInfoFactory, InstructionInfoOptions};

/// How one comparison went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Both decode it, to the same instruction.
    Instruction(Insn),
    /// Neither does.
    Neither,
    /// We decode it and iced does not, for a reason that is documented: see `is_lenient`.
    Lenient(Insn),
}

/// Whether we accept more than iced on purpose: behind VEX, EVEX and XOP, where the length does not depend on the
/// instruction; and extensions that iced 1.22 does not know (REX2, MOVRS, user MSRs).
fn is_lenient(insn: &Insn) -> bool {
    match insn.encoding() {
        Encoding::Vex | Encoding::Evex | Encoding::Xop | Encoding::Rex2 => true,
        Encoding::Legacy => match (insn.map(), insn.opcode()) {
            (Map::Escape38, 0x8a | 0x8b) => true,
            (Map::Escape38, 0xf8) => insn.modrm().is_some_and(|modrm| modrm.is_register()),
            _ => false,
        },
    }
}

/// Compares at one place of a text. `decoder` decodes the whole `text`; its address is 0.
pub fn compare_at(text: &[u8], decoder: &mut Decoder<'_>, at: usize) -> Result<Agreement, String> {
    decoder.set_position(at).expect("a position in the text");
    decoder.set_ip(at as u64);
    let mut theirs = Instruction::default();
    decoder.decode_out(&mut theirs);
    let bytes = &text[at..text.len().min(at + MAX_LEN)];
    let ours = Insn::decode(bytes);
    let result = match ours {
        Err(_) if theirs.is_invalid() => Ok(Agreement::Neither),
        Err(error) => Err(format!("we say {error:?}, iced {:?}", theirs.code())),
        Ok(insn) if theirs.is_invalid() => {
            if is_lenient(&insn) {
                check_lenient(&insn).map(|()| Agreement::Lenient(insn))
            } else {
                Err(format!("iced says invalid, we {insn:?}"))
            }
        }
        Ok(insn) => agree(&insn, &theirs, decoder).map(|()| Agreement::Instruction(insn)),
    };
    result.map_err(|what| format!("at {at:#x}: {bytes:02x?}: {what}"))
}

/// Compares one instruction by itself; what follows it are zeros.
pub fn compare(bytes: &[u8]) -> Result<Agreement, String> {
    let mut padded = [0; 2 * MAX_LEN];
    padded[..bytes.len()].copy_from_slice(bytes);
    let mut decoder = Decoder::new(64, &padded, DecoderOptions::NONE);
    compare_at(&padded, &mut decoder, 0)
}

/// What has to hold of an instruction that only we accept.
fn check_lenient(insn: &Insn) -> Result<(), String> {
    if insn.encoding() != Encoding::Rex2 && insn.resume() != Ok(Resume::Copy) {
        return Err(format!("{insn:?} is not a copy"));
    }
    if !insn.may_fault() {
        Err(format!("{insn:?} cannot fault"))
    } else {
        Ok(())
    }
}

fn agree(insn: &Insn, theirs: &Instruction, decoder: &Decoder<'_>) -> Result<(), String> {
    expect("length", insn.len(), theirs.len())?;
    let relative = theirs.is_ip_rel_memory_operand();
    expect("RIP-relative", insn.is_rip_relative(), relative)?;
    if relative {
        expect(
            "RIP-relative target",
            insn.rip_relative_address(theirs.ip()),
            Some(theirs.ip_rel_memory_address()),
        )?;
    }
    fields_agree(insn, theirs, decoder)?;
    expect("resumption", class_of(insn), expected_class(theirs, insn))?;
    expect("step", insn.step(), expected_step(theirs, insn))?;
    expect(
        "repeats",
        insn.repeats(),
        theirs.is_string_instruction() && has_repeat(theirs),
    )?;
    Ok(())
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, ours: T, theirs: T) -> Result<(), String> {
    if ours == theirs {
        Ok(())
    } else {
        Err(format!("{what}: ours {ours:?}, iced's {theirs:?}"))
    }
}

/// Displacement and immediate. iced calls an absolute address a displacement, and does not report immediates that are
/// no numbers.
fn fields_agree(insn: &Insn, theirs: &Instruction, decoder: &Decoder<'_>) -> Result<(), String> {
    let offsets = decoder.get_constant_offsets(theirs);
    let field = |start: usize, size: usize| Field {
        start: if size == 0 { 0 } else { start as u8 },
        size: size as u8,
    };
    let displacement = field(offsets.displacement_offset(), offsets.displacement_size());
    let is_moffs =
        insn.encoding() == Encoding::Legacy && insn.map() == Map::Primary && matches!(insn.opcode(), 0xa0..=0xa3);
    if is_moffs {
        return expect("absolute address", insn.immediate(), displacement);
    }
    expect("displacement", insn.displacement(), displacement)?;
    let first = field(offsets.immediate_offset(), offsets.immediate_size());
    let second = offsets.immediate_size2() as u8;
    let theirs_immediate = Field {
        size: first.size + second,
        ..first
    };
    if theirs_immediate.size == 0 {
        // An operation or register in the last byte.
        let is_3dnow = insn.map() == Map::Secondary && insn.opcode() == 0x0f;
        let is_is4 = matches!(insn.encoding(), Encoding::Vex | Encoding::Xop);
        let last = Field {
            start: insn.len() as u8 - 1,
            size: 1,
        };
        if insn.immediate().size != 0 && !((is_3dnow || is_is4) && insn.immediate() == last) {
            return Err(format!("immediate {:?}, iced has none", insn.immediate()));
        }
        return Ok(());
    }
    expect("immediate", insn.immediate(), theirs_immediate)
}

/// How an instruction is resumed, without the particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Copy,
    CopyWaiting,
    CopyWithNext(Shadow),
    Emulate,
    Step,
    Refuse(Refusal),
}

fn class_of(insn: &Insn) -> Class {
    match insn.resume() {
        Ok(Resume::Copy) => Class::Copy,
        Ok(Resume::CopyWaiting) => Class::CopyWaiting,
        Ok(Resume::CopyWithNext(shadow)) => Class::CopyWithNext(shadow),
        Ok(Resume::Emulate(_)) => Class::Emulate,
        Ok(Resume::Step(_)) => Class::Step,
        Err(refusal) => Class::Refuse(refusal),
    }
}

/// The resumption that iced's mnemonic, code and flow control call for.
fn expected_class(theirs: &Instruction, insn: &Insn) -> Class {
    use Mnemonic as M;
    let narrow = has_66_without_rex_w(insn.bytes());
    let has_f2_or_f3 = prefixes(insn.bytes()).iter().any(|byte| matches!(byte, 0xf2 | 0xf3));
    let by_mnemonic = match theirs.mnemonic() {
        M::Nop | M::Endbr64 | M::Endbr32 | M::Pushf | M::Pushfq | M::Popf | M::Popfq | M::Cli => Some(Class::Emulate),
        // 0F 1F is the documented one; the others are hints, copied in case a later processor gives them a meaning.
        M::Reservednop if theirs.code().op_code().op_code() == 0x1f => Some(Class::Emulate),
        M::Sti => Some(Class::CopyWithNext(Shadow::Interrupts)),
        M::Int3 => Some(Class::Refuse(Refusal::Breakpoint)),
        M::Int | M::Int1 => Some(Class::Refuse(Refusal::SoftwareInterrupt)),
        // They go to an absolute address, and push nothing.
        M::Retf | M::Iret | M::Iretd | M::Iretq | M::Uiret | M::Erets | M::Eretu => Some(Class::Copy),
        M::Syscall | M::Sysenter => Some(Class::Refuse(Refusal::SystemCall)),
        M::Sysret | M::Sysretq | M::Sysexit | M::Sysexitq => Some(Class::Refuse(Refusal::SystemReturn)),
        M::Hlt | M::Mwait | M::Mwaitx | M::Umwait | M::Tpause => Some(Class::CopyWaiting),
        M::Xbegin if narrow => Some(Class::Refuse(Refusal::VendorDependent)),
        M::Ud2 => Some(Class::Copy),
        M::Ud0 | M::Ud1 => Some(Class::Refuse(Refusal::Undefined)),
        M::Vmlaunch | M::Vmresume | M::Vmrun | M::Seamcall | M::Seamret => Some(Class::Copy),
        M::Enclu => Some(Class::Refuse(Refusal::Enclave)),
        M::Rsm | M::Skinit | M::Getsec | M::Getsecq | M::Vmfunc => Some(Class::Refuse(Refusal::ExecutionMode)),
        M::Mov if theirs.op0_register() == Register::SS => Some(Class::CopyWithNext(Shadow::Events)),
        M::Call if is_far(theirs.code()) => Some(Class::Step),
        M::Jmp if is_far(theirs.code()) => Some(Class::Copy),
        _ => None,
    };
    if let Some(class) = by_mnemonic {
        return class;
    }
    match theirs.flow_control() {
        FlowControl::Next => Class::Copy,
        FlowControl::Return | FlowControl::IndirectBranch if narrow => Class::Step,
        FlowControl::Return
        | FlowControl::IndirectBranch
        | FlowControl::UnconditionalBranch
        | FlowControl::ConditionalBranch
        | FlowControl::Call
        | FlowControl::IndirectCall => {
            let is_hypercall = !matches!(theirs.mnemonic(), M::Call) && theirs.flow_control() == FlowControl::Call;
            match () {
                () if is_hypercall => Class::Copy,
                () if narrow => Class::Refuse(Refusal::VendorDependent),
                () if has_f2_or_f3 && matches!(theirs.mnemonic(), M::Loope | M::Loopne) => Class::Step,
                () => Class::Emulate,
            }
        }
        // xabort and xend leave RIP alone outside a transaction, and a breakpoint in one has aborted it.
        FlowControl::XbeginXabortXend => Class::Copy,
        other => panic!(
            "{:?} has flow control {other:?}, which the comparison does not know",
            theirs.code()
        ),
    }
}

fn expected_step(theirs: &Instruction, insn: &Insn) -> Result<StepKind, Refusal> {
    use Mnemonic as M;
    if matches!(
        theirs.mnemonic(),
        M::Pushf
            | M::Pushfq
            | M::Popf
            | M::Popfq
            | M::Cli
            | M::Sti
            | M::Iret
            | M::Iretd
            | M::Iretq
            | M::Uiret
            | M::Erets
            | M::Eretu
    ) {
        return Err(Refusal::SingleStep);
    }
    match expected_class(theirs, insn) {
        Class::Refuse(refusal) => return Err(refusal),
        Class::CopyWaiting | Class::CopyWithNext(_) => return Err(Refusal::SingleStep),
        _ => {}
    }
    Ok(match theirs.flow_control() {
        FlowControl::XbeginXabortXend if theirs.mnemonic() == M::Xbegin => return Err(Refusal::SingleStep),
        FlowControl::IndirectCall if is_far(theirs.code()) => StepKind::FarReturnAddress {
            narrow: has_66_without_rex_w(insn.bytes()),
        },
        FlowControl::Return | FlowControl::IndirectBranch => StepKind::Absolute,
        FlowControl::IndirectCall => StepKind::ReturnAddress,
        FlowControl::Call if theirs.mnemonic() == M::Call => StepKind::RebaseAndReturnAddress,
        _ => StepKind::Rebase,
    })
}

fn is_far(code: Code) -> bool {
    code.is_jmp_far() || code.is_jmp_far_indirect() || code.is_call_far() || code.is_call_far_indirect()
}

fn has_repeat(theirs: &Instruction) -> bool {
    theirs.has_rep_prefix() || theirs.has_repe_prefix() || theirs.has_repne_prefix()
}

/// Reads the prefixes off the bytes, independently of both decoders.
fn prefixes(bytes: &[u8]) -> &[u8] {
    let prefix = |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    &bytes[..bytes.iter().take_while(|byte| prefix(byte)).count()]
}

fn has_66_without_rex_w(bytes: &[u8]) -> bool {
    let prefixes = prefixes(bytes);
    let wide = prefixes.last().is_some_and(|last| matches!(last, 0x48..=0x4f));
    prefixes.contains(&0x66) && !wide
}

/// Checks `may_fault` against iced's account of operands and features: what we call certain uses no memory but the
/// stack's top, needs no privilege, and exists on every 64-bit processor.
pub fn check_certain(insn: &Insn, info: &mut InstructionInfoFactory) -> Result<(), String> {
    if insn.may_fault() {
        return Ok(());
    }
    let mut decoder = Decoder::new(64, insn.bytes(), DecoderOptions::NONE);
    let theirs = decoder.decode();
    let base = |feature: &CpuidFeature| {
        use CpuidFeature as F;
        matches!(
            feature,
            F::INTEL8086 | F::INTEL8086_ONLY | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::X64 | F::CMOV
                | F::SSE | F::SSE2 | F::MULTIBYTENOP | F::FPU
                // Hints and nops where the processor lacks the feature.
                | F::CET_IBT | F::PREFETCHW | F::PREFETCHWT1 | F::PREFETCHITI | F::BMI1 | F::LZCNT | F::PAUSE | F::D3NOW
        )
    };
    let explicit_memory = (0..theirs.op_count()).any(|n| theirs.op_kind(n) == OpKind::Memory);
    let hint = matches!(theirs.mnemonic(), Mnemonic::Lea | Mnemonic::Nop | Mnemonic::Reservednop)
        || format!("{:?}", theirs.mnemonic()).starts_with("Prefetch");
    if explicit_memory && !hint {
        return Err(format!("{insn:?} has a memory operand"));
    }
    let info = info.info_options(&theirs, InstructionInfoOptions::NONE);
    for memory in info.used_memory() {
        let touched = !matches!(memory.access(), OpAccess::NoMemAccess | OpAccess::None);
        if touched && memory.base() != Register::RSP {
            return Err(format!("{insn:?} accesses memory {memory:?}"));
        }
    }
    if theirs.is_privileged() {
        return Err(format!("{insn:?} is privileged"));
    }
    if matches!(theirs.mnemonic(), Mnemonic::Div | Mnemonic::Idiv) {
        return Err(format!("{insn:?} divides"));
    }
    match theirs.cpuid_features().iter().find(|feature| !base(feature)) {
        Some(feature) => Err(format!("{insn:?} needs {feature:?}")),
        None => Ok(()),
    }
}
