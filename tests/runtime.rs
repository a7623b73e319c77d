//! The runtime on one CPU: heap, traps, single step, fault-tolerant memory access, rights of pages, ring 3.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bootimage::fault::{Fault, probe_read, probe_write};
use bootimage::memory::{self, MapError, Rights};
use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{NoAlloc, apic, clock, heap, ring3, segments, symbols};

bootimage::test_main! { tests: [
    heap_gives_back_what_it_took,
    breakpoint_sees_and_sets_every_register,
    exceptions_reach_their_handlers,
    single_step_takes_one_trap_per_instruction,
    nested_traps_are_counted,
    reads_survive_every_address,
    writes_survive_every_address,
    faults_leave_cr2_alone,
    pages_have_exactly_their_rights,
    stacks_have_guard_pages,
    text_is_patched_through_its_alias,
    executable_memory_is_near_and_runs,
    ring3_traps_and_returns,
    nmi_with_the_users_gs_base,
    nested_nmis_keep_their_frames,
    timer_interrupts,
    functions_are_known,
] }

const NON_CANONICAL: u64 = 0x0000_8000_0000_0000;
const PAGE: u64 = 4096;

fn heap_gives_back_what_it_took() {
    let before = heap::usage();
    let mut blocks: Vec<Vec<u64>> = Vec::new();
    for len in 1..200_usize {
        blocks.push((0..len as u64).collect());
    }
    for (block, len) in blocks.iter().zip(1..) {
        assert!(block.iter().copied().eq(0..len));
    }
    assert!(heap::usage().0 > before.0);
    drop(blocks);
    assert_eq!(heap::usage(), before);
    let no_alloc = NoAlloc::new();
    drop(no_alloc);
    drop(alloc::boxed::Box::new(1_u64));
}

// Loads every general register with a number of its own, takes a breakpoint, and compares what is in the registers afterwards with other
// numbers: u64 all_registers(). RAX: 0 if all are as the handler set them, or the number of the first that is not.
global_asm!(
    ".text",
    ".global all_registers, all_registers_after",
    ".type all_registers, @function",
    "all_registers:",
    "push rbx; push rbp; push r12; push r13; push r14; push r15",
    "mov eax, 0x101; mov ebx, 0x102; mov ecx, 0x103; mov edx, 0x104; mov esi, 0x105; mov edi, 0x106; mov ebp, 0x107",
    "mov r8d, 0x108; mov r9d, 0x109; mov r10d, 0x10a; mov r11d, 0x10b; mov r12d, 0x10c; mov r13d, 0x10d; mov r14d, 0x10e; mov r15d, 0x10f",
    "stc",
    "int3",
    "all_registers_after:",
    "jc 2f", // the handler cleared the carry flag
    "cmp rax, 0x201; jne 2f; cmp rbx, 0x202; jne 2f; cmp rcx, 0x203; jne 2f; cmp rdx, 0x204; jne 2f; cmp rsi, 0x205; jne 2f",
    "cmp rdi, 0x206; jne 2f; cmp rbp, 0x207; jne 2f; cmp r8, 0x208; jne 2f; cmp r9, 0x209; jne 2f; cmp r10, 0x20a; jne 2f",
    "cmp r11, 0x20b; jne 2f; cmp r12, 0x20c; jne 2f; cmp r13, 0x20d; jne 2f; cmp r14, 0x20e; jne 2f; cmp r15, 0x20f; jne 2f",
    "xor eax, eax",
    "jmp 3f",
    "2: mov eax, 1",
    "3: pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "ret",
    ".size all_registers, . - all_registers",
);

unsafe extern "C" {
    fn all_registers() -> u64;
    static all_registers_after: u8;
}

fn general_registers(f: &mut TrapFrame) -> [&mut u64; 15] {
    [
        &mut f.rax, &mut f.rbx, &mut f.rcx, &mut f.rdx, &mut f.rsi, &mut f.rdi, &mut f.rbp, &mut f.r8, &mut f.r9,
        &mut f.r10, &mut f.r11, &mut f.r12, &mut f.r13, &mut f.r14, &mut f.r15,
    ]
}

