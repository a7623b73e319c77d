//! Where a branch goes that says so itself.

use super::decode::Insn;
use super::parts::Map;

impl Insn {
    /// The target of a near branch or call by a displacement, for the instruction at `address`. `None` for everything else.
    pub fn target(&self, address: u64) -> Option<u64> {
        let branches = match self.map() {
            Map::Primary => matches!(self.opcode(), 0x70..=0x7f | 0xe0..=0xe3 | 0xe8 | 0xe9 | 0xeb),
            Map::Secondary => matches!(self.opcode(), 0x80..=0x8f),
            _ => false,
        };
        let next = address.wrapping_add(self.len() as u64);
        (branches && self.is_legacy(self.map())).then(|| next.wrapping_add_signed(self.signed(self.immediate())))
    }

    /// Where a near jump by a displacement goes, conditional or not, for the instruction at `address`. `None` for everything else, calls
    /// too.
    pub fn jumps_to(&self, address: u64) -> Option<u64> {
        let is_call = self.map() == Map::Primary && self.opcode() == 0xe8;
        self.target(address).filter(|_| !is_call)
    }

    /// Does control go where the instruction does not say: is it a return, of whatever kind, or a jump by a register or memory?
    pub fn leaves(&self) -> bool {
        let by_operand = || self.modrm().is_some_and(|modrm| matches!(modrm.reg(), 4 | 5));
        let is_skinit = || self.opcode() == 0x01 && self.modrm().is_some_and(|modrm| modrm.byte() == 0xde);
        let found = match self.map() {
            // ret, retf and iret; jmp and far jmp
            Map::Primary => {
                matches!(self.opcode(), 0xc2 | 0xc3 | 0xca | 0xcb | 0xcf) || self.opcode() == 0xff && by_operand()
            }
            // sysret, sysexit, rsm and skinit
            Map::Secondary => matches!(self.opcode(), 0x07 | 0x35 | 0xaa) || is_skinit(),
            _ => false,
        };
        found && self.is_legacy(self.map())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_another_decoder_says() {
        for bytes in [
            &[0xe8, 0x10, 0, 0, 0][..],
            &[0xe9, 0xf0, 0xff, 0xff, 0xff],
            &[0xeb, 0x80],
            &[0x75, 0x7f],
            &[0x2e, 0x0f, 0x84, 0, 1, 0, 0],
            &[0xe3, 2],
            &[0xff, 0xe0],
            &[0x90],
            &[0xc3],
        ] {
            let address = 0xffff_ffff_8100_0000;
            let mut decoder = iced_x86::Decoder::with_ip(64, bytes, address, 0);
            let other = decoder.decode();
            let expected = other.near_branch_target();
            let insn = Insn::decode(bytes).expect("an instruction");
            assert_eq!(
                insn.target(address),
                (expected != 0).then_some(expected),
                "{bytes:02x?}"
            );
            let expected = (expected != 0 && !other.is_call_near()).then_some(expected);
            assert_eq!(insn.jumps_to(address), expected, "{bytes:02x?}");
        }
    }

    /// Every instruction of one and two opcode bytes, with every ModRM.
    #[test]
    fn what_leaves_is_what_another_decoder_says() {
        use iced_x86::FlowControl;
        for opcode in 0..=0x1ff_u16 {
            for modrm in 0..=u8::MAX {
                let [escape, opcode] = opcode.to_be_bytes();
                let mut bytes = [0; 15];
                match escape {
                    0 => [bytes[0], bytes[1]] = [opcode, modrm],
                    _ => [bytes[0], bytes[1], bytes[2]] = [0x0f, opcode, modrm],
                }
                let mut decoder = iced_x86::Decoder::new(64, &bytes, 0);
                let other = decoder.decode();
                let Ok(insn) = Insn::decode(&bytes) else { continue };
                if other.is_invalid() || insn.len() != other.len() {
                    continue;
                }
                let expected = matches!(other.flow_control(), FlowControl::Return | FlowControl::IndirectBranch);
                assert_eq!(insn.leaves(), expected, "{bytes:02x?} {other:?}");
            }
        }
    }
}
