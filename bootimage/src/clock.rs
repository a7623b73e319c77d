//! Time: the time-stamp counter, and the 8254 timer to measure it by.

use spin::Once;
use x86_64::instructions::interrupts;
use x86_64::instructions::port::Port;

const PIT_HZ: u64 = 1_193_182;

static TSC_HZ: Once<u64> = Once::new();

/// The time-stamp counter.
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: RDTSC is allowed in ring 0.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Waits for `ticks` of the 8254, by its channel 2 in mode 0, polled.
fn pit_wait(ticks: u16) {
    let mut gate = Port::<u8>::new(0x61);
    let mut data = Port::<u8>::new(0x42);
    let mut mode = Port::<u8>::new(0x43);
    // SAFETY: channel 2 drives the speaker only, which stays off; nothing else here uses it.
    unsafe {
        let old = gate.read() & !0x03;
        gate.write(old | 1);
        mode.write(0b1011_0000);
        data.write(ticks as u8);
        data.write((ticks >> 8) as u8);
        while gate.read() & 0x20 == 0 {
            core::hint::spin_loop();
        }
        gate.write(old);
    }
}

/// Frequency of the time-stamp counter in Hz: from CPUID leaf 15H, or measured for 20 ms at the first call.
pub fn tsc_hz() -> u64 {
    *TSC_HZ.call_once(|| {
        if core::arch::x86_64::__cpuid(0).eax >= 0x15 {
            let leaf = core::arch::x86_64::__cpuid(0x15);
            if leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0 {
                return u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax);
            }
        }
        // A machine that does not get to run, under a hypervisor, sees the timer's end late, and never early: the shortest is right.
        (0..10).map(|_| measured_tsc_hz()).fold(u64::MAX, u64::min)
    })
}

/// The frequency by one wait of 2 ms, or a higher one.
fn measured_tsc_hz() -> u64 {
    interrupts::without_interrupts(|| {
        let ticks = PIT_HZ / 500;
        let start = tsc();
        pit_wait(ticks as u16);
        (tsc() - start) * PIT_HZ / ticks
    })
}

/// Nanoseconds that `cycles` of the time-stamp counter take.
pub fn cycles_to_ns(cycles: u64) -> u64 {
    (u128::from(cycles) * 1_000_000_000 / u128::from(tsc_hz())) as u64
}

/// Nanoseconds since the counter was reset.
pub fn now_ns() -> u64 {
    cycles_to_ns(tsc())
}

/// Waits, without giving the CPU up.
pub fn delay_us(us: u64) {
    let cycles = (u128::from(us) * u128::from(tsc_hz()) / 1_000_000) as u64;
    let start = tsc();
    while tsc().wrapping_sub(start) < cycles {
        core::hint::spin_loop();
    }
}
