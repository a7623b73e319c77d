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
    /// It raised a fault; RIP is its own.
    Faulted(Signal),
}

/// A child process, stopped, that shares a page of data and a region of code with this one.
pub struct Native {
    child: Pid,
    code: Shared,
    data: Shared,
    /// The last stop was for a target that could not be fetched.
    stopped_in_fetch: bool,
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
                let mut native = Native {
                    child,
                    code,
                    data,
                    stopped_in_fetch: false,
                };
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

    /// The vector and floating-point state, in the form of XSAVE.
    pub fn extended_state(&self) -> Vec<u8> {
        let mut state = vec![0; 1 << 14];
        let size = self.extended_state_request(nix::libc::PTRACE_GETREGSET, &mut state);
        state.truncate(size);
        state
    }

    /// Makes `state`, read before, the child's.
    pub fn set_extended_state(&self, state: &[u8]) {
        self.extended_state_request(nix::libc::PTRACE_SETREGSET, &mut state.to_vec());
    }

    fn extended_state_request(&self, request: nix::libc::c_uint, state: &mut [u8]) -> usize {
        const NT_X86_XSTATE: usize = 0x202;
        let mut vector = nix::libc::iovec {
            iov_base: state.as_mut_ptr().cast(),
            iov_len: state.len(),
        };
        // SAFETY: the kernel reads or writes the bytes of `state` that `vector` describes, no more.
        let result = unsafe { nix::libc::ptrace(request, self.child.as_raw(), NT_X86_XSTATE, &raw mut vector) };
        assert_eq!(result, 0, "ptrace: {}", std::io::Error::last_os_error());
        vector.iov_len
    }

    /// Puts bytes into the code, at an offset from the [start](Native::start).
    pub fn place(&mut self, offset: usize, bytes: &[u8]) {
        self.code.bytes()[CODE_OFFSET + offset..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Makes the code at an offset from the [start](Native::start) `int3` again.
    pub fn clear(&mut self, offset: usize, length: usize) {
        self.code.bytes()[CODE_OFFSET + offset..][..length].fill(0xcc);
    }

    /// Runs one instruction, up to the `int3` that it leads to.
    pub fn run(&mut self, instruction: &[u8]) -> (Outcome, Registers) {
        self.place(0, instruction);
        let (outcome, registers) = self.run_from(0);
        self.clear(0, instruction.len());
        (outcome, registers)
    }

    /// Runs what was placed at an offset, up to an `int3`.
    pub fn run_from(&mut self, offset: usize) -> (Outcome, Registers) {
        let from = self.jump_to(offset);
        ptrace::cont(self.child, None).expect("cont");
        let (outcome, mut registers) = self.stop(from);
        if outcome == Outcome::Completed && !self.stopped_in_fetch {
            registers.rip -= 1;
        }
        (outcome, registers)
    }

    /// Single-steps the instruction at an offset, all iterations of it.
    pub fn step_from(&mut self, offset: usize, repeats: bool) -> (Outcome, Registers) {
        let from = self.jump_to(offset);
        loop {
            ptrace::step(self.child, None).expect("step");
            let (outcome, registers) = self.stop(from);
            if outcome != Outcome::Completed || !repeats || registers.rip != from {
                return (outcome, registers);
            }
        }
    }

    fn jump_to(&self, offset: usize) -> u64 {
        let mut registers = self.registers();
        registers.rip = self.start() + offset as u64;
        ptrace::setregs(self.child, registers).expect("setregs");
        registers.rip
    }

    /// Waits for the child to stop.
    fn stop(&mut self, from: u64) -> (Outcome, Registers) {
        let status = waitpid(self.child, None).expect("waitpid");
        let registers = self.registers();
        let WaitStatus::Stopped(_, signal) = status else {
            panic!("at {:#x}: {status:?}", registers.rip)
        };
        self.stopped_in_fetch = signal != Signal::SIGTRAP;
        match signal {
            Signal::SIGTRAP => (Outcome::Completed, registers),
            _ if registers.rip == from => (Outcome::Faulted(signal), registers),
            // The fetch at its target failed: it completed itself.
            Signal::SIGSEGV | Signal::SIGBUS => (Outcome::Completed, registers),
            other => panic!("at {:#x}: {other:?}", registers.rip),
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
