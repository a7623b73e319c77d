//! The process's own memory, tolerant of faults and of protection.

use dprobes::host::BadAddress;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Copies memory at `address` into `buf`. May be called in a signal handler, whose `errno` it changes.
pub(crate) fn read(address: u64, buf: &mut [u8]) -> Result<(), BadAddress> {
    let local = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    // SAFETY: the kernel writes to `buf` as far as the vector says, and looks at the other address with its own eyes.
    copy(address, buf.len(), |pid, remote| unsafe {
        libc::process_vm_readv(pid, &raw const local, 1, remote, 1, 0)
    })
}

/// Copies `bytes` to memory at `address`. May be called in a signal handler, whose `errno` it changes.
pub(crate) fn write(address: u64, bytes: &[u8]) -> Result<(), BadAddress> {
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel reads from `bytes` as far as the vector says. It writes where the probed code or a probe program
    // asked for, which is that program's purpose and responsibility.
    copy(address, bytes.len(), |pid, remote| unsafe {
        libc::process_vm_writev(pid, &raw const local, 1, remote, 1, 0)
    })
}

/// Can the byte at `address` be written? May be called in a signal handler, whose `errno` it changes.
///
/// The kernel does an atomic `or` with zero on the word that the byte is in, at the other address of FUTEX_WAKE_OP (futex(2)), and says
/// EFAULT where it cannot. No store of another thread is lost, and nobody is woken but for a waiter on the word itself, which every
/// waiter must expect.
pub(crate) fn writable(address: u64) -> bool {
    // From the kernel's include/uapi/linux/futex.h: FUTEX_OP(FUTEX_OP_OR, 0, FUTEX_OP_CMP_EQ, 0).
    const OR_ZERO: u32 = 2 << 28;
    let nobody_waits_here = 0_u32;
    // SAFETY: the kernel looks at the first address as a name only, and changes nothing at the other.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            &raw const nobody_waits_here,
            libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG,
            0,
            0_usize,
            address & !3,
            OR_ZERO,
        )
    };
    result >= 0
}

/// The kernel copies up to the page that is bad, so that what it did copy says which byte that is.
fn copy(
    address: u64,
    len: usize,
    call: impl FnOnce(libc::pid_t, *const libc::iovec) -> isize,
) -> Result<(), BadAddress> {
    let remote = libc::iovec {
        iov_base: address as usize as *mut _,
        iov_len: len,
    };
    // SAFETY: the call has no preconditions.
    let done = call(unsafe { libc::getpid() }, &raw const remote);
    match usize::try_from(done) {
        Ok(done) if done == len => Ok(()),
        Ok(done) => Err(BadAddress {
            addr: address.wrapping_add(done as u64),
        }),
        Err(_) => Err(BadAddress { addr: address }),
    }
}

/// The process's memory as a file: writes go to private pages whatever their protection, as a debugger's do, so that text
/// is never mapped writable.
pub(crate) struct Alias(File);

impl Alias {
    pub(crate) fn open() -> io::Result<Self> {
        // By name each time: after a fork an open file would still be the parent's memory.
        File::options().read(true).write(true).open("/proc/self/mem").map(Alias)
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, address)
    }
}

/// The size of a page.
pub(crate) const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    /// Three pages, the middle one without access.
    struct Pages(*mut u8);

    impl Pages {
        fn new() -> Self {
            // SAFETY: a new mapping at an address of the kernel's choice touches nothing.
            let start = unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    3 * PAGE,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            assert_ne!(start, libc::MAP_FAILED);
            // SAFETY: the page belongs to the new mapping, which nobody else knows.
            assert_eq!(
                unsafe { libc::mprotect(start.byte_add(PAGE), PAGE, libc::PROT_NONE) },
                0
            );
            Pages(start.cast())
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // SAFETY: the mapping is this one's, and nothing refers to it any more.
            unsafe { libc::munmap(self.0.cast(), 3 * PAGE) };
        }
    }

    #[test]
    fn the_first_bad_byte_is_named_exactly() {
        let pages = Pages::new();
        let bad = pages.0 as u64 + PAGE as u64;
        for before in [0_usize, 1, 7, 4095, 4096] {
            let mut buf = vec![0; before + 3];
            assert_eq!(
                read(bad - before as u64, &mut buf),
                Err(BadAddress { addr: bad }),
                "{before} before"
            );
            assert_eq!(
                write(bad - before as u64, &buf),
                Err(BadAddress { addr: bad }),
                "{before} before"
            );
            assert_eq!(read(bad - before as u64, &mut buf[..before]), Ok(()));
        }
        let mut buf = [0; 2 * PAGE];
        assert_eq!(read(bad, &mut buf[..1]), Err(BadAddress { addr: bad }));
        assert_eq!(read(bad + 5, &mut buf), Err(BadAddress { addr: bad + 5 }));
    }

    #[test]
    fn what_can_be_written_is_known_without_writing() {
        let pages = Pages::new();
        for (offset, expected) in [
            (0, true),
            (5, true),
            (PAGE - 1, true),
            (PAGE, false),
            (2 * PAGE - 1, false),
        ] {
            assert_eq!(writable(pages.0 as u64 + offset as u64), expected, "{offset}");
        }
        // SAFETY: the page belongs to the mapping, and nobody else looks at it.
        unsafe {
            pages.0.write_bytes(0xa5, PAGE);
            assert!(writable(pages.0 as u64 + 9));
            assert_eq!(pages.0.add(9).read_volatile(), 0xa5);
            assert_eq!(libc::mprotect(pages.0.cast(), PAGE, libc::PROT_READ), 0);
            assert!(!writable(pages.0 as u64 + 9));
            assert_eq!(
                libc::mprotect(pages.0.cast(), PAGE, libc::PROT_READ | libc::PROT_WRITE),
                0
            );
        }
        for address in [0, 1, 0x8000_0000_0000, u64::MAX] {
            assert!(!writable(address), "{address:#x}");
        }
    }

    #[test]
    fn no_store_is_lost_by_asking() {
        let word = std::sync::atomic::AtomicU32::new(0);
        let address = word.as_ptr() as u64;
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| (0..200_000).all(|_| writable(address)));
            let mut expected = 0;
            while !asking.is_finished() {
                expected += 1;
                // A plain store and a load: a rewrite of an older value between the two would show.
                word.store(expected, std::sync::atomic::Ordering::Relaxed);
                assert_eq!(word.load(std::sync::atomic::Ordering::Relaxed), expected);
            }
            assert!(asking.join().unwrap());
        });
    }

    #[test]
    fn addresses_that_no_process_has_are_bad() {
        for address in [
            0,
            0x7fff_ffff_f000,
            0x8000_0000_0000,
            0xffff_8000_0000_0000,
            u64::MAX - 6,
        ] {
            let mut buf = [0; 8];
            let end = 0x7fff_ffff_f000_u64;
            assert_eq!(
                read(address, &mut buf),
                Err(BadAddress { addr: address }),
                "{address:#x}"
            );
            assert!(address >= end || address == 0);
        }
    }

    #[test]
    fn reads_and_writes_what_is_there() {
        let mut value = 5_u64;
        let address = &raw mut value as u64;
        write(address, &77_u64.to_le_bytes()).unwrap();
        let mut bytes = [0; 8];
        read(address, &mut bytes).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), 77);
        // SAFETY: a read of a live variable that has been written behind the compiler's back.
        assert_eq!(unsafe { (&raw const value).read_volatile() }, 77);
    }
}
