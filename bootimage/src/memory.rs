//! Address space: exact rights for the kernel's image, the direct map, pages of a test's own, executable memory.
//!
//! | addresses | what | rights |
//! |---|---|---|
//! | [`KERNEL_BASE`] + physical | the image: text, read-only data, data | RX, R, RW |
//! | [`module::BASE`](crate::module::BASE) | the module, while it is loaded: text, data | RX, RW |
//! | [`EXEC_BASE`], 1 GiB | memory from [`alloc_exec`], within 2 GiB of the text | RX |
//! | [`DIRECT_MAP`] + physical, first 4 GiB | all of memory, and devices | RW, no-execute |
//!
//! Text is changed through its [`writable_alias`] in the direct map; CR0.WP is never cleared. Nothing is mapped in the lower half but what
//! a test maps there with [`map`].

use core::ops::Range;

use bitflags::bitflags;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::mapper::{MapToError, TranslateResult, UnmapError};
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB, Translate,
};
use x86_64::{PhysAddr, VirtAddr};

use crate::fault::Fault;
use crate::info::boot_info;
use crate::percpu::{MAX_CPUS, STACKS};
use crate::sync::IrqMutex;

/// The image's link address is its physical address plus this.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// Where [`alloc_exec`] puts memory: the last GiB.
pub const EXEC_BASE: u64 = 0xffff_ffff_c000_0000;
/// A physical address plus this is its address in the direct map.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;

const PAGE: u64 = 4096;
const DIRECT_MAP_LEN: u64 = 4 << 30;
/// Page tables and the pages of `map` and `alloc_exec` come from this much of the RAM, at most a quarter; the rest is heap.
const MAX_FRAMES_LEN: u64 = 64 << 20;

mod symbols {
    unsafe extern "C" {
        pub static boot_pdpt: u8;
        pub static __dprobes_text_start: u8;
        pub static __dprobes_text_end: u8;
        pub static __noinstr_start: u8;
        pub static __noinstr_end: u8;
        pub static __text_start: u8;
        pub static __text_end: u8;
        pub static __rodata_start: u8;
        pub static __rodata_end: u8;
        pub static __data_start: u8;
        pub static __data_end: u8;
    }
}

macro_rules! symbol_range {
    ($start:ident, $end:ident) => {
        (&raw const symbols::$start).addr() as u64..(&raw const symbols::$end).addr() as u64
    };
}

/// The kernel's text, as kernel addresses. The end is rounded up to a page.
pub fn text() -> Range<u64> {
    symbol_range!(__text_start, __text_end)
}

/// The part of the text that must not be probed: code in sections `.noinstr.text*`, trap entry and exit among it.
pub fn noinstr_text() -> Range<u64> {
    symbol_range!(__noinstr_start, __noinstr_end)
}

/// The part of the text that a hit of a probe runs, which must not be probed either: what kernel.ld keeps together for the engine.
pub fn dprobes_text() -> Range<u64> {
    symbol_range!(__dprobes_text_start, __dprobes_text_end)
}

bitflags! {
    /// What may be done with a page. Reading always may.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Rights: u8 {
        /// Writing.
        const WRITE = 1;
        /// Executing.
        const EXECUTE = 2;
        /// All of it from ring 3 as well.
        const USER = 4;
    }
}

impl Rights {
    fn flags(self) -> PageTableFlags {
        let mut flags = PageTableFlags::PRESENT;
        flags.set(PageTableFlags::WRITABLE, self.contains(Self::WRITE));
        flags.set(PageTableFlags::NO_EXECUTE, !self.contains(Self::EXECUTE));
        flags.set(PageTableFlags::USER_ACCESSIBLE, self.contains(Self::USER));
        flags
    }
}

/// Why the address space could not be changed. Pages before the one named have been changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapError {
    /// No page is free any more.
    OutOfFrames,
    /// The page at this address is mapped already.
    Mapped(u64),
    /// Nothing, or not a 4 KiB page, is mapped at this address.
    NotMapped(u64),
    /// Not a canonical address, or not the start of a page.
    BadAddress(u64),
}

struct Space {
    root: PhysAddr,
    frames: Frames,
    next_exec: u64,
}

/// Hands out physical pages and never takes them back.
struct Frames(Range<u64>);

// SAFETY: each frame is handed out once, and the range was RAM that nothing else uses.
unsafe impl FrameAllocator<Size4KiB> for Frames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        if self.0.start + PAGE > self.0.end {
            return None;
        }
        let frame = PhysFrame::containing_address(PhysAddr::new(self.0.start));
        self.0.start += PAGE;
        Some(frame)
    }
}

