//! What cannot be compared, or only in part, and why: in one place.

use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpCodeOperandKind, OpKind, Register};
use std::ops::Range;

/// Why an instruction is never run.
///
/// What is not here and not [varying] is compared in all that can be seen from user mode: registers, flags, memory, x87 and vector
/// registers, segments, and the signal. Three differences are not looked at:
///
/// - the address and opcode of the last x87 instruction, which a copy in a slot leaves as its own (FOP, FIP, FDP);
/// - what code reads from its own bytes, where a breakpoint is;
/// - RF, which says how a fault was raised, and is not the program's.
pub fn never(instruction: &Instruction) -> Option<&'static str> {
    use Mnemonic as M;
    let reason = match instruction.mnemonic() {
        M::Wrfsbase | M::Lfs => "FS is the process's: its thread-local variables are there",
        M::Mov | M::Pop if written_segment(instruction) == Some(Register::FS) => {
            "FS is the process's: its thread-local variables are there"
        }
        M::Syscall if instruction.code() == Code::Syscall => {
            "it does what RAX says; run behind a `mov` of a harmless number"
        }
        M::Sysenter => "on Intel's processors the kernel returns from it into the 32-bit vDSO",
        M::Int if instruction.immediate8() == 0x80 => "it does what EAX says; run behind a `mov` of a harmless number",
        M::Vmcall | M::Vmmcall | M::Vmgexit | M::Tdcall => "it calls the hypervisor, whose answer is not the CPU's",
        M::Wrpkru => "it would take the process's memory away",
        M::Xbegin | M::Xabort => "whether a transaction commits depends on time",
        M::Enclu | M::Senduipi | M::Uiret => "it needs an enclave or user interrupts",
        M::Mwait | M::Mwaitx | M::Umwait | M::Tpause | M::Monitor | M::Monitorx | M::Umonitor => {
            "it waits, for a time that is not its own"
        }
        M::Wrssd | M::Wrssq | M::Wrussd | M::Wrussq | M::Incsspd | M::Incsspq | M::Rstorssp | M::Saveprevssp => {
            "the shadow stack is the process's"
        }
        M::Loadiwkey => "it changes a key that cannot be read back",
        // Seen on Zen 5: behind a `push` the value is that from before it, bare; a trap in between makes it right.
        M::Vpbroadcastb | M::Vpbroadcastw | M::Vpbroadcastd | M::Vpbroadcastq
            if (0..instruction.op_count())
                .any(|operand| instruction.op_register(operand).full_register() == Register::RSP) =>
        {
            "AMD's Zen 5 broadcasts an RSP that lacks the push or pop before"
        }
        _ if uses_fs(instruction) => "its memory is the process's thread-local variables",
        _ => return None,
    };
    Some(reason)
}

/// Why the result of an instruction is not the same each time. It is run as the last of its block, and what it writes is not
/// compared.
pub fn varying(instruction: &Instruction) -> Option<&'static str> {
    use Mnemonic as M;
    Some(match instruction.mnemonic() {
        M::Rdtsc | M::Rdtscp | M::Rdpru | M::Rdpmc => "it reads the time or a counter",
        M::Rdrand | M::Rdseed => "it is random",
        M::Rdpid | M::Lsl | M::Lar => "it says on which CPU it runs (LSL and LAR of the segment that the vDSO uses)",
        M::Cpuid => "it says on which CPU it runs",
        M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw => "each CPU has its own, unless the kernel hides them (UMIP)",
        M::Xgetbv => "with ECX = 1 it says what is in use, and a signal changes that",
        M::Xsave | M::Xsave64 | M::Xsavec | M::Xsavec64 | M::Xsaveopt | M::Xsaveopt64 | M::Xsaves | M::Xsaves64 => {
            "it says what is in use, and a signal changes that; it stores the address of the last x87 instruction"
        }
        M::Fxsave | M::Fxsave64 | M::Fnsave | M::Fnstenv => "it stores the address of the last x87 instruction",
        M::Mov | M::Push if reads_data_segment(instruction) => {
            "an interrupt makes a null selector 0 whatever its low bits were (SDM volume 2, IRET)"
        }
        M::Rdfsbase => "it is the address of the process's thread-local variables",
        _ => return None,
    })
}

