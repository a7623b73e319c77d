//! Names of hooks and exits, as C strings, so that records written in C and in Rust are the same.

use core::ffi::{CStr, c_char};
use core::fmt;

/// The longest name, in bytes.
pub const NAME_MAX: usize = 63;

/// A C string that lives for ever, or null.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Name(*const c_char);

// SAFETY: the string is never written.
unsafe impl Send for Name {}
// SAFETY: as above.
unsafe impl Sync for Name {}

impl Name {
    /// No name.
    pub const NONE: Self = Name(core::ptr::null());

    /// A name.
    #[must_use]
    pub const fn new(name: &'static CStr) -> Self {
        Name(name.as_ptr())
    }

    /// The string; empty when there is none.
    #[must_use]
    pub fn to_c_str(&self) -> &CStr {
        if self.0.is_null() {
            return c"";
        }
        // SAFETY: made from a `'static` string, or by C code that promises the same (see `Exit`).
        unsafe { CStr::from_ptr(self.0) }
    }

    /// The string's bytes, without the zero.
    #[must_use]
    pub fn to_bytes(&self) -> &[u8] {
        self.to_c_str().to_bytes()
    }

    /// Is there none?
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.0.is_null()
    }

    /// May this be a name? 1 to [`NAME_MAX`] bytes, printable ASCII but no slash or space: it becomes a file's name.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let bytes = self.to_bytes();
        (1..=NAME_MAX).contains(&bytes.len())
            && bytes.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'/')
            && bytes != b"."
            && bytes != b".."
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for Name {}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.to_bytes().utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Names of exits, as an exit's co-existence rules give them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct NameList {
    first: *const Name,
    len: usize,
}

// SAFETY: the names are never written.
unsafe impl Send for NameList {}
// SAFETY: as above.
unsafe impl Sync for NameList {}

impl NameList {
    /// No names.
    pub const EMPTY: Self = NameList {
        first: core::ptr::null(),
        len: 0,
    };

    /// These names.
    #[must_use]
    pub const fn new(names: &'static [Name]) -> Self {
        NameList {
            first: names.as_ptr(),
            len: names.len(),
        }
    }

    /// The names.
    #[must_use]
    pub fn as_slice(&self) -> &[Name] {
        if self.first.is_null() {
            return &[];
        }
        // SAFETY: made from a `'static` slice, or by C code that promises the same.
        unsafe { core::slice::from_raw_parts(self.first, self.len) }
    }
}

impl fmt::Debug for NameList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}
