//! The table of what each instruction does: kernel code and this program must agree, to the byte.

use std::fs;

use conformance::{CASES, run_all};

use crate::machine::Module;
use crate::{Outcome, Tests, ensure};

pub const TESTS: &Tests = &[(
    "the_kernel_does_what_user_space_does",
    the_kernel_does_what_user_space_does,
)];

fn the_kernel_does_what_user_space_does() -> Outcome {
    let here = run_all(|_, _| ());
    // It runs the table when it is loaded.
    let _module = Module::load("dprobes_conformance", "")?;
    let parameter = |name: &str| -> Result<u64, libtest_mimic::Failed> {
        let text = fs::read_to_string(format!("/sys/module/dprobes_conformance/parameters/{name}"))?;
        Ok(text.trim().parse()?)
    };
    let (cases, failed, digest) = (parameter("cases")?, parameter("failed")?, parameter("digest")?);
    println!("{cases} cases, digest {digest:#x}");
    ensure!(
        failed == 0 && here.failed == 0,
        "{failed} cases failed in the kernel, {} here",
        here.failed
    );
    ensure!(
        cases == here.cases && cases == CASES.len() as u64,
        "{cases} cases in the kernel, {} here",
        here.cases
    );
    ensure!(
        digest == here.digest,
        "digest {digest:#x} in the kernel, {:#x} here",
        here.digest
    );
    Ok(())
}
