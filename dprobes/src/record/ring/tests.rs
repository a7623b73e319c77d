//! The ring, alone and between threads.

extern crate std;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::vec::Vec;
use std::{thread, vec};

use super::header::{Header, RecordState};
use super::ring::{MODE_FROZEN, MODE_NEWEST, Ring};
use crate::host::Task;

fn header(address: u64, cookie: u64, elements: usize, state: RecordState) -> Header {
    let task = Task {
        cookie,
        ..Task::default()
    };
    Header {
        state: state as u32,
        ..Header::new(address, (1, 1), 0, 7, &task, elements)
    }
}

fn read_all(ring: &Ring) -> Vec<(Header, Vec<u8>)> {
    let mut out = vec![0; 1 << 16];
    let written = ring.read(3, &mut out);
    let mut rest = &out[..written];
    let mut records = Vec::new();
    while !rest.is_empty() {
        let header = Header::parse(rest).expect("a whole record");
        let body = rest[Header::SIZE..][..header.elements as usize].to_vec();
        rest = &rest[header.length as usize..];
        records.push((header, body));
    }
    records
}

#[test]
fn what_is_pushed_is_read_in_order_across_the_end_of_the_ring() {
    let ring = Ring::new(6).unwrap();
    let mut expected = VecDeque::new();
    for round in 0..1000_u64 {
        let body: Vec<u8> = (0..round % 40).map(|byte| (byte + round) as u8).collect();
        assert!(ring.push(&header(round, 0, body.len(), RecordState::Published), &body));
        expected.push_back((round, body));
        if round % 2 == 1 {
            for (header, body) in read_all(&ring) {
                let (address, pushed) = expected.pop_front().unwrap();
                assert_eq!((header.address, body), (address, pushed));
                assert_eq!(header.state, RecordState::Published as u32);
            }
        }
    }
    assert!(expected.is_empty());
}

#[test]
fn every_record_that_does_not_fit_is_counted_and_told_once() {
    let ring = Ring::new(6).unwrap();
    let kept = (0..20)
        .filter(|n| ring.push(&header(*n, 0, 0, RecordState::Published), &[]))
        .count();
    assert_eq!(kept, 64 / 9);
    let records = read_all(&ring);
    assert_eq!(records[0].0.state, RecordState::Lost as u32);
    assert_eq!(records[0].0.facts, 20 - kept as u64);
    assert_eq!(records[0].0.cpu, 3);
    assert_eq!(records.len(), 1 + kept);
    assert!(read_all(&ring).is_empty());
}

#[test]
fn the_reader_stops_before_a_provisional_record_until_it_is_settled() {
    let ring = Ring::new(8).unwrap();
    assert!(ring.push(&header(1, 0, 0, RecordState::Published), &[]));
    assert!(ring.push(&header(2, 0, 0, RecordState::Provisional), &[]));
    assert!(ring.push(&header(3, 0, 0, RecordState::Published), &[]));
    assert_eq!(
        read_all(&ring)
            .iter()
            .map(|(header, _)| header.address)
            .collect::<Vec<_>>(),
        [1]
    );
    assert!(ring.has_provisional());
    ring.mark_to_settle();
    assert!(ring.push(&header(4, 0, 0, RecordState::Provisional), &[]));
    ring.settle();
    assert_eq!(
        read_all(&ring)
            .iter()
            .map(|(header, _)| header.address)
            .collect::<Vec<_>>(),
        [2, 3]
    );
    assert!(ring.has_provisional());
}

#[test]
fn a_fault_discards_the_newest_provisional_record_of_that_probe_and_task() {
    let ring = Ring::new(8).unwrap();
    for (address, cookie) in [(1, 10), (1, 11), (1, 10), (2, 10)] {
        assert!(ring.push(&header(address, cookie, 0, RecordState::Provisional), &[]));
    }
    assert!(ring.discard(1, 10));
    assert!(!ring.discard(1, 12));
    assert!(!ring.discard(3, 10));
    ring.mark_to_settle();
    ring.settle();
    let left: Vec<_> = read_all(&ring).iter().map(|(header, _)| header.address).collect();
    assert_eq!(left, [1, 1, 2]);
    assert!(!ring.discard(1, 11), "a record that has been read cannot be discarded");
}

