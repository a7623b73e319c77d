//! What programs see of the task, the process and the CPU: compared with what user space knows.

use std::arch::{asm, global_asm};
use std::fs::{self, File};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;
use std::thread;
use std::time::Duration;

use dprobes::record::element::Element;
use dprobes::record::header::Header;
use dprobes::rpn::exception::{INVALID_OPERAND, operand};
use dprobes::rpn::reg::Reg;
use libtest_mimic::Failed;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::process::{Uid, getpid, getuid};
use rustix::thread::{gettid, set_name, set_thread_res_uid};
use rustix::time::{ClockId, clock_gettime};

use crate::device::Device;
use crate::machine::{self, Module, Target, symbol};
use crate::records::elements;
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[
    (
        "the_task_is_the_one_user_space_knows",
        the_task_is_the_one_user_space_knows,
    ),
    (
        "clock_and_cpu_are_those_of_user_space",
        clock_and_cpu_are_those_of_user_space,
    ),
    (
        "user_registers_are_what_the_process_put_there",
        user_registers_are_what_the_process_put_there,
    ),
    ("user_registers_can_be_changed", user_registers_can_be_changed),
    ("kernel_threads_have_no_user_mode", kernel_threads_have_no_user_mode),
    (
        "a_32_bit_process_has_registers_and_no_stack",
        a_32_bit_process_has_registers_and_no_stack,
    ),
    (
        "the_user_stack_is_that_of_the_process",
        the_user_stack_is_that_of_the_process,
    ),
    (
        "the_kernel_stack_leads_to_the_system_call",
        the_kernel_stack_leads_to_the_system_call,
    ),
    (
        "the_kernel_stack_is_known_in_a_page_fault",
        the_kernel_stack_is_known_in_a_page_fault,
    ),
    (
        "what_can_be_written_is_known_and_not_paged_in",
        what_can_be_written_is_known_and_not_paged_in,
    ),
    ("registers_of_the_cpu", registers_of_the_cpu),
    ("globals_are_shared_by_programs", globals_are_shared_by_programs),
];

const PAGE: usize = 4096;

global_asm!(
    // The arguments are a system call's: rdi, rsi, rdx. u64 values_chain(fd, buffer, length): writes from two frames below one
    // that ends the chain of frame pointers.
    ".globl values_chain, values_chain_outer, values_chain_inner, values_chain_call",
    "values_chain:",
    "    push rbp",
    "    xor ebp, ebp",
    "    call 2f",
    "values_chain_outer:",
    "    pop rbp",
    "    ret",
    "2:  push rbp",
    "    mov rbp, rsp",
    "    call 3f",
    "values_chain_inner:",
    "    pop rbp",
    "    ret",
    "3:  push rbp",
    "    mov rbp, rsp",
    "    mov eax, 1",
    "    syscall",
    "values_chain_call:",
    "    pop rbp",
    "    ret",
    // u64 values_registers(fd, buffer, length, u64 *rsp): writes with a number in each register that the call leaves alone. The result
    // is what rbx is afterwards, or 7 when the probe has sent the process to values_registers_elsewhere.
    ".globl values_registers, values_registers_call, values_registers_elsewhere",
    "values_registers:",
    "    push rbx; push rbp; push r12; push r13; push r14; push r15",
    "    mov [rcx], rsp",
    "    mov ebx, 0x102; mov ebp, 0x107; mov r8d, 0x108; mov r9d, 0x109; mov r10d, 0x10a; mov r12d, 0x10c",
    "    mov r13d, 0x10d; mov r14d, 0x10e; mov r15d, 0x10f",
    "    mov eax, 1",
    "    syscall",
    "values_registers_call:",
    "    mov rax, rbx",
    "4:  pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "    ret",
    "values_registers_elsewhere:",
    "    mov eax, 7",
    "    jmp 4b",
);

unsafe extern "C" {
    fn values_chain(fd: i32, buffer: *const u8, length: usize) -> u64;
    fn values_registers(fd: i32, buffer: *const u8, length: usize, rsp: *mut u64) -> u64;
    static values_chain_outer: u8;
    static values_chain_inner: u8;
    static values_chain_call: u8;
    static values_registers_call: u8;
    static values_registers_elsewhere: u8;
}

macro_rules! address {
    ($symbol:ident) => {
        (&raw const $symbol).addr() as u64
    };
}