/// Why an instruction that the CPU has raises #UD in user mode whatever its operands are.
pub fn undefined(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::Clac | Code::Stac => "in ring 0 only",
        Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D | Code::Reservednop_rm64_r64_0F0D => {
            "PREFETCHW with a register: #UD on AMD's CPUs, a NOP on Intel's"
        }
        _ => return None,
    })
}

/// Why an instruction never completes in user mode.
pub fn raises(code: Code) -> Option<&'static str> {
    use Mnemonic as M;
    let info = code.op_code();
    Some(match code.mnemonic() {
        _ if info.is_privileged() || info.is_input_output() || info.must_be_cpl0() || !info.cpl3() => "privileged",
        M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => "privileged",
        M::Hlt | M::Cli | M::Sti | M::Rdpmc => "privileged",
        M::Int | M::Int1 => "it traps",
        M::Ud0 | M::Ud1 | M::Ud2 => "it is undefined",
        M::Retf | M::Iret if info.operand_size() != 64 => "its target has 16 or 32 bits, where there is no code",
        M::Iretd => "its target has 16 or 32 bits, where there is no code",
        // AMD's CPUs have no others.
        M::Call | M::Jmp if info.op0_kind() == OpCodeOperandKind::mem => {
            "the offset of a far pointer has 16 or 32 bits, where there is no code"
        }
        _ => return None,
    })
}

/// Does the kernel do this instruction's work (UMIP)? It does not raise the #DB that is due behind it when TF is set, so that the
/// step ends behind the next instruction: which is the jump back when it was in a slot.
pub fn loses_a_step(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(instruction.mnemonic(), M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw)
}

/// What a varying instruction has written.
#[derive(Default)]
pub struct Written {
    /// Numbers of general registers.
    pub registers: Vec<usize>,
    pub flags: bool,
    pub memory: Option<Range<u64>>,
}

/// What a [varying] instruction writes, when the general registers are these.
pub fn written(instruction: &Instruction, registers: &[u64; 16], factory: &mut InstructionInfoFactory) -> Written {
    use Mnemonic as M;
    let info = factory.info(instruction);
    let writes = |access| {
        matches!(
            access,
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        )
    };
    let len = match instruction.mnemonic() {
        M::Fxsave | M::Fxsave64 => 512,
        M::Fnsave => 108,
        M::Fnstenv => 28,
        M::Sgdt | M::Sidt => 10,
        M::Sldt | M::Str | M::Smsw => 2,
        _ => 4096,
    };
    let address = info
        .used_memory()
        .iter()
        .find(|memory| writes(memory.access()))
        .and_then(|memory| memory.virtual_address(0, |register, _, _| Some(value(register, registers))));
    Written {
        registers: info
            .used_registers()
            .iter()
            .filter(|used| writes(used.access()) && used.register().is_gpr())
            .map(|used| used.register().full_register().number())
            .collect(),
        flags: instruction.rflags_modified() != 0,
        memory: address.map(|address| address..address.saturating_add(len)),
    }
}

/// The value of a register in an address; segments have base 0.
pub fn value(register: Register, registers: &[u64; 16]) -> u64 {
    if !register.is_gpr() {
        return 0;
    }
    let whole = registers[register.full_register().number()];
    match register.size() {
        2 => whole & 0xffff,
        4 => whole & 0xffff_ffff,
        _ => whole,
    }
}

fn written_segment(instruction: &Instruction) -> Option<Register> {
    (instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Register)
        .then(|| instruction.op0_register())
        .filter(|register| register.is_segment_register())
}

fn reads_data_segment(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|operand| {
        instruction.op_kind(operand) == OpKind::Register
            && matches!(
                instruction.op_register(operand),
                Register::DS | Register::ES | Register::FS | Register::GS
            )
            && (operand > 0 || instruction.mnemonic() == Mnemonic::Push)
    })
}

fn uses_fs(instruction: &Instruction) -> bool {
    // iced does not say that CLZERO has memory.
    instruction.segment_prefix() == Register::FS
        && (instruction.mnemonic() == Mnemonic::Clzero
            || !InstructionInfoFactory::new().info(instruction).used_memory().is_empty())
}
