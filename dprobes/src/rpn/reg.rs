//! The registers a program can name: one table.

use core::fmt;

macro_rules! regs {
    ($($number:literal $reg:ident $name:literal $access:ident $doc:literal;)*) => {
        /// A register of the probed system.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reg {
            $(#[doc = $doc] $reg = $number,)*
        }

        impl Reg {
            /// Every register, in the order of the table.
            pub const ALL: &[Reg] = &[$(Reg::$reg),*];

            /// The register with this operand number, if there is one.
            pub const fn from_number(number: u16) -> Option<Reg> {
                match number {
                    $($number => Some(Reg::$reg),)*
                    _ => None,
                }
            }

            /// Its name in text.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reg::$reg => $name,)*
                }
            }

            /// Whether `pop r` can change it.
            pub const fn is_writable(self) -> bool {
                match self {
                    $(Reg::$reg => regs!(@ $access),)*
                }
            }
        }
    };
    (@ rw) => { true };
    (@ ro) => { false };
}

// The numbers 0x00 to 0x0f are the original's, for the 64-bit register of the same name.
regs! {
    0x00 Cs     "cs"     ro "Code segment selector.";
    0x01 Ds     "ds"     ro "Data segment selector.";
    0x02 Es     "es"     ro "Extra segment selector.";
    0x03 Fs     "fs"     ro "FS selector.";
    0x04 Gs     "gs"     ro "GS selector.";
    0x05 Ss     "ss"     ro "Stack segment selector.";
    0x06 Rax    "rax"    rw "RAX.";
    0x07 Rbx    "rbx"    rw "RBX.";
    0x08 Rcx    "rcx"    rw "RCX.";
    0x09 Rdx    "rdx"    rw "RDX.";
    0x0a Rdi    "rdi"    rw "RDI.";
    0x0b Rsi    "rsi"    rw "RSI.";
    0x0c Rflags "rflags" ro "Flags.";
    0x0d Rip    "rip"    rw "Address of the probed instruction. Written: where to go on instead of executing it.";
    0x0e Rsp    "rsp"    rw "Stack pointer as the probed instruction sees it.";
    0x0f Rbp    "rbp"    rw "RBP.";
    0x10 R8     "r8"     rw "R8.";
    0x11 R9     "r9"     rw "R9.";
    0x12 R10    "r10"    rw "R10.";
    0x13 R11    "r11"    rw "R11.";
    0x14 R12    "r12"    rw "R12.";
    0x15 R13    "r13"    rw "R13.";
    0x16 R14    "r14"    rw "R14.";
    0x17 R15    "r15"    rw "R15.";
}

impl Reg {
    /// Its number as an operand.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The register of a name.
    pub fn from_name(name: &str) -> Option<Reg> {
        Self::ALL.iter().copied().find(|reg| reg.name() == name)
    }
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