/// The words of an element that has nothing else.
fn words(element: &Element<'_>) -> Result<Vec<u64>, Failed> {
    match element {
        Element::Words(words) | Element::KernelStack(words) | Element::UserStack(words) => Ok(words.iter().collect()),
        other => Err(format!("{other:?}").into()),
    }
}

/// One hit of `code`, in a call of the target that `call` makes with a file to write to: its record, as words of each element.
fn hit<T>(code: &str, call: impl FnOnce(&File) -> T) -> Result<(Header, Vec<Vec<u64>>, T), Failed> {
    let (device, target) = (Device::open()?, Target::load(0)?);
    device.insert(&program::at(1, &[target.middle()], code))?;
    let result = call(&File::options().write(true).open("/dev/dprobes_target")?);
    let records = device.records()?;
    device.remove_all()?;
    let [(header, bytes)] = &records[..] else {
        return Err(format!("{} records instead of one", records.len()).into());
    };
    let all = elements(bytes).iter().map(words).collect::<Result<_, _>>()?;
    Ok((*header, all, result))
}

/// One round, as any program would ask for it.
fn plainly(mut file: &File) {
    use std::io::Write;
    file.write_all(b"1").expect("the target runs a round");
}

/// One round, by a system call of an assembly function.
const ONE: &[u8] = b"1";

fn refused(class: u64, word: u64) -> Vec<u64> {
    vec![u64::from(INVALID_OPERAND), class, word]
}

fn the_task_is_the_one_user_space_knows() -> Outcome {
    const CODE: &str = "push name\npush uid\npush tid\npush pid\npush task\nlog 6\nexit";
    let _module = Module::dprobes()?;
    let of_a_thread = || -> Result<u64, Failed> {
        let name = c"fifteen_letters";
        set_name(name)?;
        // The real user id alone: opening files goes by the others.
        let user = Uid::from_raw(1234);
        let (effective, saved) = (getuid(), getuid());
        set_thread_res_uid(user, effective, saved)?;
        let (header, found, ()) = hit(CODE, plainly)?;
        set_thread_res_uid(effective, effective, saved)?;
        let (pid, tid) = (getpid().as_raw_pid() as u64, gettid().as_raw_pid() as u64);
        let mut bytes = [0; 16];
        bytes[..15].copy_from_slice(name.to_bytes());
        let text = u128::from_le_bytes(bytes);
        let [task, rest @ ..] = &found[0][..] else {
            return Err("nothing was logged".into());
        };
        ensure!(
            rest == [pid, tid, 1234, text as u64, (text >> 64) as u64],
            "{rest:x?}; {pid}, {tid}"
        );
        ensure!(tid != pid && task >> 63 == 1, "task {task:x}, thread {tid}");
        ensure!((header.uid, header.name) == (1234, bytes), "{header:?}");
        Ok(*task)
    };
    let tasks = thread::scope(|scope| {
        let threads = [scope.spawn(of_a_thread).join(), scope.spawn(of_a_thread).join()];
        threads.map(|task| task.expect("the thread does not panic"))
    });
    for task in tasks {
        task?;
    }
    Ok(())
}

fn nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32).as_nanos() as u64
}

fn clock_and_cpu_are_those_of_user_space() -> Outcome {
    /// The clock for any context may lag behind the other by what it is adjusted by in a tick.
    const SLACK: u64 = 1_000_000;
    let _module = Module::dprobes()?;
    for cpu in 0..machine::cpus() {
        let on_this = move || -> Outcome {
            machine::pin(cpu);
            // SAFETY: reads a counter that user space may read.
            let tsc = || unsafe { std::arch::x86_64::_rdtsc() };
            let (clock_before, tsc_before) = (nanoseconds(), tsc());
            let (header, found, ()) = hit("push tsc\npush clock\npush cpu\npush procid\nlog 4\nexit", plainly)?;
            let (clock_after, tsc_after) = (nanoseconds(), tsc());
            let [procid, number, clock, counter] = found[0][..] else {
                return Err("four words were logged".into());
            };
            ensure!(
                (procid, number) == (cpu as u64, cpu as u64),
                "{number} instead of {cpu}"
            );
            ensure!(header.cpu == cpu as u32, "{header:?}");
            ensure!(
                (clock_before - SLACK..=clock_after + SLACK).contains(&clock),
                "{clock_before} {clock} {clock_after}"
            );
            ensure!(
                (tsc_before..=tsc_after).contains(&counter),
                "{tsc_before} {counter} {tsc_after}"
            );
            Ok(())
        };
        thread::spawn(on_this).join().expect("the thread does not panic")?;
    }
    Ok(())
}