fn breakpoint_sees_and_sets_every_register() {
    const CARRY: u64 = 1;
    trap::set_handler(
        trap::BP,
        Some(|vector, frame| {
            assert_eq!(vector, trap::BP);
            assert_eq!(frame.rip, (&raw const all_registers_after).addr() as u64);
            assert_eq!(
                (frame.cs, frame.ss),
                (u64::from(segments::KERNEL_CS.0), u64::from(segments::KERNEL_DS.0))
            );
            assert_eq!(frame.orig_rax, 0);
            assert_eq!(frame.rflags & CARRY, CARRY);
            frame.rflags &= !CARRY;
            for (register, number) in general_registers(frame).into_iter().zip(0x101..) {
                assert_eq!(*register, number);
                *register += 0x100;
            }
            Action::Resume
        }),
    );
    // SAFETY: keeps the ABI's registers and ends in ret.
    assert_eq!(unsafe { all_registers() }, 0);
    trap::set_handler(trap::BP, None);
}

static SEEN: AtomicU64 = AtomicU64::new(0);
static ERROR_CODE: AtomicU64 = AtomicU64::new(0);

/// Notes the vector and goes on at the address in R8.
fn to_r8(vector: u8, frame: &mut TrapFrame) -> Action {
    SEEN.store(vector.into(), Ordering::Relaxed);
    ERROR_CODE.store(frame.orig_rax, Ordering::Relaxed);
    frame.rip = frame.r8;
    Action::Resume
}

fn exceptions_reach_their_handlers() {
    for vector in [trap::DE, trap::UD, trap::GP, trap::PF, trap::SS] {
        assert!(trap::set_handler(vector, Some(to_r8)).is_none());
    }
    let seen = || (SEEN.load(Ordering::Relaxed) as u8, ERROR_CODE.load(Ordering::Relaxed));
    // SAFETY: the handler continues at label 2; the registers each changes are named.
    unsafe {
        asm!("lea r8, [rip + 2f]", "xor ecx, ecx", "div ecx", "2:", out("r8") _, out("rax") _, out("rcx") _, out("rdx") _);
        assert_eq!(seen(), (trap::DE, 0));
        asm!("lea r8, [rip + 2f]", "ud2", "2:", out("r8") _);
        assert_eq!(seen(), (trap::UD, 0));
        asm!("lea r8, [rip + 2f]", "mov al, [{}]", "2:", in(reg) NON_CANONICAL, out("r8") _, out("al") _);
        assert_eq!(seen(), (trap::GP, 0));
        asm!("lea r8, [rip + 2f]", "mov [{}], al", "2:", in(reg) 16_u64, out("r8") _);
        assert_eq!(seen(), (trap::PF, 2)); // a write, nothing mapped
        asm!("lea r8, [rip + 2f]", "mov r9, rbp", "mov rbp, {}", "mov al, [rbp]", "2: mov rbp, r9", in(reg) NON_CANONICAL,
            out("r8") _, out("r9") _, out("al") _);
        // Through RBP it is #SS (SDM volume 3, section 6.15, interrupt 12); QEMU's translator raises #GP.
        assert!([(trap::SS, 0), (trap::GP, 0)].contains(&seen()));
    }
    for vector in [trap::DE, trap::UD, trap::GP, trap::PF, trap::SS] {
        assert!(trap::set_handler(vector, None).is_some());
    }
}

static STEPS: AtomicUsize = AtomicUsize::new(0);

fn single_step_takes_one_trap_per_instruction() {
    trap::set_handler(
        trap::DB,
        Some(|_, _| {
            STEPS.fetch_add(1, Ordering::Relaxed);
            Action::Resume
        }),
    );
    // The instruction after popf is the first to be stepped; the popf that clears TF is the last.
    // SAFETY: the flags are put back.
    unsafe {
        asm!(
            "pushfq", "pop {flags}", "mov {step}, {flags}", "or {step}, 0x100", "push {step}", "popfq",
            "nop", "nop", "mov {step}, {step}", "push {flags}", "popfq",
            flags = out(reg) _, step = out(reg) _,
        );
    }
    trap::set_handler(trap::DB, None);
    assert_eq!(STEPS.load(Ordering::Relaxed), 5);
}

fn nested_traps_are_counted() {
    trap::set_handler(
        trap::BP,
        Some(|_, frame| {
            assert_eq!(trap::depth(), 1);
            let rax: u64;
            // SAFETY: the handler below skips ud2.
            unsafe { asm!("ud2", out("rax") rax) };
            frame.rax = rax + 1;
            Action::Resume
        }),
    );
    trap::set_handler(
        trap::UD,
        Some(|_, frame| {
            assert_eq!(trap::depth(), 2);
            frame.rip += 2;
            frame.rax = 41;
            Action::Resume
        }),
    );
    let rax: u64;
    // SAFETY: handled above.
    unsafe { asm!("int3", out("rax") rax) };
    assert_eq!(rax, 42);
    assert_eq!(trap::depth(), 0);
    trap::set_handler(trap::BP, None);
    trap::set_handler(trap::UD, None);
}

