//! The exceptions of the RPN machine.

/// What a handler gets on its stack: the code on top, then the two parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// One of the codes in this module, or whatever the `rx` instruction was given.
    pub code: u64,
    /// First parameter; its meaning depends on the code.
    pub parm1: u64,
    /// Second parameter.
    pub parm2: u64,
}

macro_rules! codes {
    ($($name:ident = $value:literal, $doc:literal;)*) => {
        $(#[doc = $doc] pub const $name: u16 = $value;)*

        /// Name and value of every code, for tools: an `ex_mask` is written with these names.
        pub const CODES: &[(&str, u16)] = &[$((stringify!($name), $value)),*];
    };
}

codes! {
    INVALID_ADDR = 0x0001, "An address could not be read or written: (address of the first such byte, 0).";
    SEG_FAULT = 0x0002, "A segment selector was invalid: (selector, 0).";
    MAX_JMPS = 0x0004, "`jmpmax` or the instruction budget is used up: (limit, 0).";
    CALL_STACK_OVERFLOW = 0x0010, "A 33rd nested call: (32, 0), or a `ret` outside any routine: (0, 0).";
    DIV_BY_ZERO = 0x0020, "Division by zero, or of the most negative number by -1: (0, 0).";
    INVALID_OPERAND = 0x0040, "A word taken as operand is out of range: (one of the classes in [`operand`], the word).";
    INVALID_OPCODE = 0x0080, "Unknown instruction: (opcode, offset). The verifier refuses these, so a verified program never raises it.";
    HEAP_NOMEM = 0x0100, "The byte heap is exhausted: (size, 0), or there is no variable to allocate: (1, 0).";
    HEAP_INVALID_HANDLE = 0x0200, "Not an allocated block of the byte heap: (handle, offset).";
    HEAP_INVALID_OFFSET = 0x0400, "Outside its block of the byte heap: (handle, first offset outside).";
    LOG_OVERFLOW = 0x1000, "The log is full and something was left out: (`logmax`, 0).";
    RPN_STACK_WRAP = 0x2000, "A word was taken from the empty stack, or from below its bottom: (0, words missing), or pushed to the full one: \
        (1024, words too many), or named above its top: (1024, words above it). The instruction has changed nothing.";
    USER = 0x8000, "Raised by programs, with `rx`.";
}

/// First parameter of [`INVALID_OPERAND`]: what the word was used as.
pub mod operand {
    /// Index of a local variable.
    pub const LOCAL: u64 = 1;
    /// Index of a global variable.
    pub const GLOBAL: u64 = 2;
    /// Bit index, or shift or rotate count.
    pub const BIT: u64 = 3;
    /// Number of an exit facility.
    pub const EXIT_FACILITY: u64 = 4;
    /// Number of stack words, or of return addresses.
    pub const COUNT: u64 = 5;
    /// Major or minor code: 16 bits.
    pub const CODE: u64 = 6;
    /// Number of a register that is not there, or that cannot be read now.
    pub const REGISTER: u64 = 7;
    /// Number of an I/O port.
    pub const PORT: u64 = 8;
    /// Number of a model-specific register.
    pub const MSR: u64 = 9;
    /// Position on the stack, or its depth in words.
    pub const POSITION: u64 = 10;
    /// Length of the log or of the stack-trace record.
    pub const LENGTH: u64 = 11;
}

/// Every bit an `ex_mask` can have.
pub const MASK_BITS: u16 = NON_MASKABLE | LOG_OVERFLOW | RPN_STACK_WRAP | USER;

/// Codes that end the program when a probe's `ex_mask` does not contain them. The others are ignored then.
pub const NON_MASKABLE: u16 = 0x0fff;

/// `ex_mask` of a probe that sets none: everything but [`LOG_OVERFLOW`] and [`USER`].
pub const DEFAULT_MASK: u16 = NON_MASKABLE | RPN_STACK_WRAP;

/// The name of a code, if it is one.
pub fn name(code: u64) -> Option<&'static str> {
    CODES
        .iter()
        .find(|(_, value)| u64::from(*value) == code)
        .map(|(name, _)| *name)
}
