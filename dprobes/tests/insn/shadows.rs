//! What casts an interrupt shadow, and how what comes next is carried out in it.

use dprobes::insn::{Gpr, Insn, Refusal, Resume, Shaded, Shadow, StepKind, jump};
use iced_x86::{Decoder, DecoderOptions};

use crate::model::{Model, register_of};
use crate::native::Registers;

fn insn(bytes: &[u8]) -> Insn {
    let insn = Insn::decode(bytes).unwrap_or_else(|error| panic!("{bytes:02x?}: {error}"));
    assert_eq!(insn.len(), bytes.len(), "{bytes:02x?}");
    insn
}

#[test]
fn two_instructions_cast_a_shadow() {
    assert_eq!(insn(&[0xfb]).shadow(), Some(Shadow::Interrupts));
    assert_eq!(insn(&[0x66, 0x48, 0xfb]).shadow(), Some(Shadow::Interrupts));
    for modrm in 0..=255_u8 {
        let bytes = [0x8e, modrm, 0x24, 0, 0, 0, 0, 0, 0, 0];
        let Ok(insn) = Insn::decode(&bytes) else { continue };
        let expected = (modrm >> 3 & 7 == 2).then_some(Shadow::Events);
        assert_eq!(insn.shadow(), expected, "{modrm:#x}");
        if let Some(shadow) = expected {
            assert_eq!(insn.resume(), Ok(Resume::CopyWithNext(shadow)));
            assert_eq!(insn.step(), Err(Refusal::SingleStep));
        }
    }
    // cli, lss, pop fs, mov ds
    for bytes in [&[0xfa][..], &[0x0f, 0xb2, 0x20], &[0x0f, 0xa1], &[0x8e, 0xd8]] {
        assert_eq!(insn(bytes).shadow(), None, "{bytes:02x?}");
    }
}

#[test]
fn what_comes_next_is_carried_out_with_it() {
    let step = |kind| Ok(Shaded::Step(kind));
    let refused = Err(Refusal::InterruptShadow);
    // Behind `sti`: E is emulated.
    enum Behind {
        E,
        Is(Result<Shaded, Refusal>),
    }
    use Behind::{E, Is};
    let copy = || Is(Ok(Shaded::Copy));
    let far = StepKind::FarReturnAddress { narrow: false };
    let narrow = StepKind::FarReturnAddress { narrow: true };
    let table: &[(&[u8], Behind, Result<Shaded, Refusal>)] = &[
        (&[0x01, 0xc0], copy(), Ok(Shaded::Copy)),                        // add
        (&[0xf4], copy(), Ok(Shaded::Copy)),                              // hlt
        (&[0x0f, 0x01, 0xc9], copy(), Ok(Shaded::Copy)),                  // mwait
        (&[0x48, 0xcf], copy(), Ok(Shaded::Copy)),                        // iretq
        (&[0x48, 0xcb], copy(), Ok(Shaded::Copy)),                        // retf
        (&[0xff, 0x28], copy(), Ok(Shaded::Copy)),                        // far jmp
        (&[0x0f, 0x35], copy(), Ok(Shaded::Copy)),                        // sysexit
        (&[0x48, 0x0f, 0x07], copy(), Ok(Shaded::Copy)),                  // sysret
        (&[0x0f, 0x01, 0xd8], copy(), Ok(Shaded::Copy)),                  // vmrun
        (&[0xc7, 0xf8, 0, 0, 0, 0], copy(), Ok(Shaded::Copy)),            // xbegin
        (&[0xfb], copy(), refused),                                       // sti
        (&[0x8e, 0xd0], Is(refused), refused),                            // mov ss
        (&[0x90], E, Ok(Shaded::Copy)),                                   // nop
        (&[0x9c], E, Ok(Shaded::Copy)),                                   // pushf
        (&[0x9d], E, Ok(Shaded::Copy)),                                   // popf
        (&[0xfa], E, Ok(Shaded::Copy)),                                   // cli
        (&[0xc3], E, Ok(Shaded::Copy)),                                   // ret
        (&[0xff, 0xe0], E, Ok(Shaded::Copy)),                             // jmp rax
        (&[0xeb, 0], E, step(StepKind::Rebase)),                          // jmp
        (&[0x74, 0], E, step(StepKind::Rebase)),                          // jz
        (&[0xe2, 0], E, step(StepKind::Rebase)),                          // loop
        (&[0xe8, 0, 0, 0, 0], E, step(StepKind::RebaseAndReturnAddress)), // call
        (&[0xff, 0xd0], E, step(StepKind::ReturnAddress)),                // call rax
        (&[0xff, 0x18], Is(step(far)), step(far)),                        // far call
        (&[0x66, 0xff, 0x18], Is(step(narrow)), step(narrow)),            // far call, 16 bits
        (&[0xcc], Is(refused), refused),                                  // int3
        (&[0xcd, 0x80], Is(refused), refused),                            // int
        (&[0x0f, 0xb9, 0xc0], Is(refused), refused),                      // ud1
        (&[0x0f, 0x0b], Is(Ok(Shaded::Copy)), Ok(Shaded::Copy)),          // ud2
        (&[0x0f, 0x05], Is(refused), refused),                            // syscall
        (&[0x66, 0xe8, 0, 0, 0, 0], Is(refused), refused),                // call with 66
    ];
    for (bytes, behind_sti, behind_mov_ss) in table {
        let insn = insn(bytes);
        let shaded = insn.shaded(Shadow::Interrupts);
        match behind_sti {
            E => assert!(matches!(shaded, Ok(Shaded::Emulate(_))), "{bytes:02x?}: {shaded:?}"),
            Is(expected) => assert_eq!(shaded, *expected, "{bytes:02x?}"),
        }
        assert_eq!(insn.shaded(Shadow::Events), *behind_mov_ss, "{bytes:02x?}");
    }
}