fn reads_survive_every_address() {
    static BYTES: [u8; 16] = *b"0123456789abcdef";
    let mut buffer = [0; 16];
    probe_read(BYTES.as_ptr().addr() as u64, &mut buffer).expect("a static is readable");
    assert_eq!(buffer, BYTES);
    probe_read(1, &mut []).expect("nothing is readable everywhere");

    let bad = [
        0,
        8,
        PAGE,
        NON_CANONICAL - 1,
        NON_CANONICAL,
        0x8000_0000_0000_0000,
        0xfffe_ffff_ffff_fff8,
        u64::MAX,
        u64::MAX - 15,
    ];
    for address in bad {
        assert_eq!(probe_read(address, &mut buffer), Err(Fault { address }), "{address:#x}");
    }

    // One mapped page between two that are not: the fault is at the first byte that is missing.
    const AT: u64 = 0x1000_0000;
    memory::map(AT, PAGE as usize, Rights::WRITE).expect("nothing else is there");
    for before_end in 0..=16 {
        let expected = if before_end == 16 {
            Ok(())
        } else {
            Err(Fault { address: AT + PAGE })
        };
        assert_eq!(probe_read(AT + PAGE - before_end, &mut buffer), expected);
    }
    assert_eq!(probe_read(AT - 1, &mut buffer), Err(Fault { address: AT - 1 }));
    assert_eq!(memory::map(AT, 1, Rights::WRITE), Err(MapError::Mapped(AT)));
    // SAFETY: nothing uses the page.
    unsafe { memory::unmap(AT, PAGE as usize) }.expect("mapped above");
    assert_eq!(probe_read(AT, &mut buffer), Err(Fault { address: AT }));
    // SAFETY: as above.
    assert_eq!(unsafe { memory::unmap(AT, 1) }, Err(MapError::NotMapped(AT)));
    assert_eq!(
        memory::map(NON_CANONICAL, 1, Rights::WRITE),
        Err(MapError::BadAddress(NON_CANONICAL))
    );
    assert_eq!(memory::map(AT + 1, 1, Rights::WRITE), Err(MapError::BadAddress(AT + 1)));
}

fn writes_survive_every_address() {
    static READ_ONLY: [u8; 8] = [1; 8];
    let text = memory::text().start;
    let read_only = core::hint::black_box(&READ_ONLY).as_ptr().addr() as u64;
    for address in [0, text, read_only, NON_CANONICAL, u64::MAX] {
        // SAFETY: none of these can be written.
        assert_eq!(
            unsafe { probe_write(address, &[0xaa; 4]) },
            Err(Fault { address }),
            "{address:#x}"
        );
    }
    let mut target = [0_u8; 4];
    // SAFETY: a local variable.
    unsafe { probe_write(target.as_mut_ptr().addr() as u64, &[1, 2, 3, 4]) }.expect("a local is writable");
    assert_eq!(core::hint::black_box(target), [1, 2, 3, 4]);
}

fn cr2() -> u64 {
    let cr2;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) cr2) };
    cr2
}

fn faults_leave_cr2_alone() {
    // SAFETY: CR2 has no effect but to be read.
    unsafe { asm!("mov cr2, {}", in(reg) 0x1234_5678_u64) };
    assert!(probe_read(16, &mut [0]).is_err());
    assert!(probe_read(NON_CANONICAL, &mut [0]).is_err());
    // SAFETY: nothing is mapped there.
    assert!(unsafe { probe_write(24, &[0]) }.is_err());
    assert_eq!(cr2(), 0x1234_5678);
}

