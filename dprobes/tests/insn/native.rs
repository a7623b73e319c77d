//! The CPU as an oracle: runs one instruction in a traced child process.

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::num::NonZero;
use std::ptr::NonNull;

pub use nix::libc::user_regs_struct as Registers;

/// Bytes of code; every byte but the instruction under test is `int3`.
pub const CODE_SIZE: usize = 1 << 20;
/// Where instructions are put: in the middle, so that branches reach both ways.
pub const CODE_OFFSET: usize = CODE_SIZE / 2;
/// Bytes of data, on both sides of which nothing is mapped.
pub const DATA_SIZE: usize = 4096;

/// How an instruction ended.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Outcome {
    /// It completed; RIP is the address that would execute next.
    Completed,
    /// It raised a fault, before it had any effect.
    Faulted,
}

/// A child process, stopped, that shares a page of data and a region of code with this one.
pub struct Native {
    child: Pid,
    code: Shared,
    data: Shared,
}

impl Native {
    pub fn new() -> Native {
        let code = Shared::new(
            CODE_SIZE,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE | ProtFlags::PROT_EXEC,
            0,
        );
        let data = Shared::new(DATA_SIZE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, 2 * DATA_SIZE);
        // SAFETY: the child only calls ptrace, raise and _exit, which are async-signal-safe.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Child => {
                let _ = ptrace::traceme();
                let _ = raise(Signal::SIGSTOP);
                // SAFETY: no destructor has to run in the child.
                unsafe { nix::libc::_exit(1) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(
                    waitpid(child, None).expect("waitpid"),
                    WaitStatus::Stopped(child, Signal::SIGSTOP)
                );
                let mut native = Native { child, code, data };
                native.code.bytes().fill(0xcc);
                native
            }
        }
    }

    /// The address at which instructions run.
    pub fn start(&self) -> u64 {
        self.code.address() + CODE_OFFSET as u64
    }

    /// The addresses of the data.
    pub fn data_address(&self) -> u64 {
        self.data.address()
    }

    /// The data, shared with the child.
    pub fn data(&mut self) -> &mut [u8] {
        self.data.bytes()
    }

    /// The registers at the child's stop, as a start for others: its segments have to be kept.
    pub fn registers(&self) -> Registers {
        ptrace::getregs(self.child).expect("getregs")
    }

    /// Makes `registers` the child's, with RIP at the instruction, and reads them back: the kernel keeps some flags.
    pub fn set_registers(&self, mut registers: Registers) -> Registers {
        registers.rip = self.start();
        // No system call to restart.
        registers.orig_rax = u64::MAX;
        ptrace::setregs(self.child, registers).expect("setregs");
        self.registers()
    }

    /// Runs one instruction, up to the `int3` that it leads to.
    pub fn run(&mut self, instruction: &[u8]) -> (Outcome, Registers) {
        let place = &mut self.code.bytes()[CODE_OFFSET..][..instruction.len()];
        place.copy_from_slice(instruction);
        ptrace::cont(self.child, None).expect("cont");
        let status = waitpid(self.child, None).expect("waitpid");
        self.code.bytes()[CODE_OFFSET..][..instruction.len()].fill(0xcc);
        let mut registers = self.registers();
        match status {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                registers.rip -= 1;
                (Outcome::Completed, registers)
            }
            WaitStatus::Stopped(_, Signal::SIGSEGV | Signal::SIGBUS) if registers.rip == self.start() => {
                (Outcome::Faulted, registers)
            }
            // The fetch at its target failed: it completed itself.
            WaitStatus::Stopped(_, Signal::SIGSEGV | Signal::SIGBUS) => (Outcome::Completed, registers),
            other => panic!("{instruction:02x?}: {other:?}"),
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        let _ = kill(self.child, Signal::SIGKILL);
        let _ = waitpid(self.child, None);
    }
}

/// Anonymous memory shared with children, in the low 2 GiB so that 32-bit addresses reach it.
struct Shared {
    base: NonNull<nix::libc::c_void>,
    mapped: usize,
    margin: usize,
    size: usize,
}

impl Shared {
    /// `margin` bytes on each side stay inaccessible.
    fn new(size: usize, protection: ProtFlags, margin: usize) -> Shared {
        let mapped = size + 2 * margin;
        let length = NonZero::new(mapped).expect("a size");
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_32BIT;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let base = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, flags) }.expect("mmap");
        let shared = Shared {
            base,
            mapped,
            margin,
            size,
        };
        // SAFETY: the range is part of the mapping that was just made, which nothing else uses.
        unsafe { nix::sys::mman::mprotect(base.byte_add(margin), size, protection) }.expect("mprotect");
        shared
    }

    fn address(&self) -> u64 {
        (self.base.as_ptr().addr() + self.margin) as u64
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is readable and writable there and lives as long as self; the child is stopped whenever
        // the parent runs this.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().cast::<u8>().add(self.margin), self.size) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference into it is left.
        let _ = unsafe { munmap(self.base, self.mapped) };
    }
}
