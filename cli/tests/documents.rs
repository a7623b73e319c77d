//! What the documents say a command prints, it prints.
//!
//! Blocks of kind `console` have commands, each behind `$`, with what they print; here they run in the folder of the examples. (Behind `#` they are
//! of a machine with the module loaded, and left alone.) Blocks of kind `rpn-run` have examples of instructions; see `docs/language.md`.
//!
//! With `GOLDEN=write` in the environment what they print is written into the documents instead.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dprobes::rpn::object::Object;
use dprobes::rpn::op::Op;
use pretty_assertions::assert_eq;
use rpn_asm::{Options, assemble};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A piece of a document: a block of code of some kind, or the text between two.
struct Part {
    /// What stands behind the back quotes; of text nothing.
    kind: Option<String>,
    /// All its lines, those with the back quotes too.
    text: String,
}

impl Part {
    fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }
}

fn parts(document: &str) -> Vec<Part> {
    let text = std::fs::read_to_string(root().join(document)).unwrap();
    let mut parts: Vec<Part> = Vec::new();
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        let fence = line.strip_prefix("```");
        if fence.is_some() && !inside || parts.is_empty() {
            parts.push(Part {
                kind: fence.map(|kind| kind.trim().to_owned()),
                text: String::new(),
            });
        }
        parts.last_mut().unwrap().text.push_str(line);
        if fence.is_some() {
            inside = !inside;
            if !inside {
                let (kind, text) = (None, String::new());
                parts.push(Part { kind, text });
            }
        }
    }
    assert!(!inside, "a block of {document} does not end");
    parts
}

/// Compares the document that the parts make with the one that is there, or writes it.
#[track_caller]
fn assert_document(document: &str, parts: &[Part]) {
    let text: String = parts.iter().map(|part| part.text.as_str()).collect();
    let path = root().join(document);
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{document}");
}

/// What a shell prints, on either stream.
fn shell(command: &str, folder: &Path) -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_dprobes")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{command}")])
        .current_dir(folder)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A block with what its commands print now.
fn replay(block: &str) -> String {
    let mut out = String::new();
    let mut lines = block.lines().peekable();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let Some(first) = line.strip_prefix("$ ") else { continue };
        let mut command = first.to_owned();
        while command.ends_with('\\') {
            let more = lines.next().unwrap();
            out.push_str(more);
            out.push('\n');
            command.push('\n');
            command.push_str(more);
        }
        while lines
            .next_if(|line| !line.starts_with("$ ") && !line.starts_with("```"))
            .is_some()
        {}
        out.push_str(&shell(&command, &root().join("examples")));
    }
    out
}

#[track_caller]
fn commands_print_what_is_written(document: &str) {
    let mut parts = parts(document);
    let mut count = 0;
    for part in &mut parts {
        if part.is("console") && part.text.contains("\n$ ") {
            part.text = replay(&part.text);
            count += 1;
        }
    }
    assert!(count > 0, "{document} has no commands");
    assert_document(document, &parts);
}

#[test]
fn the_tutorial_is_true() {
    commands_print_what_is_written("docs/tutorial.md");
}

#[test]
fn the_examples_do_what_is_said() {
    commands_print_what_is_written("examples/README.md");
    // And each of them is there.
    let readme = std::fs::read_to_string(root().join("examples/README.md")).unwrap();
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name == "README.md" || readme.contains(&format!("$ dprobes run {name}")),
            "examples/README.md does not run {name}"
        );
    }
}

/// The content of the only block of a kind.
fn only<'a>(parts: &'a [Part], kind: &str) -> &'a str {
    let mut all = parts.iter().filter(|part| part.is(kind));
    let (Some(block), None) = (all.next(), all.next()) else {
        panic!("not one block of {kind}")
    };
    let (_, content) = block.text.split_once('\n').unwrap();
    content.strip_suffix("```\n").unwrap()
}

/// The instructions of an example in the language reference, as a program.
fn program(head: &str, example: &str) -> String {
    let last = example.rsplit(';').next().unwrap();
    let last = last.rsplit(':').next().unwrap().split_whitespace().next().unwrap();
    let exit = if ["exit", "exit_to", "abort", "remove", "ret", "rx"].contains(&last) {
        ""
    } else {
        "; exit"
    };
    format!("{head}{example}{exit}\n")
}

/// What `dprobes run` says of a hit, in a line.
fn result(output: &str) -> String {
    let mut results = Vec::new();
    for line in output.lines() {
        // A record goes on below its first line.
        if let (Some(more), Some(last)) = (line.strip_prefix("        "), results.last_mut()) {
            let last: &mut String = last;
            last.push_str(if last.ends_with(',') { " " } else { ", " });
            last.push_str(more.trim());
            continue;
        }
        let Some((what, text)) = line.strip_prefix("  ").and_then(|line| line.split_at_checked(10)) else {
            continue;
        };
        let text = text.trim();
        match what.trim() {
            "record" => {
                let (codes, rest) = text.split_once(' ').unwrap();
                let (_, elements) = rest.split_once(" cat").unwrap();
                if codes != "1.1" {
                    results.push(format!("record {codes}"));
                }
                if !elements.trim().is_empty() {
                    results.push(elements.trim().to_owned());
                }
            }
            "ended" => {
                if let Some((exception, _)) = text.split_once(" at ") {
                    results.push(exception.to_owned());
                } else {
                    let (how, _) = text.split_once(" after ").unwrap();
                    results.extend((how != "exit").then(|| how.to_owned()));
                }
            }
            "group" => results.push(format!("group {text}")),
            "changed" | "wrote" | "added" | "overflow" => results.push(text.to_owned()),
            _ => {}
        }
    }
    results.join("; ")
}

#[test]
fn every_instruction_has_an_example_and_the_examples_are_true() {
    let document = "docs/language.md";
    let mut parts = parts(document);
    let head = only(&parts, "rpn-head").to_owned();
    let options = only(&parts, "sh").replace('\n', " ");
    let folder = tempfile::tempdir().unwrap();
    let mut shown = BTreeSet::new();
    for part in parts.iter_mut().filter(|part| part.is("rpn-run")) {
        let mut out = String::new();
        let lines: Vec<&str> = part
            .text
            .lines()
            .map(|line| line.split("//").next().unwrap().trim_end())
            .collect();
        for example in lines {
            if example.starts_with("```") {
                out.push_str(&format!("{example}\n"));
                continue;
            }
            let program = program(&head, example);
            let assembled = assemble("example.rpn", &program, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
            shown.extend(ops(&assembled.object));
            std::fs::write(folder.path().join("example.rpn"), program).unwrap();
            let output = shell(&format!("dprobes run example.rpn {options} 2>&-"), folder.path());
            assert!(output.contains("  ended "), "{example}: {output}");
            let result = result(&output);
            if result.is_empty() {
                out.push_str(&format!("{example}\n"));
            } else if example.len() <= 48 {
                out.push_str(&format!("{example:48} // {result}\n"));
            } else {
                out.push_str(&format!("{example} // {result}\n"));
            }
        }
        part.text = out;
    }
    let missing: Vec<String> = Op::ALL
        .iter()
        .filter(|op| !shown.contains(op))
        .map(Op::to_string)
        .collect();
    assert!(missing.is_empty(), "no example of {missing:?}");
    assert_document(document, &parts);
}

fn ops(object: &[u8]) -> Vec<Op> {
    let object = Object::parse(object).unwrap();
    let mut ops = Vec::new();
    let mut code = object.code();
    while let Some(byte) = code.first() {
        let op = Op::from_byte(*byte).unwrap();
        ops.push(op);
        code = &code[op.size()..];
    }
    ops
}
