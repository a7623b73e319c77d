//! A stack for signal handlers that is large enough for traps inside traps.

use std::io;
use std::marker::PhantomData;
use std::mem;
use std::ptr;

/// An alternate signal stack for this thread, in place of the one it has; dropping it puts that one back.
#[derive(Debug)]
pub struct AlternateStack {
    previous: libc::stack_t,
    memory: *mut libc::c_void,
    len: usize,
    /// It belongs to the thread that made it.
    not_send: PhantomData<*mut ()>,
}

impl AlternateStack {
    /// Enough for a few traps inside each other, on CPUs with large registers too.
    pub const SIZE: usize = 256 * 1024;

    /// Gives this thread an alternate stack of [`SIZE`](Self::SIZE) bytes.
    ///
    /// # Errors
    /// What `mmap` and `sigaltstack` say.
    pub fn new() -> io::Result<Self> {
        // SAFETY: zeros are a valid value.
        let mut previous: libc::stack_t = unsafe { mem::zeroed() };
        let (access, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing.
        let memory = unsafe { libc::mmap(ptr::null_mut(), Self::SIZE, access, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = libc::stack_t {
            ss_sp: memory,
            ss_flags: 0,
            ss_size: Self::SIZE,
        };
        // SAFETY: the memory is nobody else's, and stays until the stack is replaced.
        if unsafe { libc::sigaltstack(&raw const stack, &raw mut previous) } != 0 {
            let error = io::Error::last_os_error();
            // SAFETY: nobody uses it.
            unsafe { libc::munmap(memory, Self::SIZE) };
            return Err(error);
        }
        Ok(AlternateStack {
            previous,
            memory,
            len: Self::SIZE,
            not_send: PhantomData,
        })
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        // SAFETY: what was the thread's stack before was good then; it outlives this, which the thread put on top of it. The
        // memory is freed only when the kernel has let go of it.
        unsafe {
            if libc::sigaltstack(&raw const self.previous, ptr::null_mut()) == 0 {
                libc::munmap(self.memory, self.len);
            }
        }
    }
}
