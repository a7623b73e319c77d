//! What passes, trap handlers and the registry share.

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::site::{Image, NOP, mode};
use crate::text::Write;

/// How many writes are handed to the host at once: every batch costs it the mapping of pages.
const BATCH: usize = 256;

/// The part of a registry that other CPUs look at without its lock. A static variable, one for each registry.
#[derive(Debug)]
pub struct Shared {
    /// The number of the registry that uses it, or zero while that one knows nothing.
    pub(crate) owner: AtomicU32,
    /// The number of the last transaction that has taken effect.
    pub(crate) live: AtomicU64,
    /// Images whose sites are known.
    pub(crate) images: AtomicPtr<Image>,
    /// How many sites' texts have been changed, for the curious.
    pub(crate) patched: AtomicUsize,
    /// How many text transactions have begun.
    pub(crate) edits: AtomicUsize,
    /// Where a text transaction puts its writes together: too large for a kernel's stack. Under the registry's exclusive reference.
    pub(crate) batch: UnsafeCell<[Write; BATCH]>,
}

// SAFETY: the batch is touched under the exclusive reference of the one registry that this belongs to; the rest is atomic.
unsafe impl Sync for Shared {}

impl Shared {
    /// Nothing known yet.
    #[must_use]
    pub const fn new() -> Self {
        Shared {
            owner: AtomicU32::new(0),
            live: AtomicU64::new(0),
            images: AtomicPtr::new(ptr::null_mut()),
            patched: AtomicUsize::new(0),
            edits: AtomicUsize::new(0),
            batch: UnsafeCell::new([Write::NONE; BATCH]),
        }
    }

    /// For the host's #BP handler, when nobody else knows the breakpoint: `address` is that of the `int3`. Where to go on, if it is, or
    /// was a moment ago, a site that is being patched.
    ///
    /// Lock-free, any context; time in the number of sites. While the site is being patched the pass goes on as if it were dormant: a
    /// site becomes a jump before its exits are live, and a NOP again when they are no more, so that this is always right.
    #[must_use]
    pub fn on_breakpoint(&self, address: usize) -> Option<usize> {
        let site = self
            .images()
            .flat_map(Image::sites)
            .find(|site| site.address() == Some(address))?;
        let edits = self.edits.load(Ordering::Acquire);
        if matches!(site.mode(), mode::CHANGING | mode::STUCK) {
            return Some(address.wrapping_add(NOP.len()));
        }
        // The handler came late. If the breakpoint is gone, try again; if it is there it is somebody else's.
        // SAFETY: the site's image is known, so that its text is there.
        let byte = unsafe { ptr::read_volatile(ptr::with_exposed_provenance::<u8>(address)) };
        let gone = byte != crate::text::INT3;
        // It may also be there again, for a transaction that has begun since the mode was looked at. Then it is met again.
        (gone || self.edits.load(Ordering::Acquire) != edits).then_some(address)
    }

    pub(crate) fn images(&self) -> impl Iterator<Item = &Image> {
        // SAFETY: images stay while they are in the list; one that is taken out stays until all CPUs have left their handlers.
        let deref = |image: *const Image| unsafe { image.as_ref() };
        core::iter::successors(deref(self.images.load(Ordering::Acquire)), move |image| {
            deref(image.next.load(Ordering::Acquire))
        })
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU8};

    use super::*;
    use crate::Name;
    use crate::site::Site;
    use crate::text::INT3;

    /// Every breakpoint here is the registry's own, however late its handler looks, and whatever transaction is going on then.
    #[test]
    fn a_late_handler_takes_no_breakpoint_for_somebody_elses() {
        #[repr(C)]
        struct Place {
            site: Site,
            text: AtomicU8,
        }
        let place: &'static Place = Box::leak(Box::new(Place {
            site: Site::before_text(size_of::<Site>() as i32),
            text: AtomicU8::new(0x0f),
        }));
        let sites = ptr::from_ref(&place.site);
        // SAFETY: one record, which stays.
        let image = unsafe {
            Image::new(
                Name::new(c"test"),
                sites.cast()..sites.add(1).cast(),
                ptr::null()..ptr::null(),
            )
        };
        let shared: &'static Shared = Box::leak(Box::default());
        shared.images.store(Box::leak(Box::new(image)), Ordering::Release);
        let address = place.site.address().unwrap();
        assert_eq!(address, place.text.as_ptr().expose_provenance());
        let stop: &'static AtomicBool = Box::leak(Box::default());
        let looking = std::thread::spawn(move || {
            let mut strangers = 0;
            while !stop.load(Ordering::Relaxed) {
                strangers += u64::from(shared.on_breakpoint(address).is_none());
            }
            strangers
        });
        // As `patch_sites` does.
        for _ in 0..2_000_000 {
            place.site.set_mode(mode::CHANGING);
            shared.edits.fetch_add(1, Ordering::SeqCst);
            place.text.store(INT3, Ordering::SeqCst);
            std::hint::spin_loop();
            place.text.store(0x0f, Ordering::SeqCst);
            place.site.set_mode(mode::NOP);
            std::hint::spin_loop();
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(looking.join().unwrap(), 0);
        // This one is not.
        place.text.store(INT3, Ordering::SeqCst);
        assert_eq!(shared.on_breakpoint(address), None);
    }
}
