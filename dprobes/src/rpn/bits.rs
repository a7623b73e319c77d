//! Bit propagation; bits are counted from 1, the least significant one, to 64.

/// The bits above `bit`.
fn above(bit: u8) -> u64 {
    !1_u64.wrapping_shl(u32::from(bit) - 1) & !below(bit)
}

/// The bits below `bit`.
fn below(bit: u8) -> u64 {
    1_u64.wrapping_shl(u32::from(bit) - 1).wrapping_sub(1)
}

fn is_set(word: u64, bit: u8) -> bool {
    word.wrapping_shr(u32::from(bit) - 1) & 1 != 0
}

pub(super) fn pbl(word: u64, bit: u8) -> u64 {
    if is_set(word, bit) {
        word | above(bit)
    } else {
        word & !above(bit)
    }
}

pub(super) fn pbr(word: u64, bit: u8) -> u64 {
    if is_set(word, bit) {
        word | below(bit)
    } else {
        word & !below(bit)
    }
}

pub(super) fn pzl(word: u64, bit: u8) -> u64 {
    word & !above(bit)
}

pub(super) fn pzr(word: u64, bit: u8) -> u64 {
    word & !below(bit)
}
