//! The instructions: one table from which everything that knows them is derived.
//!
//! An instruction is one opcode byte and at most one operand, little-endian and unaligned. Opcode bytes are the original's where it had
//! the instruction; new ones use free bytes from 0x99 up. Branch operands are relative to the byte after the operand.
//!
//! In text an instruction is its mnemonic, a blank, and then its selectors and its operand, separated by commas: `push 10`, `push lv, 3`,
//! `push mem, u64`, `log str`. Where the table has the same mnemonic and selectors with and without operand, the form without takes the
//! operand from the stack.

use core::fmt;

/// What follows the opcode byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// Nothing.
    None,
    /// A byte, zero-extended.
    U8,
    /// Two bytes, zero-extended.
    U16,
    /// A word: eight bytes.
    Word,
    /// A branch target: four bytes, signed, relative to the byte after them.
    Branch,
    /// A register: two bytes, see [`Reg`](super::reg::Reg).
    Reg,
    /// Index of a local variable: two bytes.
    Local,
    /// Index of a global variable in the program's list: two bytes.
    Global,
    /// Index of a map: two bytes.
    Map,
    /// Number of a group of points: two bytes.
    Group,
    /// Number of an exit facility, see [`facility`]: a byte.
    Facility,
    /// Two bytes, sign-extended.
    S16,
}

/// Numbers of the exit facilities, the operand of `exit_to`.
pub mod facility {
    /// Enters the kernel's debugger.
    pub const DEBUGGER: u8 = 1;
    /// Takes a dump of the system.
    pub const DUMP: u8 = 2;
    /// Takes a core dump of the current process.
    pub const CORE: u8 = 3;
    /// Passes the record to the kernel's own tracing.
    pub const TRACE: u8 = 4;
    /// Freezes the rings of a flight recorder, so that what led here can be read.
    pub const SNAPSHOT: u8 = 5;
    /// The first number that is free for facilities that other modules register; those between are reserved.
    pub const FIRST_FREE: u8 = 16;

    /// The facilities that have a name in text.
    pub const NAMES: &[(&str, u8)] = &[
        ("debugger", DEBUGGER),
        ("dump", DUMP),
        ("core", CORE),
        ("trace", TRACE),
        ("snapshot", SNAPSHOT),
    ];

    /// Whether `exit_to` takes it.
    pub const fn is_valid(number: u8) -> bool {
        matches!(number, DEBUGGER..=SNAPSHOT | FIRST_FREE..)
    }
}

impl Operand {
    /// Bytes the operand takes in the code.
    pub const fn size(self) -> usize {
        match self {
            Self::None => 0,
            Self::U8 | Self::Facility => 1,
            Self::U16 | Self::S16 | Self::Reg | Self::Local | Self::Global | Self::Map | Self::Group => 2,
            Self::Branch => 4,
            Self::Word => 8,
        }
    }
}

/// How many words an instruction takes from the stack or puts there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Words {
    /// Always this many.
    Fixed(u8),
    /// As many as the operand says.
    Operand,
    /// As many as the operand says, and this many more.
    OperandPlus(u8),
    /// One, the count, and as many as it says.
    Counted,
    /// As many as the operand, a register, has.
    Register,
    /// As many as the operand, a map, has keys, and the value unless the map only counts.
    Map,
    /// Any number: the stack is as deep afterwards as a word taken from it says.
    Any,
}

/// Where control goes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// To the next instruction.
    Next,
    /// To the operand or to the next instruction.
    Branch,
    /// To the operand.
    Jump,
    /// To the operand, and after its `ret` to the next instruction.
    Call,
    /// Behind the last `call`.
    Return,
    /// To the next instruction; the operand is where an exception will go.
    Handler,
    /// To an exception handler.
    Raise,
    /// Nowhere: the program ends.
    End,
}

/// What the table says of one instruction.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// First word in text.
    pub mnemonic: &'static str,
    /// Fixed words after the mnemonic, separated by commas among each other and from the operand.
    pub selectors: &'static [&'static str],
    /// Operand kind.
    pub operand: Operand,
    /// Words it takes from the stack. An instruction that only looks at words takes them and puts them back.
    pub pops: Words,
    /// Words it puts on the stack.
    pub pushes: Words,
    /// Where control goes.
    pub flow: Flow,
    /// One line for people.
    pub doc: &'static str,
}