const GENERAL: [Reg; 16] = [
    Reg::Rax,
    Reg::Rbx,
    Reg::Rcx,
    Reg::Rdx,
    Reg::Rsi,
    Reg::Rdi,
    Reg::Rbp,
    Reg::R8,
    Reg::R9,
    Reg::R10,
    Reg::R11,
    Reg::R12,
    Reg::R13,
    Reg::R14,
    Reg::R15,
    Reg::Rsp,
];

fn user_registers_are_what_the_process_put_there() -> Outcome {
    const ENOSYS: u64 = 38;
    let _module = Module::dprobes()?;
    let mut code = String::new();
    for reg in GENERAL
        .into_iter()
        .chain([Reg::Rip, Reg::Cs, Reg::Ss, Reg::Rflags])
        .rev()
    {
        code += &format!("push u, {reg}\n");
    }
    let mut rsp = 0;
    let (_, found, (fd, rbx)) = hit(&format!("{code}log 20\nexit"), |file| {
        let fd = file.as_raw_fd();
        // SAFETY: a system call that reads one byte, and registers that the function saves.
        (fd, unsafe {
            values_registers(fd, ONE.as_ptr(), ONE.len(), &raw mut rsp)
        })
    })?;
    ensure!(rbx == 0x102, "the call has changed rbx to {rbx:#x}");
    let [general @ .., rip, cs, ss, rflags] = &found[0][..] else {
        return Err("20 words were logged".into());
    };
    let behind = address!(values_registers_call);
    // SYSCALL leaves rip in rcx and the flags in r11; the kernel begins with an error as the result.
    let expected = [
        ENOSYS.wrapping_neg(),
        0x102,
        behind,
        ONE.len() as u64,
        ONE.as_ptr() as u64,
        fd as u64,
        0x107,
        0x108,
        0x109,
        0x10a,
        *rflags,
        0x10c,
        0x10d,
        0x10e,
        0x10f,
        rsp,
    ];
    ensure!(*general == expected, "{general:x?} instead of {expected:x?}");
    ensure!((*rip, *cs, *ss) == (behind, 0x33, 0x2b), "{rip:x} {cs:x} {ss:x}");
    ensure!(rflags & 0x202 == 0x202, "{rflags:x}");
    Ok(())
}

fn user_registers_can_be_changed() -> Outcome {
    let _module = Module::dprobes()?;
    let call = |file: &File| {
        let mut rsp = 0;
        // SAFETY: as above; the probe changes rbx, which the function expects, or sends the process to another place of it.
        unsafe { values_registers(file.as_raw_fd(), ONE.as_ptr(), ONE.len(), &raw mut rsp) }
    };
    let (_, _, rbx) = hit("push 0xabcdef0123456789\npop u, rbx\nexit", call)?;
    ensure!(rbx == 0xabcd_ef01_2345_6789, "{rbx:#x}");
    let code = format!("push {:#x}\npop u, rip\nexit", address!(values_registers_elsewhere));
    let (_, _, result) = hit(&code, call)?;
    ensure!(result == 7, "{result:#x}");
    Ok(())
}

fn kernel_threads_have_no_user_mode() -> Outcome {
    const CODE: &str =
        "sx bad%\npush u, rax\nexit\nbad%: push x\nlog 3\npush 8\nlog ustack\npush 8\nlog kstack\nremove";
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(1)?);
    device.insert(&program::at(1, &[target.middle()], CODE))?;
    let mut records = Vec::new();
    while records.is_empty() {
        thread::sleep(Duration::from_millis(10));
        records = device.records()?;
    }
    let found: Vec<Vec<u64>> = elements(&records[0].1).iter().map(words).collect::<Result<_, _>>()?;
    ensure!(
        found[0] == refused(operand::REGISTER, u64::from(Reg::Rax.number())),
        "{found:x?}"
    );
    ensure!(found[1].is_empty(), "a kernel thread with a user stack: {found:x?}");
    ensure!(found[2].len() >= 3, "{found:x?}");
    device.remove_all()?;
    Ok(())
}

/// Pages of this process below 4 GiB.
struct LowPages(*mut u8);

