//! Machine words, which may be numbers or addresses.

/// A word for people: hexadecimal, and decimal where it is likely to be a number.
pub fn word(word: u64) -> String {
    let signed = word.cast_signed();
    match word {
        0..10 => format!("{word}"),
        10..=0xffff_ffff => match (word as u32).cast_signed() {
            // An int in a 64-bit register often has a zero upper half: -100 arrives as 0xffffff9c.
            int @ -4096..0 => format!("{word:#x} (int {int})"),
            _ => format!("{word:#x} ({word})"),
        },
        _ if (-1_000_000..0).contains(&signed) => format!("{word:#x} ({signed})"),
        _ => format!("{word:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn numbers_are_shown_as_numbers_and_addresses_as_addresses() {
        for (value, text) in [
            (0, "0"),
            (9, "9"),
            (10, "0xa (10)"),
            (0xffff_ff9c, "0xffffff9c (int -100)"),
            (0xffff_0000, "0xffff0000 (4294901760)"),
            (-100_i64 as u64, "0xffffffffffffff9c (-100)"),
            (0x1_0000_0000, "0x100000000"),
            (0xffff_ffff_8100_0000, "0xffffffff81000000"),
            (u64::MAX, "0xffffffffffffffff (-1)"),
        ] {
            assert_eq!(word(value), text);
        }
    }
}
