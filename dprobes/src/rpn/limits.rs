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

/// Variables that a program keeps for each call.
pub const CALL_VARIABLES_MAX: usize = 8;

/// Global variables a program can name.
pub const GLOBALS_MAX: u16 = 256;

/// Global variables of different names in the system.
pub const SYSTEM_GLOBALS_MAX: usize = 1024;

/// Variables that can be allocated at the same time: local ones of a program, and global ones of the system.
pub const POOL_VARIABLES: usize = 256;

/// Index of the first variable of a pool; those below are the declared ones.
pub const POOL_FIRST: u64 = 0x1_0000;

/// Bytes of the byte heap of a hit, at most; the default of `heapmax` is 0.
pub const HEAP_MAX: u16 = 16_384;

/// Blocks of the byte heap at the same time.
pub const HEAP_BLOCKS: usize = 64;

/// Words that `pushh` and `poph` can move.
pub const HEAP_WORDS_MAX: u64 = 1024;

/// Return addresses that `log kstack` and `log ustack` can be asked for.
pub const STACK_TRACE_MAX: usize = 128;

/// Bytes of a module's name in a stack-trace record.
pub const TRACE_NAME_MAX: usize = 64;

/// Maps of a program.
pub const MAPS_MAX: u16 = 64;

/// Words that are a map's key.
pub const MAP_KEYS_MAX: u8 = 4;

/// Entries of a map, on each CPU.
pub const MAP_ENTRIES_MAX: u32 = 65_536;

/// Entries of a map with keys that says nothing else.
pub const MAP_ENTRIES: u32 = 128;

/// Buckets of a linear histogram, without those below and above.
pub const MAP_BUCKETS_MAX: u64 = 1024;

/// Bytes of all maps of a program, on each CPU, as [`Map::bytes`](super::object::Map::bytes) counts them.
pub const MAP_BYTES_MAX: u64 = 16 << 20;

/// Symbols in expressions of a program: one for each `push` at most.
pub const RELOCATIONS_MAX: u32 = CODE_MAX / 9;

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
/// instruction that accesses memory, a port, a map or another part of the system charges [`MEMORY_COST`] on top. What copies or
/// clears words charges each, `dup` those beyond [`DUP_FREE`]; see also [`RETURN_ADDRESS_COST`].
pub const INSTRUCTION_BUDGET: u32 = 1_000_000;

/// What a handler may still execute after [`INSTRUCTION_BUDGET`] was used up and it caught the exception. When this is gone too, the
/// program ends, caught or not.
pub const GRACE_BUDGET: u32 = 10_000;

/// Copies that a `dup` makes without being charged for them: `dup 2` costs no more than pushing a word does.
pub const DUP_FREE: u8 = 2;

/// What one access to the probed system's memory is charged: the fault-tolerant copy behind it costs many plain instructions.
pub const MEMORY_COST: u32 = 8;

/// What each return address asked for by `log kstack` and `log ustack` is charged.
pub const RETURN_ADDRESS_COST: u32 = 32;

/// What reading a system or model-specific register, CPUID, or an access to a port is charged: a virtual machine may have to be left
/// for it.
pub const SYSTEM_COST: u32 = 256;
