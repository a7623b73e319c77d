//! The runtime on four CPUs: running code on others, interrupting them, synchronising them.
#![no_std]
#![no_main]

use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bootimage::memory::{self, Rights};
use bootimage::smp::{self, cpu_count};
use bootimage::sync::IrqMutex;
use bootimage::trap::{self, Action};
use bootimage::{apic, clock, cpu_id, fault};
use x86_64::instructions::interrupts;

bootimage::test_main! { requires: "cpus=4 time_limit_s=120", tests: [
    all_cpus_run,
    jobs_run_at_the_same_time,
    calls_interrupt,
    everyone_calls_everyone,
    cores_are_synchronised_by_several_at_once,
    patched_text_is_seen_everywhere,
    quiesce_waits_for_who_is_inside,
    quiesce_waits_for_a_trap_in_progress,
    rights_are_taken_from_all_cpus,
    nmis_arrive,
    locks_exclude,
    faults_on_all_cpus_at_once,
] }

fn all_cpus_run() {
    assert_eq!(cpu_count(), 4);
    let seen = AtomicU32::new(0);
    smp::run_on_all(|cpu| {
        assert_eq!(cpu, cpu_id());
        assert!(interrupts::are_enabled());
        assert_eq!(trap::depth(), 0);
        seen.fetch_or(1 << cpu, Ordering::Relaxed);
    });
    assert_eq!(seen.into_inner(), 0b1111);
    for cpu in 0..cpu_count() {
        let there = AtomicUsize::new(usize::MAX);
        smp::run_on(cpu, || there.store(cpu_id(), Ordering::Relaxed));
        assert_eq!(there.into_inner(), cpu);
    }
}

/// Waits until all CPUs have come here.
fn meet(arrived: &AtomicUsize) {
    arrived.fetch_add(1, Ordering::AcqRel);
    while arrived.load(Ordering::Acquire) < cpu_count() {
        spin_loop();
    }
}

fn jobs_run_at_the_same_time() {
    let arrived = AtomicUsize::new(0);
    smp::run_on_all(|_| meet(&arrived));
    assert_eq!(arrived.into_inner(), cpu_count());
}

