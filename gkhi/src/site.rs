//! Sites: where a hook is passed, as the linker collects them.

use core::ffi::c_void;
use core::ops::Range;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::hook::Hook;
use crate::name::Name;

/// A 5-byte NOP: `nopl 0(%rax,%rax,1)`, one of the forms that Intel recommends (SDM volume 2B, NOP).
pub const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// One record of the section `gkhi_sites`: 32 bytes, writable, relative addresses, so that position-independent processes,
/// kernels and modules all link it without run-time relocations.
#[derive(Debug)]
#[repr(C)]
pub struct Site {
    /// The site minus the address of this field; 0 for a generic site, which is not patched.
    code: i32,
    /// The out-of-line code minus the address of this field; 0 for a generic site.
    target: i32,
    /// The hook's head minus the address of this field.
    hook: i64,
    /// The next site of the same hook.
    next: AtomicPtr<Site>,
    /// One of the constants in [`mode`].
    mode: AtomicU32,
    reserved: u32,
}

/// What is at a site.
pub(crate) mod mode {
    /// The NOP.
    pub(crate) const NOP: u32 = 0;
    /// The jump.
    pub(crate) const JUMP: u32 = 1;
    /// Being patched: either, or `int3`.
    pub(crate) const CHANGING: u32 = 2;
    /// Any of the three, since neither the change nor its undoing could be written. Its exits are not called.
    pub(crate) const STUCK: u32 = 3;
}

impl Site {
    fn at(place: *const impl Sized, offset: i64) -> usize {
        (place as usize).wrapping_add(offset as usize)
    }

    /// A record for a test: the text is `code` bytes behind it.
    #[cfg(test)]
    pub(crate) const fn before_text(code: i32) -> Self {
        Site {
            code,
            target: 0,
            hook: 0,
            next: AtomicPtr::new(ptr::null_mut()),
            mode: AtomicU32::new(mode::NOP),
            reserved: 0,
        }
    }

    /// Where it is in the text; `None` for a generic site.
    #[must_use]
    pub fn address(&self) -> Option<usize> {
        (self.code != 0).then(|| Self::at(&raw const self.code, i64::from(self.code)))
    }

    /// Where its jump leads.
    #[must_use]
    pub fn target(&self) -> usize {
        Self::at(&raw const self.target, i64::from(self.target))
    }

    /// Its hook's head.
    #[must_use]
    pub fn hook(&self) -> *const Hook {
        ptr::with_exposed_provenance(Self::at(&raw const self.hook, self.hook))
    }

    /// Does it jump now?
    #[must_use]
    pub fn is_jump(&self) -> bool {
        self.mode() == mode::JUMP
    }

    /// The jump to the out-of-line code: `jmp rel32`. `None` when it is too far.
    #[inline]
    pub(crate) fn jump(&self) -> Option<[u8; 5]> {
        let from = self.address()?.wrapping_add(5);
        let distance = i32::try_from(self.target().wrapping_sub(from) as isize).ok()?;
        let [a, b, c, d] = distance.to_le_bytes();
        Some([0xe9, a, b, c, d])
    }

    #[inline]
    pub(crate) fn mode(&self) -> u32 {
        self.mode.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn set_mode(&self, mode: u32) {
        self.mode.store(mode, Ordering::Release);
    }

    #[inline]
    pub(crate) fn next(&self) -> *const Site {
        self.next.load(Ordering::Relaxed)
    }

    pub(crate) fn set_next(&self, next: *const Site) {
        self.next.store(next.cast_mut(), Ordering::Relaxed);
    }
}

/// One record of the section `gkhi_calls`: 16 bytes. The return addresses of passes, by which the registry finds out whether it
/// was called from inside an exit.
#[derive(Debug)]
#[repr(C)]
pub struct CallSite {
    /// The last byte of the call of an exit, minus the address of this field. Not what comes behind it: on a kernel with indirect-branch tracking
    /// objtool takes what refers to an instruction for an indirect branch to it.
    last: i32,
    reserved: u32,
    /// The hook's head minus the address of this field.
    hook: i64,
}

impl CallSite {
    /// The address that the call pushes.
    pub(crate) fn return_address(&self) -> usize {
        Site::at(&raw const self.last, i64::from(self.last)) + 1
    }

