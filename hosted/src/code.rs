//! Memory for code, near the executable's text: slots, and functions made at run time.

use std::ffi::c_void;
use std::io;
use std::ops::Range;

use crate::image::{Image, ImageError};
use crate::memory::{Alias, PAGE};

/// Why there is no memory for code.
#[derive(Debug)]
pub enum CodeError {
    /// Where the executable is could not be found out.
    Image(ImageError),
    /// There is no free range of this many bytes within 1 GiB of the executable's text.
    NoRoom {
        /// Bytes asked for.
        len: usize,
    },
    /// The code could not be written.
    Write(io::Error),
}

impl std::fmt::Display for CodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CodeError::Image(error) => error.fmt(f),
            CodeError::NoRoom { len } => write!(f, "no {len} free bytes within 1 GiB of the executable's text"),
            CodeError::Write(error) => write!(f, "code cannot be written through /proc/self/mem: {error}"),
        }
    }
}

impl std::error::Error for CodeError {}

impl From<ImageError> for CodeError {
    fn from(error: ImageError) -> Self {
        CodeError::Image(error)
    }
}

/// Code made at run time, within reach of the slots: readable and executable, never writable.
///
/// [`Process::register_code`](crate::Process::register_code) makes it a function that can be probed.
#[derive(Debug)]
pub struct CodeBuffer {
    start: *mut c_void,
    len: usize,
}

// SAFETY: the mapping belongs to the buffer, and is written through the kernel only.
unsafe impl Send for CodeBuffer {}
// SAFETY: as above; a shared buffer cannot be written.
unsafe impl Sync for CodeBuffer {}

impl CodeBuffer {
    /// Room for `len` bytes of code, all `int3`, rounded up to whole pages.
    ///
    /// # Errors
    /// [`CodeError`].
    pub fn new(len: usize) -> Result<Self, CodeError> {
        /// Distance between the places that are tried.
        const STEP: u64 = 1 << 20;
        /// How far from the text: a jump between any two such places reaches less than 2 GiB.
        const REACH: u64 = 1 << 30;

        let text = Image::get()?.text();
        let size = len.max(1).next_multiple_of(PAGE);
        let stride = (size as u64).next_multiple_of(STEP);
        let base = text.start & !(STEP - 1);
        for distance in (stride..REACH).step_by(stride as usize) {
            let Some(address) = base.checked_sub(distance) else {
                break;
            };
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            // SAFETY: `MAP_FIXED_NOREPLACE` fails rather than touch an existing mapping.
            let start = unsafe {
                libc::mmap(
                    address as usize as *mut c_void,
                    size,
                    libc::PROT_READ | libc::PROT_EXEC,
                    flags,
                    -1,
                    0,
                )
            };
            if start == libc::MAP_FAILED {
                continue;
            }
            let mut buffer = CodeBuffer { start, len: size };
            // Kernels before 4.17 take the flag for a hint.
            if start as u64 != address {
                continue;
            }
            buffer.write(0, &vec![0xcc; size])?;
            return Ok(buffer);
        }
        Err(CodeError::NoRoom { len })
    }

    /// A buffer that begins with `code`.
    ///
    /// # Errors
    /// [`CodeError`].
    pub fn with(code: &[u8]) -> Result<Self, CodeError> {
        let mut buffer = Self::new(code.len())?;
        buffer.write(0, code)?;
        Ok(buffer)
    }

    /// Writes code. What runs it must be synchronised by the caller.
    ///
    /// # Errors
    /// [`CodeError::NoRoom`] when it does not fit, [`CodeError::Write`].
    pub fn write(&mut self, offset: usize, code: &[u8]) -> Result<(), CodeError> {
        let end = offset.checked_add(code.len()).filter(|end| *end <= self.len);
        end.ok_or(CodeError::NoRoom { len: code.len() })?;
        let alias = Alias::open().map_err(CodeError::Write)?;
        alias
            .write(self.range().start + offset as u64, code)
            .map_err(CodeError::Write)
    }

    /// Where it is.
    pub fn range(&self) -> Range<u64> {
        let start = self.start as u64;
        start..start + self.len as u64
    }

    /// Its first byte, to be called as a function.
    pub fn as_ptr(&self) -> *const c_void {
        self.start.cast_const()
    }
}

impl Drop for CodeBuffer {
    fn drop(&mut self) {
        // SAFETY: the mapping is this buffer's. Who still runs code in it has not heeded that it is borrowed from the
        // buffer.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_runs_near_the_executable_and_is_not_writable() {
        // mov eax, 42; ret
        let buffer = CodeBuffer::with(&[0xb8, 42, 0, 0, 0, 0xc3]).unwrap();
        // SAFETY: the buffer holds a whole function with this signature.
        let function: extern "C" fn() -> u32 = unsafe { std::mem::transmute(buffer.as_ptr()) };
        assert_eq!(function(), 42);
        let distance = Image::get().unwrap().text().start - buffer.range().start;
        assert!(distance < 1 << 30);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps
            .lines()
            .find(|line| line.starts_with(&format!("{:x}-", buffer.range().start)))
            .unwrap();
        assert!(line.contains("r-xp"), "{line}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut buffer = CodeBuffer::new(10).unwrap();
        assert!(matches!(
            buffer.write(PAGE - 1, &[0; 2]),
            Err(CodeError::NoRoom { len: 2 })
        ));
        assert!(matches!(
            buffer.write(usize::MAX, &[0; 2]),
            Err(CodeError::NoRoom { len: 2 })
        ));
    }
}
