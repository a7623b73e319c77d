//! `dprobes run` as a process: what it prints, for people and for programs.

use std::path::Path;
use std::process::{Command, Output};

use pretty_assertions::assert_eq;

fn examples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dprobes"))
        .current_dir(examples())
        .env("LC_ALL", "C")
        .arg("run")
        .args(args)
        .output()
        .unwrap()
}

/// Standard output of a run that succeeds.
#[track_caller]
fn stdout(args: &[&str]) -> String {
    let output = run(args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

/// Is the output that of the file? With `GOLDEN=write` in the environment the file is written instead.
#[track_caller]
fn assert_golden(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(expected, text, "{file} differs");
}

/// Names the victim, is another file, has a name that is not there.
const INJECT: &[&str] = &[
    "inject.rpn",
    "--mem",
    "0x2000=\"/victim\"",
    "--mem",
    "0x3000=\"/etc/passwd\"",
    "--hit",
    "rsi=0x2000",
    "--hit",
    "rsi=0x3000,pid=7,name=cat,cpu=1",
    "--hit",
    "1",
];

#[test]
fn each_instruction_is_shown_with_the_stack() {
    let text = stdout(&[INJECT, &["--step"]].concat());
    assert_golden("run-step.txt", &text);
}

#[test]
fn without_steps_only_what_came_of_it_is_shown() {
    let steps = stdout(&[INJECT, &["--step"]].concat());
    let without: String = stdout(INJECT);
    // An instruction begins with its line, what it raised is below.
    let is_step = |line: &str| line.starts_with("     ");
    let rest: String = steps.split_inclusive('\n').filter(|line| !is_step(line)).collect();
    assert_eq!(rest, without);
}

#[test]
fn programs_read_the_same_in_json() {
    let text = stdout(&[INJECT, &["--step", "--json"]].concat());
    assert_golden("run-step.json", &text);
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["type"].is_string(), "{line}");
    }
}

#[test]
fn variables_stay_and_limits_hold() {
    let first = ["first-failure.rpn", "-D", "RET=0x6e", "--regs", "rax=-2,rsp=0x5000"];
    let memory = ["--mem", "0x5000=zeros:64", "--vars", "failures=8", "--repeat", "3"];
    assert_golden("run-repeat.txt", &stdout(&[&first[..], &memory[..]].concat()));
}

#[test]
fn what_cannot_be_is_refused() {
    for (args, code, message) in [
        (&["--probe", "7"][..], 1, "the program has no probe with minor code 7"),
        (&["--vars", "x=1"], 1, "the program has no variable x"),
        (
            &["--mem", "0=00", "--rom", "0=00"],
            1,
            "the memory at 0x0 overlaps the memory at 0x0",
        ),
        (
            &["--mem", "0=@absent"],
            1,
            "cannot read absent: No such file or directory",
        ),
        (&["--regs", "rxa=1"], 2, "`rxa` is not a register"),
        (&["--mem", "0=xx"], 2, "`xx` is not memory"),
        (&["--hit", "pid=x"], 2, "`x` is no number of 64 bits"),
        (&["--repeat", "0"], 2, "0 is not in 1.."),
        (&["--probe", "1", "--hit", "1"], 2, "cannot be used with"),
    ] {
        let output = run(&[&["openat.rpn"], args].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(message), "{args:?}: {said}");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    }
}
