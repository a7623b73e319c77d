//! Counting tests: what libtest and the guests print, added up.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed and failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, and test programs that died before they could say so.
    pub failed: u64,
}

impl Tally {
    /// Adds up every closing line in the output of test programs: libtest's `test result: ok. 3 passed; 1 failed; ...` and the
    /// guests' `3 passed, 1 failed`.
    pub fn of(output: &str) -> Self {
        let mut sum = Self::default();
        for tally in output.lines().filter_map(closing_line) {
            sum += tally;
        }
        sum
    }

    /// The tally of a test run whose exit status is known as well. A program that failed without counting a failure (it crashed,
    /// was killed or did not build) counts as one failure: a failed run is never a pass.
    pub fn of_run(output: &str, success: bool) -> Self {
        let mut tally = Self::of(output);
        if !success && tally.failed == 0 {
            tally.failed = 1;
        }
        tally
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

fn closing_line(line: &str) -> Option<Tally> {
    let line = line.trim();
    let (counts, separator) = match line.strip_prefix("test result: ") {
        Some(rest) => (rest.split_once(". ")?.1, "; "),
        None => (line, ", "),
    };
    let mut counts = counts.split(separator);
    let passed = counts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = counts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some(Tally { passed, failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_and_guests_are_added_up() {
        let output = "\
running 2 tests
test a ... ok
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 3 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
[cpu1] up
5 passed, 1 failed\r
";
        assert_eq!(Tally::of(output), Tally { passed: 10, failed: 5 });
    }

    #[test]
    fn other_lines_do_not_count() {
        let output = "said: 5 passed, 1 failed\n5 passed\n-1 passed, 0 failed\ntest result: ok\n 1 passed; 2 failed\n";
        assert_eq!(Tally::of(output), Tally::default());
    }

    #[test]
    fn a_run_that_died_is_a_failure() {
        assert_eq!(Tally::of_run("", false), Tally { passed: 0, failed: 1 });
        assert_eq!(
            Tally::of_run("3 passed, 0 failed", false),
            Tally { passed: 3, failed: 1 }
        );
        assert_eq!(
            Tally::of_run("3 passed, 2 failed", false),
            Tally { passed: 3, failed: 2 }
        );
        assert_eq!(
            Tally::of_run("3 passed, 0 failed", true),
            Tally { passed: 3, failed: 0 }
        );
    }
}
