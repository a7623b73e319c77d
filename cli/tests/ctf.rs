//! `dprobes log --format ctf`, as babeltrace2 reads it, which others have written.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{lost, record, record_of};

fn log(stream: &[u8], to: &Path, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stream");
    std::fs::write(&file, stream).unwrap();
    Command::new(env!("CARGO_BIN_EXE_dprobes"))
        .args(["log", "--format", "ctf", "--output"])
        .arg(to)
        .arg("--device")
        .arg(&file)
        .args(args)
        .env("LC_ALL", "C")
        .output()
        .unwrap()
}

fn written(stream: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let output = log(stream, folder.path(), &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    folder
}

/// What babeltrace2 prints of a trace: events, and messages.
fn babeltrace(trace: &Path) -> (String, String) {
    let output = Command::new("babeltrace2")
        .args(["--clock-seconds", "--no-delta"])
        .arg(trace)
        .env("LC_ALL", "C")
        .output()
        .expect("babeltrace2 is needed; ./x setup installs it");
    assert!(output.status.success(), "{output:?}");
    (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn words(token: u8, words: &[u64]) -> Vec<u8> {
    let mut element = vec![token, words.len() as u8, 0];
    element.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    element
}

#[test]
fn every_kind_of_element_is_read_with_its_type() {
    let elements = [
        vec![0, 2, 0, 0xab, 0x01],
        [&[1, 7, 0][..], "Größe".as_bytes()].concat(),
        words(2, &[7, 1, 2, 30, u64::MAX]),
        words(3, &[12, 40]),
        words(4, &[5]),
        words(5, &[6, 7]),
        words(6, &[]),
        words(7, &[0xffff_ffff_8120_0009, 3]),
        words(8, &[0xffff_ffff_8100_0000]),
        words(9, &[0x0040_1000]),
        words(0xff, &[0x10]),
    ];
    // The count of an address that could not be read is in bytes.
    let mut elements = elements.concat();
    let fault = elements.len() - 10;
    elements[fault] = 8;
    elements.extend([10, 9, 9]);
    let trace = written(&record_of(2, 1_500_000_000, 1, &elements));
    let (events, messages) = babeltrace(trace.path());
    assert_eq!(messages, "");
    assert_eq!(
        events,
        "[1.500000000] dprobes:record: { cpu_id = 1 }, { major = 1, minor = 2, address = 0xFFFFFFFF81200009, pid = 42, tid = 42, \
         uid = 0, provisional = 0, process = \"cat\", count = 12, elements = [ \
         [0] = { kind = ( \"memory\" : container = 0 ), value = { { length = 2, bytes = [ [0] = 0xAB, [1] = 0x1 ] } } }, \
         [1] = { kind = ( \"text\" : container = 1 ), value = { { length = 7, text = \"Größe\" } } }, \
         [2] = { kind = ( \"rpn_trace\" : container = 2 ), value = { { code = 0x7, parm1 = 0x1, parm2 = 0x2, offset = 30, handler = -1 } } }, \
         [3] = { kind = ( \"routine\" : container = 3 ), value = { { called = 12, back = 40 } } }, \
         [4] = { kind = ( \"rpn_stack\" : container = 4 ), value = { { count = 1, words = [ [0] = 0x5 ] } } }, \
         [5] = { kind = ( \"locals\" : container = 5 ), value = { { count = 2, words = [ [0] = 0x6, [1] = 0x7 ] } } }, \
         [6] = { kind = ( \"globals\" : container = 6 ), value = { { count = 0, words = [ ] } } }, \
         [7] = { kind = ( \"words\" : container = 7 ), value = { { count = 2, words = [ [0] = 0xFFFFFFFF81200009, [1] = 0x3 ] } } }, \
         [8] = { kind = ( \"kernel_stack\" : container = 8 ), value = { { count = 1, addresses = [ [0] = 0xFFFFFFFF81000000 ] } } }, \
         [9] = { kind = ( \"user_stack\" : container = 9 ), value = { { count = 1, addresses = [ [0] = 0x401000 ] } } }, \
         [10] = { kind = ( \"fault\" : container = 10 ), value = { { address = 0x10 } } }, \
         [11] = { kind = ( \"damaged\" : container = 11 ), value = { { length = 3, bytes = [ [0] = 0xA, [1] = 0x9, [2] = 0x9 ] } } } ] }\n"
    );
}

#[test]
fn streams_of_several_cpus_are_merged_and_losses_told() {
    let stream = [
        record(1, 3_000_000_000, 0, "third"),
        record(1, 4_000_000_000, 0, "fourth"),
        lost(1, 5),
        record(2, 1_000_000_000, 1, "first"),
        lost(1, 2),
        record(2, 2_000_000_000, 1, "second"),
        lost(0, 9),
    ]
    .concat();
    let trace = written(&stream);
    let (events, messages) = babeltrace(trace.path());
    let order: Vec<&str> = events
        .lines()
        .map(|line| line.split("text = \"").nth(1).unwrap().split('"').next().unwrap())
        .collect();
    assert_eq!(order, ["first", "second", "third", "fourth"]);
    let discarded: Vec<u64> = messages
        .lines()
        .filter_map(|line| line.split("discarded ").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(discarded.iter().sum::<u64>(), 16, "{messages}");
}

#[test]
fn time_that_goes_back_on_a_cpu_is_no_error() {
    let stream = [record(1, 2_000, 0, "a"), record(1, 1_990, 0, "b")].concat();
    let (events, messages) = babeltrace(written(&stream).path());
    assert_eq!((events.lines().count(), messages.as_str()), (2, ""));
    assert!(events.lines().all(|line| line.starts_with("[0.000002000]")), "{events}");
}

#[test]
fn no_record_is_a_trace_without_events() {
    let trace = written(&[]);
    assert!(trace.path().join("metadata").exists());
    assert_eq!(babeltrace(trace.path()).0, "");
}

#[test]
fn a_folder_with_something_in_it_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "x").unwrap();
    let output = log(&record(1, 1, 0, "a"), folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.to_lowercase().contains("not empty"), "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_folder_must_be_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_dprobes"))
        .args(["log", "--format", "ctf"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_was_good_is_written_before_damage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let stream = [record(1, 1, 0, "good"), vec![0xa5; 100]].concat();
    let output = log(&stream, folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(babeltrace(folder.path()).0.lines().count(), 1);
    let counted = tempfile::tempdir().unwrap();
    let three = [record(1, 1, 0, "a"), record(1, 2, 0, "b"), record(1, 3, 0, "c")].concat();
    let output = log(&three, counted.path(), &["--count", "2"]);
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "1 more had been read already and are not shown\n"
    );
    assert_eq!(babeltrace(counted.path()).0.lines().count(), 2);
}
