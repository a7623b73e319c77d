//! Code that comes and goes: the sites of kernels, modules and programs.

use core::ptr;
use core::sync::atomic::Ordering;

use super::settle::Wait;
use super::transaction::HookList;
use super::{Registry, exits_of};
use crate::counters::HOOK_LEFT;
use crate::error::Error;
use crate::exit::Exit;
use crate::hook::{ARGUMENTS_MAX, Hook};
use crate::host::Host;
use crate::kind;
use crate::name::Name;
use crate::order;
use crate::site::{Image, Site, mode};
use crate::text::CommitError;

/// What an image has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Added {
    /// Hooks that were not there before.
    pub hooks: usize,
    /// Sites, of these and other hooks.
    pub sites: usize,
    /// Exits that waited for one of the hooks, and are on it now.
    pub connected: usize,
    /// The first exit that could not be connected or armed, and why. It waits on, or is registered and not armed.
    pub refused: Option<(Name, Error)>,
}

impl<H: Host> Registry<H> {
    /// Makes the sites of an image known, and their hooks; connects and arms the exits that waited for them. To be called before
    /// the image's code runs, or at any time after.
    ///
    /// # Errors
    /// [`Error::ImageKnown`], [`Error::BadName`], [`Error::BadHook`], [`Error::NameTaken`], [`Error::NoMemory`], [`Error::Text`] when a
    /// site's jump would not reach, or a site of a hook that is armed cannot be patched: nothing is known of it then. An exit that does
    /// not fit is no error, see [`Added::refused`].
    /// [`Error::OtherRegistry`] when a hook of the image is another registry's.
    pub fn add_image(&mut self, image: &'static Image) -> Result<Added, Error> {
        // SAFETY: it lives for ever.
        unsafe { self.add_image_raw(image) }
    }

    /// Makes the sites of an image known that does not live for ever.
    ///
    /// # Safety
    /// The record and its sections stay until [`remove_image_raw`](Self::remove_image_raw) has returned `Ok`; the hooks' heads that
    /// the sites refer to stay as long as any image with a site of theirs is known.
    ///
    /// # Errors
    /// As [`add_image`](Self::add_image).
    pub unsafe fn add_image_raw(&mut self, image: *const Image) -> Result<Added, Error> {
        // SAFETY: the caller's promise.
        let image: &'static Image = unsafe { &*image };
        self.claim()?;
        let owner = image
            .known
            .compare_exchange(0, self.id, Ordering::Acquire, Ordering::Relaxed);
        if owner.is_err() {
            return Err(Error::ImageKnown);
        }
        let result = self.admit(image);
        if result.is_err() {
            image.known.store(0, Ordering::Release);
            self.release_if_empty();
        }
        result
    }

    /// Makes an image known that has been claimed.
    fn admit(&mut self, image: &'static Image) -> Result<Added, Error> {
        if self.shared.images().any(|known| overlap(known, image)) {
            return Err(Error::ImageKnown);
        }
        let mut added = Added::default();
        for site in image.sites() {
            if let Err(error) = self.admit_site(site, &mut added) {
                self.forget_sites(image, false);
                return Err(error);
            }
        }
        let first = self.shared.images.load(Ordering::Relaxed);
        image.next.store(first, Ordering::Relaxed);
        self.shared
            .images
            .store(ptr::from_ref(image).cast_mut(), Ordering::Release);
        // New sites of hooks that are armed already.
        let active = || image.sites().iter().filter(|site| is_active(site));
        if let Err((hook, error)) = self.patch_sites(active, mode::JUMP) {
            self.forget_sites(image, false);
            self.forget_image(image);
            return Err(Error::Text { hook, error });
        }
        self.connect_waiting(&mut added);
        Ok(added)
    }

    /// Forgets the sites of an image. A hook that has no other site goes away; its exits wait for it to come again, armed as they
    /// were. Waits until no pass is in a hook that goes away. To be called when the image's code cannot be entered any more.
    ///
    /// # Errors
    /// [`Error::ImageUnknown`]; [`Error::Inside`] when called from inside an exit of a hook that would go away. [`Error::Text`] when a
    /// site cannot be made a NOP again. Then the image is known as before; exits may have been disarmed.
    pub fn remove_image(&mut self, image: &'static Image) -> Result<(), Error> {
        // The code is still there, so that a pass may be on its way from the site to the counter for as long as it likes.
        self.remove(image, true)
    }

