//! Properties of any bytes, and of copies.

use dprobes::insn::{BoundaryError, DecodeError, Insn, Instructions, MAX_LEN, RelocateError, is_boundary, jump};
use iced_x86::{Decoder, DecoderOptions};
use proptest::prelude::*;

/// Bytes that start like instructions more often than random ones do.
fn code_like() -> impl Strategy<Value = Vec<u8>> {
    let lead = prop::sample::select(vec![
        0x0f, 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x48, 0x4c, 0x64, 0x65, 0xc4, 0xc5, 0x62, 0xd5, 0x8f, 0xff, 0xe8, 0x8b,
        0x05, 0x38, 0x3a,
    ]);
    prop::collection::vec(prop_oneof![lead, any::<u8>()], 0..40)
}

/// An instruction with a RIP-relative operand: `mov rax, [rip + x]`, and others with prefixes, immediates and vector
/// encodings.
fn rip_relative() -> impl Strategy<Value = Vec<u8>> {
    let heads: Vec<(&[u8], usize)> = vec![
        (&[0x48, 0x8b, 0x05], 0),
        (&[0x67, 0x48, 0x8b, 0x05], 0),
        (&[0x81, 0x3d], 4),
        (&[0x66, 0x81, 0x3d], 2),
        (&[0x48, 0xc7, 0x05], 4),
        (&[0x0f, 0x10, 0x05], 0),
        (&[0xc5, 0xf8, 0x10, 0x05], 0),
        (&[0xc4, 0xe3, 0x7d, 0x18, 0x05], 1),
        (&[0x62, 0xf1, 0x7c, 0x48, 0x10, 0x05], 0),
        (&[0x62, 0xf1, 0x7c, 0x48, 0xc6, 0x05], 1),
        (&[0x65, 0x48, 0x03, 0x05], 0),
        (&[0xf0, 0x48, 0x0f, 0xba, 0x2d], 1),
        (&[0x66, 0x0f, 0x3a, 0x0f, 0x05], 1),
        (&[0x67, 0x8d, 0x0d], 0),
    ];
    (prop::sample::select(heads), any::<[u8; 4]>(), any::<[u8; 4]>())
        .prop_map(|((head, immediate), displacement, tail)| [head, &displacement, &tail[..immediate]].concat())
}

fn target(bytes: &[u8], address: u64) -> u64 {
    let insn = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
    assert!(insn.is_ip_rel_memory_operand(), "{bytes:02x?}");
    insn.ip_rel_memory_address()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50_000))]

    #[test]
    fn any_bytes_decode_without_panic(bytes in code_like(), address: u64, slot: u64) {
        match Insn::decode(&bytes) {
            Ok(insn) => {
                prop_assert!((1..=MAX_LEN).contains(&insn.len()));
                prop_assert_eq!(insn.bytes(), &bytes[..insn.len()]);
                // Nothing past the end has been looked at, and nothing is missing before it.
                prop_assert_eq!(Insn::decode(insn.bytes()), Ok(insn));
                for end in 0..insn.len() {
                    prop_assert_eq!(Insn::decode(&bytes[..end]), Err(DecodeError::Truncated { available: end }));
                }
                for field in [insn.displacement(), insn.immediate()] {
                    prop_assert!(usize::from(field.start + field.size) <= insn.len());
                }
                // What cannot be resumed cannot be stepped, for the same reason.
                if let Err(refusal) = insn.resume() {
                    prop_assert_eq!(insn.step(), Err(refusal));
                }
                let _ = (insn.may_fault(), insn.relocate(address, slot), format!("{insn:?}"));
            }
            Err(DecodeError::Truncated { available }) => prop_assert_eq!(available, bytes.len()),
            // More bytes do not mend it.
            Err(error) => prop_assert_eq!(Insn::decode(&[&bytes[..], &[0; MAX_LEN]].concat()), Err(error)),
        }
    }

    #[test]
    fn a_copy_names_the_same_memory(bytes in rip_relative(), from: u64, distance in -0x1_8000_0000i64..0x1_8000_0000) {
        let insn = Insn::decode(&bytes).expect("an instruction");
        prop_assert_eq!(insn.len(), bytes.len());
        let to = from.wrapping_add_signed(distance);
        let wanted = target(&bytes, from);
        prop_assert_eq!(insn.rip_relative_address(from), Some(wanted));
        match insn.relocate(from, to) {
            Ok(copy) => {
                prop_assert_eq!(target(copy.bytes(), to), wanted);
                // Nothing but the displacement differs.
                let field = insn.displacement();
                for (at, (new, old)) in copy.bytes().iter().zip(&bytes).enumerate() {
                    let inside = (field.start..field.start + field.size).contains(&(at as u8));
                    prop_assert!(inside || new == old, "byte {}", at);
                }
            }
            Err(RelocateError::OutOfReach { from: slot, to: memory }) => {
                prop_assert_eq!((slot, memory), (to, wanted));
                let next = to.wrapping_add(bytes.len() as u64);
                prop_assert!(i32::try_from(wanted.wrapping_sub(next) as i64).is_err());
            }
        }
    }

    #[test]
    fn a_jump_goes_where_it_should(from: u64, distance in -0x1_0000_0000i64..0x1_0000_0000) {
        let to = from.wrapping_add_signed(distance);
        match jump(from, to) {
            Ok(bytes) => {
                let insn = Decoder::with_ip(64, &bytes, from, DecoderOptions::NONE).decode();
                prop_assert_eq!(insn.near_branch_target(), to);
            }
            Err(error) => {
                prop_assert_eq!(error, RelocateError::OutOfReach { from, to });
                prop_assert!(i32::try_from(distance - 5).is_err());
            }
        }
    }

    #[test]
    fn boundaries_are_the_offsets_of_instructions(text in code_like()) {
        let mut starts = Vec::new();
        let mut error = None;
        for item in Instructions::new(&text) {
            match item {
                Ok((offset, _)) => starts.push(offset),
                Err(what) => error = Some(what),
            }
        }
        for offset in 0..text.len() + 2 {
            let expected = match error {
                _ if starts.contains(&offset) => Ok(true),
                Some(what) if offset >= what.offset => Err(what),
                _ => Ok(false),
            };
            prop_assert_eq!(is_boundary(&text, offset), expected, "{}", offset);
        }
    }
}

#[test]
fn a_limit_is_15_bytes() {
    let longest = [[0x66; 14].as_slice(), &[0x90]].concat();
    assert_eq!(Insn::decode(&longest).map(|insn| insn.len()), Ok(15));
    let longer = [[0x66; 15].as_slice(), &[0x90]].concat();
    assert_eq!(Insn::decode(&longer), Err(DecodeError::TooLong));
    assert_eq!(Insn::decode(&[]), Err(DecodeError::Truncated { available: 0 }));
}

#[test]
fn a_boundary_error_says_where() {
    // nop; push es, which 64-bit mode does not have
    let error = BoundaryError {
        offset: 1,
        error: Insn::decode(&[0x06]).expect_err("no instruction"),
    };
    assert_eq!(is_boundary(&[0x90, 0x06, 0x90], 2), Err(error));
    assert_eq!(is_boundary(&[0x90, 0x06, 0x90], 0), Ok(true));
    assert!(error.to_string().contains("0x1"), "{error}");
}
