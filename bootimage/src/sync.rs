//! A spin lock that interrupts cannot re-enter.

use core::ops::{Deref, DerefMut};

use spin::mutex::{SpinMutex, SpinMutexGuard};
use x86_64::instructions::interrupts;

/// A spin lock held with interrupts masked, so that an interrupt on the holder's CPU cannot wait for it.
///
/// Exceptions and NMIs are not masked: their handlers must not take a lock that the code they interrupt could hold.
#[derive(Debug, Default)]
pub struct IrqMutex<T>(SpinMutex<T>);

impl<T> IrqMutex<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(SpinMutex::new(value))
    }

    /// Masks interrupts and takes the lock. Dropping the guard releases it and puts the interrupt flag back.
    pub fn lock(&self) -> IrqGuard<'_, T> {
        let enabled = interrupts::are_enabled();
        interrupts::disable();
        IrqGuard {
            inner: Some(self.0.lock()),
            enabled,
        }
    }
}

/// Access to what an [`IrqMutex`] protects.
#[derive(Debug)]
pub struct IrqGuard<'a, T> {
    /// `None` only while being dropped.
    inner: Option<SpinMutexGuard<'a, T>>,
    enabled: bool,
}

impl<T> Deref for IrqGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.inner.as_ref().expect("held until dropped")
    }
}

impl<T> DerefMut for IrqGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("held until dropped")
    }
}

impl<T> Drop for IrqGuard<'_, T> {
    fn drop(&mut self) {
        self.inner = None;
        if self.enabled {
            interrupts::enable();
        }
    }
}
