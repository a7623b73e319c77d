//! What programs see of the CPU they run on, and of the task that was interrupted.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::arch::x86_64::__cpuid_count;
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bootimage::memory::{self, Rights};
use bootimage::trap::{self, Action, TrapFrame};
use bootimage::{fault, ring3, segments, smp};
use engine::record::element::{Element, Elements};
use engine::rpn::exception::{INVALID_OPERAND, operand};
use engine::rpn::reg::Reg;
use test_support::{Record, insert, instructions, records, remove};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr2};
use x86_64::registers::model_specific::Msr;

bootimage::test_main! {
    requires: "cpus=2 time_limit_s=120",
    tests: [
        registers_of_the_cpu,
        vector_registers_of_the_probed_code,
        what_is_switched_off_is_refused,
        the_cpu_about_itself,
        an_msr_that_faults_is_survived,
        ports,
        what_can_be_read_and_written,
        no_store_is_lost_by_asking,
        registers_of_user_mode,
        the_stack_of_user_mode,
        the_kernel_stack,
    ],
}

global_asm!(
    // u64 target_system(a, b, c): one instruction to probe.
    ".globl target_system",
    ".type target_system, @function",
    "target_system:",
    "    lea rax, [rdi + rsi]",
    "    ret",
    ".size target_system, . - target_system",
    // Loads xmm0 to xmm15 from 256 bytes, so that a probe on the third instruction from the end sees them.
    ".globl target_vectors",
    ".type target_vectors, @function",
    "target_vectors:",
    "    movups xmm0, [rdi]",
    "    movups xmm3, [rdi + 48]",
    "    movups xmm7, [rdi + 112]",
    "    movups xmm15, [rdi + 240]",
    "    fninit",
    "    fldz",
    "    fld1",
    "    lea rax, [rdi + 1]",
    "    fninit",
    "    ret",
    ".size target_vectors, . - target_vectors",
    // Two functions with frame pointers; the inner one is probed at each instruction.
    ".globl target_outer, target_inner, target_outer_back",
    ".type target_outer, @function",
    "target_outer:",
    "    push rbp",
    "    mov rbp, rsp",
    "    call target_inner",
    "target_outer_back:",
    "    pop rbp",
    "    ret",
    ".size target_outer, . - target_outer",
    ".type target_inner, @function",
    "target_inner:",
    "    push rbp",
    "    mov rbp, rsp",
    "    lea rax, [rdi + 1]",
    "    pop rbp",
    "    ret",
    ".size target_inner, . - target_inner",
    // u64 framed_call(): calls the outer one from a frame of its own, below a frame that ends the chain.
    ".globl framed_call, framed_call_back",
    "framed_call:",
    "    push rbp",
    "    push 0",
    "    push 0",
    "    mov rbp, rsp",
    "    push rbp",
    "    mov rbp, rsp",
    "    call target_outer",
    "framed_call_back:",
    "    add rsp, 24",
    "    pop rbp",
    "    ret",
    // For ring 3, to be copied: a number in every register, then a fault; the result is rbx.
    ".globl user_registers, user_registers_fault, user_registers_end",
    "user_registers:",
    "    mov rax, 0x101; mov rbx, 0x102; mov rcx, 0x103; mov rdx, 0x104; mov rsi, 0x105; mov rdi, 0x106; mov rbp, 0x107",
    "    mov r8, 0x108; mov r9, 0x109; mov r10, 0x10a; mov r11, 0x10b; mov r12, 0x10c; mov r13, 0x10d; mov r14, 0x10e",
    "    mov r15, 0x10f",
    "user_registers_fault:",
    "    ud2",
    "    mov rax, rbx",
    "    int {leave}",
    "user_registers_end:",
    // As above: two calls, then a fault.
    ".globl user_frames, user_frames_outer, user_frames_inner, user_frames_fault, user_frames_end",
    "user_frames:",
    "    call 2f",
    "user_frames_outer:",
    "    int {leave}",
    "2:  push rbp",
    "    mov rbp, rsp",
    "    call 3f",
    "user_frames_inner:",
    "    pop rbp",
    "    ret",
    "3:  push rbp",
    "    mov rbp, rsp",
    "user_frames_fault:",
    "    ud2",
    "    pop rbp",
    "    ret",
    "user_frames_end:",
    leave = const ring3::LEAVE_VECTOR,
);

