//! Reading and writing memory, and reading registers, that may not be there.

use x86_64::registers::control::Cr2;

use crate::trap::{GP, PF, TrapFrame};

core::arch::global_asm!(include_str!("asm/copy.s"), options(att_syntax));

/// An entry of section `__ex_table`: where an instruction may fault, and where to continue if it does.
#[repr(C)]
struct FixUp {
    fault: u64,
    resume: u64,
}

unsafe extern "C" {
    fn fault_copy(to: *mut u8, from: *const u8, len: usize) -> usize;
    fn fault_copy_in_a_hit(to: *mut u8, from: *const u8, len: usize) -> usize;
    fn fault_or_zero(byte: *mut u8) -> bool;
    fn fault_rdmsr(number: u32, value: *mut u64) -> bool;
    static __ex_table_start: FixUp;
    static __ex_table_end: FixUp;
}

/// An address that could not be accessed: the first one of the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The address.
    pub address: u64,
}

fn table() -> &'static [FixUp] {
    let start = &raw const __ex_table_start;
    let len = ((&raw const __ex_table_end).addr() - start.addr()) / size_of::<FixUp>();
    // SAFETY: the linker script puts the entries between the two symbols, in read-only data.
    unsafe { core::slice::from_raw_parts(start, len) }
}

/// Where code faulting at `rip` continues, if the kernel's fix-up table has an entry for it.
pub fn fix_up_of(rip: u64) -> Option<u64> {
    table()
        .iter()
        .find(|entry| entry.fault == rip)
        .map(|entry| entry.resume)
}

/// Continues at the fix-up of the faulting instruction. False if it has none, or the trap is not a fault of memory access.
pub(crate) fn fix_up(vector: u8, frame: &mut TrapFrame) -> bool {
    match fix_up_of(frame.rip) {
        Some(resume) if vector == PF || vector == GP => {
            frame.rip = resume;
            true
        }
        _ => false,
    }
}

/// Copies `len` bytes by a routine of asm/copy.s; `base` is the end of the copy that may fault. Leaves CR2 as it was.
///
/// # Safety
///
/// The other end must be valid for the whole length, and what a write changes must be nobody else's.
#[inline(always)]
unsafe fn copy(
    routine: unsafe extern "C" fn(*mut u8, *const u8, usize) -> usize,
    to: *mut u8,
    from: *const u8,
    len: usize,
    base: u64,
) -> Result<(), Fault> {
    let cr2 = Cr2::read_raw();
    // SAFETY: a fault at either end continues at the fix-up; the rest is the caller's promise.
    let left = unsafe { routine(to, from, len) };
    if left == 0 {
        return Ok(());
    }
    // SAFETY: CR2 has no effect but to be read.
    unsafe { core::arch::asm!("mov cr2, {}", in(reg) cr2, options(nomem, nostack, preserves_flags)) };
    Err(Fault {
        address: base.wrapping_add((len - left) as u64),
    })
}

/// Reads memory at any address whatsoever: `into.len()` bytes from `from`. Works in a trap. CR2 is left as it was.
///
/// On a fault the bytes before it have been read. Reading a device register may have an effect on the device.
pub fn probe_read(from: u64, into: &mut [u8]) -> Result<(), Fault> {
    let (to, len) = (into.as_mut_ptr(), into.len());
    // SAFETY: `into` is valid; reading through a wild address is survived, and the compiler assumes nothing about what is read.
    unsafe {
        copy(
            fault_copy,
            to,
            core::ptr::with_exposed_provenance(from as usize),
            len,
            from,
        )
    }
}

/// Writes memory at any address whatsoever. Works in a trap. CR2 is left as it was; read-only pages are not written.
///
/// # Safety
///
/// If there is writable memory at `to`, changing it must not break the promises of whoever owns it.
pub unsafe fn probe_write(to: u64, bytes: &[u8]) -> Result<(), Fault> {
    let (from, len) = (bytes.as_ptr(), bytes.len());
    // SAFETY: `bytes` is valid; the destination is the caller's promise where it exists, and survived where not.
    unsafe {
        copy(
            fault_copy,
            core::ptr::with_exposed_provenance_mut(to as usize),
            from,
            len,
            to,
        )
    }
}

/// As [`probe_read`], for the engine: nothing that runs here can be probed.
#[unsafe(link_section = ".noinstr.text")]
pub fn probe_read_in_a_hit(from: u64, into: &mut [u8]) -> Result<(), Fault> {
    let (to, len) = (into.as_mut_ptr(), into.len());
    // SAFETY: as in `probe_read`.
    unsafe {
        copy(
            fault_copy_in_a_hit,
            to,
            core::ptr::with_exposed_provenance(from as usize),
            len,
            from,
        )
    }
}

/// As [`probe_write`], for the engine: nothing that runs here can be probed.
///
/// # Safety
///
/// As `probe_write`.
#[unsafe(link_section = ".noinstr.text")]
pub unsafe fn probe_write_in_a_hit(to: u64, bytes: &[u8]) -> Result<(), Fault> {
    let (from, len) = (bytes.as_ptr(), bytes.len());
    // SAFETY: as in `probe_write`.
    unsafe {
        copy(
            fault_copy_in_a_hit,
            core::ptr::with_exposed_provenance_mut(to as usize),
            from,
            len,
            to,
        )
    }
}

/// Can the byte at this address be written? Works in a trap, and cannot lose what another CPU stores there. CR2 is left as it was.
pub fn probe_writable(address: u64) -> bool {
    let cr2 = Cr2::read_raw();
    // SAFETY: a fault continues at the fix-up, and a locked `or` with zero changes no memory.
    let writable = unsafe { fault_or_zero(core::ptr::with_exposed_provenance_mut(address as usize)) };
    if !writable {
        // SAFETY: CR2 has no effect but to be read.
        unsafe { core::arch::asm!("mov cr2, {}", in(reg) cr2, options(nomem, nostack, preserves_flags)) };
    }
    writable
}

/// Reads a model-specific register; `None` when the CPU does not have it. Works in a trap.
pub fn probe_msr(number: u32) -> Option<u64> {
    let mut value = 0;
    // SAFETY: a fault continues at the fix-up; reading a register that is there has no effect on memory.
    unsafe { fault_rdmsr(number, &raw mut value) }.then_some(value)
}
