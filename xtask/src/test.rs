//! `cargo xtask test`: the suite, once, with one build, against servers of its own.

use std::io::IsTerminal as _;
use std::process::{Command, ExitCode};

use crate::servers::{Fsync, Servers};
use crate::totals::{self, Totals};
use crate::{Failure, install, process};

/// What `cargo test` says about a selection that has no library; such a selection has no documentation tests.
const NO_LIBRARY: &str = "error: no library targets found";

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Run what comes after a failure too.
    keep_going: bool,
    filter: Vec<String>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--keep-going" => options.keep_going = true,
                "--" => options.filter = arguments.by_ref().cloned().collect(),
                unknown => {
                    return Err(format!("test: unknown option `{unknown}`; a filter stands behind `--`"));
                }
            }
        }
        Ok(options)
    }
}

/// The cargo commands to run, in this order.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    commands: Vec<Vec<String>>,
    /// Said when the filter means nothing to documentation tests.
    without_doc_tests: bool,
}

/// Runs the suite; the last line that it prints is the totals.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    let found = install::find_or_install()?;
    let has_nextest = process::first_line(process::cargo().args(["nextest", "--version"])).is_some();
    let plan = plan(options, has_nextest);
    let servers = Servers::start(&found, Fsync::Off)?;
    let mut totals = Totals::default();
    let mut is_good = true;
    for arguments in &plan.commands {
        let mut command = process::cargo();
        command.args(arguments);
        servers.offer_to(&mut command);
        run_beside_each_other(&mut command);
        keep_colour(&mut command);
        let (status, lines) =
            process::stream(&mut command, |line| totals::is_totals(line) || line.starts_with(NO_LIBRARY))?;
        totals += totals::sum(&lines);
        let has_no_library = lines.iter().any(|line| line.starts_with(NO_LIBRARY));
        is_good &= status.success() || has_no_library;
        if !is_good && !options.keep_going {
            break;
        }
    }
    drop(servers);
    if plan.without_doc_tests {
        eprintln!("xtask: documentation tests were not run: they do not know this filter");
    }
    install::warn_of(&found);
    if totals.ran() == 0 {
        eprintln!("xtask: no test ran");
        is_good = false;
    }
    println!("{totals}");
    Ok(if is_good && totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Cargo writes into our pipe, where it would leave colour out.
fn keep_colour(command: &mut Command) {
    let is_decided = ["CARGO_TERM_COLOR", "NO_COLOR"].iter().any(|name| std::env::var_os(name).is_some());
    if std::io::stderr().is_terminal() && !is_decided {
        command.env("CARGO_TERM_COLOR", "always");
    }
}

/// Two tests for each core, of which most count for two (`.config/nextest.toml`): those that wait leave room for others.
fn run_beside_each_other(command: &mut Command) {
    const THREADS: &str = "NEXTEST_TEST_THREADS";
    if std::env::var_os(THREADS).is_none()
        && let Ok(cores) = std::thread::available_parallelism()
    {
        command.env(THREADS, (2 * cores.get()).to_string());
    }
}

fn plan(options: &Options, has_nextest: bool) -> Plan {
    let filter = &options.filter;
    // What stands behind a second `--` is the test program's.
    let own = filter.split(|argument| argument == "--").next().unwrap_or_default();
    let workspace = (!own.iter().any(|argument| selects_packages(argument))).then_some("--workspace");
    let keep_going = options.keep_going.then_some("--no-fail-fast");
    let command = |start: &[&str]| -> Vec<String> {
        start
            .iter()
            .copied()
            .chain(workspace)
            .chain(keep_going)
            .map(str::to_owned)
            .chain(filter.iter().cloned())
            .collect()
    };
    if !has_nextest {
        // Brings the documentation tests along.
        return Plan { commands: vec![command(&["test"])], without_doc_tests: false };
    }
    // A selection without a test outside its documentation is not a failure; that nothing ran at all is found later.
    let mut commands = vec![command(&["nextest", "run", "--no-tests=pass"])];
    let has_doc_tests = is_for_doc_tests(filter);
    if has_doc_tests {
        commands.push(command(&["test", "--doc"]));
    }
    Plan { commands, without_doc_tests: !has_doc_tests }
}

fn selects_packages(argument: &str) -> bool {
    matches!(argument, "--package" | "--workspace" | "--all")
        || argument.starts_with("-p")
        || argument.starts_with("--package=")
}

/// Whether the filter only selects packages and features: a filter by name, target or expression is meant for other tests.
fn is_for_doc_tests(filter: &[String]) -> bool {
    let mut arguments = filter.iter();
    while let Some(argument) = arguments.next() {
        let (name, has_value) =
            argument.split_once('=').map_or((argument.as_str(), false), |(name, _)| (name, true));
        match name {
            "--workspace" | "--all" | "--all-features" | "--no-default-features" | "--release" | "-r" => {}
            "-p" | "--package" | "--exclude" | "--features" | "-F"
                if has_value || arguments.next().is_some() => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &str) -> Options {
        let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        Options::parse(&arguments).unwrap()
    }

    fn commands(arguments: &str, has_nextest: bool) -> Vec<String> {
        plan(&options(arguments), has_nextest).commands.iter().map(|command| command.join(" ")).collect()
    }

    #[test]
    fn whole_suite_is_one_build_of_the_workspace() {
        assert_eq!(commands("", true), ["nextest run --no-tests=pass --workspace", "test --doc --workspace"]);
        assert_eq!(commands("", false), ["test --workspace"]);
    }

    #[test]
    fn keep_going_reaches_every_command() {
        let commands = commands("--keep-going", true);
        assert!(commands.iter().all(|command| command.contains("--no-fail-fast")), "{commands:?}");
    }

    #[test]
    fn a_selection_of_packages_replaces_the_workspace() {
        assert_eq!(
            commands("-- -p xtask --features=a", true),
            ["nextest run --no-tests=pass -p xtask --features=a", "test --doc -p xtask --features=a"]
        );
        assert_eq!(commands("-- --package=xtask some_name", false), ["test --package=xtask some_name"]);
    }

    #[test]
    fn a_filter_by_name_leaves_documentation_tests_out() {
        for filter in ["-- some_name", "-- -E test(a)", "-- -p xtask --lib", "-- -- --exact name"] {
            let plan = plan(&options(filter), true);
            assert_eq!(plan.commands.len(), 1, "{filter}");
            assert!(plan.without_doc_tests, "{filter}");
        }
    }

    #[test]
    fn package_behind_the_second_dashes_is_not_a_selection() {
        assert_eq!(commands("-- -- -p", false), ["test --workspace -- -p"]);
    }

    #[test]
    fn unknown_option_is_refused() {
        assert!(Options::parse(&["--keepgoing".to_owned()]).is_err());
        assert!(Options::parse(&["name".to_owned()]).is_err());
    }
}