    /// The hook that is passed there.
    pub(crate) fn hook(&self) -> *const Hook {
        ptr::with_exposed_provenance(Site::at(&raw const self.hook, self.hook))
    }
}

/// The sites of a kernel, a module or a program, made known by [`Registry::add_image`](crate::Registry::add_image).
///
/// The caller owns the record, and it stays where it is until [`Registry::remove_image`](crate::Registry::remove_image).
#[derive(Debug)]
#[repr(C)]
pub struct Image {
    pub(crate) name: Name,
    pub(crate) sites: *const Site,
    pub(crate) sites_end: *const Site,
    pub(crate) calls: *const CallSite,
    pub(crate) calls_end: *const CallSite,
    /// The next image; zero in a new record.
    pub(crate) next: AtomicPtr<Image>,
    /// The number of the registry that knows it, or zero.
    pub(crate) known: AtomicU32,
    pub(crate) reserved: u32,
}

// SAFETY: the sections it points to are shared as their records allow: atomically, or constant.
unsafe impl Sync for Image {}
// SAFETY: as above.
unsafe impl Send for Image {}

impl Image {
    /// Names the sections. What is not a whole number of records at an end is ignored.
    ///
    /// # Safety
    /// The ranges are the linker's sections `gkhi_sites` and `gkhi_calls` of code that is loaded, or empty; nobody else writes
    /// them; they stay until the image is removed from the registry.
    #[must_use]
    pub const unsafe fn new(name: Name, sites: Range<*const c_void>, calls: Range<*const c_void>) -> Self {
        Image {
            name,
            sites: sites.start.cast(),
            sites_end: sites.end.cast(),
            calls: calls.start.cast(),
            calls_end: calls.end.cast(),
            next: AtomicPtr::new(ptr::null_mut()),
            known: AtomicU32::new(0),
            reserved: 0,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> Name {
        self.name
    }

    /// Its sites.
    #[must_use]
    pub fn sites(&self) -> &[Site] {
        // SAFETY: `new`'s caller, or C code that promises the same, has named a section of such records.
        unsafe { between(self.sites, self.sites_end) }
    }

    pub(crate) fn calls(&self) -> &[CallSite] {
        // SAFETY: as above.
        unsafe { between(self.calls, self.calls_end) }
    }
}

/// # Safety
/// The records between the two are valid during `'a`.
unsafe fn between<'a, T>(start: *const T, end: *const T) -> &'a [T] {
    let bytes = (end as usize).saturating_sub(start as usize);
    if start.is_null() || bytes == 0 {
        return &[];
    }
    // SAFETY: see above.
    unsafe { core::slice::from_raw_parts(start, bytes / size_of::<T>()) }
}

/// The image of the code that this is expanded in, from the symbols that the linker defines for the two sections.
///
/// For a program or a kernel, which is linked once. A module's loader names the sections itself with [`Image::new`].
#[macro_export]
macro_rules! image {
    ($name:literal) => {{
        // The sections are there even without a site.
        mod sections {
            ::core::arch::global_asm!(
                ".pushsection gkhi_sites, \"awR\", @progbits",
                ".popsection",
                ".pushsection gkhi_calls, \"awR\", @progbits",
                ".popsection",
            );
        }
        unsafe extern "C" {
            #[link_name = "__start_gkhi_sites"]
            static SITES: ::core::ffi::c_void;
            #[link_name = "__stop_gkhi_sites"]
            static SITES_END: ::core::ffi::c_void;
            #[link_name = "__start_gkhi_calls"]
            static CALLS: ::core::ffi::c_void;
            #[link_name = "__stop_gkhi_calls"]
            static CALLS_END: ::core::ffi::c_void;
        }
        // SAFETY: the linker's sections of this program, which stay as long as it runs.
        unsafe {
            $crate::Image::new(
                $crate::Name::new($name),
                &raw const SITES..&raw const SITES_END,
                &raw const CALLS..&raw const CALLS_END,
            )
        }
    }};
}

const _: () = {
    assert!(size_of::<Site>() == 32);
    assert!(size_of::<CallSite>() == 16);
    assert!(size_of::<Image>() == 56);
};
