//! Gets what is missing, or says how to.

use std::process::{Command, Stdio};

use crate::find::{self, Found, Tool};
use crate::{Failure, is_ci, process};

/// Runs as root. A server that the packages bring must not be started: it is not ours. Debian asks `policy-rc.d` before
/// it starts one, so ours says no while the packages are unpacked, unless the machine has a policy of its own.
const APT_SCRIPT: &str = r#"
set -eu
# What a command prints on stdout is the command's alone.
exec >&2
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install --yes --no-install-recommends "$@"
"#;

/// Finds the programs; installs what is missing where it may. What is missing then is an error in CI, and elsewhere a
/// loud word about the tests that will skip.
pub(crate) fn find_or_install() -> Result<Found, Failure> {
    let found = find::all()?;
    let missing = found.missing();
    if missing.is_empty() {
        return Ok(found);
    }
    let found = if apt_get_install(&missing)? { find::all()? } else { found };
    let missing = found.missing();
    if !missing.is_empty() && is_ci() {
        return Err(Failure::new(advice(&missing)));
    }
    warn_of(&found);
    Ok(found)
}

/// Says loudly which tests cannot run; nothing when all can.
pub(crate) fn warn_of(found: &Found) {
    let missing = found.missing();
    if missing.is_empty() {
        return;
    }
    eprintln!("\n*** NOT EVERYTHING IS TESTED ***\n{}", advice(&missing));
    for tool in missing {
        eprintln!(
            "*** tests that need {} are skipped: {} is not set",
            tool.debian_package(),
            tool.variable()
        );
    }
    eprintln!();
}

fn advice(missing: &[Tool]) -> String {
    let programs: Vec<_> = missing.iter().map(|tool| tool.programs()).collect();
    let packages: Vec<_> = missing.iter().map(|tool| tool.debian_package()).collect();
    let mut advice = format!(
        "not found: {}; on Debian or Ubuntu, `apt-get install {}` as root brings it; elsewhere, put the programs on the PATH",
        programs.join(", "),
        packages.join(" ")
    );
    if missing.contains(&Tool::Postgres) {
        advice.push_str(", or name PostgreSQL's folder in RECACHE_POSTGRES_BIN");
    }
    advice
}

/// False where it may not: no apt-get, or neither root nor a sudo that asks nothing.
fn apt_get_install(missing: &[Tool]) -> Result<bool, Failure> {
    if find::on_path("apt-get").is_none() {
        return Ok(false);
    }
    let mut command = if process::user_id() == Some(0) {
        Command::new("sh")
    } else if sudo_asks_nothing() {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "sh"]);
        sudo
    } else {
        return Ok(false);
    };
    let packages: Vec<_> = missing.iter().map(|tool| tool.debian_package()).collect();
    eprintln!("xtask: installing {}", packages.join(" "));
    let status = process::status(command.args(["-c", APT_SCRIPT, "sh"]).args(packages).stdin(Stdio::null()))?;
    if !status.success() {
        eprintln!("xtask: apt-get did not install it ({status})");
    }
    Ok(true)
}

fn sudo_asks_nothing() -> bool {
    find::on_path("sudo").is_some()
        && process::first_line(Command::new("sudo").args(["-n", "id", "-u"])).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_program_and_package_of_each_missing_tool() {
        let advice = advice(&[Tool::Postgres, Tool::Redis]);
        assert!(advice.contains("not found: initdb and postgres, redis-server;"), "{advice}");
        assert!(advice.contains("`apt-get install postgresql redis-server`"), "{advice}");
        assert!(advice.contains("RECACHE_POSTGRES_BIN"), "{advice}");
    }
}
