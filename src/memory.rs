//! Memory from the host. The engine allocates at insert only, never during a hit.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;

use crate::host;

struct HostMemory;

// SAFETY: `alloc` and `free` of the host table do what `GlobalAlloc` asks for (`Table::check`): memory of at least the size
// and alignment asked for, that nobody else uses until it is freed. They do not unwind: C functions do not.
unsafe impl GlobalAlloc for HostMemory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(table) = host::table() else {
            return ptr::null_mut();
        };
        // SAFETY: `alloc`'s contract is that of the table's function; the size is not 0, by `GlobalAlloc::alloc`.
        unsafe { (table.alloc)(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(table) = host::table() {
            // SAFETY: `memory` came from `alloc` with this layout, by `GlobalAlloc::dealloc`.
            unsafe { (table.free)(memory, layout.size(), layout.align()) }
        }
    }
}

#[global_allocator]
static MEMORY: HostMemory = HostMemory;