#[test]
fn publishing_since_a_mark_makes_those_records_final() {
    let ring = Ring::new(8).unwrap();
    assert!(ring.push(&header(1, 0, 0, RecordState::Provisional), &[]));
    let mark = ring.mark();
    assert!(ring.push(&header(2, 0, 0, RecordState::Provisional), &[]));
    ring.publish_since(mark);
    assert!(read_all(&ring).is_empty());
    assert!(ring.discard(1, 0));
    assert_eq!(read_all(&ring).len(), 1);
}

#[test]
fn what_was_read_and_written_over_is_not_taken_for_a_record() {
    let ring = Ring::new(6).unwrap();
    let mark = ring.mark();
    // In the place of the mark stand bytes of a program's own in the end, which look like a provisional record.
    let length = 24_u64 << 32;
    let looks_so = (length | RecordState::Provisional as u64).to_le_bytes().repeat(11);
    for n in 0..10 {
        assert!(ring.push(&header(n, 0, looks_so.len(), RecordState::Published), &looks_so));
        if n < 9 {
            assert_eq!(read_all(&ring).len(), 1);
        }
    }
    ring.publish_since(mark);
    let [(_, body)] = &read_all(&ring)[..] else {
        panic!("one record is left")
    };
    assert!(*body == looks_so, "{body:x?}");
}

#[test]
fn a_reader_with_a_small_buffer_gets_whole_records() {
    let ring = Ring::new(8).unwrap();
    for n in 0..4 {
        assert!(ring.push(&header(n, 0, 9, RecordState::Published), &[0; 9]));
    }
    let mut out = vec![0; 100];
    for n in 0..4 {
        assert_eq!(ring.read(0, &mut out), 88);
        assert_eq!(Header::parse(&out).unwrap().address, n);
    }
    assert_eq!(ring.read(0, &mut out), 0);
}

/// So many records are written while another thread reads them.
const RECORDS: u64 = if cfg!(miri) { 200 } else { 300_000 };

/// Writes them, and reads them on another thread, which looks whether they are whole and in order: how many were taken, read and told to be lost.
fn written_while_read(ring: &Ring) -> (u64, u64, u64) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut read, mut lost, mut last) = (0, 0, None);
            loop {
                let finished = done.load(Ordering::Acquire);
                let records = read_all(ring);
                if records.is_empty() && finished {
                    return (read, lost);
                }
                for (header, body) in records {
                    if header.state == RecordState::Lost as u32 {
                        lost += header.facts;
                        continue;
                    }
                    assert!(last < Some(header.address), "out of order");
                    last = Some(header.address);
                    let expected = header.address as u8;
                    assert!(body.len() == header.address as usize % 50 && body.iter().all(|byte| *byte == expected));
                    read += 1;
                }
            }
        });
        let mut pushed = 0;
        for n in 0..RECORDS {
            let body = [n as u8; 50];
            let body = &body[..n as usize % 50];
            pushed += u64::from(ring.push(&header(n, 0, body.len(), RecordState::Published), body));
        }
        done.store(true, Ordering::Release);
        let (read, lost) = reader.join().unwrap();
        (pushed, read, lost)
    })
}

#[test]
fn a_writer_and_a_reader_on_two_threads_lose_nothing_uncounted() {
    let (pushed, read, lost) = written_while_read(&Ring::new(9).unwrap());
    assert_eq!((read, lost), (pushed, RECORDS - pushed));
}

fn recorder(log2_words: u32) -> Ring {
    let ring = Ring::new(log2_words).unwrap();
    ring.set_mode(MODE_NEWEST, true);
    ring
}

fn addresses(records: &[(Header, Vec<u8>)]) -> Vec<u64> {
    let records = records
        .iter()
        .filter(|(header, _)| header.state != RecordState::Lost as u32);
    records.map(|(header, _)| header.address).collect()
}

fn lost(records: &[(Header, Vec<u8>)]) -> u64 {
    let lost = records
        .iter()
        .filter(|(header, _)| header.state == RecordState::Lost as u32);
    lost.map(|(header, _)| header.facts).sum()
}

#[test]
fn a_flight_recorder_keeps_the_newest_and_counts_what_gave_way() {
    let ring = recorder(6);
    for number in 0..100_u64 {
        let body = vec![number as u8; number as usize % 30];
        assert!(ring.push(&header(number, 0, body.len(), RecordState::Published), &body));
    }
    let records = read_all(&ring);
    let kept = addresses(&records);
    assert!((3..=7).contains(&kept.len()), "{kept:?}");
    assert!(kept.iter().copied().eq(100 - kept.len() as u64..100));
    assert_eq!(lost(&records), 100 - kept.len() as u64);
    assert!(read_all(&ring).is_empty());
}

