//! Machine code: what is decoded is what was given, nothing past its end was looked at, and whatever is asked of it has an answer.
#![no_main]

use dprobes::insn::{Insn, MAX_LEN};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u64, &[u8])| {
    let (from, to, bytes) = input;
    let Ok(insn) = Insn::decode(bytes) else { return };
    assert!((1..=MAX_LEN).contains(&insn.len()));
    assert_eq!(insn.bytes(), &bytes[..insn.len()]);
    assert_eq!(Insn::decode(insn.bytes()), Ok(insn));
    assert!(Insn::decode(&bytes[..insn.len() - 1]).is_err());
    // What cannot be resumed cannot be stepped, for the same reason.
    if let Err(refusal) = insn.resume() {
        assert_eq!(insn.step(), Err(refusal));
    }
    let _ = (insn.may_fault(), insn.repeats(), insn.has_memory_operand());
    if let Ok(copy) = insn.relocate(from, to) {
        let copy = Insn::decode(copy.bytes()).expect("a copy is an instruction");
        assert_eq!(copy.rip_relative_address(to), insn.rip_relative_address(from));
    }
});
