//! The local APIC: inter-processor interrupts and the timer (SDM volume 3, chapter 11).

use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;
use x86_64::instructions::interrupts;
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

use crate::memory::direct;
use crate::trap::FIRST_INTERRUPT;
use crate::{clock, percpu};

/// Vector of interrupts the APIC raises without cause. Not to be acknowledged.
pub(crate) const SPURIOUS_VECTOR: u8 = 0xff;

const APIC_BASE: u32 = 0x1b;
const BASE_ENABLED: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const X2APIC_MSRS: u32 = 0x800;

// Registers, by their offset in the memory-mapped page.
const ID: u32 = 0x20;
const END_OF_INTERRUPT: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const IN_SERVICE: u32 = 0x100;
const COMMAND: u32 = 0x300;
const COMMAND_HIGH: u32 = 0x310;
const TIMER: u32 = 0x320;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const SOFTWARE_ENABLE: u32 = 1 << 8;
const DELIVERY_PENDING: u32 = 1 << 12;
const MASKED: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
const DIVIDE_BY_1: u32 = 0b1011;

const COMMAND_NMI: u32 = 0b100 << 8;
const COMMAND_INIT: u32 = 0b101 << 8 | 1 << 14;
const COMMAND_STARTUP: u32 = 0b110 << 8 | 1 << 14;
const COMMAND_FIXED: u32 = 1 << 14;

static X2APIC: AtomicBool = AtomicBool::new(false);
static TIMER_HZ: Once<u64> = Once::new();

fn x2apic() -> bool {
    X2APIC.load(Ordering::Relaxed)
}

fn mmio(register: u32) -> *mut u32 {
    // The architectural default address; `init` checks it.
    direct(0xfee0_0000 + u64::from(register)).cast()
}

fn read(register: u32) -> u32 {
    if x2apic() {
        // SAFETY: an x2APIC register; reading has no effect.
        unsafe { Msr::new(X2APIC_MSRS + (register >> 4)).read() as u32 }
    } else {
        // SAFETY: the APIC's page is in the direct map; reading has no effect.
        unsafe { mmio(register).read_volatile() }
    }
}

/// # Safety
///
/// The value must be one that does not break the kernel: interrupt vectors with handlers, CPUs that are waiting to be started, ...
unsafe fn write(register: u32, value: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        if x2apic() {
            Msr::new(X2APIC_MSRS + (register >> 4)).write(u64::from(value));
        } else {
            mmio(register).write_volatile(value);
        }
    }
}

/// # Safety
///
/// As for [`write`].
unsafe fn command(apic_id: u32, low: u32) {
    interrupts::without_interrupts(|| {
        // SAFETY: the caller's promise. The two halves are not torn apart by an interrupt that sends a command as well.
        unsafe {
            if x2apic() {
                // WRMSR to an x2APIC register does not wait for earlier stores (SDM 11.12.3).
                core::sync::atomic::fence(Ordering::SeqCst);
                core::arch::asm!("lfence", options(nostack, preserves_flags));
                Msr::new(X2APIC_MSRS + (COMMAND >> 4)).write(u64::from(apic_id) << 32 | u64::from(low));
            } else {
                while read(COMMAND) & DELIVERY_PENDING != 0 {
                    core::hint::spin_loop();
                }
                write(COMMAND_HIGH, apic_id << 24);
                write(COMMAND, low);
            }
        }
    });
}

/// Switches this CPU's APIC on, in x2APIC mode where there is one, and notes its id.
pub(crate) fn init() {
    let mut base_msr = Msr::new(APIC_BASE);
    // SAFETY: every 64-bit CPU has this register. Going from xAPIC to x2APIC mode is a legal transition (SDM 11.12.5).
    unsafe {
        let base = base_msr.read();
        assert!(base & BASE_ENABLED != 0, "the local APIC is switched off");
        if core::arch::x86_64::__cpuid(1).ecx & 1 << 21 != 0 {
            base_msr.write(base | BASE_X2APIC);
            X2APIC.store(true, Ordering::Relaxed);
        } else {
            assert_eq!(
                base & 0xffff_ffff_f000,
                0xfee0_0000,
                "the local APIC is not at its default address"
            );
        }
        write(TIMER, MASKED);
        write(SPURIOUS, SOFTWARE_ENABLE | u32::from(SPURIOUS_VECTOR));
    }
    percpu::current().apic_id.store(id(), Ordering::Relaxed);
}

