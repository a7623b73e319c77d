//! What kprobes would say of the same places, by the rules that its sources publish (Linux 6.1, kernel/kprobes.c and
//! arch/x86/kernel/kprobes/core.c). Those about the state of the machine are left out: what others have patched, locks, memory.

use std::ops::Range;

use dprobes::insn::Insn;

/// Why kprobes refuses an address, by where it is.
pub fn within(blacklist: &[Range<u64>], address: u64) -> bool {
    // Ranges do not overlap: symbols do not.
    let after = blacklist.partition_point(|range| range.start <= address);
    after > 0 && blacklist[after - 1].contains(&address)
}

/// Why kprobes refuses an instruction, by what it is.
pub fn refusal(insn: &Insn) -> Option<&'static str> {
    let opcode = insn
        .bytes()
        .iter()
        .position(|byte| !is_prefix(*byte))
        .map_or(insn.bytes(), |at| &insn.bytes()[at..]);
    let register = |modrm: u8| modrm >> 3 & 7;
    Some(match *opcode {
        [0xcc, ..] => "int3",
        [0xcd | 0xf1, ..] => "int n, int1",
        [0xcf, ..] => "iret",
        [0x8e, modrm, ..] if register(modrm) == 2 => "mov to ss",
        [0xff, modrm, ..] if matches!(register(modrm), 3 | 5) => "far call and jump",
        [0xff, modrm, ..] if matches!(register(modrm), 2 | 4) && modrm >> 6 != 3 => "call and jump through memory",
        [0x0f, 0x07 | 0x35, ..] => "sysret, sysexit",
        [0x0f, 0x01, 0xc1..=0xc4 | 0xd4 | 0xd8..=0xdf, ..] => "VMX and SVM",
        _ => return None,
    })
}

fn is_prefix(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Option<&'static str> {
        refusal(&Insn::decode(bytes).expect("an instruction"))
    }

    #[test]
    fn instructions_that_are_refused() {
        assert_eq!(of(&[0x48, 0xcf]), Some("iret"));
        assert_eq!(of(&[0x8e, 0xd0]), Some("mov to ss"));
        assert_eq!(of(&[0x41, 0xff, 0x14, 0x24]), Some("call and jump through memory"));
        assert_eq!(of(&[0x41, 0xff, 0xd4]), None);
        assert_eq!(of(&[0xf4]), None);
    }

    #[test]
    fn the_blacklist() {
        let list = [10..20, 30..40];
        let hits: Vec<u64> = (0..50).filter(|&address| within(&list, address)).collect();
        assert_eq!(hits, Vec::from_iter((10..20).chain(30..40)));
    }
}
