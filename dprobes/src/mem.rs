//! Memory for programs and tables: taken at insert only, and running out of it is an error, never an abort.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// The host has no memory for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory;

/// A vector with room for exactly `capacity` elements.
pub(crate) fn vec<T>(capacity: usize) -> Result<Vec<T>, OutOfMemory> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(capacity).map_err(|_| OutOfMemory)?;
    Ok(vec)
}

/// Appends, unless memory is short.
pub(crate) fn push<T>(vec: &mut Vec<T>, value: T) -> Result<(), OutOfMemory> {
    vec.try_reserve(1).map_err(|_| OutOfMemory)?;
    vec.push(value);
    Ok(())
}

/// A boxed slice of `len` elements.
pub(crate) fn boxed_slice<T>(len: usize, mut make: impl FnMut(usize) -> T) -> Result<Box<[T]>, OutOfMemory> {
    let mut vec = vec(len)?;
    for index in 0..len {
        vec.push(make(index));
    }
    // Exactly reserved, so that this does not reallocate.
    Ok(vec.into_boxed_slice())
}

/// A box.
pub(crate) fn boxed<T>(value: T) -> Result<Box<T>, OutOfMemory> {
    let mut vec = vec(1)?;
    vec.push(value);
    let slice: Box<[T]> = vec.into_boxed_slice();
    // SAFETY: a box of a slice of one `T` owns memory of the size and alignment of one `T`.
    Ok(unsafe { Box::from_raw(Box::into_raw(slice).cast::<T>()) })
}

/// A copy of bytes.
pub(crate) fn bytes(bytes: &[u8]) -> Result<Box<[u8]>, OutOfMemory> {
    let mut copy = vec(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy.into_boxed_slice())
}

/// A copy of text.
pub(crate) fn text(text: &str) -> Result<Box<str>, OutOfMemory> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| OutOfMemory)?;
    copy.push_str(text);
    Ok(copy.into_boxed_str())
}

/// Texts behind each other, with a character between any two.
pub(crate) fn joined<'t, T: Iterator<Item = &'t str>>(
    texts: impl Fn() -> T,
    between: char,
) -> Result<Box<str>, OutOfMemory> {
    let mut all = String::new();
    let len: usize = texts().map(|text| text.len() + between.len_utf8()).sum();
    // To the byte: what is more would be given back, which is not told that there is no memory.
    all.try_reserve_exact(len.saturating_sub(between.len_utf8()))
        .map_err(|_| OutOfMemory)?;
    for (nth, text) in texts().enumerate() {
        if nth > 0 {
            all.push(between);
        }
        all.push_str(text);
    }
    Ok(all.into_boxed_str())
}
