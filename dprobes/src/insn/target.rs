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
        }
    }
}
