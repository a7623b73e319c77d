//! A chain of things that live elsewhere, in the order of insertion: read by traps on any CPU, changed under the control lock.

use core::ptr;

use crate::sync::{AtomicPtr, Ordering};

/// What can be in a [`Chain`].
pub(crate) trait Linked: Sized {
    /// The place for the link to the next one. Not changed when it leaves the chain: who is here goes on from here.
    fn next(&self) -> &AtomicPtr<Self>;
}

/// The head of a chain.
#[derive(Debug)]
pub(crate) struct Chain<T>(AtomicPtr<T>);

impl<T: Linked> Chain<T> {
    /// An empty chain.
    pub(crate) fn new() -> Self {
        Chain(AtomicPtr::new(ptr::null_mut()))
    }

    /// Everything in it, in the order of insertion.
    ///
    /// Each is valid until a grace period after it was unlinked: for a trap that is as long as it runs, for the control path as
    /// long as it holds the control lock.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let mut link = &self.0;
        core::iter::from_fn(move || {
            // SAFETY: a link is null or points to what `link` was given, which is freed only a grace period after `unlink`.
            let linked = unsafe { link.load(Ordering::Acquire).as_ref() }?;
            link = linked.next();
            Some(linked)
        })
    }

    /// Is nothing in it?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire).is_null()
    }

    /// Appends. Control lock held.
    pub(crate) fn link(&self, new: &T) {
        let mut last = &self.0;
        for linked in self.iter() {
            last = linked.next();
        }
        last.store(ptr::from_ref(new).cast_mut(), Ordering::Release);
    }

    /// Puts one in the place of another: whoever passes meets either of them. False if that one is not here. Control lock held.
    pub(crate) fn replace(&self, gone: &T, new: &T) -> bool {
        let mut link = &self.0;
        for linked in self.iter() {
            if ptr::eq(linked, gone) {
                new.next()
                    .store(linked.next().load(Ordering::Acquire), Ordering::Relaxed);
                link.store(ptr::from_ref(new).cast_mut(), Ordering::Release);
                return true;
            }
            link = linked.next();
        }
        false
    }

    /// Puts one in the place of the first that is going, or appends it if none is. Control lock held.
    pub(crate) fn link_instead(&self, new: &T, going: impl Fn(&T) -> bool) {
        match self.iter().find(|linked| going(linked)) {
            Some(gone) if self.replace(gone, new) => {}
            _ => self.link(new),
        }
    }

    /// Takes one out. Traps that are on it go on to its successors. Control lock held.
    pub(crate) fn unlink(&self, gone: &T) {
        let mut link = &self.0;
        for linked in self.iter() {
            if ptr::eq(linked, gone) {
                link.store(linked.next().load(Ordering::Acquire), Ordering::Release);
                return;
            }
            link = linked.next();
        }
    }
}
