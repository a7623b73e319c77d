//! `test`: everything that proves something.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::progress::Progress;
use crate::tally::Tally;
use crate::workspace::Workspace;

/// Run the tests: on the host, on bare metal in QEMU, on Linux in QEMU
#[derive(Args)]
#[command(
    after_help = "Examples:\n  ./x test                everything\n  ./x test host           the host tests\n  \
    ./x test host decode    host tests whose name contains \"decode\"\n  ./x test metal fires    test kernels whose name contains \
    \"fires\"\n\nThe last line is `N passed, N failed`."
)]
pub struct Arguments {
    /// Which tests; all of them by default
    #[arg(value_enum)]
    place: Option<Place>,

    /// Only tests whose name contains this
    #[arg(requires = "place")]
    filter: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Place {
    /// Ordinary tests, on this machine
    Host,
    /// Kernels of their own, in QEMU
    Metal,
}

/// Runs the tests and prints how many passed.
pub fn run(workspace: &Workspace, progress: &mut Progress, arguments: &Arguments) -> Result<()> {
    let wanted = |place| arguments.place.is_none_or(|only| only == place);
    let filter = arguments.filter.as_deref();
    let mut tally = Tally::default();
    if wanted(Place::Host) {
        tally += host(workspace, progress, filter)?;
    }
    if wanted(Place::Metal) {
        tally += bare_metal(workspace, progress, filter)?;
    }
    println!("{tally}");
    if tally.failed > 0 {
        bail!("tests failed");
    }
    if tally.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

fn host(workspace: &Workspace, progress: &mut Progress, filter: Option<&str>) -> Result<Tally> {
    let mut tally = Tally::default();
    for package in workspace.host_packages() {
        let mut cargo = workspace.host_cargo("test");
        cargo.args(["--no-fail-fast", "--package", &package.name]);
        if let Some(filter) = filter {
            cargo.args(["--", filter]);
        }
        let output = progress.attempt(&format!("host tests of {}", package.name), &mut cargo)?;
        tally += Tally::of_run(&output.text, output.success);
    }
    Ok(tally)
}

/// The kernels in tests/, each booted by the runner that `.cargo/config.toml` names.
fn bare_metal(workspace: &Workspace, progress: &mut Progress, filter: Option<&str>) -> Result<Tally> {
    let mut cargo = workspace.bare_metal_cargo("test");
    cargo.arg("--no-fail-fast");
    if let Some(filter) = filter {
        cargo.args(["--test", &format!("*{filter}*")]);
    }
    let output = progress.attempt("bare-metal tests", &mut cargo)?;
    Ok(Tally::of_run(&output.text, output.success))
}
