//! The instructions of a function, which of them never run, and what another decoder says.

use dprobes::insn::{Insn, Instructions};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction};

/// A function's bytes, taken apart.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Where each instruction begins, from the function's start, and the instruction.
    pub instructions: Vec<(u32, Insn)>,
    /// Which of them are filling: no path leads there.
    pub filling: Vec<bool>,
    /// How many bytes at the end are not instructions.
    pub undecodable: usize,
}

/// Takes a function apart, from its first byte on.
pub fn decode(text: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    for item in Instructions::new(text) {
        match item {
            Ok((at, insn)) => decoded.instructions.push((at as u32, insn)),
            Err(error) => decoded.undecodable = text.len() - error.offset,
        }
    }
    decoded.filling = filling(&decoded.instructions, decoded.undecodable == 0);
    decoded
}

/// Which instructions are filling: an `int3` behind one that execution does not pass (a return, a jump, `ud2`), as compilers put there against
/// speculation and the kernel where it has made an instruction shorter; and `int3` and NOPs from such a place to the function's end.
fn filling(instructions: &[(u32, Insn)], ends_whole: bool) -> Vec<bool> {
    let mut filling = vec![false; instructions.len()];
    // What lies between two sections has the name of the last symbol before it.
    if instructions.iter().all(|(_, insn)| is_int3(insn)) {
        filling.fill(true);
        return filling;
    }
    let mut unreached = false;
    for (is_filling, (_, insn)) in filling.iter_mut().zip(instructions) {
        *is_filling = unreached && is_int3(insn);
        unreached = *is_filling || never_passes(insn);
    }
    if ends_whole {
        let tail = instructions
            .iter()
            .rev()
            .take_while(|(_, insn)| is_int3(insn) || is_nop(insn))
            .count();
        let from = instructions.len() - tail;
        // A function that ends with a call does not come back from it.
        let behind_end = from > 0
            && instructions
                .get(from - 1)
                .is_some_and(|(_, insn)| never_passes(insn) || insn.bytes().first() == Some(&0xe8));
        if behind_end {
            filling[from..].fill(true);
        }
    }
    filling
}

fn is_int3(insn: &Insn) -> bool {
    insn.bytes() == [0xcc]
}

/// Any of the NOPs that assemblers and the kernel pad with, with any prefixes.
fn is_nop(insn: &Insn) -> bool {
    let opcode = insn
        .bytes()
        .iter()
        .position(|byte| !matches!(byte, 0x66 | 0x2e))
        .unwrap_or(0);
    matches!(insn.bytes()[opcode..], [0x90] | [0x0f, 0x1f, ..])
}

/// Returns of all kinds, `jmp` and `ud2`.
fn never_passes(insn: &Insn) -> bool {
    matches!(
        insn.bytes(),
        [0xc2 | 0xc3 | 0xca | 0xcb | 0xcf | 0xe9 | 0xeb, ..] | [0x0f, 0x0b] | [0xf3, 0xc3] | [0x48, 0xcb | 0xcf]
    ) || matches!(insn.bytes(), [0xff, modrm, ..] | [0x41, 0xff, modrm] if modrm >> 3 & 7 == 4)
}

/// Where another decoder, iced-x86, finds the first instruction of another length, from the function's start.
pub fn difference(text: &[u8], decoded: &Decoded) -> Option<u32> {
    let mut decoder = Decoder::with_ip(64, text, 0, DecoderOptions::NONE);
    let mut other = Instruction::default();
    for (at, insn) in &decoded.instructions {
        decoder.decode_out(&mut other);
        if other.code() == Code::INVALID || other.ip() != u64::from(*at) || other.len() != insn.len() {
            return Some(*at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &[u8]) -> Vec<bool> {
        decode(text).filling
    }

    #[test]
    fn what_never_runs_is_filling() {
        // ret; int3; int3; nop; nop
        assert_eq!(filled(&[0xc3, 0xcc, 0xcc, 0x90, 0x90]), [false, true, true, true, true]);
        // jmp *%rax; int3; xor %eax, %eax; ret
        assert_eq!(
            filled(&[0xff, 0xe0, 0xcc, 0x31, 0xc0, 0xc3]),
            [false, true, false, false]
        );
        // call; int3: it does not return.
        assert_eq!(filled(&[0xe8, 0, 0, 0, 0, 0xcc]), [false, true]);
        // iretq; int3
        assert_eq!(filled(&[0x48, 0xcf, 0xcc]), [false, true]);
        // A gap between sections.
        assert_eq!(filled(&[0xcc, 0xcc]), [true, true]);
        // A breakpoint that is run into, NOPs that are run through.
        assert_eq!(filled(&[0x90, 0xcc, 0xc3]), [false, false, false]);
        assert_eq!(filled(&[0x0f, 0x1f, 0x00]), [false]);
    }

    #[test]
    fn the_other_decoder_agrees() {
        let text = [0x55, 0x48, 0x89, 0xe5, 0x0f, 0x0b, 0xc3, 0x06];
        let decoded = decode(&text);
        assert_eq!((decoded.instructions.len(), decoded.undecodable), (4, 1));
        assert_eq!(difference(&text, &decoded), None);
        assert_eq!(difference(&[0x48, 0x55, 0x89, 0xe5], &decoded), Some(0));
    }
}