impl LowPages {
    const COUNT: usize = 3;

    fn new() -> Result<Self, Failed> {
        const MAP_32BIT: u32 = 0x40;
        let access = ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC;
        let flags = MapFlags::PRIVATE | MapFlags::from_bits_retain(MAP_32BIT);
        // SAFETY: new memory, wherever there is room.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), Self::COUNT * PAGE, access, flags) }?;
        Ok(LowPages(start.cast()))
    }
}

impl Drop for LowPages {
    fn drop(&mut self) {
        // SAFETY: the pages are ours.
        let _ = unsafe { munmap(self.0.cast(), Self::COUNT * PAGE) };
    }
}

fn a_32_bit_process_has_registers_and_no_stack() -> Outcome {
    let _module = Module::dprobes()?;
    let pages = LowPages::new()?;
    let base = pages.0.expose_provenance() as u32;
    // 32-bit code: write(ebx, ecx, edx) by int 0x80, then a far jump to 64-bit code, which returns on the stack it came from.
    let mut code = vec![0xb8, 4, 0, 0, 0, 0xcd, 0x80, 0xea];
    let behind_int = base + 7;
    let back_at = code.len() as u32 + 6;
    code.extend((base + back_at).to_le_bytes());
    code.extend([0x33, 0]);
    code.extend([0x4c, 0x89, 0xe4, 0xc3]); // mov rsp, r12; ret
    let text = base + PAGE as u32;
    let stack = base + 3 * PAGE as u32;
    // The way there: offset and selector.
    let mut pointer = base.to_le_bytes().to_vec();
    pointer.extend([0x23, 0]);
    // SAFETY: the pages are ours; all of it fits.
    let pointer = unsafe {
        pages.0.copy_from_nonoverlapping(code.as_ptr(), code.len());
        pages.0.add(PAGE).write(b'1');
        let at = pages.0.add(PAGE + 16);
        at.copy_from_nonoverlapping(pointer.as_ptr(), pointer.len());
        at
    };
    let call = |file: &File| {
        let fd = file.as_raw_fd();
        // SAFETY: jumps to the code above on the low stack; it comes back with the stack pointer kept in r12, which the kernel
        // preserves, and changes what is named here. (A far return would do, but QEMU's translator reads its stack as ring 0.)
        unsafe {
            asm!(
                "mov {kept_rbx}, rbx",
                "mov ebx, {fd:e}",
                "lea {scratch}, [rip + 2f]",
                "push {scratch}",
                "mov r12, rsp",
                "mov esp, {stack:e}",
                "jmp fword ptr [{pointer}]",
                "2:",
                "mov rbx, {kept_rbx}",
                kept_rbx = out(reg) _, scratch = out(reg) _, fd = in(reg) fd, stack = in(reg) stack, pointer = in(reg) pointer,
                in("rcx") u64::from(text), in("rdx") 1_u64, out("rax") _, out("r12") _,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
    };
    let (_, found, ()) = hit(
        "push 16\nlog ustack\npush u, rsp\npush u, rip\npush u, cs\nlog 3\nexit",
        call,
    )?;
    ensure!(found[0].is_empty(), "{found:x?}");
    ensure!(
        found[1] == [0x23, u64::from(behind_int), u64::from(stack)],
        "{found:x?}"
    );
    Ok(())
}

fn the_user_stack_is_that_of_the_process() -> Outcome {
    let _module = Module::dprobes()?;
    // SAFETY: a system call that reads one byte.
    let call = |file: &File| unsafe { values_chain(file.as_raw_fd(), ONE.as_ptr(), ONE.len()) };
    let (_, found, written) = hit("push 16\nlog ustack\npush 2\nlog ustack\nexit", call)?;
    let expected = [
        address!(values_chain_call),
        address!(values_chain_inner),
        address!(values_chain_outer),
    ];
    ensure!(
        written == 1 && found[0] == expected,
        "{found:x?} instead of {expected:x?}"
    );
    ensure!(found[1] == expected[..2], "{found:x?}");
    Ok(())
}

/// The functions of the kernel and its modules.
struct Functions(Vec<(u64, String)>);

impl Functions {
    fn read() -> Result<Self, Failed> {
        let list = fs::read_to_string("/proc/kallsyms")?;
        let mut all: Vec<(u64, String)> = list
            .lines()
            .filter_map(|line| {
                let mut fields = line.split_ascii_whitespace();
                let address = u64::from_str_radix(fields.next()?, 16).ok()?;
                let is_text = matches!(fields.next()?, "t" | "T");
                is_text.then_some((address, fields.next()?.to_owned()))
            })
            .collect();
        all.sort_unstable();
        Ok(Functions(all))
    }

    /// The names of the functions that return addresses are in. The call may be the last instruction of one.
    fn of(&self, stack: &[u64]) -> Vec<&str> {
        let name = |(nth, address): (usize, &u64)| {
            let inside = address - u64::from(nth > 0);
            let after = self.0.partition_point(|(start, _)| *start <= inside);
            after.checked_sub(1).map_or("?", |index| self.0[index].1.as_str())
        };
        stack.iter().enumerate().map(name).collect()
    }
}

/// Do these names occur in this order, with others between them?
fn in_order(names: &[&str], wanted: &[&str]) -> bool {
    let mut rest = names.iter();
    wanted.iter().all(|wanted| rest.any(|name| name == wanted))
}

fn the_kernel_stack_leads_to_the_system_call() -> Outcome {
    let _module = Module::dprobes()?;
    let (_, found, ()) = hit(
        "push 64\nlog kstack\npush 3\nlog kstack\npush 0\nlog kstack\nexit",
        plainly,
    )?;
    let functions = {
        let _target = Target::load(0)?;
        Functions::read()?
    };
    let names = functions.of(&found[0]);
    // The target module was loaded at the same place again, or it is not known by its name.
    ensure!(
        in_order(&names, &["vfs_write", "ksys_write", "do_syscall_64"]),
        "{names:?}"
    );
    ensure!(
        names.last().is_some_and(|last| last.starts_with("entry_SYSCALL_64")),
        "{names:?}"
    );
    ensure!(found[1] == found[0][..3] && found[2].is_empty(), "{found:x?}");
    Ok(())
}

fn the_kernel_stack_is_known_in_a_page_fault() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let code = format!(
        "push pid\npush {}\nsub\njz mine%\nabort\nmine%: push 64\nlog kstack\nexit",
        std::process::id()
    );
    device.insert(&program::at(1, &[symbol("handle_mm_fault")], &code))?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new page, which is given back.
    unsafe {
        let page = mmap_anonymous(ptr::null_mut(), PAGE, access, MapFlags::PRIVATE)?;
        page.cast::<u8>().write_volatile(1);
        munmap(page, PAGE)?;
    }
    let records = device.records()?;
    device.remove_all()?;
    let functions = Functions::read()?;
    let wanted = ["handle_mm_fault", "exc_page_fault", "asm_exc_page_fault"];
    let mut last = String::new();
    for (_, bytes) in &records {
        let Some(Element::KernelStack(stack)) = elements(bytes).first().copied() else {
            continue;
        };
        let stack: Vec<u64> = stack.iter().collect();
        let names = functions.of(&stack);
        if in_order(&names, &wanted) && names.len() >= 3 {
            return Ok(());
        }
        last = format!("{names:?}");
    }
    Err(format!("{} records, the last of {last}", records.len()).into())
}

/// Some pages: one written to, one read only, one only read so far, one not touched, and one that is given back.
struct Pages(*mut u8);

impl Pages {
    const COUNT: usize = 5;

    fn new() -> rustix::io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: new memory, wherever there is room, of which nobody else knows.
        unsafe {
            let start = mmap_anonymous(ptr::null_mut(), Self::COUNT * PAGE, access, MapFlags::PRIVATE)?.cast::<u8>();
            start.write_volatile(1);
            start.add(PAGE).write_volatile(1);
            mprotect(start.add(PAGE).cast(), PAGE, MprotectFlags::READ)?;
            start.add(2 * PAGE).read_volatile();
            munmap(start.add(4 * PAGE).cast(), PAGE)?;
            Ok(Pages(start))
        }
    }

    fn page(&self, number: usize) -> Range<u64> {
        let start = (self.0.expose_provenance() + number * PAGE) as u64;
        start..start + PAGE as u64
    }

    /// Is a page in memory?
    fn is_resident(&self, number: usize) -> Result<bool, Failed> {
        use std::io::{Read, Seek, SeekFrom};
        const PRESENT: u64 = 1 << 63;
        let mut pagemap = File::open("/proc/self/pagemap")?;
        pagemap.seek(SeekFrom::Start(self.page(number).start / PAGE as u64 * 8))?;
        let mut entry = [0; 8];
        pagemap.read_exact(&mut entry)?;
        Ok(u64::from_le_bytes(entry) & PRESENT != 0)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the pages are ours.
        let _ = unsafe { munmap(self.0.cast(), (Self::COUNT - 1) * PAGE) };
    }
}

