//! What emulation needs of the CPU that was trapped.

use super::parts::Segment;

/// A general register, numbered as in instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Gpr {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

impl Gpr {
    /// All of them, in order of their numbers.
    pub const ALL: [Gpr; 16] = [
        Gpr::Rax,
        Gpr::Rcx,
        Gpr::Rdx,
        Gpr::Rbx,
        Gpr::Rsp,
        Gpr::Rbp,
        Gpr::Rsi,
        Gpr::Rdi,
        Gpr::R8,
        Gpr::R9,
        Gpr::R10,
        Gpr::R11,
        Gpr::R12,
        Gpr::R13,
        Gpr::R14,
        Gpr::R15,
    ];

    /// The register with a number, of which the lowest 4 bits count.
    pub fn from_number(number: u8) -> Gpr {
        // A masked index into 16 entries: no bounds check, no panic.
        Gpr::ALL[usize::from(number & 15)]
    }
}

/// The state of the CPU that an emulated instruction reads and changes: what a trap handler saved, and memory.
///
/// Memory access is fault-tolerant: it fails where the CPU would have faulted, and never sleeps.
pub trait Cpu {
    /// Why memory could not be accessed.
    type Fault;

    /// A general register.
    fn gpr(&self, register: Gpr) -> u64;
    /// Change a general register.
    fn set_gpr(&mut self, register: Gpr, value: u64);
    /// Change RIP.
    fn set_rip(&mut self, value: u64);
    /// RFLAGS.
    fn rflags(&self) -> u64;
    /// Change RFLAGS.
    fn set_rflags(&mut self, value: u64);
    /// The current privilege level, 0 to 3: the low bits of CS.
    fn privilege_level(&self) -> u8;
    /// The base of FS or GS as the instruction sees it. `None` if it is not known.
    fn segment_base(&self, segment: Segment) -> Option<u64>;
    /// Whether the CPU would accept an address: bits 63 to 47 equal, or 63 to 56 with 5-level paging.
    fn is_canonical(&self, address: u64) -> bool {
        let upper = (address as i64) >> 47;
        upper == 0 || upper == -1
    }
    /// Read 8 bytes. Need not be aligned.
    ///
    /// # Errors
    /// If any of them cannot be read.
    fn read_u64(&mut self, address: u64) -> Result<u64, Self::Fault>;
    /// Read 2 bytes. Need not be aligned.
    ///
    /// # Errors
    /// If any of them cannot be read.
    fn read_u16(&mut self, address: u64) -> Result<u16, Self::Fault>;
    /// Write 8 bytes, all or none. Need not be aligned.
    ///
    /// # Errors
    /// If any of them cannot be written.
    fn write_u64(&mut self, address: u64, value: u64) -> Result<(), Self::Fault>;
    /// Write 2 bytes, both or none. Need not be aligned.
    ///
    /// # Errors
    /// If any of them cannot be written.
    fn write_u16(&mut self, address: u64, value: u16) -> Result<(), Self::Fault>;
}