static SPACE: IrqMutex<Space> = IrqMutex::new(Space {
    root: PhysAddr::zero(),
    frames: Frames(0..0),
    next_exec: EXEC_BASE,
});

impl Space {
    fn mapper(&mut self) -> (OffsetPageTable<'_>, &mut Frames) {
        let table = direct(self.root.as_u64()).cast::<PageTable>();
        // SAFETY: `root` is the level 4 table, all tables come from `frames` in the direct map, and `self` is borrowed as long as the result.
        (
            unsafe { OffsetPageTable::new(&mut *table, VirtAddr::new(DIRECT_MAP)) },
            &mut self.frames,
        )
    }

    fn map(&mut self, page: Page, frame: Option<PhysFrame>, rights: Rights) -> Result<(), MapError> {
        let (mut mapper, frames) = self.mapper();
        let frame = match frame {
            Some(frame) => frame,
            None => {
                let frame = frames.allocate_frame().ok_or(MapError::OutOfFrames)?;
                // SAFETY: the frame is RAM in the direct map, and nobody else has it.
                unsafe { direct(frame.start_address().as_u64()).write_bytes(0, PAGE as usize) };
                frame
            }
        };
        // SAFETY: a page that was not mapped cannot be in use; the frame is the image's own at its own address, or new.
        match unsafe { mapper.map_to(page, frame, rights.flags(), frames) } {
            Ok(flush) => {
                flush.ignore(); // a page that was not present is in no TLB
                Ok(())
            }
            Err(MapToError::FrameAllocationFailed) => Err(MapError::OutOfFrames),
            Err(_) => Err(MapError::Mapped(page.start_address().as_u64())),
        }
    }
}

/// Where physical address `at` is in the direct map. A pointer into the first 4 GiB; using it needs a reason to.
pub fn direct(at: u64) -> *mut u8 {
    assert!(at < DIRECT_MAP_LEN, "physical address {at:#x} is beyond the direct map");
    core::ptr::with_exposed_provenance_mut((DIRECT_MAP + at) as usize)
}

/// Bytes that the firmware or the loader left at physical address `at`.
pub(crate) fn boot_bytes(at: u64, len: usize) -> &'static [u8] {
    assert!(
        at.checked_add(len as u64).is_some_and(|end| end <= DIRECT_MAP_LEN),
        "no boot data at {at:#x}"
    );
    // SAFETY: in the direct map; this kernel allocates only above its image and never writes to tables of loader or firmware.
    unsafe { core::slice::from_raw_parts(direct(at), len) }
}

fn pages(at: u64, len: usize) -> Result<impl Iterator<Item = Page>, MapError> {
    let bad = || MapError::BadAddress(at);
    let end = at
        .checked_add(len as u64)
        .and_then(|end| end.checked_next_multiple_of(PAGE))
        .ok_or_else(bad)?;
    let start = VirtAddr::try_new(at).map_err(|_| bad())?;
    VirtAddr::try_new(end - u64::from(end > at)).map_err(|_| bad())?;
    if !start.is_aligned(PAGE) || (at < 1 << 47) != (end <= 1 << 47) {
        return Err(bad());
    }
    Ok((0..(end - at) / PAGE).map(move |n| Page::containing_address(start + n * PAGE)))
}

