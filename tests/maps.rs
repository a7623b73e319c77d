//! Maps in ring 0: four CPUs add to them while a fifth reads, and in the end nothing is missing.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicUsize, Ordering};

use bootimage::{NoAlloc, smp};
use engine::probe::MapError;
use engine::wire::MapStatus;
use test_support::{engine, insert, instructions, remove};

bootimage::test_main! {
    requires: "cpus=5 time_limit_s=240",
    tests: [
        four_cpus_add_while_one_reads,
        what_is_read_fits_or_is_gone_on_with,
        a_map_goes_with_its_program,
    ],
}

global_asm!(
    // r10 counts passes.
    ".globl target_passes",
    ".type target_passes, @function",
    "target_passes:",
    "    xor r10d, r10d",
    "1:  lea r10, [r10 + 1]",
    "    nop",
    "    dec rdi",
    "    jnz 1b",
    "    ret",
    ".size target_passes, . - target_passes",
);

unsafe extern "C" {
    fn target_passes(passes: u64);
}

fn run(passes: u64) {
    // SAFETY: the function uses scratch registers only.
    unsafe { target_passes(passes) }
}

/// Puts the maps on the NOP of the loop.
fn start() {
    insert("maps", &[instructions("target_passes")[2]]).expect("a program with maps");
}

fn maps() -> Vec<MapStatus> {
    let mut maps = Vec::new();
    engine().maps(&mut |map| maps.push(*map));
    maps
}

fn map(name: &str) -> MapStatus {
    let named = |map: &MapStatus| map.name.starts_with(name.as_bytes()) && map.name[name.len()] == 0;
    maps().into_iter().find(named).expect("a map of this name")
}

/// The keys of an entry, and its values.
type Entry = (Vec<u64>, Vec<u64>);

/// Keys and values of all entries, and updates that did not fit.
fn read(map: &MapStatus) -> (Vec<Entry>, u64) {
    let size = map.entry_bytes as usize;
    let mut out = vec![0; size * 256];
    let reading = engine().read_map(map.id, None, &mut out).expect("a map that is there");
    assert_eq!((reading.left, reading.entry_bytes), (0, size));
    let words = |bytes: &[u8]| -> Vec<u64> {
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word))
            .collect()
    };
    let entries = out.chunks(size).take(reading.count).map(words);
    let split = |mut keys: Vec<u64>| {
        let value = keys.split_off(map.keys as usize);
        (keys, value)
    };
    (entries.map(split).collect(), reading.dropped)
}

const WRITERS: usize = 4;
const PASSES: u64 = 16_000;
const HEAVY: i128 = 0x8000_0000_0000_0005_u64 as i64 as i128;

/// Each sum is that of whole updates, wherever the writers are. Returns how many.
fn check_heavy() -> u64 {
    let (entries, dropped) = read(&map("heavy"));
    assert_eq!(dropped, 0);
    let mut updates = 0;
    for (keys, value) in entries {
        assert!(keys[0] < 2 && keys[1] == 7, "{keys:?}");
        let sum = (u128::from(value[1]) | u128::from(value[2]) << 64) as i128;
        assert_eq!(sum, HEAVY * i128::from(value[0]), "a torn average");
        updates += value[0];
    }
    updates
}

