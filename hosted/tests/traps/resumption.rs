//! Every instruction of the victims, probed: what they compute stays the same.

use dprobes::wire::ProbeStatus;

use crate::support::{address, instructions, object, point, session};
use crate::victims::*;

type Victim = extern "sysv64" fn(u64, u64) -> u64;

const INPUTS: [(u64, u64); 9] = [
    (0, 0),
    (1, 2),
    (2, 1),
    (15, 0xffff_ffff_ffff_fff0),
    (16, 0x7fff_ffff_ffff_ffff),
    (17, 0x8000_0000_0000_0000),
    (u64::MAX, u64::MAX),
    (0xdead_beef, 0x1234_5678_9abc_def0),
    (0x8000_0000_0000_0001, 3),
];

/// How an instruction may be resumed, as a query shows it.
const COPIED: u32 = 1;
const EMULATED: u32 = 2;
const STEPPED: u32 = 3;

/// The one instruction that no input reaches.
fn is_ud2(place: u64) -> bool {
    // SAFETY: an instruction of a victim, with another one behind it. Its first byte is the breakpoint.
    unsafe { (place as *const [u8; 2]).read()[1] == 0x0b }
}

/// Runs victims bare, then with a probe on each of their instructions. Gives how each instruction was resumed.
fn same_when_probed(victim: Victim, parts: &[Victim]) -> Vec<u32> {
    let session = session();
    let run = || INPUTS.map(|(a, b)| victim(a, b));
    let bare = run();
    let own = instructions(&session, address(victim as *const ()));
    let places: Vec<u64> = parts
        .iter()
        .flat_map(|part| instructions(&session, address(*part as *const ())))
        .collect();
    let points = places
        .iter()
        .zip(1..)
        .map(|(place, minor)| point(*place, minor, "", "inc lv, a\npush r, rip\nlog 1\nexit"));
    let mut resumed = Vec::new();
    let mut points: Vec<String> = points.collect();
    // An `endbr64` moves its probe to the next instruction.
    points.retain(|point| match session.insert(&object(9, point)) {
        Ok(()) => {
            resumed.push(session.remove_program(9)[0].resume);
            true
        }
        Err(_) => false,
    });
    let refused = places.len() - points.len();
    assert!(refused <= 1, "{refused} refused");
    session
        .insert(&object(1, &points.concat()))
        .or_else(|_| session.insert(&object(1, &points[1..].concat())))
        .unwrap();
    assert_eq!(run(), bare);
    let hits: u64 = session.status().iter().map(|probe| probe.hits).sum();
    assert_eq!(session.variables(1, 1), [hits]);
    let records = session.records();
    assert_eq!(records.len() as u64, hits);
    for record in &records {
        assert_eq!(record.words(), [record.header.address]);
    }
    let runs = |probe: &&ProbeStatus| own.contains(&probe.address) && !is_ud2(probe.address);
    for probe in session.status().iter().filter(runs) {
        assert_ne!(probe.hits, 0, "no input reaches {:#x}", probe.address);
    }
    for probe in session.status() {
        assert_eq!(
            (probe.missed, probe.faulted, probe.late, probe.lost, probe.exceptions),
            (0, 0, 0, 0, 0)
        );
    }
    session.remove_program(1);
    assert_eq!(run(), bare);
    assert!(session.records().is_empty());
    resumed
}

#[test]
fn arithmetic_is_copied_with_its_rip_relative_operands() {
    let resumed = same_when_probed(victim_arithmetic, &[victim_arithmetic]);
    assert_eq!(resumed.iter().filter(|how| **how == EMULATED).count(), 1); // ret
    assert_eq!(resumed.iter().filter(|how| **how == COPIED).count(), resumed.len() - 1);
}

#[test]
fn branches_are_emulated() {
    let resumed = same_when_probed(victim_branches, &[victim_branches, victim_callee, victim_tail]);
    assert!(
        resumed.iter().filter(|how| **how == EMULATED).count() >= 25,
        "{resumed:?}"
    );
}

#[test]
fn flags_are_exact() {
    same_when_probed(victim_flags, &[victim_flags]);
}

#[test]
fn string_instructions_are_copied() {
    let resumed = same_when_probed(victim_strings, &[victim_strings]);
    assert_eq!(resumed.iter().filter(|how| **how == EMULATED).count(), 1);
}

#[test]
fn branches_through_a_segment_are_stepped() {
    same_when_probed(victim_segments, &[victim_segments, victim_callee, victim_tail]);
}

#[test]
fn the_smallest_victim() {
    same_when_probed(victim_add, &[victim_add]);
}

#[test]
fn stack_segments_and_far_transfers() {
    let resumed = same_when_probed(victim_transfers, &[victim_transfers, victim_callee]);
    // Each with the direct and indirect branches behind it.
    assert_eq!(resumed.iter().filter(|how| **how == STEPPED).count(), 5, "{resumed:?}");
}