/// Builds the kernel's address space and goes over to it; returns the RAM for the heap, as direct-map addresses.
pub(crate) fn init() -> Range<u64> {
    let image_end = crate::module::linked_image().end;
    let module = boot_info().module.clone().unwrap_or(0..0);
    let ram = boot_info()
        .ram()
        .map(|ram| ram.start.max(image_end)..ram.end.min(DIRECT_MAP_LEN))
        .flat_map(|ram| [ram.start..ram.end.min(module.start), ram.start.max(module.end)..ram.end])
        .map(|ram| ram.start.next_multiple_of(PAGE)..ram.end & !(PAGE - 1))
        .max_by_key(|ram| ram.end.saturating_sub(ram.start))
        .expect("the memory map has RAM above the kernel");
    let frames_len = ((ram.end - ram.start) / 4).min(MAX_FRAMES_LEN) & !(PAGE - 1);

    let mut space = SPACE.lock();
    space.frames = Frames(ram.start..ram.start + frames_len);
    space.root = space.frames.allocate_frame().expect("just filled").start_address();

    let mut root = PageTable::new();
    let direct_map = PhysAddr::new((&raw const symbols::boot_pdpt).addr() as u64);
    let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE;
    root[VirtAddr::new(DIRECT_MAP).p4_index()].set_addr(direct_map, flags);
    // SAFETY: the frame was allocated just above for this table.
    unsafe { direct(space.root.as_u64()).cast::<PageTable>().write(root) };

    for (range, rights) in [
        (symbol_range!(__text_start, __text_end), Rights::EXECUTE),
        (symbol_range!(__rodata_start, __rodata_end), Rights::empty()),
        (symbol_range!(__data_start, __data_end), Rights::WRITE),
    ] {
        for page in pages(range.start, (range.end - range.start) as usize).expect("the image is at its address") {
            let at = page.start_address();
            if (0..MAX_CPUS).any(|cpu| STACKS.of(cpu).guards().contains(&at)) {
                continue;
            }
            let frame = PhysFrame::containing_address(PhysAddr::new(at.as_u64() - KERNEL_BASE));
            space
                .map(page, Some(frame), rights)
                .expect("room for the kernel's page tables");
        }
    }
    drop(space);
    switch_to_kernel_space();
    DIRECT_MAP + ram.start + frames_len..DIRECT_MAP + ram.end
}

/// Leaves the boot page tables. Each CPU does this once.
pub(crate) fn switch_to_kernel_space() {
    let root = SPACE.lock().root;
    // SAFETY: the new tables map the code, data and stack in use at the same addresses as the boot tables do.
    unsafe { Cr3::write(PhysFrame::containing_address(root), Cr3Flags::empty()) };
}

/// The physical address behind `at` and whether it may be written there, or `None` if nothing is mapped.
fn walk(at: u64) -> Option<(u64, bool)> {
    let at = VirtAddr::try_new(at).ok()?;
    match SPACE.lock().mapper().0.translate(at) {
        TranslateResult::Mapped { frame, offset, flags } => Some((
            frame.start_address().as_u64() + offset,
            flags.contains(PageTableFlags::WRITABLE),
        )),
        _ => None,
    }
}

/// The physical address of virtual address `at`, or `None` if nothing is mapped there.
pub fn translate(at: u64) -> Option<u64> {
    walk(at).map(|(physical, _)| physical)
}

/// A pointer through which the byte at `at`, text for instance, can be written: its place in the direct map. Valid up to the end of the
/// page `at` is in. `None` if nothing is mapped at `at`.
pub fn writable_alias(at: u64) -> Option<*mut u8> {
    if text().contains(&at) {
        return Some(direct(at - KERNEL_BASE));
    }
    translate(at).filter(|&physical| physical < DIRECT_MAP_LEN).map(direct)
}

/// Writes bytes of text, or of memory from [`alloc_exec`], through their aliases: for each patch its address and its bytes, first byte first.
/// All addresses are checked before anything is written. Other CPUs run the new bytes for sure only after [`crate::smp::sync_cores`], and
/// whether they survive running into a change half made is the caller's affair. To be called as `sync_cores` is.
///
/// QEMU's translator with several threads (seen with 7.2) loses stores to code. It throws the old translation away before the store takes
/// place, so that another CPU can translate the old bytes once more in between; and then the storing CPU's TLB may no longer know that the page
/// holds translated code, so that a repeated store throws nothing away either. Under that translator, and there only, every byte is therefore
/// written a second time, once all CPUs have been synchronised and through a TLB entry made anew.
///
/// # Safety
///
/// Whatever runs the bytes, or refers to them, must be able to live with the change.
pub unsafe fn write_text<'a>(patches: impl Iterator<Item = (u64, &'a [u8])> + Clone) -> Result<(), Fault> {
    let bytes = || patches.clone().flat_map(|(address, bytes)| (address..).zip(bytes));
    for (address, _) in bytes() {
        writable_alias(address).ok_or(Fault { address })?;
    }
    let write = |through_new_entries: bool| {
        for (address, &byte) in bytes() {
            if let Some(alias) = writable_alias(address) {
                if through_new_entries {
                    tlb::flush(VirtAddr::from_ptr(alias));
                }
                // SAFETY: mapped memory, by its alias; the change is the caller's promise.
                unsafe { alias.write_volatile(byte) };
            }
        }
    };
    write(false);
    if crate::cpu::is_qemu_translator() {
        crate::smp::sync_cores();
        write(true);
    }
    Ok(())
}

