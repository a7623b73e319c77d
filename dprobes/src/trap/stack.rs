//! Stack traces by frame pointers: where the host has no better way, and of user mode.

use crate::frame::TrapFrame;

/// Where a walk begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    rip: u64,
    rsp: u64,
    rbp: u64,
}

impl Start {
    /// The code with these registers, which is about to execute the instruction at `rip`.
    pub(super) fn new(rip: u64, frame: &TrapFrame) -> Self {
        Start {
            rip,
            rsp: frame.rsp,
            rbp: frame.rbp,
        }
    }

    /// Fills `addresses` with `rip` and the return addresses above it, innermost first, and says how many there are.
    ///
    /// `insn` is the instruction at `rip`: at the edges of a function it tells that rbp is the caller's still, or again. `read` gives
    /// two words of memory, if it can be read. A walk is bounded by the room there is; it ends where rbp does not point further up the
    /// stack, and never leaves the half of the address space that the stack is in.
    pub(super) fn follow(
        self,
        insn: &[u8],
        mut read: impl FnMut(u64) -> Option<[u64; 2]>,
        addresses: &mut [u64],
    ) -> usize {
        let mut places = addresses.iter_mut();
        let mut count = 0;
        let mut add = |address| {
            let place = places.next()?;
            *place = address;
            count += 1;
            Some(())
        };
        let mut walk = || {
            add(self.rip)?;
            if let Some(below) = words_on_top_of_return_address(insn) {
                let [address, _] = read(self.rsp.checked_add(below * 8)?)?;
                add(address)?;
            }
            let (mut floor, mut rbp) = (self.rsp, self.rbp);
            loop {
                let same_half = (rbp ^ self.rsp) >> 63 == 0;
                if rbp < floor || rbp % 8 != 0 || !same_half {
                    return None;
                }
                let [next, address] = read(rbp)?;
                if address == 0 {
                    return None;
                }
                add(address)?;
                floor = rbp.checked_add(16)?;
                rbp = next;
            }
        };
        let _: Option<core::convert::Infallible> = walk();
        count
    }
}

/// How many words lie above the return address, where the instruction says that the frame is not set up yet, or is no more.
fn words_on_top_of_return_address(insn: &[u8]) -> Option<u64> {
    match insn {
        // endbr64; push rbp; ret; ret imm16
        [0xf3, 0x0f, 0x1e, 0xfa, ..] | [0x55 | 0xc3 | 0xc2, ..] => Some(0),
        // mov rbp, rsp, in its two encodings
        [0x48, 0x89, 0xe5, ..] | [0x48, 0x8b, 0xec, ..] => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    const BASE: u64 = 0x1000;

    /// A walk over a stack of these words at `BASE`.
    fn walk(words: &[u64], rsp: u64, rbp: u64, insn: &[u8], room: usize) -> Vec<u64> {
        let start = Start { rip: 0xf00, rsp, rbp };
        let mut addresses = vec![0; room];
        let read = |at: u64| {
            let index = usize::try_from(at.checked_sub(BASE)? / 8).ok()?;
            Some([*words.get(index)?, *words.get(index + 1)?])
        };
        let count = start.follow(insn, read, &mut addresses);
        addresses.truncate(count);
        addresses
    }

    const NOP: &[u8] = &[0x90];

    #[test]
    fn frames_are_followed_upwards() {
        let words = [0, 0x1020, 0xa, 0, 0x1030, 0xb, 0, 0, 0];
        assert_eq!(walk(&words, 0x1000, 0x1008, NOP, 8), [0xf00, 0xa, 0xb]);
        assert_eq!(walk(&words, 0x1000, 0x1008, NOP, 2), [0xf00, 0xa]);
        assert_eq!(walk(&words, 0x1000, 0x1008, NOP, 0), [0; 0]);
    }

    #[test]
    fn the_caller_is_found_at_the_edges_of_a_function() {
        // The return address 0xc on top; rbp is that of the caller, who returns to 0xa.
        let words = [0xc, 0x1020, 0xa, 0, 0, 0];
        for insn in [&[0x55][..], &[0xf3, 0x0f, 0x1e, 0xfa], &[0xc3], &[0xc2, 8, 0]] {
            assert_eq!(walk(&words, 0x1000, 0x1008, insn, 8), [0xf00, 0xc, 0xa]);
        }
        let words = [0x1010, 0xc, 0x1020, 0xa, 0, 0];
        for insn in [&[0x48, 0x89, 0xe5][..], &[0x48, 0x8b, 0xec]] {
            assert_eq!(walk(&words, 0x1000, 0x1010, insn, 8), [0xf00, 0xc, 0xa]);
        }
    }

    #[test]
    fn a_walk_ends_where_it_goes_wrong() {
        // Back to itself, downwards, not aligned, unreadable, and to the other half.
        for next in [0x1008, 0x1000, 0x1010, 0x1019, 0x9000, 0xffff_8000_0000_1020, 0] {
            let words = [0, next, 0xa, 0x1020, 0xb, 0, 0, 0];
            assert_eq!(walk(&words, 0x1000, 0x1008, NOP, 8), [0xf00, 0xa], "{next:#x}");
        }
        // rbp is no frame pointer at all.
        for rbp in [0, 0xff8, 0x1001, u64::MAX, u64::MAX - 7] {
            assert_eq!(walk(&[0; 8], 0x1000, rbp, NOP, 8), [0xf00], "{rbp:#x}");
        }
        assert_eq!(walk(&[0; 8], u64::MAX - 7, u64::MAX - 7, &[0x55], 8), [0xf00]);
    }
}
