//! Runs the tests of a test kernel and reports them.
//!
//! A test fails by panicking or by a trap that nobody handles. Nothing can be unwound here, so the first failure ends the run.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use spin::Once;

use crate::exit::{Verdict, exit};
use crate::info::boot_info;
use crate::println;

/// One test: its name and its function.
pub type Test = (&'static str, fn());

struct Progress {
    current: &'static str,
    left: usize,
}

static TESTS: Once<&'static [Test]> = Once::new();
static CURRENT: AtomicUsize = AtomicUsize::new(NONE);
static PASSED: AtomicUsize = AtomicUsize::new(0);
static FAILING: AtomicBool = AtomicBool::new(false);

const NONE: usize = usize::MAX;

/// Whether the command line selects a test: no words, or one that is part of the name.
fn selected(name: &str) -> bool {
    let mut words = boot_info().command_line().split_ascii_whitespace().peekable();
    words.peek().is_none() || words.any(|word| name.contains(word))
}

/// Runs the tests that the command line selects, in order, and ends the run. Called by [`crate::test_main!`].
pub fn run_tests(tests: &'static [Test]) -> ! {
    TESTS.call_once(|| tests);
    let count = tests.iter().filter(|(name, _)| selected(name)).count();
    println!("running {count} tests on {} CPUs", crate::smp::cpu_count());
    for (index, (name, test)) in tests.iter().enumerate() {
        if !selected(name) {
            continue;
        }
        CURRENT.store(index, Ordering::Relaxed);
        crate::print!("test {name} ... ");
        test();
        println!("ok");
        PASSED.fetch_add(1, Ordering::Relaxed);
    }
    CURRENT.store(NONE, Ordering::Relaxed);
    match tests.len() - count {
        0 => println!("{count} passed, 0 failed"),
        filtered => println!("{count} passed, 0 failed, {filtered} filtered out"),
    }
    exit(Verdict::Passed)
}

fn progress() -> Option<Progress> {
    let tests = TESTS.get()?;
    let index = CURRENT.load(Ordering::Relaxed);
    let (current, _) = tests.get(index)?;
    let left = tests[index + 1..].iter().filter(|(name, _)| selected(name)).count();
    Some(Progress { current, left })
}

/// Ends the run as failed, after the reason has been printed. The first CPU to come here decides; others stop.
pub(crate) fn failed() -> ! {
    if FAILING.swap(true, Ordering::AcqRel) {
        exit(Verdict::Panicked);
    }
    match progress() {
        Some(Progress { current, left }) => {
            println!("test {current} ... FAILED");
            println!("{} passed, 1 failed, {left} not run", PASSED.load(Ordering::Relaxed));
            exit(Verdict::Failed)
        }
        None => exit(Verdict::Panicked),
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("\nCPU {} {info}", crate::percpu::cpu_id());
    failed()
}

/// Makes a file of `tests/` a kernel that runs the functions named, in order.
///
/// ```ignore
/// #![no_std]
/// #![no_main]
///
/// bootimage::test_main! { tests: [adds] }
///
/// fn adds() {
///     assert_eq!(1 + 1, 2);
/// }
/// ```
///
/// A first item `requires: "cpus=4 memory_mib=512 cpu_model=qemu64 time_limit_s=120"`, each part optional, tells the runner which machine to boot it on.
/// Without it: 2 CPUs of model `max`, 256 MiB, 60 s.
#[macro_export]
macro_rules! test_main {
    (requires: $requires:literal, tests: $tests:tt $(,)?) => {
        const _: () = {
            const TEXT: &str = concat!($requires, "\n");
            #[used]
            #[unsafe(link_section = ".runner")]
            static REQUIREMENTS: [u8; TEXT.len()] = *TEXT.as_bytes().first_chunk().unwrap();
        };
        $crate::test_main!(tests: $tests);
    };
    (tests: [$($test:ident),* $(,)?] $(,)?) => {
        $crate::main!(|| $crate::harness::run_tests(&[$((stringify!($test), $test as fn())),*]));
    };
}

/// Makes a program a kernel that runs `$main`, a `fn() -> !`, on the first CPU once everything is up.
#[macro_export]
macro_rules! main {
    ($main:expr) => {
        #[unsafe(no_mangle)]
        fn bootimage_main() -> ! {
            let main: fn() -> ! = $main;
            main()
        }
    };
}
