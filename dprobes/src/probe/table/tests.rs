//! The table against a model, and under readers.

extern crate std;

use core::ptr;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::vec::Vec;

use super::table::Table;

/// A small generator of numbers that look random (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

fn value(key: u64) -> *mut u8 {
    ptr::without_provenance_mut((key.wrapping_mul(8) | 8) as usize)
}

#[test]
fn it_agrees_with_a_hash_map_on_any_sequence() {
    let table = Table::<u8, 64>::new().unwrap();
    let mut model = HashMap::new();
    let mut random = Random(1);
    let rounds = if cfg!(miri) { 2_000 } else { 200_000 };
    for _ in 0..rounds {
        let key = 0xffff_ffff_8100_0000 + random.next() % 512;
        match model.entry(key) {
            Entry::Occupied(known) => {
                table.remove(key);
                known.remove();
            }
            Entry::Vacant(place) if !random.next().is_multiple_of(3) => {
                drop(table.reserve(1).unwrap());
                table.insert(key, value(key));
                place.insert(value(key));
            }
            Entry::Vacant(_) => {}
        }
        let probe = 0xffff_ffff_8100_0000 + random.next() % 512;
        assert_eq!(table.get(probe), model.get(&probe).copied().unwrap_or(ptr::null_mut()));
    }
}

#[test]
fn a_large_batch_is_found_and_its_neighbours_are_not() {
    let table = Table::<u8, 64>::new().unwrap();
    let keys: Vec<u64> = (0..if cfg!(miri) { 500 } else { 100_000 })
        .map(|n| 0xffff_ffff_8100_0000 + n * 16)
        .collect();
    drop(table.reserve(keys.len()).unwrap());
    for key in &keys {
        table.insert(*key, value(*key));
    }
    for key in &keys {
        assert_eq!(table.get(*key), value(*key));
        assert!(table.get(*key + 1).is_null());
    }
}

#[test]
fn readers_always_find_what_stays_while_others_come_and_go() {
    let table = Table::<u8, 64>::new().unwrap();
    drop(table.reserve(16).unwrap());
    for key in 1..=16 {
        table.insert(key, value(key));
    }
    let done = AtomicBool::new(false);
    // Kept until the readers are gone: the grace period of this test.
    let mut retired = Vec::new();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    for key in 1..=16 {
                        assert_eq!(table.get(key), value(key));
                    }
                    let other = table.get(1000);
                    assert!(other.is_null() || other == value(1000));
                }
            });
        }
        for round in 0..if cfg!(miri) { 50 } else { 20_000 } {
            retired.push(table.reserve(3).unwrap());
            for key in [1000, 2000 + round, 3000 + round] {
                table.insert(key, value(key));
            }
            for key in [1000, 2000 + round, 3000 + round] {
                table.remove(key);
            }
        }
        done.store(true, Ordering::Release);
    });
}

/// Addresses of instructions of the kernel in /boot, as far apart as it takes to have so many across its text.
#[cfg(not(miri))]
fn kernel_addresses(count: usize) -> Vec<u64> {
    use object::{Object, ObjectSection};

    let kernel = vmlinux::Kernel::newest().expect("a kernel in /boot (apt-get install linux-image-amd64)");
    let image = kernel.vmlinux().expect("the kernel's ELF image");
    let file = object::File::parse(&*image).unwrap();
    let section = file.section_by_name(".text").unwrap();
    let text = section.data().unwrap();
    let mut addresses = Vec::new();
    let mut from = 0;
    // Where data is in between, what comes after it is decoded anew.
    while from < text.len() {
        let instructions = crate::insn::Instructions::new(&text[from..]).map_while(Result::ok);
        addresses.extend(instructions.map(|(offset, _)| section.address() + (from + offset) as u64));
        from = addresses
            .last()
            .map_or(from, |last| (last - section.address()) as usize)
            + 1;
    }
    let step = addresses.len() / count;
    assert!(step > 1, "{} instructions", addresses.len());
    let mut chosen = Vec::from_iter(addresses.into_iter().step_by(step));
    chosen.truncate(count);
    chosen
}

/// The average and the most entries that lookups of these keys look at.
fn cost(table: &Table<u8>, keys: impl Iterator<Item = u64>) -> (f64, usize) {
    let looks = Vec::from_iter(keys.map(|key| table.looks(key)));
    let sum: usize = looks.iter().sum();
    (sum as f64 / looks.len() as f64, looks.into_iter().max().unwrap())
}

#[cfg(not(miri))]
#[test]
fn a_lookup_among_kernel_addresses_looks_at_few_entries() {
    let addresses = kernel_addresses(100_000);
    // As one transaction, and one by one until the table is as full as it gets.
    for (batch, probes) in [(100_000, 100_000), (50_000, 50_000), (1, 100_000), (1, 65_536), (1, 10)] {
        let table = Table::<u8>::new().unwrap();
        for batch in addresses[..probes].chunks(batch) {
            drop(table.reserve(batch.len()).unwrap());
            for address in batch {
                table.insert(*address, value(*address));
            }
        }
        let there = cost(&table, addresses[..probes].iter().copied());
        let absent = cost(&table, addresses[..probes].iter().map(|address| address + 1));
        std::println!("{probes} probes, {batch} at once: {there:.2?} there, {absent:.2?} absent");
        // Random keys in a table half full: 1.5 and 2.5 on average (Knuth, volume 3, 6.4, theorem K).
        assert!(there.0 < 1.7 && absent.0 < 2.8, "{there:?} {absent:?}");
        assert!(there.1 <= 32 && absent.1 <= 32, "{there:?} {absent:?}");
    }
}
