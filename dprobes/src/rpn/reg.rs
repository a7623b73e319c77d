//! The registers a program can name: one table.

use core::fmt;

macro_rules! regs {
    ($($number:literal $reg:ident $name:literal $class:ident $words:literal $doc:literal;)*) => {
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

            /// What kind of register it is.
            pub const fn class(self) -> Class {
                match self {
                    $(Reg::$reg => Class::$class,)*
                }
            }

            /// How many words it has: 1, 2, 4 or 8.
            pub const fn words(self) -> usize {
                match self {
                    $(Reg::$reg => $words,)*
                }
            }
        }
    };
}

/// Kinds of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A general register or RIP: every trap saves it, and it can be written.
    General,
    /// Also saved by every trap, but only read.
    Saved,
    /// A segment selector that no trap saves: it still has the interrupted code's value.
    Segment,
    /// Read from the CPU while the program runs. Not every CPU has it, and it may be switched off.
    System,
}

// The numbers 0x00 to 0x0f are the original's, for the 64-bit register of the same name.
regs! {
    0x00 Cs     "cs"       Saved   1 "Code segment selector.";
    0x01 Ds     "ds"       Segment 1 "Data segment selector.";
    0x02 Es     "es"       Segment 1 "Extra segment selector.";
    0x03 Fs     "fs"       Segment 1 "FS selector.";
    0x04 Gs     "gs"       Segment 1 "GS selector.";
    0x05 Ss     "ss"       Saved   1 "Stack segment selector.";
    0x06 Rax    "rax"      General 1 "RAX.";
    0x07 Rbx    "rbx"      General 1 "RBX.";
    0x08 Rcx    "rcx"      General 1 "RCX.";
    0x09 Rdx    "rdx"      General 1 "RDX.";
    0x0a Rdi    "rdi"      General 1 "RDI.";
    0x0b Rsi    "rsi"      General 1 "RSI.";
    0x0c Rflags "rflags"   Saved   1 "Flags.";
    0x0d Rip    "rip"      General 1 "Address of the probed instruction. Written: where to go on instead of executing it.";
    0x0e Rsp    "rsp"      General 1 "Stack pointer as the probed instruction sees it.";
    0x0f Rbp    "rbp"      General 1 "RBP.";
    0x10 R8     "r8"       General 1 "R8.";
    0x11 R9     "r9"       General 1 "R9.";
    0x12 R10    "r10"      General 1 "R10.";
    0x13 R11    "r11"      General 1 "R11.";
    0x14 R12    "r12"      General 1 "R12.";
    0x15 R13    "r13"      General 1 "R13.";
    0x16 R14    "r14"      General 1 "R14.";
    0x17 R15    "r15"      General 1 "R15.";
    // Others have the original's number where it had them, and free ones from 0x18 or 0x80 up.
    0x18 FsBase "fs_base"  System  1 "Base address of FS.";
    0x19 GsBase "gs_base"  System  1 "Base address of GS.";
    0x1a Cr8    "cr8"      System  1 "CR8: task priority.";
    0x1b Xcr0   "xcr0"     System  1 "XCR0: which extended states are enabled.";
    0x20 Tr     "tr"       System  1 "Task register selector.";
    0x21 Ldtr   "ldtr"     System  1 "LDT selector.";
    0x22 Gdtr   "gdtr"     System  2 "GDT: the limit on top of the base.";
    0x23 Idtr   "idtr"     System  2 "IDT: the limit on top of the base.";
    0x24 Cr0    "cr0"      System  1 "CR0.";
    0x26 Cr2    "cr2"      System  1 "CR2: the last page-fault address.";
    0x27 Cr3    "cr3"      System  1 "CR3: the page-table base.";
    0x28 Cr4    "cr4"      System  1 "CR4.";
    0x2c Dr0    "dr0"      System  1 "DR0: a breakpoint address.";
    0x2d Dr1    "dr1"      System  1 "DR1: a breakpoint address.";
    0x2e Dr2    "dr2"      System  1 "DR2: a breakpoint address.";
    0x2f Dr3    "dr3"      System  1 "DR3: a breakpoint address.";
    0x32 Dr6    "dr6"      System  1 "DR6: debug status.";
    0x33 Dr7    "dr7"      System  1 "DR7: debug control.";
    0x46 Fcw    "fcw"      System  1 "x87 control word.";
    0x47 Fsw    "fsw"      System  1 "x87 status word.";
    0x48 Ftw    "ftw"      System  1 "x87 tag word, two bits for each register.";
    0x55 Mxcsr  "mxcsr"    System  1 "SSE control and status.";
    0x80 Xmm0   "xmm0"     System  2 "XMM0.";
    0x81 Xmm1   "xmm1"     System  2 "XMM1.";
    0x82 Xmm2   "xmm2"     System  2 "XMM2.";
    0x83 Xmm3   "xmm3"     System  2 "XMM3.";
    0x84 Xmm4   "xmm4"     System  2 "XMM4.";
    0x85 Xmm5   "xmm5"     System  2 "XMM5.";
    0x86 Xmm6   "xmm6"     System  2 "XMM6.";
    0x87 Xmm7   "xmm7"     System  2 "XMM7.";
    0x88 Xmm8   "xmm8"     System  2 "XMM8.";
    0x89 Xmm9   "xmm9"     System  2 "XMM9.";
    0x8a Xmm10  "xmm10"    System  2 "XMM10.";
    0x8b Xmm11  "xmm11"    System  2 "XMM11.";
    0x8c Xmm12  "xmm12"    System  2 "XMM12.";
    0x8d Xmm13  "xmm13"    System  2 "XMM13.";
    0x8e Xmm14  "xmm14"    System  2 "XMM14.";
    0x8f Xmm15  "xmm15"    System  2 "XMM15.";
    0x90 Xmm16  "xmm16"    System  2 "XMM16.";
    0x91 Xmm17  "xmm17"    System  2 "XMM17.";
    0x92 Xmm18  "xmm18"    System  2 "XMM18.";
    0x93 Xmm19  "xmm19"    System  2 "XMM19.";
    0x94 Xmm20  "xmm20"    System  2 "XMM20.";
    0x95 Xmm21  "xmm21"    System  2 "XMM21.";
    0x96 Xmm22  "xmm22"    System  2 "XMM22.";
    0x97 Xmm23  "xmm23"    System  2 "XMM23.";
    0x98 Xmm24  "xmm24"    System  2 "XMM24.";
    0x99 Xmm25  "xmm25"    System  2 "XMM25.";
    0x9a Xmm26  "xmm26"    System  2 "XMM26.";
    0x9b Xmm27  "xmm27"    System  2 "XMM27.";
    0x9c Xmm28  "xmm28"    System  2 "XMM28.";
    0x9d Xmm29  "xmm29"    System  2 "XMM29.";
    0x9e Xmm30  "xmm30"    System  2 "XMM30.";
    0x9f Xmm31  "xmm31"    System  2 "XMM31.";
    0xa0 Ymm0   "ymm0"     System  4 "YMM0.";
    0xa1 Ymm1   "ymm1"     System  4 "YMM1.";
    0xa2 Ymm2   "ymm2"     System  4 "YMM2.";
    0xa3 Ymm3   "ymm3"     System  4 "YMM3.";
    0xa4 Ymm4   "ymm4"     System  4 "YMM4.";
    0xa5 Ymm5   "ymm5"     System  4 "YMM5.";
    0xa6 Ymm6   "ymm6"     System  4 "YMM6.";
    0xa7 Ymm7   "ymm7"     System  4 "YMM7.";
    0xa8 Ymm8   "ymm8"     System  4 "YMM8.";
    0xa9 Ymm9   "ymm9"     System  4 "YMM9.";
    0xaa Ymm10  "ymm10"    System  4 "YMM10.";
    0xab Ymm11  "ymm11"    System  4 "YMM11.";
    0xac Ymm12  "ymm12"    System  4 "YMM12.";
    0xad Ymm13  "ymm13"    System  4 "YMM13.";
    0xae Ymm14  "ymm14"    System  4 "YMM14.";
    0xaf Ymm15  "ymm15"    System  4 "YMM15.";
    0xb0 Ymm16  "ymm16"    System  4 "YMM16.";
    0xb1 Ymm17  "ymm17"    System  4 "YMM17.";
    0xb2 Ymm18  "ymm18"    System  4 "YMM18.";
    0xb3 Ymm19  "ymm19"    System  4 "YMM19.";
    0xb4 Ymm20  "ymm20"    System  4 "YMM20.";
    0xb5 Ymm21  "ymm21"    System  4 "YMM21.";
    0xb6 Ymm22  "ymm22"    System  4 "YMM22.";
    0xb7 Ymm23  "ymm23"    System  4 "YMM23.";
    0xb8 Ymm24  "ymm24"    System  4 "YMM24.";
    0xb9 Ymm25  "ymm25"    System  4 "YMM25.";
    0xba Ymm26  "ymm26"    System  4 "YMM26.";
    0xbb Ymm27  "ymm27"    System  4 "YMM27.";
    0xbc Ymm28  "ymm28"    System  4 "YMM28.";
    0xbd Ymm29  "ymm29"    System  4 "YMM29.";
    0xbe Ymm30  "ymm30"    System  4 "YMM30.";
    0xbf Ymm31  "ymm31"    System  4 "YMM31.";
    0xc0 Zmm0   "zmm0"     System  8 "ZMM0.";
    0xc1 Zmm1   "zmm1"     System  8 "ZMM1.";
    0xc2 Zmm2   "zmm2"     System  8 "ZMM2.";
    0xc3 Zmm3   "zmm3"     System  8 "ZMM3.";
    0xc4 Zmm4   "zmm4"     System  8 "ZMM4.";
    0xc5 Zmm5   "zmm5"     System  8 "ZMM5.";
    0xc6 Zmm6   "zmm6"     System  8 "ZMM6.";
    0xc7 Zmm7   "zmm7"     System  8 "ZMM7.";
    0xc8 Zmm8   "zmm8"     System  8 "ZMM8.";
    0xc9 Zmm9   "zmm9"     System  8 "ZMM9.";
    0xca Zmm10  "zmm10"    System  8 "ZMM10.";
    0xcb Zmm11  "zmm11"    System  8 "ZMM11.";
    0xcc Zmm12  "zmm12"    System  8 "ZMM12.";
    0xcd Zmm13  "zmm13"    System  8 "ZMM13.";
    0xce Zmm14  "zmm14"    System  8 "ZMM14.";
    0xcf Zmm15  "zmm15"    System  8 "ZMM15.";
    0xd0 Zmm16  "zmm16"    System  8 "ZMM16.";
    0xd1 Zmm17  "zmm17"    System  8 "ZMM17.";
    0xd2 Zmm18  "zmm18"    System  8 "ZMM18.";
    0xd3 Zmm19  "zmm19"    System  8 "ZMM19.";
    0xd4 Zmm20  "zmm20"    System  8 "ZMM20.";
    0xd5 Zmm21  "zmm21"    System  8 "ZMM21.";
    0xd6 Zmm22  "zmm22"    System  8 "ZMM22.";
    0xd7 Zmm23  "zmm23"    System  8 "ZMM23.";
    0xd8 Zmm24  "zmm24"    System  8 "ZMM24.";
    0xd9 Zmm25  "zmm25"    System  8 "ZMM25.";
    0xda Zmm26  "zmm26"    System  8 "ZMM26.";
    0xdb Zmm27  "zmm27"    System  8 "ZMM27.";
    0xdc Zmm28  "zmm28"    System  8 "ZMM28.";
    0xdd Zmm29  "zmm29"    System  8 "ZMM29.";
    0xde Zmm30  "zmm30"    System  8 "ZMM30.";
    0xdf Zmm31  "zmm31"    System  8 "ZMM31.";
}

impl Reg {
    /// Its number as an operand.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Whether `pop r` and `pop u` can change it.
    pub const fn is_writable(self) -> bool {
        matches!(self.class(), Class::General)
    }

    /// Whether every trap saves it, so that `push u` can ask for the value that user mode had.
    pub const fn is_saved(self) -> bool {
        matches!(self.class(), Class::General | Class::Saved)
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
