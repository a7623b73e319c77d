//! The least of a block that still is not the same.

use dprobes::insn::Insn;

use crate::batch::{Bench, Difference};

/// NOPs of 1 to 9 bytes, as the manuals recommend them.
const NOPS: [&[u8]; 9] = [
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
    &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
    &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
];

/// Replaces instructions by NOPs and registers by zero as long as the difference stays; and says how often one is seen.
pub fn minimise(bench: &mut Bench, found: &Difference) -> (Difference, bool) {
    let mut least = Difference {
        block: found.block.clone(),
        start: found.start.clone(),
    };
    let reproduced = differs(bench, &least);
    if !reproduced {
        return (least, false);
    }
    for index in 0..least.block.instructions.len() {
        let len = least.block.instructions[index].len();
        let Some(nop) = NOPS.get(len - 1) else { continue };
        let before = std::mem::replace(&mut least.block.instructions[index], nop.to_vec());
        if !differs(bench, &least) {
            least.block.instructions[index] = before;
        }
    }
    while least.block.instructions.len() > 1 {
        let last = least.block.instructions.pop();
        if !differs(bench, &least) {
            least.block.instructions.extend(last);
            break;
        }
    }
    for register in 0..16 {
        let before = std::mem::replace(&mut least.start.registers[register], 0);
        if register == 4 || !differs(bench, &least) {
            least.start.registers[register] = before;
        }
    }
    let flags = std::mem::replace(&mut least.start.flags, 0x202);
    if !differs(bench, &least) {
        least.start.flags = flags;
    }
    (least, true)
}

fn differs(bench: &mut Bench, case: &Difference) -> bool {
    let decodes = case.block.instructions.iter().all(|bytes| !bytes.is_empty());
    let [bare, probed] = bench.compare_one(&case.block, &case.start, &|_| true);
    let endless = bare.0.signal.is_some_and(|signal| signal.number == libc::SIGALRM);
    decodes && !endless && bare != probed
}

/// The instructions of a block that must be probed for the difference to show.
pub fn culprits(bench: &mut Bench, case: &Difference) -> Vec<usize> {
    let offsets: Vec<usize> = case.block.offsets().collect();
    offsets
        .into_iter()
        .enumerate()
        .filter(|(index, offset)| {
            Insn::decode(&case.block.instructions[*index]).is_ok() && {
                let [bare, probed] = bench.compare_one(&case.block, &case.start, &|at| at == *offset);
                bare != probed
            }
        })
        .map(|(_, offset)| offset)
        .collect()
}
