//! The sums over what `cargo nextest run` and `cargo test` print.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed, failed, and were there but did not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    /// With those that ran out of time or could not be started.
    pub(crate) failed: u64,
    /// Ignored, filtered out, or not begun because the run was stopped.
    pub(crate) skipped: u64,
}

impl Totals {
    pub(crate) fn ran(self) -> u64 {
        self.passed + self.failed
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Whether a line (without colour) holds totals.
pub(crate) fn is_totals(line: &str) -> bool {
    parse(line).is_some()
}

/// The sum over the lines of one command.
pub(crate) fn sum<'a>(lines: impl IntoIterator<Item = &'a String>) -> Totals {
    let mut totals = Totals::default();
    for found in lines.into_iter().filter_map(|line| parse(line)) {
        totals += found;
    }
    totals
}

fn parse(line: &str) -> Option<Totals> {
    parse_nextest(line).or_else(|| parse_cargo_test(line))
}

/// `     Summary [   0.012s] 3/4 tests run: 1 passed (1 slow), 1 failed, 1 timed out, 0 skipped`
fn parse_nextest(line: &str) -> Option<Totals> {
    let (_, counts) = line.trim_start().strip_prefix("Summary [")?.split_once(']')?;
    let (run, counts) = counts.split_once(" run: ")?;
    let mut totals = count_up(&without_parentheses(counts).replace(',', ";"))?;
    let run = run.trim_start().split(' ').next()?;
    if let Some((run, all)) = run.split_once('/') {
        let (run, all): (u64, u64) = (run.parse().ok()?, all.parse().ok()?);
        totals.skipped += all.saturating_sub(run);
    }
    Some(totals)
}

/// `test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.01s`
fn parse_cargo_test(line: &str) -> Option<Totals> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    count_up(counts)
}

/// Adds up `number words` parts between semicolons; `None` when there is not a single one.
fn count_up(counts: &str) -> Option<Totals> {
    let mut totals = Totals::default();
    let mut found = 0;
    for part in counts.split(';') {
        let Some((number, word)) = part.trim().split_once(' ') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match word {
            "passed" => totals.passed += number,
            "failed" | "timed out" | "exec failed" => totals.failed += number,
            "skipped" | "ignored" | "filtered out" => totals.skipped += number,
            _ => continue,
        }
        found += 1;
    }
    (found > 0).then_some(totals)
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0_u32;
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            other if depth == 0 => plain.push(other),
            _ => {}
        }
    }
    plain.replace(" ,", ",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(passed: u64, failed: u64, skipped: u64) -> Totals {
        Totals { passed, failed, skipped }
    }

    #[test]
    fn nextest_summary_is_read() {
        assert_eq!(
            parse("     Summary [   0.012s] 12 tests run: 12 passed, 3 skipped"),
            Some(totals(12, 0, 3))
        );
        assert_eq!(parse("     Summary [   0.012s] 1 test run: 1 passed, 0 skipped"), Some(totals(1, 0, 0)));
    }

    #[test]
    fn timed_out_and_unstartable_tests_count_as_failed() {
        let line = "Summary [ 180.1s] 9 tests run: 5 passed (1 slow, 1 leaky), 2 failed, 1 exec failed, 1 timed out, 0 skipped";
        assert_eq!(parse(line), Some(totals(5, 4, 0)));
    }

    #[test]
    fn tests_that_a_stopped_run_did_not_begin_count_as_skipped() {
        assert_eq!(
            parse("Summary [ 1.0s] 3/10 tests run: 2 passed, 1 failed, 4 skipped"),
            Some(totals(2, 1, 11))
        );
    }

    #[test]
    fn cargo_test_result_is_read() {
        let line = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 5 filtered out; finished in 0.01s";
        assert_eq!(parse(line), Some(totals(3, 1, 7)));
    }

    #[test]
    fn other_lines_hold_no_totals() {
        for line in
            ["", "Summary of the design", "test result: unknown", "    Summary [] nothing", "12 passed"]
        {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn totals_of_several_runs_add_up() {
        let lines = [
            "Summary [ 0.1s] 2 tests run: 1 passed, 1 failed, 0 skipped".to_owned(),
            "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0s"
                .to_owned(),
        ];
        assert_eq!(sum(&lines).to_string(), "5 passed, 1 failed, 1 skipped");
    }
}
