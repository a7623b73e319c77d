//! What a running program can reach outside itself.

use core::ffi::CStr;

use super::BadAddress;
use super::reg::Reg;

/// The current task, as instructions see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskValues {
    /// A number that tells this task from every other living one; on Linux its address.
    pub task: u64,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Real user id.
    pub uid: u32,
    /// Process name, zero-padded.
    pub name: [u8; 16],
}

/// Width of an access to an I/O port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortWidth {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
}

impl PortWidth {
    /// Ports an access takes.
    pub const fn bytes(self) -> u16 {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }
}

/// The probed system, as a program sees it during one hit.
///
/// Implementations run on the path of a hit: no method allocates, sleeps, panics or takes a lock that an interrupted
/// holder could own.
pub trait Env {
    /// The value of a register that is not a [`Class::System`](super::reg::Class::System) one, zero-extended to a word.
    fn reg(&self, reg: Reg) -> u64;

    /// Changes a register for which [`Reg::is_writable`] holds.
    fn set_reg(&mut self, reg: Reg, value: u64);

    /// Copies memory at `addr` into `buf`; never pages in. A range that goes past the last address is a bad one.
    ///
    /// # Errors
    /// [`BadAddress`], with the first byte that could not be read. What is in `buf` then is not used.
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), BadAddress>;

    /// Copies `bytes` to memory at `addr`; never pages in. A range that goes past the last address is a bad one.
    ///
    /// # Errors
    /// [`BadAddress`], with the first byte that could not be written. Bytes before it may have been.
    fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), BadAddress>;

    /// Copies the string at `addr` into `buf`: the bytes before a zero byte, or as many as fit. Returns their number.
    /// Nothing behind the zero byte has to be readable.
    ///
    /// # Errors
    /// [`BadAddress`], when neither a zero byte nor the end of `buf` comes before a byte that cannot be read.
    fn read_str(&mut self, addr: u64, buf: &mut [u8]) -> Result<usize, BadAddress> {
        // Aligned chunks do not cross into the next page unless the string does.
        const CHUNK: u64 = 64;
        let mut done = 0;
        let mut at = addr;
        while done < buf.len() {
            let chunk = (CHUNK - at % CHUNK) as usize;
            let end = buf.len().min(done + chunk);
            let Some(mut part) = buf.get_mut(done..end) else { break };
            let mut read = self.read(at, part);
            if let Err(bad) = read {
                // The string may still end before that byte.
                let good = usize::try_from(bad.addr.wrapping_sub(at)).unwrap_or(0);
                part = part.get_mut(..good).unwrap_or(&mut []);
                if !part.is_empty() && self.read(at, part).is_err() {
                    part = &mut [];
                }
                read = Err(bad);
            }
            if let Ok(end) = CStr::from_bytes_until_nul(part) {
                return Ok(done + end.count_bytes());
            }
            read?;
            at = at.wrapping_add((end - done) as u64);
            done = end;
        }
        Ok(done)
    }

    /// Whether the byte at `addr` can be read.
    fn readable(&mut self, addr: u64) -> bool {
        self.read(addr, &mut [0]).is_ok()
    }

    /// Whether the byte at `addr` can be read and written. Finding out must change nothing, and must not lose what another CPU
    /// stores there meanwhile.
    fn writable(&mut self, addr: u64) -> bool;

    /// A register that the current task has in user mode, one for which [`Reg::is_saved`] holds; none when the task has no user
    /// mode.
    fn user_reg(&mut self, reg: Reg) -> Option<u64>;

    /// Changes a register that the current task has in user mode, one for which [`Reg::is_writable`] holds; false when the task
    /// has no user mode.
    fn set_user_reg(&mut self, reg: Reg, value: u64) -> bool;

    /// Reads a [`Class::System`](super::reg::Class::System) register as the probed instruction would see it: its
    /// [`Reg::words`] words, the lowest first (a descriptor table's limit, then its base). False when this CPU or privilege level does not have the
    /// register, or it is switched off.
    fn system_reg(&mut self, reg: Reg, words: &mut [u64; 8]) -> bool;

    /// Executes CPUID: EAX, EBX, ECX, EDX.
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4];

    /// Reads a model-specific register; none when that faults or is not permitted.
    fn msr(&mut self, number: u32) -> Option<u64>;

    /// Reads `width` from a port and those behind it, which exist; none where there is no privilege for it.
    fn port_read(&mut self, port: u16, width: PortWidth) -> Option<u32>;

    /// Writes the low `width` of `value` to a port and those behind it, which exist; false where there is no privilege for it.
    fn port_write(&mut self, port: u16, width: PortWidth, value: u32) -> bool;

    /// The current task.
    fn task(&mut self) -> TaskValues;

    /// The number of this CPU.
    fn cpu(&mut self) -> u32;

    /// A monotonic clock in nanoseconds.
    fn clock(&mut self) -> u64;

    /// The time-stamp counter.
    fn tsc(&mut self) -> u64;

    /// Fills `addresses` with the probed instruction's address and the return addresses on the kernel stack, the innermost first;
    /// returns how many there are. Nothing for a probe in user mode.
    fn kernel_stack(&mut self, addresses: &mut [u64]) -> usize;

    /// The same for the user-mode stack of the current task: where user mode will go on, and its return addresses.
    fn user_stack(&mut self, addresses: &mut [u64]) -> usize;

    /// Adds a value to one of the program's maps, under `keys`: as many as the map has. For a map that counts the value is 1.
    fn aggregate(&mut self, map: u16, keys: &[u64], value: u64);

    /// Suspends or resumes a group of the program's points, by its index in [`Program::groups`](super::Program::groups).
    fn suspend(&mut self, group: u16, suspended: bool);
}
