//! A block: instructions that run from its first byte to [`run::leave`].

use std::fmt;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};

use crate::arena::{Arena, CODE, DATA, FAR, IMAGE, LOW, PAGE, READ_ONLY};
use crate::random::Random;
use crate::run;

/// An instruction that is to be part of a block.
#[derive(Clone, Debug)]
pub struct Part {
    pub bytes: Vec<u8>,
    pub aim: Aim,
    /// May others branch to it?
    pub is_target: bool,
}

/// Where a displacement goes, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Branches go to a later instruction, memory relative to RIP is data.
    Usual,
    /// Memory relative to RIP is a later instruction.
    Later,
    /// Memory relative to RIP is data, aligned to 64.
    Aligned,
    /// Memory relative to RIP is the image that can be restored.
    Image,
    /// Memory relative to RIP is the far pointer.
    Far,
    /// A branch goes this many instructions back.
    Back(usize),
}

impl Part {
    pub fn new(bytes: &[u8]) -> Self {
        Part {
            bytes: bytes.to_vec(),
            aim: Aim::Usual,
            is_target: true,
        }
    }

    pub fn aimed(bytes: &[u8], aim: Aim) -> Self {
        Part {
            aim,
            ..Part::new(bytes)
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    /// Where it is in the arena.
    pub at: usize,
    /// Its instructions.
    pub instructions: Vec<Vec<u8>>,
}

/// The jump to the end of all blocks.
pub const LEAVING: usize = 14;

pub fn decode(bytes: &[u8], address: u64) -> Instruction {
    Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode()
}

impl Block {
    /// A block at an offset of the arena.
    pub fn new(random: &mut Random, at: usize, parts: Vec<Part>) -> Self {
        let mut offsets = Vec::with_capacity(parts.len());
        let mut end = 0;
        for part in &parts {
            offsets.push(end);
            end += part.bytes.len();
        }
        let targets: Vec<usize> = parts
            .iter()
            .zip(&offsets)
            .filter(|(part, _)| part.is_target)
            .map(|(_, offset)| *offset)
            .chain([end])
            .collect();
        let mut instructions = Vec::with_capacity(parts.len());
        for (index, part) in parts.into_iter().enumerate() {
            let next = offsets[index] + part.bytes.len();
            let later = targets.partition_point(|target| *target < next);
            let later = &targets[later..];
            let target = match part.aim {
                Aim::Back(back) => offsets[index - back],
                _ => later[random.below(later.len().min(4) as u64) as usize],
            };
            instructions.push(aim(random, part, at + next, at + target));
        }
        Block { at, instructions }
    }

    /// Where its instructions begin in the arena.
    pub fn offsets(&self) -> impl Iterator<Item = usize> {
        self.instructions.iter().scan(self.at, |at, instruction| {
            let offset = *at;
            *at += instruction.len();
            Some(offset)
        })
    }

    /// Bytes of its instructions, without the jump.
    pub fn len(&self) -> usize {
        self.instructions.iter().map(Vec::len).sum()
    }

    /// All its bytes.
    pub fn code(&self) -> Vec<u8> {
        let mut code = self.instructions.concat();
        code.extend([0xff, 0x25, 0, 0, 0, 0]); // jmp [rip]
        code.extend(run::leave().to_le_bytes());
        code
    }

    /// The kind of the instruction at an offset of the arena.
    pub fn kind_at(&self, offset: usize, arena: &Arena) -> Option<Code> {
        let index = self.offsets().position(|at| at == offset)?;
        Some(decode(&self.instructions[index], arena.address(offset)).code())
    }

    pub fn show<'a>(&'a self, arena: &'a Arena) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            for (instruction, at) in self.instructions.iter().zip(self.offsets()) {
                let bytes: Vec<String> = instruction.iter().map(|byte| format!("{byte:02x}")).collect();
                let decoded = decode(instruction, arena.address(at));
                writeln!(f, "{at:#07x}  {:45} {decoded}", bytes.join(" "))?;
            }
            Ok(())
        })
    }
}

/// The bytes of a part whose successor is at `next`, with its displacement set.
fn aim(random: &mut Random, part: Part, next: usize, target: usize) -> Vec<u8> {
    let mut bytes = part.bytes;
    let mut decoder = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE);
    let instruction = decoder.decode();
    let constants = decoder.get_constant_offsets(&instruction);
    if instruction.is_ip_rel_memory_operand() {
        let to = match part.aim {
            Aim::Later => target,
            Aim::Image => IMAGE,
            Aim::Far => FAR,
            Aim::Aligned => DATA.start + random.below(64) as usize * 64,
            _ if random.one_in(16) => READ_ONLY.start - 32 + random.below(64) as usize,
            _ if random.one_in(64) => DATA.start - PAGE,
            _ => DATA.start + random.below(DATA.len() as u64) as usize,
        };
        let displacement = to.wrapping_sub(next) as u32;
        bytes[constants.displacement_offset()..][..4].copy_from_slice(&displacement.to_le_bytes());
    } else if constants.displacement_size() >= 4
        && instruction.memory_base() == Register::None
        && instruction.memory_index() == Register::None
        && !random.one_in(4)
    {
        let address = LOW + random.below(PAGE as u64);
        let size = constants.displacement_size();
        bytes[constants.displacement_offset()..][..size].copy_from_slice(&address.to_le_bytes()[..size]);
    } else if is_relative_branch(&instruction) {
        let size = constants.immediate_size();
        let displacement = target.wrapping_sub(next).to_le_bytes();
        bytes[constants.immediate_offset()..][..size].copy_from_slice(&displacement[..size]);
    }
    bytes
}

fn is_relative_branch(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::UnconditionalBranch
            | FlowControl::ConditionalBranch
            | FlowControl::Call
            | FlowControl::XbeginXabortXend
    ) && instruction.op_count() > 0
        && matches!(instruction.op0_kind(), OpKind::NearBranch64 | OpKind::NearBranch16)
}

/// Is there room for a block at an offset?
pub fn fits(at: usize, len: usize) -> bool {
    at + len + LEAVING <= CODE.end
}
