//! Segment descriptors and the task state segment of each CPU.
//!
//! Selectors follow the order SYSRET wants (SDM volume 2, SYSRET): kernel code, kernel data, user data, user code.

use core::cell::UnsafeCell;

use spin::Once;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;
use x86_64::{PrivilegeLevel, VirtAddr};

use crate::percpu::{self, STACKS};

/// Kernel code segment.
pub const KERNEL_CS: SegmentSelector = SegmentSelector::new(1, PrivilegeLevel::Ring0);
/// Kernel data segment.
pub const KERNEL_DS: SegmentSelector = SegmentSelector::new(2, PrivilegeLevel::Ring0);
/// User data segment.
pub const USER_DS: SegmentSelector = SegmentSelector::new(3, PrivilegeLevel::Ring3);
/// User code segment, 64-bit.
pub const USER_CS: SegmentSelector = SegmentSelector::new(4, PrivilegeLevel::Ring3);
const TSS: SegmentSelector = SegmentSelector::new(5, PrivilegeLevel::Ring0);

/// Index in the interrupt stack table for #DF, which may be a stack overflow.
pub(crate) const IST_DOUBLE_FAULT: u16 = 0;
/// Index in the interrupt stack table for #MC.
pub(crate) const IST_MACHINE_CHECK: u16 = 1;

/// Descriptor tables of one CPU.
pub(crate) struct Tables {
    tss: Once<Tss>,
    gdt: Once<GlobalDescriptorTable>,
}

/// The CPU reads it at every trap from ring 3, and [`crate::ring3`] changes the stack in it.
struct Tss(UnsafeCell<TaskStateSegment>);

// SAFETY: reached only through `ring0_stack_slot`, by the CPU it belongs to.
unsafe impl Sync for Tss {}
// SAFETY: as above.
unsafe impl Send for Tss {}

impl Tables {
    pub(crate) const fn new() -> Self {
        Self {
            tss: Once::new(),
            gdt: Once::new(),
        }
    }
}

/// Fills and loads this CPU's tables.
pub(crate) fn init() {
    let stacks = STACKS.of(percpu::cpu_id());
    let tables = &percpu::current().tables;
    let tss = tables.tss.call_once(|| {
        let mut tss = TaskStateSegment::new();
        tss.privilege_stack_table[0] = stacks.main_top();
        tss.interrupt_stack_table[usize::from(IST_DOUBLE_FAULT)] = stacks.double_fault_top();
        tss.interrupt_stack_table[usize::from(IST_MACHINE_CHECK)] = stacks.machine_check_top();
        Tss(UnsafeCell::new(tss))
    });
    let gdt = tables.gdt.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        for (descriptor, selector) in [
            (Descriptor::kernel_code_segment(), KERNEL_CS),
            (Descriptor::kernel_data_segment(), KERNEL_DS),
            (Descriptor::user_data_segment(), USER_DS),
            (Descriptor::user_code_segment(), USER_CS),
            // SAFETY: the segment is part of a static, so it lives for ever.
            (unsafe { Descriptor::tss_segment_unchecked(tss.0.get()) }, TSS),
        ] {
            assert_eq!(gdt.append(descriptor), selector);
        }
        gdt
    });
    gdt.load();
    // SAFETY: the table just loaded has these selectors, checked above. FS and GS are left alone: loading GS would clear its base.
    unsafe {
        CS::set_reg(KERNEL_CS);
        SS::set_reg(KERNEL_DS);
        DS::set_reg(KERNEL_DS);
        ES::set_reg(KERNEL_DS);
        load_tss(TSS);
    }
}

/// Where the current CPU's TSS holds the stack that a trap from ring 3 starts on. Not aligned.
pub(crate) fn ring0_stack_slot() -> *mut VirtAddr {
    let tss = percpu::current()
        .tables
        .tss
        .get()
        .expect("segments are initialised first");
    // SAFETY: in bounds of the segment; no reference is made.
    unsafe { (&raw mut (*tss.0.get()).privilege_stack_table).cast() }
}