fn what_can_be_written_is_known_and_not_paged_in() -> Outcome {
    let _module = Module::dprobes()?;
    let pages = Pages::new()?;
    // Written, readable: 0 is yes.
    let cases = [
        (pages.page(0).start, [0, 0]),
        (pages.page(0).end - 1, [0, 0]),
        (pages.page(1).start, [1, 0]),
        (pages.page(2).start, [1, 0]),
        (pages.page(3).start, [1, 1]),
        (pages.page(4).start, [1, 1]),
        (symbol("jiffies_64"), [0, 0]),
        (symbol("vfs_read"), [1, 0]),
        (symbol("__start_rodata"), [1, 0]),
        (0, [1, 1]),
        (1 << 47, [1, 1]),
        (1 << 55, [1, 1]),
        (1 << 62, [1, 1]),
        (0xffff_8000_0000_0000 - 8, [1, 1]),
        (0xffff_ffff_ff60_0000, [1, 1]),
        (u64::MAX, [1, 1]),
    ];
    for (address, expected) in cases {
        let code = format!("push {address:#x}\nvfy r\npush {address:#x}\nvfy rw\nlog 2\nexit");
        let (_, found, ()) = hit(&code, plainly)?;
        ensure!(found[0] == expected, "{address:#x}: {found:?} instead of {expected:?}");
    }
    ensure!(!pages.is_resident(3)?, "asking has brought a page in");
    // SAFETY: the page is ours.
    let written = unsafe { pages.0.read_volatile() };
    ensure!(written == 1, "asking has changed what is there: {written}");
    Ok(())
}

