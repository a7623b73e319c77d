//! `dprobes fmt` as a process.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use pretty_assertions::assert_eq;

const UNTIDY: &str = "name=\"kernel\"\noffset=f // here\npush r,rax\n";
const TIDY: &str = "name    = \"kernel\"\noffset    = f                   // here\n        push    r, rax\n";

/// Exit code, standard output, standard error.
fn dprobes(folder: &Path, args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dprobes"))
        .current_dir(folder)
        .arg("fmt")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn nothing() -> (Option<i32>, String, String) {
    (Some(0), String::new(), String::new())
}

#[test]
fn files_are_formatted_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("a.rpn"), folder.path().join("link.rpn"));
    fs::write(&file, UNTIDY).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("a.rpn", &link).unwrap();

    assert_eq!(
        dprobes(folder.path(), &["--stdout", "a.rpn"], ""),
        (Some(0), TIDY.into(), String::new())
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), UNTIDY);

    assert_eq!(dprobes(folder.path(), &["link.rpn"], ""), nothing());
    assert_eq!(fs::read_to_string(&file).unwrap(), TIDY);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        2,
        "nothing is left behind"
    );

    // What is formatted is not written again.
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(dprobes(folder.path(), &["a.rpn"], ""), nothing());
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written);
    assert_eq!(dprobes(folder.path(), &["--check", "a.rpn", "link.rpn"], ""), nothing());
}

#[test]
fn standard_input_goes_to_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    for args in [&[][..], &["-"], &["--stdout", "-"]] {
        assert_eq!(
            dprobes(folder.path(), args, UNTIDY),
            (Some(0), TIDY.into(), String::new())
        );
    }
    assert_eq!(dprobes(folder.path(), &["--check"], TIDY), nothing());
}

#[test]
fn check_says_what_is_not_formatted_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("a.rpn", TIDY),
        ("b.rpn", UNTIDY),
        ("c.rpn", &*TIDY.replace('\n', "\r\n")),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let (code, stdout, stderr) = dprobes(folder.path(), &["--check", "a.rpn", "b.rpn", "c.rpn"], "");
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    let expected = r#"error: b.rpn is not formatted
 --> b.rpn:1:1
  |
1 | name="kernel"
  | ^^^^^^^^^^^^^ should be `name    = "kernel"`
  |
  = help: format it with `dprobes fmt b.rpn`

error: c.rpn is not formatted
 --> c.rpn:1:1
  |
1 | name    = "kernel"
  | ^^^^^^^^^^^^^^^^^^ the end of the line differs
  |
  = help: format it with `dprobes fmt c.rpn`
"#;
    assert_eq!(stderr, expected);
    assert_eq!(fs::read_to_string(folder.path().join("b.rpn")).unwrap(), UNTIDY);
}

#[test]
fn what_is_no_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.dpo"), b"DPROBES\x1a").unwrap();
    fs::write(folder.path().join("b.rpn"), b"exit\n\xff").unwrap();
    let refused = |args: &[&str], why: &str| {
        let (code, stdout, stderr) = dprobes(folder.path(), args, "");
        assert_eq!((code, stdout.as_str()), (Some(1), ""));
        assert!(stderr.contains(why), "{stderr}");
    };
    refused(&["a.dpo"], "a.dpo is an object, not text");
    refused(&["b.rpn"], "b.rpn is neither a program in UTF-8 nor an object");
    refused(&["none.rpn"], "cannot read none.rpn: No such file or directory");
    assert_eq!(dprobes(folder.path(), &["--check", "--stdout"], "").0, Some(2));
}