/// Maps new zeroed pages at `at`, a multiple of 4096. `len` is rounded up to pages. They are never freed.
pub fn map(at: u64, len: usize, rights: Rights) -> Result<(), MapError> {
    let mut space = SPACE.lock();
    for page in pages(at, len)? {
        space.map(page, None, rights)?;
    }
    Ok(())
}

/// Takes physically contiguous pages, for good. `len` is rounded up to pages. Returns the physical address.
pub(crate) fn alloc_frames(len: usize) -> Result<u64, MapError> {
    let frames = &mut SPACE.lock().frames;
    let first = frames.0.start;
    frames.0.start = first
        .checked_add((len as u64).next_multiple_of(PAGE))
        .filter(|&end| end <= frames.0.end)
        .ok_or(MapError::OutOfFrames)?;
    Ok(first)
}

/// Maps the physical pages from `physical` on, which [`alloc_frames`] has returned, at `at`.
pub(crate) fn map_frames(at: u64, physical: u64, len: usize, rights: Rights) -> Result<(), MapError> {
    let mut space = SPACE.lock();
    for (n, page) in pages(at, len)?.enumerate() {
        let frame = PhysFrame::containing_address(PhysAddr::new(physical + n as u64 * PAGE));
        space.map(page, Some(frame), rights)?;
    }
    Ok(())
}

/// Changes the rights of mapped pages, on all CPUs before it returns. To be called with interrupts enabled.
///
/// # Safety
///
/// No reference may exist that needs the rights taken away.
pub unsafe fn protect(at: u64, len: usize, rights: Rights) -> Result<(), MapError> {
    for page in pages(at, len)? {
        let mut space = SPACE.lock();
        // SAFETY: the caller's promise.
        match unsafe { space.mapper().0.update_flags(page, rights.flags()) } {
            Ok(flush) => flush.ignore(), // below, for every CPU
            Err(_) => return Err(MapError::NotMapped(page.start_address().as_u64())),
        }
    }
    crate::smp::flush_tlbs();
    Ok(())
}

/// Removes pages from the address space, on all CPUs before it returns. To be called with interrupts enabled.
///
/// # Safety
///
/// Nothing may use the pages any more, except code that expects to fault.
pub unsafe fn unmap(at: u64, len: usize) -> Result<(), MapError> {
    for page in pages(at, len)? {
        let mut space = SPACE.lock();
        match space.mapper().0.unmap(page) {
            Ok((_, flush)) => flush.ignore(), // below, for every CPU
            Err(UnmapError::InvalidFrameAddress(_) | UnmapError::ParentEntryHugePage | UnmapError::PageNotMapped) => {
                return Err(MapError::NotMapped(page.start_address().as_u64()));
            }
        }
    }
    crate::smp::flush_tlbs();
    Ok(())
}

/// Executable memory, within 2 GiB of the text: read-only at `address`, written through `alias`.
#[derive(Debug, Clone, Copy)]
pub struct ExecMemory {
    /// Where it runs.
    pub address: u64,
    /// Where it is written: the same bytes, in the direct map.
    pub alias: *mut u8,
    /// Length in bytes, a multiple of 4096.
    pub len: usize,
}

// SAFETY: a pointer to memory that is never freed; who writes through it answers for races.
unsafe impl Send for ExecMemory {}
// SAFETY: as above.
unsafe impl Sync for ExecMemory {}

/// Allocates executable memory of at least `len` bytes, filled with int3. It is never freed.
pub fn alloc_exec(len: usize) -> Result<ExecMemory, MapError> {
    let mut space = SPACE.lock();
    let address = space.next_exec;
    let len = len.max(1).next_multiple_of(PAGE as usize);
    let first = space.frames.0.start;
    let taken = first
        .checked_add(len as u64)
        .filter(|&end| end <= space.frames.0.end)
        .ok_or(MapError::OutOfFrames)?;
    space.frames.0.start = taken;
    space.next_exec += len as u64;
    // SAFETY: these frames are RAM in the direct map, and were just taken.
    unsafe { direct(first).write_bytes(0xcc, len) };
    for (n, page) in pages(address, len)?.enumerate() {
        let frame = PhysFrame::containing_address(PhysAddr::new(first + n as u64 * PAGE));
        space.map(page, Some(frame), Rights::EXECUTE)?;
    }
    Ok(ExecMemory {
        address,
        alias: direct(first),
        len,
    })
}
