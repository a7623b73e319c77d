//! `dprobes log` as a process: streams that end, streams that go on, readers that go away.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::{lost, record, record_of};
use rustix::process::{Pid, Signal, kill_process};

fn log(device: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dprobes"));
    command
        .arg("log")
        .arg("--device")
        .arg(device)
        .args(args)
        .env("LC_ALL", "C");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs `dprobes log` on a saved stream.
fn log_saved(stream: &[u8], args: &[&str]) -> (String, Output) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stream");
    std::fs::write(&file, stream).unwrap();
    let output = log(&file, args).output().unwrap();
    (String::from_utf8(output.stdout.clone()).unwrap(), output)
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_stream_that_ends_is_printed_by_time() {
    let stream = [
        record(1, 3_000_000_000, 0, "third"),
        record(1, 4_000_000_000, 0, "fourth"),
        lost(1, 5),
        record(2, 1_000_000_000, 1, "first"),
        record(2, 2_000_000_000, 1, "second"),
    ]
    .concat();
    let (text, output) = log_saved(&stream, &[]);
    assert_eq!(
        text,
        "\
1.2     cpu 1        1.000000  42 cat  \"first\"
1.2     cpu 1        2.000000  42 cat  \"second\"
1.1     cpu 0        3.000000  42 cat  \"third\"
1.1     cpu 0        4.000000  42 cat  \"fourth\"
LOST 5 records on cpu 1: its ring was full
"
    );
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn json_is_one_object_a_line() {
    let (text, _) = log_saved(&[record(1, 1, 0, "a\u{9b}"), lost(0, 2)].concat(), &["--json"]);
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["elements"][0]["text"], "a\u{9b}");
    assert_eq!(lines[1], serde_json::json!({"type": "lost", "cpu": 0, "count": 2}));
    assert!(text.is_ascii());
}

/// The symbols of the kernel that runs here are not those of the kernel that a saved stream came from.
#[test]
fn addresses_in_a_saved_stream_are_named_by_a_list_that_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("symbols");
    std::fs::write(&list, "ffffffff81200000 T do_sys_openat2\nffffffff81200080 T next\n").unwrap();
    let stack = [
        &[8, 2, 0][..],
        &0xffff_ffff_8120_0009_u64.to_le_bytes(),
        &0xffff_ffff_8120_0080_u64.to_le_bytes(),
    ]
    .concat();
    let stream = record_of(1, 1, 0, &stack);
    let (text, _) = log_saved(&stream, &[]);
    assert!(
        text.ends_with("\n        ffffffff81200009\n        ffffffff81200080\n"),
        "{text}"
    );
    let (text, _) = log_saved(&stream, &["--kallsyms", list.to_str().unwrap()]);
    assert!(
        text.ends_with(
            "\n        ffffffff81200009  do_sys_openat2+0x9\n        ffffffff81200080  do_sys_openat2+0x80\n"
        ),
        "{text}"
    );
    let (_, output) = log_saved(&stream, &["--kallsyms", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn count_ends_it_and_says_what_is_not_shown() {
    let stream = [
        record(1, 1, 0, "one"),
        lost(0, 9),
        record(1, 2, 0, "two"),
        record(1, 3, 0, "three"),
    ]
    .concat();
    let (text, output) = log_saved(&stream, &["--count", "1"]);
    assert_eq!(text.lines().filter(|line| line.starts_with("1.1")).count(), 1, "{text}");
    assert_eq!(stderr(&output), "2 more had been read already and are not shown\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn damage_is_an_error_after_what_is_good() {
    let whole = record(1, 1, 0, "good");
    let cut = [&whole[..], &whole[..40]].concat();
    let (text, output) = log_saved(&cut, &[]);
    assert!(text.ends_with("\"good\"\n"), "{text}");
    assert!(
        stderr(&output).contains("ends inside the record at byte 80"),
        "{}",
        stderr(&output)
    );
    assert_eq!(output.status.code(), Some(1));

    let garbage = [&whole[..], &[0xa5; 100]].concat();
    let (text, output) = log_saved(&garbage, &[]);
    assert!(text.ends_with("\"good\"\n"), "{text}");
    assert!(stderr(&output).contains("damaged at byte 80"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(1));
}

/// `dprobes log --follow` on a pipe that stays open.
struct Following {
    child: Child,
    stream: File,
    out: BufReader<std::process::ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Following {
    fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        // For reading too, so that the pipe has a writer before the command reads it.
        let stream = File::options().read(true).write(true).open(&pipe).unwrap();
        let mut child = log(&pipe, args).arg("--follow").spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Following {
            child,
            stream,
            out,
            _folder: folder,
        }
    }

    fn log(&mut self, text: &str) {
        self.stream.write_all(&record(1, 1, 0, text)).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    /// What it said on standard error, and its exit code.
    fn end(mut self) -> (String, Option<i32>) {
        let code = self.child.wait().unwrap().code();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (text, code)
    }
}

#[test]
fn records_are_printed_as_they_arrive_until_it_is_interrupted() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut following = Following::start(&[]);
        for text in ["one", "two"] {
            following.log(text);
            assert!(following.line().ends_with(&format!("\"{text}\"\n")));
        }
        // Half a record is waited for.
        let whole = record(1, 1, 0, "three");
        following.stream.write_all(&whole[..50]).unwrap();
        following.stream.write_all(&whole[50..]).unwrap();
        assert!(following.line().ends_with("\"three\"\n"));
        kill_process(Pid::from_child(&following.child), signal).unwrap();
        assert_eq!(following.end(), (String::new(), Some(0)));
    }
}

#[test]
fn count_ends_it_while_the_stream_goes_on() {
    let mut following = Following::start(&["-n", "2"]);
    following.log("one");
    following.log("two");
    assert!(following.line().ends_with("\"one\"\n"));
    assert!(following.line().ends_with("\"two\"\n"));
    assert_eq!(following.end().1, Some(0));
}

#[test]
fn it_ends_quietly_when_nobody_reads_it_any_more() {
    let mut following = Following::start(&[]);
    following.log("one");
    assert!(following.line().ends_with("\"one\"\n"));
    // Without another record: it is to notice by itself.
    following.out = BufReader::new(replaced_stdout());
    assert_eq!(following.end(), (String::new(), Some(0)));
}

/// The output of another process, to drop that of the one under test.
fn replaced_stdout() -> std::process::ChildStdout {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    child.wait().unwrap();
    child.stdout.take().unwrap()
}
