//! What the programs of both machines see, and what they leave behind.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Variables of a program.
pub const VARIABLES: usize = 65;

/// Bytes of the log.
pub const LOG: usize = 128;

/// The string that programs log: 64 bytes.
pub const STRING: &[u8; 64] = b"/usr/lib/x86_64-linux-gnu/security/pam_systemd_home_session.so.0";

/// The probed system and the program's own memory in one piece, because eBPF programs get one address. The programs name these offsets.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ground {
    /// By the numbers of `dprobes::rpn::reg::Reg`.
    pub registers: [u64; 32],
    /// The program's variables.
    pub variables: [u64; VARIABLES],
    /// A string that ends with a zero byte.
    pub string: [u8; 128],
    unused: [u8; 56],
    /// Bytes in `log`.
    pub log_len: u64,
    /// What the program logged.
    pub log: [u8; LOG],
}

const _: () = {
    assert!(std::mem::offset_of!(Ground, variables) == 256);
    assert!(std::mem::offset_of!(Ground, log_len) == 960);
    assert!(std::mem::offset_of!(Ground, log) == 968);
};

impl Ground {
    /// With registers by number, and the rest zero.
    pub fn new(registers: &[(usize, u64)]) -> Box<Self> {
        let mut ground = Box::new(Self {
            registers: [0; 32],
            variables: [0; VARIABLES],
            string: [0; 128],
            unused: [0; 56],
            log_len: 0,
            log: [0; LOG],
        });
        ground.string[..STRING.len()].copy_from_slice(STRING);
        for (number, value) in registers {
            ground.registers[*number] = *value;
        }
        ground
    }
}

/// What a run left behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Observed {
    /// Is there a record of this hit?
    pub published: bool,
    /// What was logged, without the element's prefix.
    pub log: Vec<u8>,
    /// The variables.
    pub variables: Vec<u64>,
}