#[test]
fn the_selector_is_found_where_the_operand_is() {
    // SAFETY: a structure of numbers.
    let registers: Registers = unsafe { std::mem::zeroed() };
    let mut model = Model {
        registers,
        data_address: 0x1000,
        data: (0..=255).collect(),
        privilege_level: 0,
    };
    for (number, register) in Gpr::ALL.into_iter().enumerate() {
        *register_of(&mut model.registers, register) = 0xffff_0000_1000 | number as u64;
    }
    let selector = |bytes: &[u8], model: &mut Model| insn(bytes).stack_selector(0x1080, model);
    assert_eq!(selector(&[0x8e, 0xd0], &mut model), Some(0x1000));
    assert_eq!(selector(&[0x41, 0x8e, 0xd6], &mut model), Some(0x100e)); // r14
    model.registers.rbx = 0x1010;
    assert_eq!(selector(&[0x8e, 0x13], &mut model), Some(0x1110)); // [rbx]
    assert_eq!(selector(&[0x8e, 0x15, 2, 0, 0, 0], &mut model), Some(0x8988)); // [rip + 2], which is 0x1088
    model.registers.rbx = 0;
    assert_eq!(selector(&[0x8e, 0x13], &mut model), None);
    assert_eq!(selector(&[0x8e, 0xd8], &mut model), None, "mov ds");
}

/// A copy of `xbegin` falls back to where the original does.
#[test]
fn a_copy_of_xbegin_has_the_originals_fallback() {
    let fallback = |bytes: &[u8], at| {
        Decoder::with_ip(64, bytes, at, DecoderOptions::NONE)
            .decode()
            .near_branch_target()
    };
    let from = 0xffff_ffff_8100_0000_u64;
    for distance in [0x1000_i64, -0x7000_0000, 0x7000_0000] {
        for displacement in [0_i32, 6, -6, 0x1234_5678, -0x0200_0000] {
            for prefix in [&[][..], &[0x48], &[0x66, 0x48]] {
                let bytes = [prefix, &[0xc7, 0xf8], &displacement.to_le_bytes()].concat();
                let insn = insn(&bytes);
                assert_eq!(insn.resume(), Ok(Resume::Copy), "{bytes:02x?}");
                let to = from.wrapping_add_signed(distance);
                let wanted = fallback(&bytes, from);
                match insn.relocate(from, to) {
                    Ok(copy) => assert_eq!(fallback(copy.bytes(), to), wanted, "{bytes:02x?}"),
                    Err(_) => assert!(jump(to + bytes.len() as u64 - 5, wanted).is_err(), "{bytes:02x?}"),
                }
            }
        }
    }
    assert_eq!(insn(&[0x66, 0xc7, 0xf8, 0, 0]).resume(), Err(Refusal::VendorDependent));
}