fn calls_interrupt() {
    for cpu in 0..cpu_count() {
        let there = AtomicUsize::new(usize::MAX);
        smp::call_on(cpu, || {
            assert!(!interrupts::are_enabled());
            there.store(cpu_id(), Ordering::Relaxed);
        });
        assert_eq!(there.into_inner(), cpu);
    }
    let calls = AtomicUsize::new(0);
    smp::call_on_all(|| {
        calls.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(calls.into_inner(), cpu_count());
}

fn everyone_calls_everyone() {
    const ROUNDS: usize = 100;
    let calls = [const { AtomicUsize::new(0) }; 4];
    smp::run_on_all(|me| {
        for round in 0..ROUNDS {
            let target = (me + round) % cpu_count();
            let count = || _ = calls[target].fetch_add(1, Ordering::Relaxed);
            let call = || smp::call_on(target, count);
            // With interrupts masked as well: who waits answers.
            if round % 2 == 0 {
                call()
            } else {
                interrupts::without_interrupts(call)
            }
        }
    });
    for count in calls {
        assert_eq!(count.into_inner(), ROUNDS);
    }
}

fn cores_are_synchronised_by_several_at_once() {
    let arrived = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    smp::run_on_all(|_| {
        meet(&arrived);
        for _ in 0..50 {
            smp::sync_cores();
            done.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!(done.into_inner(), 50 * cpu_count());
}

fn patched_text_is_seen_everywhere() {
    let code = memory::alloc_exec(16).expect("memory is left").address;
    // SAFETY: memory of this test's own.
    let write =
        |offset, bytes: &[u8]| unsafe { memory::write_text([(code + offset, bytes)].into_iter()) }.expect("mapped");
    write(0, &[0xb8, 0, 0, 0, 0, 0xc3]); // mov eax, imm32; ret
    // SAFETY: the code just written.
    let function = unsafe { core::mem::transmute::<usize, extern "C" fn() -> u32>(code as usize) };
    let (version, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    smp::sync_cores();
    smp::run_on_all(|cpu| {
        if cpu == 0 {
            for new in 1..=100_u32 {
                // The lowest byte of the immediate: a store that other CPUs see whole.
                write(1, &[new as u8]);
                smp::sync_cores();
                version.store(new, Ordering::SeqCst);
            }
            stop.store(true, Ordering::Release);
        } else {
            while !stop.load(Ordering::Acquire) {
                let before = version.load(Ordering::SeqCst);
                let got = function();
                assert!(
                    got >= before,
                    "CPU {cpu} ran version {got} after version {before} was synchronised"
                );
            }
            assert_eq!(function(), 100);
        }
    });
}

static RELEASED: AtomicBool = AtomicBool::new(false);
const TIMER_VECTOR: u8 = 0x41;

/// Has the timer of this CPU set [`RELEASED`] in 20 ms.
fn release_later() {
    RELEASED.store(false, Ordering::Release);
    trap::set_handler(
        TIMER_VECTOR,
        Some(|_, _| {
            apic::stop_timer();
            RELEASED.store(true, Ordering::Release);
            Action::Resume
        }),
    );
    apic::start_timer(TIMER_VECTOR, 20_000);
}

fn quiesce_waits_for_who_is_inside() {
    let code = memory::alloc_exec(16).expect("memory is left");
    // 1: pause; cmp byte ptr [rdi], 0; je 1b; ret
    const WAIT: [u8; 8] = [0xf3, 0x90, 0x80, 0x3f, 0x00, 0x74, 0xf9, 0xc3];
    // SAFETY: memory of this test's own, and then the code just written.
    let wait_in_code = unsafe {
        memory::write_text([(code.address, &WAIT[..])].into_iter()).expect("mapped");
        core::mem::transmute::<usize, extern "C" fn(*const AtomicBool)>(code.address as usize)
    };
    let range = code.address..code.address + code.len as u64;
    smp::quiesce(&range);
    let inside = AtomicBool::new(false);
    smp::run_on_all(|cpu| match cpu {
        0 => {
            while !inside.load(Ordering::Acquire) {
                spin_loop();
            }
            clock::delay_us(1_000);
            release_later();
            smp::quiesce(&range);
            assert!(
                RELEASED.load(Ordering::Acquire),
                "quiesce returned while a CPU was inside"
            );
        }
        2 => {
            RELEASED.store(false, Ordering::Release);
            inside.store(true, Ordering::Release);
            wait_in_code(&RELEASED);
        }
        _ => {}
    });
}

fn quiesce_waits_for_a_trap_in_progress() {
    static INSIDE: AtomicBool = AtomicBool::new(false);
    RELEASED.store(false, Ordering::Release);
    // A handler that lets interrupts in: the interrupted code is not where the instruction pointer says.
    trap::set_handler(
        trap::BP,
        Some(|_, _| {
            INSIDE.store(true, Ordering::Release);
            interrupts::enable();
            while !RELEASED.load(Ordering::Acquire) {
                spin_loop();
            }
            interrupts::disable();
            Action::Resume
        }),
    );
    smp::run_on_all(|cpu| match cpu {
        0 => {
            while !INSIDE.load(Ordering::Acquire) {
                spin_loop();
            }
            release_later();
            smp::quiesce(&(0..1));
            assert!(
                RELEASED.load(Ordering::Acquire),
                "quiesce returned while a trap was in progress"
            );
        }
        1 => interrupts::int3(),
        _ => {}
    });
    trap::set_handler(trap::BP, None);
}

fn rights_are_taken_from_all_cpus() {
    const AT: u64 = 0x2000_0000;
    memory::map(AT, 1, Rights::WRITE).expect("free");
    // SAFETY: the page is used through `probe_write` only.
    let write_on_all = |expected: bool| {
        smp::run_on_all(|_| assert_eq!(unsafe { fault::probe_write(AT, &[1]) }.is_ok(), expected));
    };
    write_on_all(true);
    // SAFETY: as above.
    unsafe { memory::protect(AT, 1, Rights::empty()) }.expect("mapped");
    write_on_all(false);
    smp::run_on_all(|_| assert!(fault::probe_read(AT, &mut [0]).is_ok()));
    // SAFETY: as above.
    unsafe { memory::unmap(AT, 1) }.expect("mapped");
    smp::run_on_all(|_| assert!(fault::probe_read(AT, &mut [0]).is_err()));
}

fn nmis_arrive() {
    static ARRIVED: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
    trap::set_handler(
        trap::NMI,
        Some(|_, _| {
            ARRIVED[cpu_id()].fetch_add(1, Ordering::Relaxed);
            Action::Resume
        }),
    );
    for (cpu, arrived) in ARRIVED.iter().enumerate() {
        for count in 1..=10 {
            apic::send_nmi(cpu);
            while arrived.load(Ordering::Relaxed) < count {
                spin_loop();
            }
        }
    }
    smp::call_on_all(|| {});
    trap::set_handler(trap::NMI, None);
    for arrived in &ARRIVED {
        assert_eq!(arrived.load(Ordering::Relaxed), 10);
    }
}

fn locks_exclude() {
    let counter = IrqMutex::new(0_u64);
    smp::run_on_all(|_| {
        for _ in 0..1_000 {
            let mut counter = counter.lock();
            assert!(!interrupts::are_enabled());
            *counter += 1;
        }
        assert!(interrupts::are_enabled());
    });
    assert_eq!(*counter.lock(), 1_000 * cpu_count() as u64);
}

fn faults_on_all_cpus_at_once() {
    let faults = AtomicU64::new(0);
    smp::run_on_all(|cpu| {
        for n in 0..500 {
            let address = (cpu as u64 + 1) << 40 | n;
            assert_eq!(fault::probe_read(address, &mut [0; 8]), Err(fault::Fault { address }));
            faults.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!(faults.into_inner(), 500 * cpu_count() as u64);
}
