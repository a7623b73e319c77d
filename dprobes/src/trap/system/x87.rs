//! The words that control the x87 unit, without changing it.

use core::arch::asm;

/// What FXSAVE stores (SDM volume 2, table 3-49), as far as it is used.
#[repr(C, align(16))]
struct Image {
    control: u16,
    status: u16,
    /// A bit for each physical register that is not empty.
    abridged_tags: u8,
    unused: [u8; 27],
    /// ST(0) first, ten bytes each.
    registers: [[u16; 8]; 8],
    rest: [u8; 352],
}

const _: () = assert!(size_of::<Image>() == 512);

/// Control, status and full tag word.
///
/// FNSTENV would give the tag word too, but masks the exceptions, and to load the environment again loses the upper halves of
/// the pointers in it.
///
/// # Safety
/// FXSAVE can be executed: CR0.EM and CR0.TS are clear.
pub(super) unsafe fn words() -> [u64; 3] {
    let mut image = Image {
        control: 0,
        status: 0,
        abridged_tags: 0,
        unused: [0; 27],
        registers: [[0; 8]; 8],
        rest: [0; 352],
    };
    // SAFETY: by this function's contract; it writes the 512 bytes of the image, which is aligned.
    unsafe { asm!("fxsave64 [{}]", in(reg) &raw mut image, options(nostack, preserves_flags)) };
    [
        u64::from(image.control),
        u64::from(image.status),
        u64::from(full_tags(&image)),
    ]
}

/// Two bits for each physical register: 0 valid, 1 zero, 2 special, 3 empty (SDM volume 1, 8.1.7).
fn full_tags(image: &Image) -> u16 {
    let top = usize::from(image.status >> 11 & 7);
    let mut tags = 0;
    for physical in 0..8_usize {
        let empty = image.abridged_tags >> physical & 1 == 0;
        let [m0, m1, m2, m3, sign_and_exponent, ..] = image.registers[physical.wrapping_sub(top) % 8];
        let tag = match (sign_and_exponent & 0x7fff, m0 | m1 | m2 | m3, m3 >> 15) {
            _ if empty => 3,
            (0, 0, _) => 1,
            // Denormal, infinity or not a number, or without the integer bit that every normal number has.
            (0 | 0x7fff, ..) | (_, _, 0) => 2,
            _ => 0,
        };
        tags |= tag << (2 * physical);
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads values, and gives what [`full_tags`] makes of the unit's state, and what the CPU says itself.
    fn tags_of(values: &[[u16; 5]]) -> (u16, u16) {
        let mut image = Image {
            control: 0,
            status: 0,
            abridged_tags: 0,
            unused: [0; 27],
            registers: [[0; 8]; 8],
            rest: [0; 352],
        };
        let mut environment = [0_u32; 7];
        // SAFETY: a process may execute x87 instructions; the values are ten bytes each, the environment is 28 bytes long. The unit is
        // left as it was found: empty, with its default control word.
        unsafe {
            asm!(
                "fninit",
                "2: test {count}, {count}",
                "jz 3f",
                "fld tbyte ptr [{values}]",
                "add {values}, 10",
                "dec {count}",
                "jmp 2b",
                "3: fxsave64 [{image}]",
                "fnstenv [{environment}]",
                "fninit",
                count = inout(reg) values.len() => _,
                values = inout(reg) values.as_ptr() => _,
                image = in(reg) &raw mut image,
                environment = in(reg) environment.as_mut_ptr(),
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                options(nostack),
            );
        }
        (full_tags(&image), environment[2] as u16)
    }

    #[test]
    fn tags_are_those_of_the_cpu() {
        const KINDS: [[u16; 5]; 10] = [
            [0, 0, 0, 0, 0],                     // zero
            [0, 0, 0, 0, 0x8000],                // negative zero
            [0, 0, 0, 0x8000, 0x3fff],           // one
            [1, 0, 0, 0xc000, 0xc000],           // a negative number
            [0, 0, 0, 0x8000, 0x7fff],           // infinity
            [0, 0, 0, 0xc000, 0x7fff],           // not a number
            [1, 0, 0, 0, 0],                     // denormal
            [0, 0, 0, 0x8000, 0],                // pseudo-denormal
            [1, 0, 0, 0, 0x3fff],                // unnormal
            [0xffff, 0xffff, 0xffff, 0xffff, 1], // very small
        ];
        assert_eq!(tags_of(&[]), (0xffff, 0xffff));
        for first in 0..KINDS.len() {
            for count in 1..=8 {
                let values: [[u16; 5]; 8] = core::array::from_fn(|index| KINDS[(first + index) % KINDS.len()]);
                let (ours, cpus) = tags_of(&values[..count]);
                assert_eq!(
                    ours, cpus,
                    "{count} values from kind {first}: {ours:016b}, not {cpus:016b}"
                );
            }
        }
    }
}