unsafe extern "C" {
    fn target_system(a: u64, b: u64, c: u64) -> u64;
    fn target_vectors(from: *const [u8; 256]) -> u64;
    fn framed_call(argument: u64) -> u64;
    static target_outer_back: u8;
    static framed_call_back: u8;
    static user_registers: u8;
    static user_registers_fault: u8;
    static user_registers_end: u8;
    static user_frames: u8;
    static user_frames_outer: u8;
    static user_frames_inner: u8;
    static user_frames_fault: u8;
    static user_frames_end: u8;
    static fault_rdmsr_access: u8;
}

macro_rules! address {
    ($symbol:ident) => {
        (&raw const $symbol).addr() as u64
    };
}

fn call(a: u64, b: u64, c: u64) {
    // SAFETY: the function adds two numbers.
    assert_eq!(unsafe { target_system(a, b, c) }, a.wrapping_add(b));
}

fn place() -> u64 {
    instructions("target_system")[0]
}

/// The words of each element of words, of the one record that there is.
fn logged() -> Vec<Vec<u64>> {
    let records = records();
    assert_eq!(records.len(), 1, "{records:?}");
    all_words(&records[0])
}

fn all_words(record: &Record) -> Vec<Vec<u64>> {
    Elements::new(&record.elements)
        .map(|element| match element.expect("an element") {
            Element::Words(words) => words.iter().collect(),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn refused(class: u64, word: u64) -> Vec<u64> {
    [u64::from(INVALID_OPERAND), class, word].into()
}

const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;

fn rdmsr(number: u32) -> u64 {
    // SAFETY: registers that every 64-bit CPU has; reading has no effect.
    unsafe { Msr::new(number).read() }
}

fn registers_of_the_cpu() {
    insert("registers", &[place()]).unwrap();
    let usual_mxcsr = 0x1f80_u32;
    let (mxcsr, fcw) = (usual_mxcsr | 1 << 6, 0x027f_u16);
    // SAFETY: breakpoint registers that are not switched on, a base that nobody uses, CR2 and rounding modes have no effect
    // on this kernel. A task priority of 1 masks no interrupt vector from 32 on.
    unsafe {
        asm!("mov dr0, {}", in(reg) 0x1111_u64);
        asm!("mov dr1, {}", in(reg) 0x2222_u64);
        asm!("mov dr2, {}", in(reg) 0x3333_u64);
        asm!("mov dr3, {}", in(reg) 0x4444_u64);
        asm!("mov cr2, {}", in(reg) 0x5555_u64);
        asm!("mov cr8, {}", in(reg) 1_u64);
        asm!("ldmxcsr [{}]", "fninit", "fldcw [{}]", "fld1", "fldz", in(reg) &raw const mxcsr, in(reg) &raw const fcw);
        Msr::new(FS_BASE).write(0x6666_0000);
    }
    call(1, 2, 3);
    // SAFETY: as above.
    let (cr3, cr4, xcr0): (u64, u64, u64);
    let (mut gdtr, mut idtr) = ([0_u8; 10], [0_u8; 10]);
    unsafe {
        asm!("mov {}, cr3", out(reg) cr3);
        asm!("mov {}, cr4", out(reg) cr4);
        asm!("xgetbv", "shl rdx, 32", "or rax, rdx", in("ecx") 0, out("rax") xcr0, out("rdx") _);
        asm!("sgdt [{}]", in(reg) gdtr.as_mut_ptr());
        asm!("sidt [{}]", in(reg) idtr.as_mut_ptr());
        asm!("mov cr8, {}", in(reg) 0_u64);
        asm!("fninit", "ldmxcsr [{}]", in(reg) &raw const usual_mxcsr);
    }
    let limit = |table: [u8; 10]| u64::from(u16::from_le_bytes([table[0], table[1]]));
    let base = |table: [u8; 10]| u64::from_le_bytes(*table.last_chunk().unwrap());
    const TASK_STATE_SEGMENT: u64 = 5 << 3;
    // Two registers are pushed, 7 and 6, of which 7 is 1.0 and 6 is 0.0; the others are empty.
    const TAGS: u64 = 0b00_01_11_11_11_11_11_11;
    const TOP_IS_6: u64 = 6 << 11;
    let expected = [
        TAGS,
        TOP_IS_6,
        u64::from(fcw),
        u64::from(mxcsr),
        xcr0,
        rdmsr(GS_BASE),
        0x6666_0000,
        limit(idtr),
        base(idtr),
        limit(gdtr),
        base(gdtr),
        TASK_STATE_SEGMENT,
        0,
        0x400,
        0xffff_0ff0,
        0x4444,
        0x3333,
        0x2222,
        0x1111,
        1,
        cr4,
        cr3,
        0x5555,
        Cr0::read_raw(),
    ];
    let found = logged();
    let found = &found[0];
    assert_eq!(found[..], expected, "{found:x?}, expected {expected:x?}");
    remove(20);
}

fn vector_registers_of_the_probed_code() {
    insert("vectors", &[instructions("target_vectors")[7]]).unwrap();
    let bytes: [u8; 256] = core::array::from_fn(|index| index as u8);
    // SAFETY: the function reads those bytes.
    unsafe { target_vectors(&bytes) };
    let word = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    let found = logged();
    let xmm = |number: usize| [word(16 * number), word(16 * number + 8)];
    assert_eq!(found[..3], [xmm(0), xmm(7), xmm(15)].map(Vec::from));
    let has_avx = __cpuid_count(1, 0).ecx >> 28 & 1 == 1;
    let rest = &found[3..];
    if !has_avx {
        assert_eq!(rest, [refused(operand::REGISTER, u64::from(Reg::Ymm0.number()))]);
    } else {
        for (found, number) in rest.iter().zip([0, 15]) {
            assert_eq!(found[..2], xmm(number));
            assert_eq!(found[2..], [0, 0], "nobody has written the upper halves");
        }
        // This runtime does not switch AVX-512 on, whether the CPU has it or not.
        assert_eq!(rest[2..], [refused(operand::REGISTER, u64::from(Reg::Zmm0.number()))]);
    }
    remove(21);
}

fn what_is_switched_off_is_refused() {
    insert("words", &[place()]).unwrap();
    let (xmm, fcw, mxcsr) = (Reg::Xmm3, Reg::Fcw, Reg::Mxcsr);
    let off = |register: Reg| refused(operand::REGISTER, u64::from(register.number()));
    for flag in [Cr0Flags::TASK_SWITCHED, Cr0Flags::EMULATE_COPROCESSOR] {
        let before = Cr0::read();
        // SAFETY: this kernel executes no instruction that the flags make fault.
        unsafe { Cr0::write(before | flag) };
        call(1, 2, 3);
        // SAFETY: as it was.
        unsafe { Cr0::write(before) };
        assert_eq!(logged(), [off(xmm), off(fcw), off(mxcsr)], "{flag:?}");
    }
    call(1, 2, 3);
    let found = logged();
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1], "{found:x?}");
    remove(22);
}

fn the_cpu_about_itself() {
    const EFER: u64 = 0xc000_0080;
    insert("cpu", &[place()]).unwrap();
    for (leaf, subleaf) in [(0, 0), (1, 0), (7, 0), (0xd, 0), (0xd, 1), (0x8000_0001, 0)] {
        let tsc = bootimage::clock::tsc();
        let clock = bootimage::clock::now_ns();
        call(leaf, subleaf, EFER);
        let result = __cpuid_count(leaf as u32, subleaf as u32);
        let found = logged();
        let expected = [result.eax, result.ebx, result.ecx, result.edx].map(u64::from);
        assert_eq!(found[0], expected, "leaf {leaf:#x}.{subleaf}");
        assert!((tsc..bootimage::clock::tsc()).contains(&found[1][0]));
        assert!((clock..=bootimage::clock::now_ns()).contains(&found[2][0]));
        assert_eq!(found[3], [0]);
        assert_eq!(found[4], [rdmsr(EFER as u32)]);
    }
    // CPUID looks at the low halves; an MSR's number has 32 bits.
    call(1 << 32 | 0x8000_0000, 1 << 32, 1 << 32);
    let found = logged();
    assert_eq!(found[0][0], u64::from(__cpuid_count(0x8000_0000, 0).eax));
    assert_eq!(found[4], refused(operand::MSR, 1 << 32));
    smp::run_on(1, || call(0, 0, EFER));
    assert_eq!(logged()[3], [1]);
    remove(23);
}

static SURVIVED: AtomicU64 = AtomicU64::new(0);

/// QEMU's translator reads zero from registers that do not exist. So the instruction that reads is made to fault in another
/// way: what follows is what follows #GP.
fn as_if_it_faulted(_: u8, frame: &mut TrapFrame) -> Action {
    SURVIVED.fetch_add(1, Ordering::Relaxed);
    frame.rip = fault::fix_up_of(frame.rip).expect("the instruction that reads has a fix-up");
    Action::Resume
}

fn an_msr_that_faults_is_survived() {
    const EXECUTE_DR0: u64 = 0b10;
    insert("cpu", &[place()]).unwrap();
    trap::set_handler(trap::DB, Some(as_if_it_faulted));
    // SAFETY: the breakpoint is on one instruction of the runtime's, and its handler is there.
    unsafe {
        asm!("mov dr0, {}", in(reg) address!(fault_rdmsr_access));
        asm!("mov dr7, {}", in(reg) 0x400 | EXECUTE_DR0);
    }
    call(0, 0, 0x1234_5678);
    // SAFETY: switches it off.
    unsafe { asm!("mov dr7, {}", in(reg) 0x400_u64) };
    trap::set_handler(trap::DB, None);
    assert_eq!(SURVIVED.load(Ordering::Relaxed), 1, "the register was read");
    assert_eq!(logged()[4], refused(operand::MSR, 0x1234_5678));
    remove(23);
}

fn ports() {
    insert("ports", &[place()]).unwrap();
    call(1, 2, 3);
    let found = logged();
    // Top first: register D of the clock, which says that its battery is good; then the bridge's identity, by 2, 2 and 4 bytes.
    let [clock, device, vendor, both] = found[0][..] else {
        panic!("{found:x?}")
    };
    assert_eq!(clock, 0x80);
    assert_eq!(vendor, 0x8086, "QEMU's host bridges are Intel's");
    assert_eq!(both, device << 16 | vendor);
    assert_eq!(found[1], refused(operand::PORT, 0xffff), "its second byte has no port");
    remove(24);
}

const WRITABLE: u64 = 0xffff_c100_0000_0000;
const READ_ONLY: u64 = WRITABLE + 4096;
const ABSENT: u64 = WRITABLE + 8192;

fn what_can_be_read_and_written() {
    memory::map(WRITABLE, 4096, Rights::WRITE).expect("free");
    memory::map(READ_ONLY, 4096, Rights::empty()).expect("free");
    insert("verify", &[place()]).unwrap();
    let cr2 = Cr2::read_raw();
    // `rw` first, since the top word is logged first.
    for (address, expected) in [
        (WRITABLE, [0, 0]),
        (WRITABLE + 4095, [0, 0]),
        (READ_ONLY, [1, 0]),
        (ABSENT - 1, [1, 0]),
        (ABSENT, [1, 1]),
        (place(), [1, 0]),
        (0, [1, 1]),
        (0x8000_0000_0000, [1, 1]),
        (u64::MAX, [1, 1]),
    ] {
        call(address, 0, 0);
        assert_eq!(logged(), [Vec::from(expected)], "{address:#x}");
        assert_eq!(Cr2::read_raw(), cr2, "CR2 has changed");
    }
    remove(25);
}

fn no_store_is_lost_by_asking() {
    insert("verify", &[place()]).unwrap();
    let word = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    smp::run_on_all(|cpu| {
        if cpu == 0 {
            for byte in 0..3000 {
                call(word.as_ptr() as u64 + byte % 8, 0, 0);
            }
            done.store(true, Ordering::Release);
            return;
        }
        let mut value = 0_u64;
        while !done.load(Ordering::Acquire) {
            value = value.wrapping_add(0x0101_0101_0101_0101);
            word.store(value, Ordering::Relaxed);
            assert_eq!(word.load(Ordering::Relaxed), value, "an older value has come back");
        }
    });
    let found = records();
    assert!(
        found
            .iter()
            .all(|record| all_words(record).iter().all(|words| words[..] == [0, 0]))
    );
    assert_eq!(remove(25)[0].hits, 3000);
}

const USER_CODE: u64 = 0x40_0000;
const USER_STACK: u64 = 0x50_0000;
const USER_STACK_TOP: u64 = USER_STACK + 4096;

/// Runs code from `start` to `end` in ring 3. Its fault calls the probed function, and goes on behind the instruction.
fn run_user(start: u64, end: u64) -> u64 {
    let _ = memory::map(USER_CODE, 4096, Rights::EXECUTE | Rights::USER);
    let _ = memory::map(USER_STACK, 4096, Rights::WRITE | Rights::USER);
    let alias = memory::writable_alias(USER_CODE).expect("mapped above");
    trap::set_handler(
        trap::UD,
        Some(|_, frame| {
            call(1, 2, 3);
            frame.rip += 2;
            Action::Resume
        }),
    );
    // SAFETY: the code fits into the page, which is this test's own, and is made for ring 3.
    let result = unsafe {
        alias.copy_from_nonoverlapping(start as *const u8, (end - start) as usize);
        ring3::run(USER_CODE, USER_STACK_TOP, 0)
    };
    trap::set_handler(trap::UD, None);
    result
}

fn registers_of_user_mode() {
    insert("user", &[place()]).unwrap();
    // Without user mode there are none.
    call(1, 2, 3);
    let none = |register: Reg| refused(operand::REGISTER, u64::from(register.number()));
    assert_eq!(logged(), [none(Reg::Rax), none(Reg::Rbx)]);

    let result = run_user(address!(user_registers), address!(user_registers_end));
    assert_eq!(result, 0x1234, "what the program has written to rbx");
    let found = logged();
    let fault = USER_CODE + address!(user_registers_fault) - address!(user_registers);
    let [rflags, ss, cs, rip] = found[0][..4] else { panic!() };
    assert_eq!(
        [ss, cs, rip],
        [u64::from(segments::USER_DS.0), u64::from(segments::USER_CS.0), fault]
    );
    assert_eq!(rflags & (1 << 9 | 1 << 1), 1 << 9 | 1 << 1);
    let mut general: Vec<u64> = found[0][4..].to_vec();
    general.reverse();
    assert_eq!(
        general,
        [
            0x101,
            0x102,
            0x103,
            0x104,
            0x105,
            0x106,
            0x107,
            USER_STACK_TOP,
            0x108,
            0x109,
            0x10a,
            0x10b,
            0x10c,
            0x10d,
            0x10e,
            0x10f
        ]
    );
    // It is over.
    call(1, 2, 3);
    assert_eq!(logged(), [none(Reg::Rax), none(Reg::Rbx)]);
    remove(26);
}

/// The stacks of each record: kernel's, and the process's if it was logged.
fn stacks(record: &Record) -> Vec<Vec<u64>> {
    Elements::new(&record.elements)
        .filter_map(|element| match element.expect("an element") {
            Element::KernelStack(words) | Element::UserStack(words) => Some(words.iter().collect()),
            _ => None,
        })
        .collect()
}

fn the_stack_of_user_mode() {
    let inner = instructions("target_inner");
    insert("stacks", &[place(), inner[1], inner[2], inner[3], inner[4]]).unwrap();
    call(1, 2, 3);
    run_user(address!(user_frames), address!(user_frames_end));
    let found: Vec<_> = records().iter().map(stacks).collect();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0][1], [0; 0], "there is no user mode");
    let at = |address: u64| USER_CODE + address - address!(user_frames);
    assert_eq!(
        found[1][1],
        [
            at(address!(user_frames_fault)),
            at(address!(user_frames_inner)),
            at(address!(user_frames_outer))
        ]
    );
    remove(27);
}

fn the_kernel_stack() {
    let inner = instructions("target_inner");
    insert("stacks", &[inner[0], inner[1], inner[2], inner[3], inner[4]]).unwrap();
    // SAFETY: adds one.
    assert_eq!(unsafe { framed_call(41) }, 42);
    let found = records();
    assert_eq!(found.len(), inner.len());
    for (record, place) in found.iter().zip(&inner) {
        let all = stacks(record);
        assert_eq!(
            all[0],
            [*place, address!(target_outer_back), address!(framed_call_back)],
            "{all:x?}"
        );
    }
    let more = stacks(&found[2]);
    assert_eq!(more[1], [inner[2], address!(target_outer_back)]);
    assert_eq!(more[2], [0; 0]);
    let last = Elements::new(&found[4].elements)
        .last()
        .expect("an element")
        .expect("an element");
    let Element::Words(words) = last else {
        panic!("{last:?}")
    };
    assert_eq!(words.iter().collect::<Vec<_>>(), refused(operand::COUNT, 129));
    remove(27);
}