fn four_cpus_add_while_one_reads() {
    assert_eq!(smp::cpu_count(), WRITERS + 1);
    start();
    let (running, readings) = (AtomicUsize::new(WRITERS), AtomicUsize::new(0));
    let begun = AtomicUsize::new(0);
    smp::run_on_all(|cpu| {
        if cpu < WRITERS {
            while begun.load(Ordering::Acquire) == 0 {
                spin_loop();
            }
            run(PASSES);
            running.fetch_sub(1, Ordering::Release);
            return;
        }
        let (mut last_heavy, mut last_passes, mut last_levels) = (0, 0, 0);
        loop {
            let finished = running.load(Ordering::Acquire) == 0;
            let heavy = check_heavy();
            let passes = read(&map("passes")).0.first().map_or(0, |(_, value)| value[0]);
            let levels: u64 = read(&map("levels"))
                .0
                .first()
                .map_or(0, |(_, value)| value.iter().sum());
            assert!(
                heavy >= last_heavy && passes >= last_passes && levels >= last_levels,
                "counts go back"
            );
            (last_heavy, last_passes, last_levels) = (heavy, passes, levels);
            readings.fetch_add(1, Ordering::Relaxed);
            begun.store(1, Ordering::Release);
            if finished {
                break;
            }
        }
    });
    bootimage::println!("    {} readings", readings.load(Ordering::Relaxed));
    assert!(readings.into_inner() > 2, "nothing was read meanwhile");

    // Now nobody adds any more: everything is there, exactly.
    let all = PASSES * WRITERS as u64;
    assert_eq!(read(&map("passes")), (vec![(vec![], vec![all])], 0));
    assert_eq!(check_heavy(), all);

    let (by_pass, dropped) = read(&map("by_pass"));
    // Each CPU kept the keys it saw first, 1 to 8.
    assert_eq!(dropped, all / 2);
    let expected = (1..=8).map(|key| {
        let sum: u64 = (1..=PASSES).filter(|pass| pass % 16 == key).sum();
        (vec![key], vec![sum * WRITERS as u64])
    });
    assert_eq!(by_pass, expected.collect::<Vec<_>>());

    let (sizes, _) = read(&map("sizes"));
    let bucket = |pass: u64| 65 - pass.leading_zeros() as usize;
    let expected: Vec<u64> = (0..65)
        .map(|nth| (1..=PASSES).filter(|pass| bucket(*pass) == nth).count() as u64 * WRITERS as u64)
        .collect();
    assert_eq!(sizes, [(vec![], expected)]);

    let (levels, _) = read(&map("levels"));
    let expected: Vec<u64> = (0..10)
        .map(|nth| (1..=PASSES).filter(|pass| (pass / 500 + 1).min(9) == nth).count() as u64 * WRITERS as u64)
        .collect();
    assert_eq!(levels, [(vec![], expected)]);

    assert_eq!(read(&map("lowest")).0, [(vec![], vec![PASSES.wrapping_neg()])]);
    let highest = (0..WRITERS as u64).map(|cpu| (vec![cpu], vec![PASSES]));
    assert_eq!(read(&map("highest")).0, highest.collect::<Vec<_>>());
    assert_eq!(remove(7)[0].hits, all);
}

fn what_is_read_fits_or_is_gone_on_with() {
    start();
    {
        // What a hit does must not need memory.
        let _no_alloc = NoAlloc::new();
        run(100);
    }
    let by_pass = map("by_pass");
    let mut out = [0; 16 * 3];
    let none = engine().read_map(by_pass.id, None, &mut []).unwrap();
    assert_eq!((none.count, none.left, none.entry_bytes), (0, 8, 16));
    let mut keys = Vec::new();
    let mut after: Option<[u64; 1]> = None;
    loop {
        let page = engine()
            .read_map(by_pass.id, after.as_ref().map(|keys| &keys[..]), &mut out)
            .unwrap();
        for entry in out.chunks(16).take(page.count) {
            keys.push(u64::from_le_bytes(*entry.first_chunk().unwrap()));
        }
        if page.left == 0 {
            break;
        }
        after = keys.last().map(|key| [*key]);
    }
    assert_eq!(keys, (1..=8).collect::<Vec<u64>>());
    for wrong in [&[][..], &[1, 1]] {
        assert_eq!(
            engine().read_map(by_pass.id, Some(wrong), &mut out),
            Err(MapError::After)
        );
    }
    remove(7);
}

fn a_map_goes_with_its_program() {
    assert_eq!(maps(), []);
    start();
    let (first, ids) = (map("passes"), maps().iter().map(|map| map.id).collect::<Vec<_>>());
    let names: Vec<_> = maps().iter().map(|map| map.index).collect();
    assert_eq!(names, (0..7).collect::<Vec<u16>>());
    remove(7);
    assert_eq!(engine().read_map(first.id, None, &mut []), Err(MapError::NotFound));
    // Inserted again it has other maps, which are empty.
    start();
    assert!(maps().iter().all(|map| !ids.contains(&map.id)));
    assert_eq!(read(&map("passes")), (vec![], 0));
    remove(7);
    assert_eq!(maps(), []);
}
