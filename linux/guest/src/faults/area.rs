//! User memory that faults as a test wants it to.

use std::io;
use std::os::fd::AsFd;
use std::ptr;

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap};

pub const PAGE: usize = 4096;
/// Pages of an area.
pub const PAGES: usize = 4;

/// A few pages of private memory. Only the kernel accesses them, at the request of a test.
pub struct Area(*mut u8);

impl Area {
    /// Zeros.
    pub fn anonymous() -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at a place that the kernel chooses.
        Ok(Area(
            unsafe { mmap_anonymous(ptr::null_mut(), PAGES * PAGE, access, MapFlags::PRIVATE) }?.cast(),
        ))
    }

    /// The beginning of a file.
    pub fn of_file(file: impl AsFd) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at a place that the kernel chooses.
        Ok(Area(
            unsafe { mmap(ptr::null_mut(), PAGES * PAGE, access, MapFlags::PRIVATE, file, 0) }?.cast(),
        ))
    }

    /// Where a page begins.
    pub fn page(&self, number: usize) -> u64 {
        self.0.expose_provenance() as u64 + (number * PAGE) as u64
    }

    /// Has every page there, writable.
    pub fn touch(&self) {
        for page in 0..PAGES {
            // SAFETY: the memory is this area's, and mapped for reading and writing when a test calls this.
            unsafe {
                let byte = self.0.add(page * PAGE);
                byte.write_volatile(byte.read_volatile());
            }
        }
    }

    /// A number that changes with the content.
    pub fn sum(&self) -> u64 {
        let words = (0..PAGES * PAGE / 8).map(|at| {
            // SAFETY: the memory is this area's, and mapped for reading when a test calls this.
            unsafe { self.0.cast::<u64>().add(at).read_volatile() }
        });
        words.fold(0, |sum: u64, word| sum.wrapping_mul(0x100_0000_01b3) ^ word)
    }

    /// Has no page there: the next access to each is a fault that brings it back, as it was at first.
    pub fn drop_pages(&self) -> io::Result<()> {
        // SAFETY: nothing refers to the memory, and what was in it is no longer needed.
        Ok(unsafe { madvise(self.0.cast(), PAGES * PAGE, Advice::LinuxDontNeed) }?)
    }

    /// Allows no access to a page, or allows it again.
    pub fn protect(&self, number: usize, allowed: MprotectFlags) -> io::Result<()> {
        // SAFETY: nothing refers to the memory.
        Ok(unsafe { mprotect(self.0.add(number * PAGE).cast(), PAGE, allowed) }?)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping is this area's, and nothing refers to it.
        let _ = unsafe { munmap(self.0.cast(), PAGES * PAGE) };
    }
}

// SAFETY: it is an address range; the kernel sorts out who accesses it at the same time.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}