macro_rules! words {
    (n) => {
        Words::Operand
    };
    (n2) => {
        Words::OperandPlus(2)
    };
    (count) => {
        Words::Counted
    };
    (reg) => {
        Words::Register
    };
    (map) => {
        Words::Map
    };
    (any) => {
        Words::Any
    };
    ($fixed:literal) => {
        Words::Fixed($fixed)
    };
}

macro_rules! ops {
    ($($byte:literal $op:ident $mnemonic:literal [$($selector:literal)*] $operand:ident $pops:tt -> $pushes:tt $flow:ident $doc:literal;)*) => {
        /// An instruction's opcode.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Op {
            $(#[doc = $doc] $op = $byte,)*
        }

        impl Op {
            /// Every instruction, in the order of the table.
            pub const ALL: &[Op] = &[$(Op::$op),*];

            /// The instruction of an opcode byte, if there is one.
            pub const fn from_byte(byte: u8) -> Option<Op> {
                match byte {
                    $($byte => Some(Op::$op),)*
                    _ => None,
                }
            }

            /// What the table says of it.
            pub const fn info(self) -> &'static Info {
                match self {
                    $(Op::$op => &Info {
                        mnemonic: $mnemonic,
                        selectors: &[$($selector),*],
                        operand: Operand::$operand,
                        pops: words!($pops),
                        pushes: words!($pushes),
                        flow: Flow::$flow,
                        doc: $doc,
                    },)*
                }
            }
        }
    };
}