    /// Forgets the sites of an image that does not live for ever.
    ///
    /// # Safety
    /// As [`add_image_raw`](Self::add_image_raw). No CPU is in the image's code outside of an exit, or enters it: a pass on its way from
    /// a site to the hook's counter is not seen. What the listing has told of the image's hooks is not used any more.
    ///
    /// # Errors
    /// As [`remove_image`](Self::remove_image).
    pub unsafe fn remove_image_raw(&mut self, image: *const Image) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        self.remove(unsafe { &*image }, false)
    }

    fn remove(&mut self, image: &'static Image, keep: bool) -> Result<(), Error> {
        if !self.owns(&image.known) {
            return Err(Error::ImageUnknown);
        }
        let mut leaving = HookList::EMPTY;
        for hook in self.known_hooks().filter(|hook| leaves_with(hook, image)) {
            leaving.add(hook);
        }
        let result = self.let_go(&leaving, image);
        leaving.clear();
        result?;
        self.forget_sites(image, keep);
        self.forget_image(image);
        image.known.store(0, Ordering::Release);
        self.release_if_empty();
        Ok(())
    }

    /// Disarms the hooks that leave, waits for their passes, and makes the image's sites NOPs.
    fn let_go(&mut self, leaving: &HookList, image: &'static Image) -> Result<(), Error> {
        // A caller that is inside one of them finds out before anything has changed.
        for hook in leaving.hooks() {
            // SAFETY: `&mut self`.
            unsafe { hook.update(|control| control.unsettled = true) };
        }
        self.settle(leaving.hooks(), Wait::UntilLeft)?;
        for hook in leaving.hooks() {
            // SAFETY: `&mut self`.
            for exit in unsafe { exits_of(hook) } {
                // SAFETY: as above.
                unsafe {
                    exit.update(|control| {
                        control.armed_before = control.armed;
                        control.wanted = false;
                    });
                }
            }
        }
        self.transact(leaving)?;
        self.settle(leaving.hooks(), Wait::UntilLeft)?;
        self.patch_sites(|| image.sites().iter(), mode::NOP)
            .map_err(|(hook, error)| Error::Text { hook, error })
    }

    /// Checks a site and its hook, and makes both known.
    fn admit_site(&mut self, site: &'static Site, added: &mut Added) -> Result<(), Error> {
        // SAFETY: a site's hook is a head that stays, see `Image::new`.
        let hook: &'static Hook = unsafe { &*site.hook() };
        if let Some(address) = site.address()
            && site.jump().is_none()
        {
            return Err(Error::Text {
                hook: hook.name(),
                error: CommitError::TooFar { address },
            });
        }
        if !self.take(&hook.owner) {
            return Err(Error::OtherRegistry { hook: hook.name() });
        }
        // SAFETY: `&mut self`, and the hook is this registry's.
        let control = unsafe { hook.control() };
        if !control.known {
            if let Err(error) = self.admit_hook(hook) {
                if control.counters == 0 {
                    hook.owner.store(0, Ordering::Release);
                }
                return Err(error);
            }
            added.hooks += 1;
        }
        // SAFETY: `&mut self`.
        unsafe {
            site.set_next(hook.control().sites);
            hook.update(|control| control.sites = site);
        }
        added.sites += 1;
        Ok(())
    }

    fn admit_hook(&mut self, hook: &'static Hook) -> Result<(), Error> {
        let name = hook.name();
        if !name.is_valid() {
            return Err(Error::BadName { name });
        }
        if hook.kind() & !kind::ALL != 0 || hook.arguments() > ARGUMENTS_MAX {
            return Err(Error::BadHook { hook: name });
        }
        if self.hook(name).is_some() {
            return Err(Error::NameTaken { name });
        }
        // SAFETY: `&mut self`.
        let mut kept = unsafe { hook.control() };
        if kept.counters == 0 {
            kept.counters = self.host.alloc_counters().ok_or(Error::NoMemory)?;
            kept.left_before = [0; 2];
            kept.phase = 0;
        }
        hook.prepare(HOOK_LEFT);
        let begun = kept.counters.wrapping_add(kept.phase * 8);
        hook.counter.store(begun, Ordering::Relaxed);
        let idle = &raw const hook.state.idle;
        hook.current.store(idle.cast_mut(), Ordering::Release);
        // SAFETY: `&mut self`.
        unsafe {
            hook.update(|control| {
                control.next = ptr::null();
                control.sites = ptr::null();
                control.exits = ptr::null();
                control.steady = idle;
                control.counters = kept.counters;
                control.left_before = kept.left_before;
                control.phase = kept.phase;
                control.known = true;
                control.unsettled = false;
            });
            match self.known_hooks().last() {
                Some(last) => last.update(|control| control.next = hook),
                None => self.hooks = hook,
            }
        }
        Ok(())
    }

    /// Unlinks an image's sites from their hooks, and forgets the hooks that have none then. Nobody passes those, or, with `keep`, some may
    /// have gone past the site before it became a NOP.
    fn forget_sites(&mut self, image: &'static Image, keep: bool) {
        let mut hook = self.hooks;
        // SAFETY: known hooks stay.
        while let Some(this) = unsafe { hook.as_ref() } {
            // SAFETY: `&mut self`.
            let control = unsafe { this.control() };
            hook = control.next;
            let mut kept: *const Site = ptr::null();
            let mut site = control.sites;
            // SAFETY: sites stay while their image is known, and this one's still are.
            while let Some(known) = unsafe { site.as_ref() } {
                site = known.next();
                if !is_in(image, known) {
                    known.set_next(kept);
                    kept = known;
                }
            }
            // SAFETY: `&mut self`.
            unsafe { this.update(|control| control.sites = kept) };
            if kept.is_null() {
                self.forget_hook(this, keep);
            }
        }
    }

    /// Takes a hook out, and lets its exits wait for another one of its name. With `keep`, and ever after, its counters stay with it.
    fn forget_hook(&mut self, hook: &'static Hook, keep: bool) {
        // SAFETY: `&mut self`.
        while let Some(exit) = unsafe { exits_of(hook) }.next() {
            // SAFETY: `&mut self`.
            let armed = unsafe { exit.control() }.armed_before;
            self.disconnect(hook, exit);
            self.push_waiting(exit);
            // SAFETY: `&mut self`.
            unsafe {
                exit.update(|control| {
                    control.armed = armed;
                    control.wanted = armed;
                });
            }
        }
        // SAFETY: `&mut self`.
        let control = unsafe { hook.control() };
        if ptr::eq(self.hooks, hook) {
            self.hooks = control.next;
        } else {
            // SAFETY: `&mut self`.
            let before = self
                .known_hooks()
                .find(|other| ptr::eq(unsafe { other.control() }.next, hook));
            if let Some(before) = before {
                // SAFETY: `&mut self`.
                unsafe { before.update(|other| other.next = control.next) };
            }
        }
        hook.enabled.store(0, Ordering::Relaxed);
        // SAFETY: `&mut self`.
        unsafe {
            hook.update(|control| {
                control.known = false;
                control.next = ptr::null();
                control.kept |= keep;
                if !control.kept {
                    control.counters = 0;
                }
            });
        }
        if !(keep || control.kept) {
            self.host.free_counters(control.counters);
            hook.owner.store(0, Ordering::Release);
        }
    }

    /// Takes an image out, and waits until no trap handler looks at it any more.
    fn forget_image(&mut self, image: &'static Image) {
        let next = image.next.load(Ordering::Relaxed);
        if ptr::eq(self.shared.images.load(Ordering::Relaxed), image) {
            self.shared.images.store(next, Ordering::Release);
        } else if let Some(before) = self
            .shared
            .images()
            .find(|other| ptr::eq(other.next.load(Ordering::Relaxed), image))
        {
            before.next.store(next, Ordering::Release);
        }
        self.host.sync_cores();
    }

    /// Connects the exits whose hooks have come, and arms those that are to be.
    fn connect_waiting(&mut self, added: &mut Added) {
        let mut changed = HookList::EMPTY;
        let mut exit = core::mem::take(&mut self.waiting);
        // SAFETY: registered exits stay.
        while let Some(this) = unsafe { exit.as_ref() } {
            let this: &'static Exit = this;
            // SAFETY: `&mut self`.
            let control = unsafe { this.control() };
            exit = control.next;
            let Some(hook) = self.hook(this.hook_name()) else {
                self.push_waiting(this);
                continue;
            };
            if let Err(error) = self.connect(hook, this) {
                added.refused.get_or_insert((this.name(), error));
                self.push_waiting(this);
                continue;
            }
            added.connected += 1;
            // SAFETY: `&mut self`.
            unsafe {
                this.update(|control| {
                    control.wanted = control.armed;
                    control.armed = false;
                });
            }
            if control.armed {
                changed.add(hook);
            }
        }
        for hook in changed.hooks() {
            // SAFETY: `&mut self`.
            if let Err(error) = unsafe { order::coexist(exits_of(hook).filter(|exit| exit.control().wanted)) } {
                leave_as_it_is(hook, error, added);
            }
        }
        if let Err(error) = self.transact(&changed) {
            for hook in changed.hooks() {
                leave_as_it_is(hook, error, added);
            }
        }
        changed.clear();
    }
}

