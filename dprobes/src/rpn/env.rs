//! What a running program can reach outside itself.

use super::BadAddress;
use super::reg::Reg;

/// The probed system, as a program sees it during one hit.
///
/// Implementations run on the path of a hit: no method allocates, sleeps, panics or takes a lock that an interrupted
/// holder could own.
pub trait Env {
    /// The value of a register, zero-extended to a word.
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
            if let Some(len) = part.iter().position(|byte| *byte == 0) {
                return Ok(done + len);
            }
            read?;
            at = at.wrapping_add((end - done) as u64);
            done = end;
        }
        Ok(done)
    }
}
