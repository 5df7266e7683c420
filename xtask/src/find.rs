//! Finds the programs that the suite needs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, process};

/// What a chore needs besides Rust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Postgres,
    Redis,
    Memcached,
    /// For an example of a worker.
    Php,
    /// Scrapes a server.
    Prometheus,
}

impl Tool {
    pub(crate) const ALL: [Self; 5] =
        [Self::Postgres, Self::Redis, Self::Memcached, Self::Php, Self::Prometheus];

    /// The package that holds it on Debian and its descendants.
    pub(crate) fn debian_package(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::Redis => "redis-server",
            Self::Memcached => "memcached",
            Self::Php => "php-cli",
            Self::Prometheus => "prometheus",
        }
    }

    /// The programs that must be found.
    pub(crate) fn programs(self) -> &'static str {
        match self {
            Self::Postgres => "initdb and postgres",
            Self::Redis => "redis-server",
            Self::Memcached => "memcached",
            Self::Php => "php",
            Self::Prometheus => "prometheus",
        }
    }

    /// The variable that tests read; those that need it skip, loudly, when it is not set.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "RECACHE_TEST_POSTGRES_URL",
            Self::Redis => "RECACHE_TEST_REDIS_URL",
            Self::Memcached => "RECACHE_TEST_MEMCACHED_URL",
            Self::Php => "RECACHE_TEST_PHP",
            Self::Prometheus => "RECACHE_TEST_PROMETHEUS",
        }
    }
}

/// Where the programs are; `None` where one was not found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The folder that holds both `initdb` and `postgres`.
    pub(crate) postgres_bin: Option<PathBuf>,
    pub(crate) redis: Option<PathBuf>,
    pub(crate) memcached: Option<PathBuf>,
    pub(crate) php: Option<PathBuf>,
    pub(crate) prometheus: Option<PathBuf>,
}

impl Found {
    pub(crate) fn missing(&self) -> Vec<Tool> {
        let is_there = |tool| match tool {
            Tool::Postgres => self.postgres_bin.is_some(),
            Tool::Redis => self.redis.is_some(),
            Tool::Memcached => self.memcached.is_some(),
            Tool::Php => self.php.is_some(),
            Tool::Prometheus => self.prometheus.is_some(),
        };
        Tool::ALL.into_iter().filter(|&tool| !is_there(tool)).collect()
    }
}

/// Looks for all of them. Fails only when `RECACHE_POSTGRES_BIN` names a folder without a PostgreSQL: whoever set it
/// does not want another one.
pub(crate) fn all() -> Result<Found, Failure> {
    Ok(Found {
        postgres_bin: postgres_bin()?,
        redis: on_path("redis-server"),
        memcached: on_path("memcached"),
        php: on_path("php"),
        prometheus: on_path("prometheus"),
    })
}

/// The first executable file of that name on the PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    path_folders().map(|folder| folder.join(program)).find(|path| is_executable(path))
}

fn path_folders() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).filter(|folder| folder.is_absolute()).collect::<Vec<_>>().into_iter()
}

pub(crate) fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn postgres_bin() -> Result<Option<PathBuf>, Failure> {
    if let Some(named) = env::var_os("RECACHE_POSTGRES_BIN").filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        return match postgres_version(&named) {
            Some(_) => Ok(Some(named)),
            None => Err(Failure::new(format!(
                "RECACHE_POSTGRES_BIN names `{}`, which holds no working initdb and postgres",
                named.display()
            ))),
        };
    }
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = path_folders()
        // Through the link in, say, /usr/local/bin to the folder that holds the rest.
        .filter_map(|folder| fs::canonicalize(folder.join("postgres")).ok()?.parent().map(Path::to_owned))
        .chain(debian.map(|version| version.path().join("bin")));
    Ok(newest(folders.filter_map(|folder| Some((postgres_version(&folder)?, folder)))))
}

/// Of several, the newest; of equals, the one that was found first.
fn newest(found: impl IntoIterator<Item = (Version, PathBuf)>) -> Option<PathBuf> {
    let mut best: Option<(Version, PathBuf)> = None;
    for (version, folder) in found {
        if best.as_ref().is_none_or(|(so_far, _)| version > *so_far) {
            best = Some((version, folder));
        }
    }
    best.map(|(_, folder)| folder)
}

/// Major and minor; a development or beta version has minor 0.
type Version = (u32, u32);

fn postgres_version(folder: &Path) -> Option<Version> {
    let server = folder.join("postgres");
    if !is_executable(&server) || !is_executable(&folder.join("initdb")) {
        return None;
    }
    parse_version(&process::first_line(Command::new(server).arg("--version"))?)
}

/// `postgres (PostgreSQL) 17.2 (Debian 17.2-1)`, `postgres (PostgreSQL) 18beta1`
fn parse_version(line: &str) -> Option<Version> {
    let version = line.split_whitespace().nth(2)?;
    let digits_of = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    Some((digits_of(major).parse().ok()?, digits_of(minor).parse().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_version_is_read() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some((15, 18)));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1"), Some((18, 0)));
        assert_eq!(parse_version("postgres (PostgreSQL) 17devel"), Some((17, 0)));
        assert_eq!(parse_version("postgres (something) else"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn newest_is_by_number_not_by_text() {
        let found =
            [((9, 6), "/nine".into()), ((16, 2), "/sixteen".into()), ((16, 10), "/sixteen-ten".into())];
        assert_eq!(newest(found), Some(PathBuf::from("/sixteen-ten")));
        assert_eq!(newest([]), None);
    }

    #[test]
    fn of_equals_the_first_is_taken() {
        let found = [((16, 2), "/named-on-path".into()), ((16, 2), "/same-again".into())];
        assert_eq!(newest(found), Some(PathBuf::from("/named-on-path")));
    }

    #[test]
    fn what_was_not_found_is_missing() {
        let found = Found { redis: Some("/usr/bin/redis-server".into()), ..Found::default() };
        assert_eq!(found.missing(), [Tool::Postgres, Tool::Memcached, Tool::Php, Tool::Prometheus]);
    }
}