ops! {
    // Control
    0x00 Nop        "nop"     []            None     0 -> 0 Next      "Does nothing.";
    0x01 Jmp        "jmp"     []            Branch   0 -> 0 Jump      "Jumps.";
    0x02 Jlt        "jlt"     []            Branch   1 -> 1 Branch    "Jumps if the top word, which stays, is less than zero (signed).";
    0x03 Jle        "jle"     []            Branch   1 -> 1 Branch    "Jumps if the top word, which stays, is less than or equal to zero (signed).";
    0x04 Jgt        "jgt"     []            Branch   1 -> 1 Branch    "Jumps if the top word, which stays, is greater than zero (signed).";
    0x05 Jge        "jge"     []            Branch   1 -> 1 Branch    "Jumps if the top word, which stays, is greater than or equal to zero (signed).";
    0x06 Jz         "jz"      []            Branch   1 -> 1 Branch    "Jumps if the top word, which stays, is zero.";
    0x07 Jnz        "jnz"     []            Branch   1 -> 1 Branch    "Jumps if the top word, which stays, is not zero.";
    0x08 Loop       "loop"    []            Branch   1 -> 1 Branch    "Subtracts one from the top word, which stays, and jumps if it is not zero then.";
    0x09 Call       "call"    []            Branch   0 -> 0 Call      "Calls a routine: at most 32 deep.";
    0x0a Ret        "ret"     []            None     0 -> 0 Return    "Returns from a routine.";
    0x0b Abort      "abort"   []            None     0 -> 0 End       "Ends the program; this hit leaves no record.";
    0x0c Remove     "remove"  []            None     0 -> 0 End       "Ends the program and removes the probe; this hit's record is published.";
    0x0d Exit       "exit"    []            None     0 -> 0 End       "Ends the program.";
    0x0e ExitTo     "exit_to" []            Facility 0 -> 0 End       "Ends the program; when the record is written, the exit facility is asked to act.";
    0x0f Suspend    "suspend" []            Group    0 -> 0 Next      "Suspends a group of this program's points: their hits are counted, but run no handler.";
    0x10 Resume     "resume"  []            Group    0 -> 0 Next      "Resumes a group of this program's points.";
    // The record
    0x11 SetMin     "setmin"  []            U16      0 -> 0 Next      "Sets the minor code of this hit's record.";
    0x12 SetMinS    "setmin"  []            None     1 -> 0 Next      "Sets the minor code of this hit's record: (code --).";
    0x13 SetMaj     "setmaj"  []            U16      0 -> 0 Next      "Sets the major code of this hit's record.";
    0x14 SetMajS    "setmaj"  []            None     1 -> 0 Next      "Sets the major code of this hit's record: (code --).";
    0x15 LogStr     "log"     ["str"]       None     2 -> 0 Next      "Logs the string at an address, at most maxlen bytes of it: (maxlen address --).";
    0x17 LogMrf     "log"     ["mrf"]       None     2 -> 0 Next      "Logs the memory at an address: (length address --).";
    0x1b Log        "log"     []            U16      n -> 0 Next      "Logs words from the stack, the top one first.";
    0x8a LogS       "log"     []            None     count -> 0 Next  "Logs as many words from the stack as the top one says: (... count --).";
    0x8b LogLv      "log"     ["lv"]        None     2 -> 0 Next      "Logs local variables: (first count --).";
    0x8c LogGv      "log"     ["gv"]        None     2 -> 0 Next      "Logs global variables: (first count --).";
    0xa7 LogKstack  "log"     ["kstack"]    None     1 -> 0 Next      "Logs the return addresses on the kernel stack, at most max of them, 0 to 128: (max --).";
    0xa8 LogUstack  "log"     ["ustack"]    None     1 -> 0 Next      "Logs the return addresses on the stack of the current process, at most max of them, 0 to 128: (max --).";
    0xa9 LogName    "log"     ["name"]      None     0 -> 0 Next      "Logs the name of the current process.";
    0x70 PushLp     "push"    ["lp"]        None     0 -> 1 Next      "Pushes the length of the log in bytes.";
    0x71 PushPlp    "push"    ["plp"]       None     0 -> 1 Next      "Pushes the length the log had before the last logging instruction.";
    0x72 PopLp      "pop"     ["lp"]        None     1 -> 0 Next      "Cuts the log to a length that is the beginning of an element or the end: (length --).";
    // Local variables
    0x29 PushLv     "push"    ["lv"]        Local    0 -> 1 Next      "Pushes a local variable.";
    0x2a PushLvS    "push"    ["lv"]        None     1 -> 1 Next      "Pushes a local variable: (index -- value).";
    0x2b PopLv      "pop"     ["lv"]        Local    1 -> 0 Next      "Pops the top word into a local variable.";
    0x2c PopLvS     "pop"     ["lv"]        None     2 -> 0 Next      "Pops a word into a local variable: (index value --).";
    0x2d MoveLv     "move"    ["lv"]        Local    1 -> 1 Next      "Copies the top word, which stays, to a local variable.";
    0x2e MoveLvS    "move"    ["lv"]        None     2 -> 1 Next      "Copies a word to a local variable: (value index -- value).";
    0x2f IncLv      "inc"     ["lv"]        Local    0 -> 0 Next      "Adds one to a local variable, atomically.";
    0x30 IncLvS     "inc"     ["lv"]        None     1 -> 0 Next      "Adds one to a local variable, atomically: (index --).";
    0x31 DecLv      "dec"     ["lv"]        Local    0 -> 0 Next      "Subtracts one from a local variable, atomically.";
    0x32 DecLvS     "dec"     ["lv"]        None     1 -> 0 Next      "Subtracts one from a local variable, atomically: (index --).";
    // Global variables
    0x1f PushGv     "push"    ["gv"]        Global   0 -> 1 Next      "Pushes a global variable.";
    0x20 PushGvS    "push"    ["gv"]        None     1 -> 1 Next      "Pushes a global variable: (index -- value).";
    0x21 PopGv      "pop"     ["gv"]        Global   1 -> 0 Next      "Pops the top word into a global variable.";
    0x22 PopGvS     "pop"     ["gv"]        None     2 -> 0 Next      "Pops a word into a global variable: (index value --).";
    0x23 MoveGv     "move"    ["gv"]        Global   1 -> 1 Next      "Copies the top word, which stays, to a global variable.";
    0x24 MoveGvS    "move"    ["gv"]        None     2 -> 1 Next      "Copies a word to a global variable: (value index -- value).";
    0x25 IncGv      "inc"     ["gv"]        Global   0 -> 0 Next      "Adds one to a global variable, atomically.";
    0x26 IncGvS     "inc"     ["gv"]        None     1 -> 0 Next      "Adds one to a global variable, atomically: (index --).";
    0x27 DecGv      "dec"     ["gv"]        Global   0 -> 0 Next      "Subtracts one from a global variable, atomically.";
    0x28 DecGvS     "dec"     ["gv"]        None     1 -> 0 Next      "Subtracts one from a global variable, atomically: (index --).";
    // Variables for a time
    0x1c AllocGv    "alloc"   ["gv"]        None     0 -> 1 Next      "Allocates a global variable, which is zero: (-- index).";
    0x1d FreeGv     "free"    ["gv"]        None     1 -> 0 Next      "Frees a global variable that was allocated: (index --).";
    0x9d AllocLv    "alloc"   ["lv"]        None     0 -> 1 Next      "Allocates a local variable, which is zero: (-- index).";
    0x9e FreeLv     "free"    ["lv"]        None     1 -> 0 Next      "Frees a local variable that was allocated: (index --).";
    // Variables of a call
    0xaa PushCv     "push"    ["cv"]        U8       0 -> 1 Next      "Pushes a variable of this call.";
    0xab PopCv      "pop"     ["cv"]        U8       1 -> 0 Next      "Pops the top word into a variable of this call.";
    // Arithmetic and logic
    0x33 Add        "add"     []            None     2 -> 1 Next      "Adds: (a b -- a+b).";
    0x34 Sub        "sub"     []            None     2 -> 1 Next      "Subtracts: (a b -- a-b).";
    0x35 Mul        "mul"     []            None     2 -> 1 Next      "Multiplies: (a b -- a*b), the low word.";
    0x62 Div        "div"     []            None     2 -> 2 Next      "Divides, unsigned: (dividend divisor -- remainder quotient).";
    0x63 Idiv       "idiv"    []            None     2 -> 2 Next      "Divides, signed, towards zero: (dividend divisor -- remainder quotient).";
    0x36 Neg        "neg"     []            None     1 -> 1 Next      "Two's complement: (a -- -a).";
    0x99 Not        "not"     []            None     1 -> 1 Next      "One's complement: (a -- ~a).";
    0x37 And        "and"     []            None     2 -> 1 Next      "Bitwise and: (a b -- a&b).";
    0x38 Or         "or"      []            None     2 -> 1 Next      "Bitwise or: (a b -- a|b).";
    0x39 Xor        "xor"     []            None     2 -> 1 Next      "Bitwise exclusive or: (a b -- a^b).";
    0x3a Rol        "rol"     []            U8       1 -> 1 Next      "Rotates the top word left by 0 to 63 bits.";
    0x3b RolS       "rol"     []            None     2 -> 1 Next      "Rotates a word left by 0 to 63 bits: (count value -- result).";
    0x3c Ror        "ror"     []            U8       1 -> 1 Next      "Rotates the top word right by 0 to 63 bits.";
    0x3d RorS       "ror"     []            None     2 -> 1 Next      "Rotates a word right by 0 to 63 bits: (count value -- result).";
    0x3e Shl        "shl"     []            U8       1 -> 1 Next      "Shifts the top word left by 0 to 63 bits.";
    0x3f ShlS       "shl"     []            None     2 -> 1 Next      "Shifts a word left by 0 to 63 bits: (count value -- result).";
    0x40 Shr        "shr"     []            U8       1 -> 1 Next      "Shifts the top word right by 0 to 63 bits, filling with zeros.";
    0x41 ShrS       "shr"     []            None     2 -> 1 Next      "Shifts a word right by 0 to 63 bits, filling with zeros: (count value -- result).";
    0x64 PblS       "pbl"     []            None     2 -> 1 Next      "Copies a bit, 1 to 64, to all higher ones: (value bit -- result).";
    0x65 PbrS       "pbr"     []            None     2 -> 1 Next      "Copies a bit, 1 to 64, to all lower ones: (value bit -- result).";
    0x66 Pbl        "pbl"     []            U8       1 -> 1 Next      "Copies a bit of the top word, 1 to 64, to all higher ones.";
    0x67 Pbr        "pbr"     []            U8       1 -> 1 Next      "Copies a bit of the top word, 1 to 64, to all lower ones.";
    0x68 PzlS       "pzl"     []            None     2 -> 1 Next      "Clears all bits above one, 1 to 64: (value bit -- result).";
    0x69 PzrS       "pzr"     []            None     2 -> 1 Next      "Clears all bits below one, 1 to 64: (value bit -- result).";
    0x6a Pzl        "pzl"     []            U8       1 -> 1 Next      "Clears all bits of the top word above one, 1 to 64.";
    0x6b Pzr        "pzr"     []            U8       1 -> 1 Next      "Clears all bits of the top word below one, 1 to 64.";
    // The stack
    0x42 Xchg       "xchg"    []            None     2 -> 2 Next      "Exchanges the two top words: (a b -- b a).";
    0x43 Dup        "dup"     []            U8       1 -> n Next      "Replaces the top word by that many copies of it; 0 drops it.";
    0x44 DupS       "dup"     []            None     2 -> count Next  "Makes copies of the top word: (count value -- value ... value), 0 to 1024.";
    0x45 Ros        "ros"     []            U8       n -> 0 Next      "Drops words from the stack.";
    0x4c Push       "push"    []            Word     0 -> 1 Next      "Pushes a constant.";
    // Frames on the stack
    0x7c PushSbp    "push"    ["sbp"]       S16      0 -> 1 Next      "Pushes the word at a position, counted downwards from the word on top when the stack had SBP words.";
    0x78 PushSbpS   "push"    ["sbp"]       None     1 -> 1 Next      "Pushes the word at a position below the word on top when the stack had SBP words: (position -- value).";
    0x7d PopSbp     "pop"     ["sbp"]       S16      1 -> 0 Next      "Pops the top word into a position, counted downwards from the word on top when the stack had SBP words.";
    0x79 PopSbpS    "pop"     ["sbp"]       None     2 -> 0 Next      "Pops a word into a position below the word on top when the stack had SBP words: (position value --).";
    0x80 CopySbp    "copy"    ["sbp"]       S16      1 -> 1 Next      "Copies the top word, which stays, to a position, counted downwards from the word on top when the stack had SBP words.";
    0x88 CopySbpS   "copy"    ["sbp"]       None     2 -> 1 Next      "Copies a word to a position below the word on top when the stack had SBP words: (position value -- value).";
    0x7e PushTsp    "push"    ["tsp"]       S16      0 -> 1 Next      "Pushes the word at a position, counted downwards from the top word.";
    0x7a PushTspS   "push"    ["tsp"]       None     1 -> 1 Next      "Pushes the word at a position below the top word: (position -- value).";
    0x7f PopTsp     "pop"     ["tsp"]       S16      1 -> 0 Next      "Pops the top word into a position, counted downwards from the word below it.";
    0x7b PopTspS    "pop"     ["tsp"]       None     2 -> 0 Next      "Pops a word into a position below the word that is on top then: (position value --).";
    0x81 CopyTsp    "copy"    ["tsp"]       S16      1 -> 1 Next      "Copies the top word, which stays, to a position, counted downwards from the word below it.";
    0x89 CopyTspS   "copy"    ["tsp"]       None     2 -> 1 Next      "Copies a word to a position below the word under the two: (position value -- value).";
    0x84 SaveSbp    "save"    ["sbp"]       None     0 -> 1 Next      "Pushes SBP.";
    0x85 RestoreSbp "restore" ["sbp"]       None     1 -> 0 Next      "Sets SBP, 0 to 1024: (words --).";
    0x86 SaveTsp    "save"    ["tsp"]       None     0 -> 1 Next      "Pushes the number of words on the stack, itself not counted.";
    0x87 RestoreTsp "restore" ["tsp"]       None     1 -> any Next    "Gives the stack a number of words, 0 to 1024, dropping words or pushing zeros: (words --).";
    0x90 PushWid    "push"    ["wid"]       None     0 -> 1 Next      "Pushes -64: words have 64 bits and are little-endian.";
    // Registers
    0x46 PushR      "push"    ["r"]         Reg      0 -> reg Next    "Pushes a register as the probed instruction finds it; one of several words with the lowest on top.";
    0x47 PopR       "pop"     ["r"]         Reg      1 -> 0 Next      "Pops the top word into a register: the probed instruction will find it there.";
    0x48 PushU      "push"    ["u"]         Reg      0 -> 1 Next      "Pushes a user-mode register of the current task.";
    0x49 PopU       "pop"     ["u"]         Reg      1 -> 0 Next      "Pops the top word into a user-mode register of the current task.";
    0xa4 PushCpuid  "push"    ["cpuid"]     None     2 -> 4 Next      "Executes CPUID: (leaf subleaf -- edx ecx ebx eax).";
    0xa5 PushMsr    "push"    ["msr"]       None     1 -> 1 Next      "Reads a model-specific register: (number -- value).";
    // The system
    0x5d PushTask   "push"    ["task"]      None     0 -> 1 Next      "Pushes a number that tells the current task from all others (Linux: its address).";
    0x5e PushPid    "push"    ["pid"]       None     0 -> 1 Next      "Pushes the process id.";
    0x9f PushTid    "push"    ["tid"]       None     0 -> 1 Next      "Pushes the thread id.";
    0xa0 PushUid    "push"    ["uid"]       None     0 -> 1 Next      "Pushes the real user id.";
    0x5f PushCpu    "push"    ["cpu"]       None     0 -> 1 Next      "Pushes the number of this CPU.";
    0xa1 PushClock  "push"    ["clock"]     None     0 -> 1 Next      "Pushes a monotonic clock in nanoseconds.";
    0xa2 PushTsc    "push"    ["tsc"]       None     0 -> 1 Next      "Pushes the time-stamp counter.";
    0xa3 PushName   "push"    ["name"]      None     0 -> 2 Next      "Pushes the name of the current process, 16 bytes, the first eight on top: (-- bytes8..15 bytes0..7).";
    // Ports
    0xb1 PushIoU8   "push"    ["io" "u8"]   None     1 -> 1 Next      "Reads a byte from a port: (port -- value).";
    0xb2 PushIoU16  "push"    ["io" "u16"]  None     1 -> 1 Next      "Reads two bytes from a port: (port -- value).";
    0xb3 PushIoU32  "push"    ["io" "u32"]  None     1 -> 1 Next      "Reads four bytes from a port: (port -- value).";
    0xb4 PopIoU8    "pop"     ["io" "u8"]   None     2 -> 0 Next      "Writes the low byte of a word to a port: (port value --).";
    0xb5 PopIoU16   "pop"     ["io" "u16"]  None     2 -> 0 Next      "Writes the low two bytes of a word to a port: (port value --).";
    0xb6 PopIoU32   "pop"     ["io" "u32"]  None     2 -> 0 Next      "Writes the low four bytes of a word to a port: (port value --).";
    // Memory
    0x4d PushMemU8  "push"    ["mem" "u8"]  None     1 -> 1 Next      "Reads a byte: (address -- value).";
    0x4e PushMemU16 "push"    ["mem" "u16"] None     1 -> 1 Next      "Reads two bytes: (address -- value).";
    0x4f PushMemU32 "push"    ["mem" "u32"] None     1 -> 1 Next      "Reads four bytes: (address -- value).";
    0x50 PushMemU64 "push"    ["mem" "u64"] None     1 -> 1 Next      "Reads eight bytes: (address -- value).";
    0x9a PushMemS8  "push"    ["mem" "s8"]  None     1 -> 1 Next      "Reads a byte and sign-extends it: (address -- value).";
    0x9b PushMemS16 "push"    ["mem" "s16"] None     1 -> 1 Next      "Reads two bytes and sign-extends them: (address -- value).";
    0x9c PushMemS32 "push"    ["mem" "s32"] None     1 -> 1 Next      "Reads four bytes and sign-extends them: (address -- value).";
    0x51 PopMemU8   "pop"     ["mem" "u8"]  None     2 -> 0 Next      "Writes the low byte of a word: (address value --).";
    0x52 PopMemU16  "pop"     ["mem" "u16"] None     2 -> 0 Next      "Writes the low two bytes of a word: (address value --).";
    0x53 PopMemU32  "pop"     ["mem" "u32"] None     2 -> 0 Next      "Writes the low four bytes of a word: (address value --).";
    0x54 PopMemU64  "pop"     ["mem" "u64"] None     2 -> 0 Next      "Writes a word: (address value --).";
    0x60 VfyR       "vfy"     ["r"]         None     1 -> 1 Next      "Finds out whether a byte can be read, without an exception: (address -- 0), else 1.";
    0x61 VfyRw      "vfy"     ["rw"]        None     1 -> 1 Next      "Finds out whether a byte can be read and written, without an exception: (address -- 0), else 1.";
    // The byte heap
    0x8e Malloc     "malloc"  []            None     1 -> 1 Next      "Allocates zeroed bytes until the end of the hit: (size -- handle).";
    0x8f Free       "free"    []            None     1 -> 0 Next      "Frees a block: (handle --).";
    0x91 PushhU8    "pushh"   ["u8"]        U16      2 -> n Next      "Reads bytes from a block, at ascending offsets: (handle offset -- v1 ... vn).";
    0x92 PushhU16   "pushh"   ["u16"]       U16      2 -> n Next      "Reads values of two bytes from a block, at ascending offsets: (handle offset -- v1 ... vn).";
    0x93 PushhU32   "pushh"   ["u32"]       U16      2 -> n Next      "Reads values of four bytes from a block, at ascending offsets: (handle offset -- v1 ... vn).";
    0x94 PushhU64   "pushh"   ["u64"]       U16      2 -> n Next      "Reads words from a block, at ascending offsets: (handle offset -- v1 ... vn).";
    0x95 PophU8     "poph"    ["u8"]        U16      n2 -> 0 Next     "Writes bytes to a block, at ascending offsets: (vn ... v1 handle offset --).";
    0x96 PophU16    "poph"    ["u16"]       U16      n2 -> 0 Next     "Writes values of two bytes to a block, at ascending offsets: (vn ... v1 handle offset --).";
    0x97 PophU32    "poph"    ["u32"]       U16      n2 -> 0 Next     "Writes values of four bytes to a block, at ascending offsets: (vn ... v1 handle offset --).";
    0x98 PophU64    "poph"    ["u64"]       U16      n2 -> 0 Next     "Writes words to a block, at ascending offsets: (vn ... v1 handle offset --).";
    // Maps
    0xa6 Agg        "agg"     []            Map      map -> 0 Next    "Adds a value to a map: (keys... value --), or (keys... --) for a map that counts.";
    // Exceptions
    0x6c Sx         "sx"      []            Branch   0 -> 0 Handler   "Sets the exception handler of the current routine, for one exception.";
    0x6d Ux         "ux"      []            None     0 -> 0 Next      "Removes the exception handler of the current routine.";
    0x6e Rx         "rx"      []            None     3 -> 3 Raise     "Raises an exception: (parm2 parm1 code -- parm2 parm1 code).";
    0x6f PushX      "push"    ["x"]         None     0 -> 3 Next      "Pushes this hit's last exception, zeros if there was none: (-- parm2 parm1 code).";
    0x73 LogSt      "log"     ["st"]        None     0 -> 0 Next      "Appends a trace of the RPN machine to the stack-trace record.";
    0x74 PurgeSt    "purge"   ["st"]        None     0 -> 0 Next      "Empties the stack-trace record.";
    0x75 TraceLv    "trace"   ["lv"]        None     2 -> 0 Next      "Sets which local variables traces show for the current routine: (first count --).";
    0x76 TraceGv    "trace"   ["gv"]        None     2 -> 0 Next      "Sets which global variables traces show for the current routine: (first count --).";
    0x77 TracePv    "trace"   ["pv"]        None     2 -> 0 Next      "Sets which words of the stack, by position, traces show for the current routine: (first count --).";
    0x82 PushStp    "push"    ["stp"]       None     0 -> 1 Next      "Pushes the length of the stack-trace record in bytes.";
    0x83 PopStp     "pop"     ["stp"]       None     1 -> 0 Next      "Cuts the stack-trace record to a length that is the beginning of an element or the end: (length --).";
}

impl Op {
    /// The opcode byte.
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// Bytes of the instruction with its operand.
    pub const fn size(self) -> usize {
        1 + self.info().operand.size()
    }

    /// The instruction with this mnemonic, these selectors, and an operand or none.
    pub fn find(mnemonic: &str, selectors: &[&str], has_operand: bool) -> Option<Op> {
        Self::with_mnemonic(mnemonic)
            .find(|op| op.info().selectors == selectors && (op.info().operand != Operand::None) == has_operand)
    }

    /// Every form of a mnemonic, in the order of the table.
    pub fn with_mnemonic(mnemonic: &str) -> impl Iterator<Item = Op> {
        Self::ALL
            .iter()
            .copied()
            .filter(move |op| op.info().mnemonic == mnemonic)
    }
}

/// Mnemonic and selectors as in text, without operand: `push mem, u64`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.info();
        f.write_str(info.mnemonic)?;
        for (i, selector) in info.selectors.iter().enumerate() {
            f.write_str(if i == 0 { " " } else { ", " })?;
            f.write_str(selector)?;
        }
        Ok(())
    }
}
