//! `cargo xtask verify`: what a reader of the code may rely on. Tests are `cargo xtask test`.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::{Failure, find, process, workspace_root};

/// The version that `deny.toml` is written for. A later one that is already installed will do.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// Each must build by itself; the suite builds all of them together.
const CACHE_FEATURES: [&str; 5] = ["", "cache-redis", "cache-redis-tls", "cache-memcached", "cache-moka"];

/// Runs every check, also after a failed one, and names those that failed.
pub(crate) fn run() -> Result<ExitCode, Failure> {
    let mut failed = Vec::new();
    let mut check = |name: &'static str, command: &mut Command| -> Result<(), Failure> {
        println!("==> {name}");
        if !process::status(command)?.success() {
            failed.push(name);
        }
        Ok(())
    };
    check("format", process::cargo().args(["fmt", "--all", "--", "--check"]))?;
    // The same packages and features as the suite builds, so that what clippy builds for the host serves it too.
    check(
        "clippy",
        process::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?;
    for features in CACHE_FEATURES {
        let mut alone = process::cargo();
        alone.args(["clippy", "--package", "recache-cache", "--no-default-features"]);
        check("features of the cache alone", alone.args(["--features", features, "--", "-D", "warnings"]))?;
    }
    // One after the other: the program `recache` and the library `recache` have one page, and the library's is to stay.
    for (name, targets) in [("rustdoc: program", "--bin=recache"), ("rustdoc: libraries", "--lib")] {
        let mut doc = process::cargo();
        doc.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--workspace", "--no-deps", targets]);
        check(name, &mut doc)?;
    }
    match cargo_deny() {
        Ok(program) => {
            let mut deny = Command::new(&program);
            deny.current_dir(workspace_root()).args(["check", "bans", "licenses", "sources"]);
            check("cargo-deny: bans, licences, sources", &mut deny)?;
            if advisory_database().is_some() {
                let mut deny = Command::new(&program);
                deny.current_dir(workspace_root()).args(["--offline", "check", "advisories"]);
                check("cargo-deny: advisories", &mut deny)?;
            } else {
                println!(
                    "==> cargo-deny: advisories were not checked: there is no database in $CARGO_HOME/advisory-dbs"
                );
            }
        }
        Err(failure) => {
            eprintln!("{failure}");
            failed.push("cargo-deny");
        }
    }
    if failed.is_empty() {
        println!("verified: format, clippy, rustdoc, dependencies");
        return Ok(ExitCode::SUCCESS);
    }
    println!("not verified: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Finds cargo-deny, or installs it under the target folder: without optimisation, which takes a minute on two cores; it
/// runs for seconds.
fn cargo_deny() -> Result<PathBuf, Failure> {
    let tools = target_folder().join("tools");
    let installed = tools.join("bin").join("cargo-deny");
    let in_cargo_home = cargo_home().map(|home| home.join("bin").join("cargo-deny"));
    let known =
        [in_cargo_home, Some(installed.clone())].into_iter().flatten().find(|path| find::is_executable(path));
    if let Some(program) = known.or_else(|| find::on_path("cargo-deny")) {
        return Ok(program);
    }
    println!("==> installing cargo-deny {CARGO_DENY_VERSION} under {}", tools.display());
    let mut install = process::cargo();
    install
        .args(["install", "cargo-deny", "--locked", "--debug", "--version", CARGO_DENY_VERSION, "--root"])
        .arg(&tools);
    if process::status(&mut install)?.success() {
        return Ok(installed);
    }
    Err(Failure::new(format!(
        "cargo-deny is neither installed nor could it be: dependencies were not checked; \
         `cargo install --locked cargo-deny@{CARGO_DENY_VERSION}` brings it"
    )))
}

fn target_folder() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace_root().join("target"), |folder| workspace_root().join(folder))
}

fn cargo_home() -> Option<PathBuf> {
    let set = env::var_os("CARGO_HOME").filter(|home: &OsString| !home.is_empty()).map(PathBuf::from);
    set.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

/// The folder into which `cargo deny fetch` puts the advisories, when somebody ran it. We do not: a check must not have
/// another answer tomorrow for the same commit, nor fail because a network does.
fn advisory_database() -> Option<PathBuf> {
    let folder = cargo_home()?.join("advisory-dbs");
    let mut databases = std::fs::read_dir(&folder).ok()?.flatten();
    databases.any(|entry| entry.path().is_dir()).then_some(folder)
}
