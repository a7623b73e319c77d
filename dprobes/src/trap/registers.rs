//! Where a frame has the registers that programs name.

use crate::frame::TrapFrame;
use crate::rpn::reg::Reg;

/// A register that every trap saves; `None` for all others.
#[inline]
pub(super) fn get(frame: &TrapFrame, register: Reg) -> Option<u64> {
    Some(match register {
        Reg::Cs => frame.cs & 0xffff,
        Reg::Ss => frame.ss & 0xffff,
        Reg::Rflags => frame.rflags,
        Reg::Rax => frame.rax,
        Reg::Rbx => frame.rbx,
        Reg::Rcx => frame.rcx,
        Reg::Rdx => frame.rdx,
        Reg::Rdi => frame.rdi,
        Reg::Rsi => frame.rsi,
        Reg::Rbp => frame.rbp,
        Reg::Rsp => frame.rsp,
        Reg::Rip => frame.rip,
        Reg::R8 => frame.r8,
        Reg::R9 => frame.r9,
        Reg::R10 => frame.r10,
        Reg::R11 => frame.r11,
        Reg::R12 => frame.r12,
        Reg::R13 => frame.r13,
        Reg::R14 => frame.r14,
        Reg::R15 => frame.r15,
        _ => return None,
    })
}

/// Where a register is that programs may change; `None` for all others.
#[inline]
pub(super) fn place(frame: &mut TrapFrame, register: Reg) -> Option<&mut u64> {
    Some(match register {
        Reg::Rax => &mut frame.rax,
        Reg::Rbx => &mut frame.rbx,
        Reg::Rcx => &mut frame.rcx,
        Reg::Rdx => &mut frame.rdx,
        Reg::Rdi => &mut frame.rdi,
        Reg::Rsi => &mut frame.rsi,
        Reg::Rbp => &mut frame.rbp,
        Reg::Rsp => &mut frame.rsp,
        Reg::Rip => &mut frame.rip,
        Reg::R8 => &mut frame.r8,
        Reg::R9 => &mut frame.r9,
        Reg::R10 => &mut frame.r10,
        Reg::R11 => &mut frame.r11,
        Reg::R12 => &mut frame.r12,
        Reg::R13 => &mut frame.r13,
        Reg::R14 => &mut frame.r14,
        Reg::R15 => &mut frame.r15,
        _ => return None,
    })
}
