//! The kernel's heap: the global allocator.

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use linked_list_allocator::Heap;

use crate::percpu;
use crate::sync::IrqMutex;

struct KernelHeap(IrqMutex<Heap>);

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(IrqMutex::new(Heap::empty()));

/// What every byte of freed memory is, but for those that the list of free blocks needs: what is used after it was freed is not
/// mistaken for what it was, and no address in it is canonical.
pub const POISON: u8 = 0xa5;

fn check_allowed(what: &str, layout: Layout) {
    assert!(
        percpu::current().no_alloc.load(Ordering::Relaxed) == 0,
        "{what} {} bytes where allocation is forbidden",
        layout.size()
    );
}

// SAFETY: `Heap` hands out disjoint, aligned memory of the range given to `init`, under a lock.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check_allowed("allocating", layout);
        self.0
            .lock()
            .allocate_first_fit(layout)
            .map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        check_allowed("freeing", layout);
        if let Some(at) = NonNull::new(at) {
            // SAFETY: the caller promises that `at` came from `alloc` with this layout, and gives up the memory.
            unsafe { at.write_bytes(POISON, layout.size()) };
            // SAFETY: as above.
            unsafe { self.0.lock().deallocate(at, layout) };
        }
    }
}

/// Gives the heap its memory, a range of direct-map addresses.
pub(crate) fn init(range: Range<u64>) {
    let start = core::ptr::with_exposed_provenance_mut(range.start as usize);
    // SAFETY: called once, with RAM that nothing else uses, mapped for good.
    unsafe { HEAP.0.lock().init(start, (range.end - range.start) as usize) };
}

/// Bytes allocated and bytes free.
pub fn usage() -> (usize, usize) {
    let heap = HEAP.0.lock();
    (heap.used(), heap.free())
}
