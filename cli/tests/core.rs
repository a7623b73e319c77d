//! `dprobes core`, as gdb and eu-readelf read its dumps, which others have written. The process is the one that Linux guests dump at a probe: linux/victims/victim.c.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use pretty_assertions::assert_eq;

/// The program, compiled, in a folder.
fn victim() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("victim");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../linux/victims/victim.c");
    let built = Command::new("gcc")
        .args(["-O1", "-g", "-pthread", "-no-pie", "-fno-pie", "-o"])
        .arg(&program)
        .arg(source)
        .status()
        .expect("gcc is needed; ./x setup installs it");
    assert!(built.success());
    (folder, program)
}

fn start(program: &Path, arguments: &[&str]) -> Child {
    Command::new(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn core(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dprobes"))
        .arg("core")
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a program prints that must be content.
fn said(command: &mut Command, needed: &str) -> String {
    let output = command.env("LC_ALL", "C").output().expect(needed);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout)
}

#[test]
fn a_process_is_dumped_again_and_again_and_does_not_notice() {
    const CALLS: &str = "200000";
    let (folder, program) = victim();
    let unchanged = start(&program, &["dumped", CALLS]).wait_with_output().unwrap();

    let running = start(&program, &["dumped", CALLS]);
    let process = running.id().to_string();
    let threads = || std::fs::read_dir(format!("/proc/{process}/task")).unwrap().count();
    while threads() < 3 {
        sleep(Duration::from_millis(1));
    }
    for number in 1..=3 {
        let output = core(&[&process, "--directory", folder.path().to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        let file = folder.path().join(format!("core.{process}.{number}"));
        assert_eq!(text(&output.stdout), format!("{}\n", file.display()));
        sleep(Duration::from_millis(20));
    }
    let dumped = running.wait_with_output().unwrap();
    assert!(dumped.status.success(), "{dumped:?}");
    assert_eq!(text(&dumped.stdout), text(&unchanged.stdout));

    let mut before = 0;
    for number in 1..=3 {
        let file = folder.path().join(format!("core.{process}.{number}"));
        let notes = said(
            Command::new("eu-readelf").arg("-n").arg(&file),
            "eu-readelf is needed; ./x setup installs it",
        );
        assert_eq!(notes.matches("PRSTATUS").count(), 3, "{notes}");
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-ex", "set print thread-events off"])
            .args(["-ex", "echo marker \\n", "-ex", "output marker"])
            .args(["-ex", "echo \\nexecuted \\n", "-ex", "output executed"])
            .args(["-ex", "echo \\n", "-ex", "thread apply all backtrace"])
            .arg(&program)
            .arg(&file);
        // It complains of debug information that is not installed, and before version 14 of a CPU whose XSAVE area is not laid out as Intel's.
        let output = gdb
            .env("LC_ALL", "C")
            .output()
            .expect("gdb is needed; ./x setup installs it");
        let debugger = text(&output.stdout);
        assert!(debugger.contains("\"the memory of the victim"), "{output:?}");
        let executed = debugger
            .split("\nexecuted \n")
            .nth(1)
            .and_then(|rest| rest.lines().next());
        let executed: u64 = executed.unwrap().parse().unwrap();
        assert!(executed >= before, "{executed} after {before}");
        before = executed;
        // Where the others are it may not know without the C library's debug information.
        assert!(debugger.contains("main ("), "{debugger}");
        for thread in ["\nThread 1 (", "\nThread 2 (", "\nThread 3 ("] {
            assert!(debugger.contains(thread), "{debugger}");
        }
    }
}

#[test]
fn what_cannot_be_dumped_is_said() {
    let (folder, program) = victim();
    let file = folder.path().join("core");
    let file = file.to_str().unwrap();

    let mut ended = start(&program, &["calls", "1"]);
    ended.wait().unwrap();
    let output = core(&[&ended.id().to_string(), "--output", file]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there is no process"), "{output:?}");

    // One that gdb traces, which has stopped it.
    let mut victim = start(&program, &["spin"]);
    let process = victim.id().to_string();
    let mut gdb = Command::new("gdb")
        .args([
            "-nx",
            "-batch",
            "-p",
            &process,
            "-ex",
            "echo traced \\n",
            "-ex",
            "shell sleep 100",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("gdb is needed; ./x setup installs it");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(gdb.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("traced")));
    let output = core(&[&process, "--output", file]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        message.contains(&format!("process {} traces thread {process} already", gdb.id())),
        "{message}"
    );
    gdb.kill().unwrap();
    gdb.wait().unwrap();

    // A file that is there.
    std::fs::write(file, "old").unwrap();
    let output = core(&[&process, "--output", file]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot write"), "{output:?}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "old");
    victim.kill().unwrap();
    victim.wait().unwrap();
}
