//! Arguments: what fits in one general-purpose register.

use core::ptr::NonNull;

/// A type that travels through a hook in one 64-bit register.
///
/// Integers, `bool`, `char`, floating-point numbers, thin pointers and references do. Anything larger is passed by reference.
/// An exit written in C sees an integer argument as the C type of the same size, and a reference as a pointer.
///
/// # Safety
/// `from_word(into_word(x))` is `x`, and neither is anything but a conversion of the bits. `from_word` is called once for each exit that is
/// called, one after the other, or never: so that the type owns nothing, and what it borrows exclusively it borrows for a call only. (That is
/// why a hook's argument is not a `&'static mut`; `hook!` refuses it by its text, which a type alias evades. Do not.)
pub unsafe trait Word {
    /// The bits of the value; the upper ones are unspecified for narrow types.
    fn into_word(self) -> u64;

    /// The value again.
    ///
    /// # Safety
    /// `word` came from [`into_word`](Word::into_word) of the same type, and for a reference its referent is still borrowed.
    unsafe fn from_word(word: u64) -> Self;
}

/// Does the text of a type have a `&'static mut` in it? For `hook!`.
#[doc(hidden)]
#[must_use]
pub const fn lends_for_ever(text: &str) -> bool {
    let (text, wanted) = (text.as_bytes(), b"'static mut ");
    let mut from = 0;
    while from + wanted.len() <= text.len() {
        let mut same = 0;
        while same < wanted.len() && text[from + same] == wanted[same] {
            same += 1;
        }
        if same == wanted.len() {
            return true;
        }
        from += 1;
    }
    false
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        // SAFETY: widening and narrowing an integer keeps its bits.
        unsafe impl Word for $type {
            #[inline(always)]
            fn into_word(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            unsafe fn from_word(word: u64) -> Self {
                word as $type
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

// SAFETY: the unit has no bits.
unsafe impl Word for () {
    #[inline(always)]
    fn into_word(self) -> u64 {
        0
    }
    #[inline(always)]
    unsafe fn from_word(_: u64) -> Self {}
}

// SAFETY: false is 0 and true is 1; C writes only the low byte.
unsafe impl Word for bool {
    #[inline(always)]
    fn into_word(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    unsafe fn from_word(word: u64) -> Self {
        word as u8 != 0
    }
}

// SAFETY: a character is its number.
unsafe impl Word for char {
    #[inline(always)]
    fn into_word(self) -> u64 {
        u64::from(u32::from(self))
    }
    #[inline(always)]
    unsafe fn from_word(word: u64) -> Self {
        // SAFETY: the caller gives what `into_word` returned for a character.
        unsafe { char::from_u32_unchecked(word as u32) }
    }
}

macro_rules! floats {
    ($($type:ty),*) => {$(
        // SAFETY: the bit pattern of the number, in an integer register.
        unsafe impl Word for $type {
            #[inline(always)]
            fn into_word(self) -> u64 {
                self.to_bits() as u64
            }
            #[inline(always)]
            unsafe fn from_word(word: u64) -> Self {
                Self::from_bits(word as _)
            }
        }
    )*};
}
floats!(f32, f64);

macro_rules! pointers {
    ($(<$t:ident $(, $lifetime:lifetime)?> $type:ty: |$p:ident| $into:expr, |$w:ident| $from:expr;)*) => {$(
        // SAFETY: a thin pointer is one word.
        unsafe impl<$($lifetime,)? $t> Word for $type {
            #[inline(always)]
            fn into_word(self) -> u64 {
                let $p = self;
                ($into) as usize as u64
            }
            #[inline(always)]
            unsafe fn from_word(word: u64) -> Self {
                let $w = word as usize;
                // SAFETY: the caller gives what `into_word` returned for this type, and the referent is still borrowed.
                #[allow(unused_unsafe, reason = "raw pointers need none")]
                unsafe { $from }
            }
        }
    )*};
}
pointers! {
    <T> *const T: |p| p, |w| w as *const T;
    <T> *mut T: |p| p, |w| w as *mut T;
    <T> NonNull<T>: |p| p.as_ptr(), |w| NonNull::new_unchecked(w as *mut T);
    <T> Option<NonNull<T>>: |p| p.map_or(core::ptr::null_mut(), NonNull::as_ptr), |w| NonNull::new(w as *mut T);
    <T, 'a> &'a T: |p| core::ptr::from_ref(p), |w| &*(w as *const T);
    <T, 'a> &'a mut T: |p| core::ptr::from_mut(p), |w| &mut *(w as *mut T);
    <T, 'a> Option<&'a T>: |p| p.map_or(core::ptr::null(), core::ptr::from_ref), |w| (w as *const T).as_ref();
    <T, 'a> Option<&'a mut T>: |p| p.map_or(core::ptr::null_mut(), core::ptr::from_mut), |w| (w as *mut T).as_mut();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn round<T: Word + Copy + PartialEq + core::fmt::Debug>(value: T) {
        // SAFETY: the word comes from the same type.
        assert_eq!(unsafe { T::from_word(value.into_word()) }, value);
    }

    #[test]
    fn values_come_through() {
        round(-1i8);
        round(i32::MIN);
        round(u64::MAX);
        round(true);
        round('\u{10ffff}');
        round(-0.5f32);
        round(f64::MAX);
        round(Some(&7u32));
        round(Option::<&u32>::None);
        round(NonNull::<u8>::dangling());
    }
}
