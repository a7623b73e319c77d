//! Objects, with a good checksum so that it does not protect what is behind it: parsed, verified, and run on a machine that answers
//! anything at all. Or a program that was made by chance, with some bytes changed; or code, in an object that is good but for that.
#![no_main]

use std::cell::RefCell;

use dprobes::rpn::object::seal;
use libfuzzer_sys::fuzz_target;

#[path = "../../dprobes/tests/rpn/mod.rs"]
mod rpn;

use rpn::build::Builder;
use rpn::random::{Rng, program};
use rpn::victim::Victim;

thread_local! {
    static VICTIM: RefCell<Victim> = RefCell::new(Victim::new(1));
}

fuzz_target!(|data: &[u8]| {
    let mut bytes;
    match data {
        [0, object @ ..] => {
            bytes = object.to_vec();
            let _ = seal(&mut bytes);
        }
        [1, seed, changes @ ..] => {
            bytes = program(&mut Rng(u64::from(*seed))).bytes();
            let len = bytes.len();
            for [low, high, by] in changes.as_chunks::<3>().0 {
                bytes[usize::from(u16::from_le_bytes([*low, *high])) % len] ^= by;
            }
            let _ = seal(&mut bytes);
        }
        [settings, low, high, code @ ..] if !code.is_empty() => {
            let mut builder = Builder::new(code.to_vec(), 3).globals(2).heap(100).map(1, 1, 8);
            builder = builder.ex_mask(u16::from_le_bytes([*low, *high]) & 0xbfff);
            if settings & 2 != 0 {
                builder = builder.auto_stack_trace();
            }
            // Most programs that loop do so as often as they may.
            bytes = builder.jmpmax(1000).bytes();
        }
        _ => return,
    }
    VICTIM.with_borrow_mut(|victim| victim.feed(&bytes));
});
