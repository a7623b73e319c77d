use std::cell::{Cell, RefCell};

use proptest::prelude::*;

use super::*;

/// Text in a vector. A write may fail; every state that another CPU could fetch from is checked at each write.
struct Memory {
    bytes: RefCell<Vec<u8>>,
    fail_at: Cell<usize>,
    /// Does it go on failing?
    for_good: Cell<bool>,
    syncs: Cell<usize>,
    /// Places, to check what may be fetched.
    changes: Vec<Change>,
    /// What was there at the last sync.
    settled: RefCell<Vec<u8>>,
}

impl Memory {
    fn new(changes: &[Change], len: usize) -> Self {
        let mut bytes = vec![0x90; len];
        for change in changes {
            bytes[change.address..][..change.len].copy_from_slice(change.old());
        }
        Memory {
            settled: RefCell::new(bytes.clone()),
            bytes: RefCell::new(bytes),
            fail_at: Cell::new(usize::MAX),
            for_good: Cell::new(false),
            syncs: Cell::new(0),
            changes: changes.to_vec(),
        }
    }

    /// Between two syncs a CPU may see any mixture of the bytes before and after. If the first one is not a breakpoint in both, all
    /// bytes must be the same in both, but for the first becoming, or having been, a breakpoint.
    fn check_mixture(&self) {
        let (before, now) = (self.settled.borrow(), self.bytes.borrow());
        for change in &self.changes {
            let before = &before[change.address..][..change.len];
            let now = &now[change.address..][..change.len];
            if change.len == 1 {
                continue;
            }
            if before[0] == INT3 && now[0] == INT3 {
                continue;
            }
            assert!(
                before[0] == now[0] || before[0] == INT3 || now[0] == INT3,
                "a first byte has become another"
            );
            assert_eq!(before[1..], now[1..], "a tail has changed under an instruction");
            for bytes in [before, now] {
                assert!(
                    bytes[0] == INT3 || bytes == change.old() || bytes == change.side(Way::There),
                    "half an instruction"
                );
            }
        }
    }
}

impl Text for Memory {
    fn read_text(&self, address: usize, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let text = self.bytes.borrow();
        bytes.copy_from_slice(text.get(address..address + bytes.len()).ok_or(Unreadable)?);
        Ok(())
    }

    fn write_text(&self, writes: &[Write]) -> Result<(), Unwritable> {
        for (index, write) in writes.iter().enumerate() {
            if self.fail_at.get() == 0 {
                if !self.for_good.get() {
                    self.fail_at.set(usize::MAX);
                }
                return Err(Unwritable { index });
            }
            if self.fail_at.get() != usize::MAX {
                self.fail_at.set(self.fail_at.get() - 1);
            }
            self.bytes.borrow_mut()[write.address..][..write.bytes().len()].copy_from_slice(write.bytes());
            self.check_mixture();
        }
        Ok(())
    }

    fn sync_cores(&self) {
        self.syncs.set(self.syncs.get() + 1);
        self.settled.borrow_mut().clone_from(&self.bytes.borrow());
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(
        (1..=CHANGE_MAX, any::<[u8; CHANGE_MAX]>(), any::<[u8; CHANGE_MAX]>()),
        1..80,
    )
    .prop_map(|places| {
        let mut changes = Vec::new();
        for (index, (len, old, new)) in places.into_iter().enumerate() {
            let keep = |bytes: [u8; CHANGE_MAX]| {
                let mut kept = [0; CHANGE_MAX];
                kept[..len].copy_from_slice(&bytes[..len]);
                // An instruction that is not the breakpoint.
                kept[0] &= 0x7f;
                kept
            };
            changes.push(Change {
                address: index * 20,
                len,
                old: keep(old),
                new: keep(new),
            });
        }
        changes
    })
}

proptest! {
    #[test]
    fn all_or_nothing_and_no_half_instruction_on_the_way(changes in changes(), fail_at in prop::option::of(0..300usize)) {
        let memory = Memory::new(&changes, 80 * 20);
        memory.fail_at.set(fail_at.unwrap_or(usize::MAX));
        let result = commit(&memory, &changes[..], &mut [Write::NONE; 3]);
        let bytes = memory.bytes.borrow();
        for change in &changes {
            let found = &bytes[change.address..][..change.len];
            let expected = if result.is_ok() { change.side(Way::There) } else { change.old() };
            prop_assert_eq!(found, expected);
        }
        if result.is_ok() {
            let long = changes.iter().any(|change| change.len > 1);
            prop_assert_eq!(memory.syncs.get(), if long { 3 } else { 1 });
        } else {
            let failed = matches!(result, Err(CommitError::Unwritable { .. }));
            prop_assert!(failed);
        }
    }
}

proptest! {
    /// Text that is writable no more from some write on, and again later. `check_mixture` looks at every write.
    #[test]
    fn what_cannot_be_undone_is_whole_or_a_breakpoint(changes in changes(), fail_at in 0..300usize) {
        let memory = Memory::new(&changes, 80 * 20);
        memory.fail_at.set(fail_at);
        memory.for_good.set(true);
        let result = commit(&memory, &changes[..], &mut [Write::NONE; 3]);
        let at = match result {
            Ok(()) => None,
            Err(CommitError::Unwritable { address } | CommitError::Stuck { address }) => Some(address),
            Err(error) => panic!("{error}"),
        };
        prop_assert!(at.is_none_or(|at| changes.iter().any(|change| change.address == at)), "not where a place begins: {:?}", at);
        for change in &changes {
            let found = memory.bytes.borrow()[change.address..][..change.len].to_vec();
            match result {
                Ok(()) => prop_assert_eq!(&found[..], change.side(Way::There)),
                Err(CommitError::Stuck { .. }) => prop_assert!(
                    found[0] == INT3 || found == change.old() || found == change.side(Way::There),
                    "half an instruction: {:x?}", found
                ),
                Err(_) => prop_assert_eq!(&found[..], change.old()),
            }
        }
        if matches!(result, Err(CommitError::Stuck { .. })) {
            let still = matches!(restore(&memory, &changes[..], &mut [Write::NONE; 3]), Err(CommitError::Stuck { .. }));
            prop_assert!(still);
            memory.fail_at.set(usize::MAX);
            prop_assert_eq!(restore(&memory, &changes[..], &mut [Write::NONE; 3]), Ok(()));
            for change in &changes {
                prop_assert_eq!(&memory.bytes.borrow()[change.address..][..change.len], change.old());
            }
        }
    }
}

#[test]
fn what_is_not_as_expected_stops_everything() {
    let good = Change::new(0, [1, 2, 3, 4, 5], [9, 9, 9, 9, 9]);
    let bad = Change::new(20, [1, 2], [3, 4]);
    let memory = Memory::new(&[good, bad], 40);
    memory.bytes.borrow_mut()[21] = 7;
    let mut found = [0; CHANGE_MAX];
    found[..2].copy_from_slice(&[1, 7]);
    assert_eq!(
        commit(&memory, &[good, bad][..], &mut [Write::NONE; 3]),
        Err(CommitError::Changed { address: 20, found })
    );
    assert_eq!(memory.syncs.get(), 0);
    let nowhere = Change::new(100, [1], [2]);
    assert_eq!(
        commit(&memory, &[good, nowhere][..], &mut [Write::NONE; 3]),
        Err(CommitError::Unreadable { address: 100 })
    );
    assert_eq!(memory.bytes.borrow()[..5], [1, 2, 3, 4, 5]);
}