fn pages_have_exactly_their_rights() {
    static DATA: AtomicU64 = AtomicU64::new(0xc3); // ret
    static CONSTANT: u64 = 0xc3;
    let fault_of_call = |address: u64| {
        SEEN.store(0, Ordering::Relaxed);
        // SAFETY: the handler continues at label 2 with the stack as it was before the call.
        unsafe {
            asm!("lea r8, [rip + 2f]", "mov r9, rsp", "call {}", "2: mov rsp, r9", in(reg) address, out("r8") _, out("r9") _, clobber_abi("C"))
        };
        (SEEN.load(Ordering::Relaxed) as u8, ERROR_CODE.load(Ordering::Relaxed))
    };
    const INSTRUCTION_FETCH: u64 = 1 << 4 | 1;
    trap::set_handler(trap::PF, Some(to_r8));
    let stack = 0xc3_u64;
    for address in [
        DATA.as_ptr().addr(),
        (&raw const CONSTANT).addr(),
        (&raw const stack).addr(),
        memory::direct(0x100_0000).addr(),
    ] {
        assert_eq!(
            fault_of_call(address as u64),
            (trap::PF, INSTRUCTION_FETCH),
            "{address:#x}"
        );
    }
    trap::set_handler(trap::PF, None);
}

fn stacks_have_guard_pages() {
    let local = 0_u64;
    let page = (&raw const local).addr() as u64 & !(PAGE - 1);
    let pages = (0..64)
        .find(|n| memory::translate(page - n * PAGE).is_none())
        .expect("a guard page below the stack");
    assert!(pages >= 8, "only {pages} pages of stack left");
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn patched() -> u64 {
    1
}

fn text_is_patched_through_its_alias() {
    const MOV_EAX_2_RET: [u8; 6] = [0xb8, 2, 0, 0, 0, 0xc3];
    let patched = core::hint::black_box(patched as extern "C" fn() -> u64);
    assert_eq!(patched(), 1);
    let address = patched as usize as u64;
    let mut original = [0; 6];
    probe_read(address, &mut original).expect("text is readable");
    let write = |bytes: [u8; 6]| {
        // SAFETY: the bytes of a function of at least six bytes that nobody else calls.
        unsafe { memory::write_text([(address, &bytes[..])].into_iter()) }.expect("text is mapped");
        bootimage::smp::sync_cores();
    };
    write(MOV_EAX_2_RET);
    assert_eq!(patched(), 2);
    write(original);
    assert_eq!(patched(), 1);
}

fn executable_memory_is_near_and_runs() {
    let first = memory::alloc_exec(10_000).expect("memory is left");
    let second = memory::alloc_exec(1).expect("memory is left");
    assert_eq!((first.len, second.len), (12_288, 4096));
    assert_eq!(second.address, first.address + 12_288);
    for memory in [first, second] {
        assert!(memory.address.wrapping_sub(memory::text().start) < i32::MAX as u64);
        let end = memory.address + memory.len as u64;
        let mut bytes = [0; 2];
        probe_read(end - 2, &mut bytes).expect("mapped");
        assert_eq!(bytes, [0xcc; 2]);
        // SAFETY: this memory is executable only, so nothing is written.
        assert!(unsafe { probe_write(memory.address, &[0]) }.is_err());
        // SAFETY: mov eax, 7; ret, in memory of this test's own.
        let seven = unsafe {
            memory::write_text([(memory.address, &[0xb8, 7, 0, 0, 0, 0xc3][..])].into_iter()).expect("mapped");
            core::mem::transmute::<usize, extern "C" fn() -> u64>(memory.address as usize)
        };
        assert_eq!(seven(), 7);
    }
}

const USER_CODE: u64 = 0x40_0000;
const USER_STACK: u64 = 0x50_0000;

fn ring3_traps_and_returns() {
    memory::map(USER_CODE, 1, Rights::EXECUTE | Rights::USER).expect("free");
    memory::map(USER_STACK, 1, Rights::WRITE | Rights::USER).expect("free");
    let load = |code: &[u8]| {
        let alias = memory::writable_alias(USER_CODE).expect("mapped above");
        // SAFETY: a page of this test's own, longer than the code.
        unsafe { alias.copy_from_nonoverlapping(code.as_ptr(), code.len()) };
    };
    // SAFETY: ring 3 code on pages of its own.
    let run = |argument| unsafe { ring3::run(USER_CODE, USER_STACK + PAGE, argument) };

    // lea rax, [rdi + 1]; int3; push rax; pop rax; int 0xf2
    load(&[0x48, 0x8d, 0x47, 0x01, 0xcc, 0x50, 0x58, 0xcd, ring3::LEAVE_VECTOR]);
    trap::set_handler(
        trap::BP,
        Some(|_, frame| {
            assert_eq!(
                (frame.cs, frame.ss),
                (segments::USER_CS.0.into(), segments::USER_DS.0.into())
            );
            assert_eq!((frame.rip, frame.rsp), (USER_CODE + 5, USER_STACK + PAGE));
            assert_eq!(bootimage::cpu_id(), 0);
            frame.rax *= 2;
            Action::Resume
        }),
    );
    assert_eq!(run(20), 42);
    trap::set_handler(trap::BP, None);

    // hlt: not for ring 3. The handler ends the program.
    load(&[0xf4]);
    trap::set_handler(
        trap::GP,
        Some(|_, frame| {
            ring3::leave(frame, 99);
            Action::Resume
        }),
    );
    assert_eq!(run(0), 99);
    trap::set_handler(trap::GP, None);

    // mov rax, [rdi]; int 0xf2: kernel memory is out of reach.
    load(&[0x48, 0x8b, 0x07, 0xcd, ring3::LEAVE_VECTOR]);
    trap::set_handler(
        trap::PF,
        Some(|_, frame| {
            ring3::leave(frame, frame.orig_rax);
            Action::Resume
        }),
    );
    const PRESENT_FROM_USER: u64 = 0b101;
    assert_eq!(run(memory::text().start), PRESENT_FROM_USER);
    trap::set_handler(trap::PF, None);
}

static NMIS: AtomicUsize = AtomicUsize::new(0);

fn nmi_with_the_users_gs_base() {
    NMIS.store(0, Ordering::Relaxed);
    trap::set_handler(
        trap::NMI,
        Some(|_, _| {
            NMIS.fetch_add(bootimage::cpu_id() + 1, Ordering::Relaxed);
            Action::Resume
        }),
    );
    // As if the NMI hit between a trap from ring 3 and its swapgs.
    // SAFETY: GS base is put back, and nothing but the NMI runs meanwhile.
    unsafe { asm!("cli", "swapgs", "int 2", "swapgs", "sti") };
    assert_eq!(NMIS.load(Ordering::Relaxed), 1);
    assert_eq!(bootimage::cpu_id(), 0);
    trap::set_handler(trap::NMI, None);
}

fn nested_nmis_keep_their_frames() {
    const DEPTH: usize = 5;
    NMIS.store(0, Ordering::Relaxed);
    trap::set_handler(trap::BP, Some(|_, _| Action::Resume));
    trap::set_handler(
        trap::NMI,
        Some(|_, frame| {
            let before = *frame;
            if NMIS.fetch_add(1, Ordering::Relaxed) + 1 < DEPTH {
                // The return from the breakpoint lets the next NMI in while this one is being handled.
                // SAFETY: handled above.
                unsafe { asm!("int3") };
                let sent = NMIS.load(Ordering::Relaxed);
                apic::send_nmi(bootimage::cpu_id());
                while NMIS.load(Ordering::Relaxed) == sent {
                    core::hint::spin_loop();
                }
            }
            assert_eq!(*frame, before);
            Action::Resume
        }),
    );
    apic::send_nmi(bootimage::cpu_id());
    while NMIS.load(Ordering::Relaxed) < DEPTH || trap::depth() > 0 {
        core::hint::spin_loop();
    }
    trap::set_handler(trap::NMI, None);
    trap::set_handler(trap::BP, None);
}

fn timer_interrupts() {
    const VECTOR: u8 = 0x40;
    static TICKS: AtomicUsize = AtomicUsize::new(0);
    trap::set_handler(
        VECTOR,
        Some(|_, _| {
            TICKS.fetch_add(1, Ordering::Relaxed);
            Action::Resume
        }),
    );
    let start = clock::now_ns();
    apic::start_timer(VECTOR, 1_000);
    while TICKS.load(Ordering::Relaxed) < 5 {
        core::hint::spin_loop();
    }
    apic::stop_timer();
    assert!(clock::now_ns() > start);
    trap::set_handler(VECTOR, Some(|_, _| Action::Resume));
}

fn functions_are_known() {
    let function = symbols::function_named("patched").expect("a function of this file");
    assert_eq!(function.code.start, patched as extern "C" fn() -> u64 as usize as u64);
    for address in [function.code.start, function.code.end - 1] {
        assert_eq!(symbols::function_at(address), Some(function));
    }
    assert_ne!(symbols::function_at(function.code.end), Some(function));
    let assembly = symbols::function_named("all_registers").expect("a sized function of this file");
    assert!(
        assembly
            .code
            .contains(&((&raw const all_registers_after).addr() as u64))
    );
    assert_eq!(symbols::function_at(0), None);
    assert!(symbols::functions().len() > 100);
}
