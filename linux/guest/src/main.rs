//! Tests of the Linux module on a running kernel. They load and unload it, hammer it, and try to hurt it: run them in a guest,
//! as root. `./x test linux` does.
//!
//! The modules are looked for in the folder that `DPROBES_MODULES` names, by default `/root`. Output and arguments are those
//! of `cargo test`: the part of a name selects tests.
//!
//! The module under test is loaded with the parameters in `DPROBES_PARAMETERS`, if that is set.
//!
//! Each test loads the module and unloads it again, so that a module that cannot be unloaded fails the test that broke it.

mod batch;
mod conformance;
mod counts;
mod device;
mod emergency;
mod faults;
mod inserting;
mod kernel_log;
mod live;
mod machine;
mod mapped;
mod maps;
mod modules;
mod patched;
mod program;
mod random;
mod records;
mod refusals;
mod requests;
mod safety;
mod soak;
mod sweep;
mod unloading;
mod values;
mod watch;
mod workload;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// What a test returns: nothing, or what was not as it should be.
type Outcome = Result<(), libtest_mimic::Failed>;

/// The tests of a module, by name.
type Tests = [(&'static str, fn() -> Outcome)];

/// Fails the test with a message unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+).into());
        }
    };
}

fn main() -> ExitCode {
    if let Some(code) = requests::as_a_child()
        .or_else(faults::as_a_child)
        .or_else(patched::as_a_child)
    {
        return code;
    }
    if let Some(code) = inserting::as_a_benchmark() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // There is one kernel.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for (module, tests) in [
        ("requests", requests::TESTS),
        ("refusals", refusals::TESTS),
        ("records", records::TESTS),
        ("mapped", mapped::TESTS),
        ("values", values::TESTS),
        ("counts", counts::TESTS),
        ("maps", maps::TESTS),
        ("watch", watch::TESTS),
        ("conformance", conformance::TESTS),
        ("modules", modules::TESTS),
        ("unloading", unloading::TESTS),
        ("emergency", emergency::TESTS),
        ("safety", safety::TESTS),
        ("faults", faults::TESTS),
        ("patched", patched::TESTS),
        ("sweep", sweep::TESTS),
        ("batch", batch::TESTS),
        ("soak", soak::TESTS),
        ("live", live::TESTS),
        ("random", random::TESTS),
    ] {
        for &(name, test) in tests {
            trials.push(Trial::test(format!("{module}::{name}"), test));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