#[test]
fn what_was_discarded_is_not_lost_when_it_gives_way() {
    let ring = recorder(6);
    for number in 0..21 {
        assert!(ring.push(&header(number, number, 0, RecordState::Provisional), &[]));
        if number % 3 == 0 {
            assert!(ring.discard(number, number));
        } else {
            ring.mark_to_settle();
            ring.settle();
        }
    }
    // The last seven are there; of the 14 before, five were discarded.
    let records = read_all(&ring);
    assert_eq!(addresses(&records), [14, 16, 17, 19, 20]);
    assert_eq!(lost(&records), 9);
}

#[test]
fn a_provisional_record_holds_a_flight_recorder_up_no_longer_than_it_is_there() {
    let ring = recorder(6);
    assert!(ring.push(&header(1, 0, 0, RecordState::Provisional), &[]));
    assert!(ring.push(&header(2, 0, 0, RecordState::Published), &[]));
    assert!(read_all(&ring).is_empty());
    for number in 3..10 {
        assert!(ring.push(&header(number, 0, 0, RecordState::Published), &[]));
    }
    let records = read_all(&ring);
    assert_eq!(addresses(&records), [3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(lost(&records), 2);
}

#[test]
fn a_record_that_fits_into_no_ring_is_lost_and_the_others_stay() {
    let ring = recorder(5);
    assert!(ring.push(&header(1, 0, 0, RecordState::Published), &[]));
    assert!(!ring.push(&header(2, 0, 300, RecordState::Published), &[0; 300]));
    let records = read_all(&ring);
    assert_eq!((addresses(&records), lost(&records)), (vec![1], 1));
}

#[test]
fn what_comes_while_it_is_frozen_is_counted() {
    for newest in [false, true] {
        let ring = Ring::new(6).unwrap();
        ring.set_mode(MODE_NEWEST, newest);
        assert!(ring.push(&header(1, 0, 0, RecordState::Published), &[]));
        ring.set_mode(MODE_FROZEN, true);
        assert!(!ring.push(&header(2, 0, 0, RecordState::Published), &[]));
        ring.set_mode(MODE_FROZEN, false);
        assert!(ring.push(&header(3, 0, 0, RecordState::Published), &[]));
        let records = read_all(&ring);
        assert_eq!((addresses(&records), lost(&records)), (vec![1, 3], 1));
    }
}

/// What `save` leaves, parsed.
fn saved(ring: &Ring, room: usize) -> Vec<(Header, Vec<u8>)> {
    let mut out = vec![0; room];
    let written = ring.save(3, &mut out);
    let mut rest = &out[..written];
    let mut records = Vec::new();
    while !rest.is_empty() {
        let header = Header::parse(rest).expect("a whole record");
        records.push((header, rest[Header::SIZE..][..header.elements as usize].to_vec()));
        rest = &rest[header.length as usize..];
    }
    records
}

#[test]
fn saving_keeps_the_newest_that_fit_and_leaves_the_ring_as_it_is() {
    let ring = Ring::new(8).unwrap();
    for number in 1..=5 {
        let state = match number {
            2 => RecordState::Discarded,
            5 => RecordState::Provisional,
            _ => RecordState::Published,
        };
        assert!(ring.push(&header(number, 0, 0, state), &[]));
    }
    let all = saved(&ring, 5 * Header::SIZE);
    assert_eq!((addresses(&all), lost(&all)), (vec![1, 3, 4, 5], 0));
    let states: Vec<u32> = all.iter().map(|(header, _)| header.state).collect();
    assert_eq!(states, [2, 2, 2, 1]);
    let some = saved(&ring, 3 * Header::SIZE + 8);
    assert_eq!((addresses(&some), lost(&some)), (vec![4, 5], 2));
    assert!(saved(&ring, Header::SIZE - 1).is_empty());
    assert_eq!(addresses(&read_all(&ring)), [1, 3, 4]);
}

#[test]
fn a_flight_recorder_that_is_read_while_it_is_written_tears_no_record_and_counts_all() {
    let (pushed, read, lost) = written_while_read(&recorder(9));
    assert_eq!(pushed, RECORDS);
    assert_eq!(read + lost, RECORDS);
}