fn registers_of_the_cpu() -> Outcome {
    const EFER: u32 = 0xc000_0080;
    /// Paging and protection in CR0; physical address extension and the vector state in CR4.
    const CR0: u64 = 1 << 31 | 1 << 16 | 1;
    const CR4: u64 = 1 << 5 | 1 << 9;
    /// Long mode, enabled and active, and SYSCALL.
    const LONG_MODE: u64 = 1 << 10 | 1 << 8 | 1;
    let _module = Module::dprobes()?;
    let fs_base: u64;
    // SAFETY: the C library keeps the base of FS at that base.
    unsafe { asm!("mov {}, fs:[0]", out(reg) fs_base) };
    let code = format!(
        "push {EFER}\npush msr\npush r, gs_base\npush r, fs_base\npush r, cr4\npush r, cr0\nlog 5\npush 0\npush 0\npush cpuid\nlog 4\nexit"
    );
    let (_, found, ()) = hit(&code, plainly)?;
    let [cr0, cr4, fs, gs, efer] = found[0][..] else {
        return Err(format!("{found:x?}").into());
    };
    ensure!(cr0 & CR0 == CR0 && cr4 & CR4 == CR4, "cr0 {cr0:x}, cr4 {cr4:x}");
    ensure!(
        fs == fs_base && gs >> 63 == 1,
        "fs_base {fs:x}, not {fs_base:x}; gs_base {gs:x}"
    );
    ensure!(efer & LONG_MODE == LONG_MODE, "efer {efer:x}");
    let leaf = std::arch::x86_64::__cpuid(0);
    let expected = [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx].map(u64::from);
    ensure!(found[1] == expected, "{found:x?}");
    Ok(())
}

fn globals_are_shared_by_programs() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    let program = |major: u16, code: &str| {
        let address = target.middle();
        program::assemble(&format!(
            "name = \"kernel\"\nmodtype = kernel\nmajor = {major}\nglobals = rounds\n\naddress = {address:#x}\nminor = 1\n{code}\n"
        ))
    };
    device.insert(&program(1, "inc gv, rounds\nabort"))?;
    target.run(1000)?;
    device.remove_all()?;
    device.insert(&program(2, "push gv, rounds\nlog 1\nexit"))?;
    target.run(1)?;
    let records = device.records()?;
    let found = words(&elements(&records[0].1)[0])?;
    ensure!(found == [1000], "{found:?}");
    device.remove_all()?;
    Ok(())
}
