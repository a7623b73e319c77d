//! The limits of programs, in one place. What exceeds one is an error; nothing is silently adjusted.

/// Words on the RPN stack of a CPU.
pub const STACK_WORDS: usize = 1024;

/// Nested calls a handler can make.
pub const CALL_DEPTH: usize = 32;

/// Bytes of log elements one hit can write; also the default of `logmax`.
pub const LOG_MAX: u16 = 1024;

/// Bytes of stack-trace elements one hit can write; also the default of `ex_logmax`.
pub const EX_LOG_MAX: u16 = 1024;

/// Default, and highest possible value, of `jmpmax`: taken jumps in one hit.
pub const JMP_MAX: u16 = u16::MAX;

/// Local variables of a program.
pub const LOCALS_MAX: u16 = 256;

/// Global variables a program can name.
pub const GLOBALS_MAX: u16 = 256;

/// Probepoints of a program.
pub const POINTS_MAX: u32 = 1 << 17;

/// Bytes of code of a program, all handlers together.
pub const CODE_MAX: u32 = 1 << 20;

/// Bytes of code of one handler.
pub const HANDLER_MAX: u32 = 65_535;

/// Entries of the table that maps code offsets to source lines: one for each byte of code at most.
pub const LINES_MAX: u32 = CODE_MAX;

/// Bytes of all strings of a program together.
pub const STRINGS_MAX: u32 = 1 << 24;

/// Bytes of a module's name or path (`PATH_MAX` of Linux, without the terminating zero).
pub const NAME_MAX: u32 = 4095;

/// Bytes of a symbol's name, or of a location in the words of its author.
pub const SYMBOL_MAX: u32 = 1023;

/// Bytes of the name of a variable.
pub const VARIABLE_NAME_MAX: u32 = 255;

/// Longest x86 instruction, and so the most opcode bytes a probepoint can expect (SDM vol. 2, 2.3.11).
pub const OPCODE_MAX: usize = 15;

/// Instructions one hit can execute before `MAX_JMPS` is raised, whatever `jmpmax` says.
///
/// It is charged where control moves backwards, from one instruction to another: with the number of instructions from the
/// one to the other, both included. So a hit executes at most the handler's length and this many instructions. An
/// instruction that accesses memory charges [`MEMORY_COST`], and `dup` the words it writes, on top.
pub const INSTRUCTION_BUDGET: u32 = 1_000_000;

/// What a handler may still execute after [`INSTRUCTION_BUDGET`] was used up and it caught the exception. When this is gone too, the
/// program ends, caught or not.
pub const GRACE_BUDGET: u32 = 10_000;

/// What one access to the probed system's memory is charged: the fault-tolerant copy behind it costs many plain instructions.
pub const MEMORY_COST: u32 = 8;