/// Masks all lines of the two legacy interrupt controllers: this kernel polls its devices.
pub(crate) fn mask_legacy_pics() {
    // SAFETY: the mask registers of the two 8259s; masking has no other effect.
    unsafe {
        Port::<u8>::new(0x21).write(0xff);
        Port::<u8>::new(0xa1).write(0xff);
    }
}

fn id() -> u32 {
    if x2apic() { read(ID) } else { read(ID) >> 24 }
}

/// Acknowledges `vector` if it came through the APIC, not from an `int` instruction.
pub(crate) fn end_of_interrupt(vector: u8) {
    let word = read(IN_SERVICE + u32::from(vector / 32) * 0x10);
    if vector != SPURIOUS_VECTOR && word & 1 << (vector % 32) != 0 {
        // SAFETY: the interrupt in service is the one being handled.
        unsafe { write(END_OF_INTERRUPT, 0) };
    }
}

fn apic_id_of(cpu: usize) -> u32 {
    percpu::cpu(cpu).apic_id.load(Ordering::Relaxed)
}

/// Raises interrupt `vector` on CPU `cpu`; does not wait. The CPU must be below [`crate::smp::cpu_count`].
///
/// # Panics
///
/// If `vector` is an exception's.
pub fn send_interrupt(cpu: usize, vector: u8) {
    assert!(vector >= FIRST_INTERRUPT, "vector {vector} belongs to an exception");
    // SAFETY: an interrupt without a handler ends in a message, not in undefined behaviour.
    unsafe { command(apic_id_of(cpu), COMMAND_FIXED | u32::from(vector)) };
}

/// Raises an NMI on CPU `cpu`; does not wait. Without a handler for [`crate::trap::NMI`] it is fatal.
pub fn send_nmi(cpu: usize) {
    // SAFETY: as above.
    unsafe { command(apic_id_of(cpu), COMMAND_NMI) };
}

/// Resets the CPU with this APIC id; it then waits for a start-up interrupt.
///
/// # Safety
///
/// The CPU must not be in use.
pub(crate) unsafe fn send_init(apic_id: u32) {
    // SAFETY: the caller's promise.
    unsafe { command(apic_id, COMMAND_INIT) };
}

/// Starts the CPU with this APIC id in real mode at page number `page`.
///
/// # Safety
///
/// The CPU must be waiting for it, with code for it in that page.
pub(crate) unsafe fn send_startup(apic_id: u32, page: u8) {
    // SAFETY: the caller's promise.
    unsafe { command(apic_id, COMMAND_STARTUP | u32::from(page)) };
}

/// Frequency of the timer, measured against the time-stamp counter at the first call.
fn timer_hz() -> u64 {
    *TIMER_HZ.call_once(|| {
        interrupts::without_interrupts(|| {
            let start = clock::tsc();
            // SAFETY: the timer is masked: it counts and interrupts nobody.
            unsafe {
                write(TIMER, MASKED);
                write(TIMER_DIVIDE, DIVIDE_BY_1);
                write(TIMER_INITIAL, u32::MAX);
            }
            clock::delay_us(5_000);
            let counted = u64::from(u32::MAX - read(TIMER_CURRENT));
            let ns = clock::cycles_to_ns(clock::tsc() - start).max(1);
            (u128::from(counted) * 1_000_000_000 / u128::from(ns)) as u64
        })
    })
}

/// Starts the current CPU's timer: interrupt `vector` every `period_us` microseconds until [`stop_timer`].
///
/// # Panics
///
/// If the period is 0 or too long for the timer's 32 bits, or `vector` is an exception's.
pub fn start_timer(vector: u8, period_us: u64) {
    assert!(vector >= FIRST_INTERRUPT, "vector {vector} belongs to an exception");
    let count = timer_hz() * period_us / 1_000_000;
    let count = u32::try_from(count)
        .ok()
        .filter(|&count| count > 0)
        .expect("a period the timer can count");
    // SAFETY: an interrupt without a handler ends in a message.
    unsafe {
        write(TIMER_DIVIDE, DIVIDE_BY_1);
        write(TIMER, PERIODIC | u32::from(vector));
        write(TIMER_INITIAL, count);
    }
}

/// Stops the current CPU's timer. An interrupt already raised still arrives.
pub fn stop_timer() {
    // SAFETY: masks the timer.
    unsafe {
        write(TIMER, MASKED);
        write(TIMER_INITIAL, 0);
    }
}