/// The exits that were to be armed on a hook are not.
fn leave_as_it_is(hook: &Hook, error: Error, added: &mut Added) {
    // SAFETY: the registry's exclusive reference is held.
    for exit in unsafe { exits_of(hook) } {
        // SAFETY: as above.
        unsafe {
            if exit.control().wanted && !exit.control().armed {
                added.refused.get_or_insert((exit.name(), error));
            }
            exit.update(|control| control.wanted = control.armed);
        }
    }
}

/// Do the two name some record both?
fn overlap(one: &Image, other: &Image) -> bool {
    let (one, other) = (one.sites().as_ptr_range(), other.sites().as_ptr_range());
    one.start < other.end && other.start < one.end
}

/// Is the record in this image's section?
fn is_in(image: &Image, site: &Site) -> bool {
    image.sites().as_ptr_range().contains(&ptr::from_ref(site))
}

/// Does the hook have sites, and all of them in this image?
fn leaves_with(hook: &Hook, image: &Image) -> bool {
    // SAFETY: the registry's exclusive reference is held.
    let mut site = unsafe { hook.control() }.sites;
    // SAFETY: known sites stay.
    while let Some(this) = unsafe { site.as_ref() } {
        if !is_in(image, this) {
            return false;
        }
        site = this.next();
    }
    true
}

/// Does the site's hook have an armed exit?
fn is_active(site: &Site) -> bool {
    // SAFETY: a known site's hook is known, and the registry's exclusive reference is held.
    let hook = unsafe { &*site.hook() };
    // SAFETY: as above.
    !ptr::eq(unsafe { hook.control() }.steady, &raw const hook.state.idle)
}
