//! Boots a kernel that ends in every way there is, and compares what is reported.

use std::env;
use std::io::sink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use runner::{Error, Machine, Outcome, Report};

/// `kernels/endings.rs`, built for bare metal by the checkout's own toolchain.
static KERNEL: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the runner is in bootimage/runner");
    // What tells this test's cargo from others must not reach the one for bare metal.
    let inherited = env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| {
            let kept = ["CARGO_HOME", "CARGO_TARGET_DIR", "RUSTUP_HOME"].contains(&name.as_str())
                || name.starts_with("CARGO_NET_");
            !kept
                && ["CARGO", "RUST", "LD_LIBRARY_PATH"]
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        });
    let cargo = if env::var_os("RUSTUP_TOOLCHAIN").is_some() {
        None
    } else {
        env::var_os("CARGO")
    };
    let mut build = Command::new(cargo.unwrap_or_else(|| "cargo".into()));
    inherited.for_each(|name| _ = build.env_remove(name));
    build.current_dir(root).env("RUSTC_BOOTSTRAP", "1").args([
        "build",
        "--quiet",
        "--package",
        "bootimage",
        "--example",
        "endings",
    ]);
    let status = build.status().expect("cargo can be started");
    assert!(status.success(), "the kernel does not build");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target));
    target.join("x86_64-target/debug/examples/endings")
});

fn machine(command_line: &str) -> Machine {
    let mut machine = Machine::new(&*KERNEL);
    machine.command_line = command_line.to_owned();
    machine
}

fn run(command_line: &str) -> Report {
    machine(command_line).run(&mut sink()).expect("QEMU runs")
}

/// Runs a test that must fail alone, and looks for what its log must say.
#[track_caller]
fn fails(test: &str, said: &[&str]) {
    let report = run(test);
    assert_eq!(
        report.outcome,
        Outcome::Failed { passed: 0, failed: 1 },
        "{}",
        report.serial
    );
    let verdict = format!("test {test} ... FAILED");
    for text in said.iter().copied().chain([verdict.as_str()]) {
        assert!(report.serial.contains(text), "no {text:?} in:\n{}", report.serial);
    }
}

#[test]
fn a_passing_kernel_passes() {
    let mut shown = Vec::new();
    let report = machine("passes").run(&mut shown).expect("QEMU runs");
    assert_eq!(report.outcome, Outcome::Passed { passed: 1 });
    assert!(report.outcome.is_success());
    assert_eq!(report.serial.as_bytes(), shown);
    assert!(report.serial.contains("test passes ... ok\n1 passed, 0 failed"));
}

#[test]
fn a_failed_assertion_is_a_failed_test() {
    let report = run("passes fails");
    assert_eq!(report.outcome, Outcome::Failed { passed: 1, failed: 1 });
    assert!(
        report.serial.contains("assertion `left == right` failed: as it should"),
        "{}",
        report.serial
    );
    fails("fails", &["left: 2", "right: 3"]);
}

#[test]
fn a_panic_on_another_cpu_is_a_failed_test() {
    fails("fails_on_another_cpu", &["CPU 1 panicked at", "not here"]);
}

#[test]
fn a_trap_that_nobody_handles_is_a_failed_test() {
    fails("traps", &["#UD invalid opcode", "rip 0xffffffff8"]);
}

#[test]
fn a_stack_overflow_is_reported() {
    fails("overflows_the_stack", &["#DF double fault"]);
}

#[test]
fn a_forbidden_allocation_is_a_failed_test() {
    fails(
        "allocates_where_forbidden",
        &["allocating 8 bytes where allocation is forbidden"],
    );
}

#[test]
fn a_panic_outside_a_test_is_a_panic() {
    for how in ["no_test_panics", "no_test_traps"] {
        let report = run(how);
        assert_eq!(report.outcome, Outcome::Panic, "{}", report.serial);
        assert!(!report.serial.is_empty());
    }
}

#[test]
fn silence_is_no_success() {
    let report = run("no_test_runs");
    assert_eq!(report.outcome, Outcome::Silence);
    assert_eq!(report.serial, "not a word about tests\n");
    let report = run("no_test_says_anything");
    assert_eq!(report.outcome, Outcome::Silence);
    assert_eq!(report.serial, "");
}

#[test]
fn a_triple_fault_is_told_from_a_reset() {
    let report = run("triple_faults");
    assert_eq!(report.outcome, Outcome::TripleFault);
    assert!(report.serial.ends_with("test triple_faults ... "));
    assert!(report.triple_fault_registers().is_some());
    let report = run("no_test_resets");
    assert_eq!(report.outcome, Outcome::Reset);
}

#[test]
fn a_hang_ends_at_the_time_limit() {
    let mut machine = machine("hangs");
    machine.time_limit = Duration::from_secs(3);
    let report = machine.run(&mut sink()).expect("QEMU runs");
    assert_eq!(
        report.outcome,
        Outcome::Hang {
            limit: machine.time_limit
        }
    );
    assert!(report.serial.ends_with("test hangs ... "), "{}", report.serial);
}

#[test]
fn a_qemu_that_cannot_run_is_an_error() {
    let mut machine = machine("passes");
    machine.extra = vec!["-no-such-option".into()];
    let report = machine.run(&mut sink()).expect("QEMU starts");
    assert_eq!(report.outcome, Outcome::Qemu { status: Some(1) });
    assert!(report.stderr.contains("no-such-option"));
    machine.qemu = "no-such-program".into();
    assert!(matches!(machine.run(&mut sink()), Err(Error::Start { .. })));
}

fn program(arguments: &[&str]) -> Output {
    let program = Command::new(env!("CARGO_BIN_EXE_runner"))
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    program.expect("the runner can be started")
}

#[test]
fn the_programs_exit_code_says_it_all() {
    let kernel = KERNEL.to_str().expect("a path in UTF-8");
    let passed = program(&[kernel, "passes"]);
    assert_eq!(passed.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&passed.stdout).contains("1 passed, 0 failed, 7 filtered out"));
    for (test, reason) in [("triple_faults", "triple fault"), ("fails_on", "0 passed, 1 failed")] {
        let failed = program(&["--cpus", "2", kernel, test]);
        assert_eq!(failed.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&failed.stdout).contains(test));
        assert!(String::from_utf8_lossy(&failed.stderr).contains(reason));
    }
    assert_eq!(program(&[]).status.code(), Some(2));
    assert_eq!(program(&["/dev/null"]).status.code(), Some(3));
}

/// The children of process `pid`.
fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Waits for `done` to give something, for 20 s at most.
fn wait_for<T>(mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(result) = done() {
            return result;
        }
        assert!(Instant::now() < deadline, "it did not happen");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn qemu_ends_with_a_killed_runner() {
    let mut runner = Command::new(env!("CARGO_BIN_EXE_runner"))
        .arg(&*KERNEL)
        .arg("hangs")
        .stdout(Stdio::null())
        .spawn()
        .expect("the runner can be started");
    let qemu = wait_for(|| children(runner.id()).pop());
    let alive = || std::fs::read_to_string(format!("/proc/{qemu}/comm")).is_ok_and(|name| name.starts_with("qemu"));
    wait_for(|| alive().then_some(()));
    runner.kill().expect("it runs");
    runner.wait().expect("it was killed");
    wait_for(|| (!alive()).then_some(()));
}
