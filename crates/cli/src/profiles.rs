//! Profiles: names for servers, each with the file of its token and a namespace, in a file of the user's own.
//!
//! ```toml
//! [profiles.prod]
//! server = "https://recache.example"
//! token_file = "/home/ada/.secrets/recache-prod"
//! namespace = "shop"
//! ```
//!
//! A token itself never stands in it: the file is one that people show each other.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Environment;

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// A token file that is longer is none.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Profiles of one file.
const PROFILES_MAX: usize = 1_000;

/// A server by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// Its URL.
    pub(crate) server: String,
    /// Where the token for it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// What `--namespace` is where nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
}

/// All profiles of a user.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profiles {
    #[serde(default)]
    pub(crate) profiles: BTreeMap<String, Profile>,
}

/// Why a profile cannot be used or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody says where the user's files are.
    #[error("there is no place for profiles: neither XDG_CONFIG_HOME nor HOME names a folder")]
    NoHome,
    /// The file cannot be read or written.
    #[error("{} cannot be {deed}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// `read` or `written`.
        deed: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The file is not as it should be.
    #[error("{} is no file of profiles: {why}", .path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// There is no such profile.
    #[error("there is no profile `{name}`{}", those(.known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// It cannot be meant.
    #[error("{0}")]
    Invalid(String),
}

fn those(names: &[String]) -> String {
    if names.is_empty() {
        "; there is none yet".to_owned()
    } else {
        format!("; there are {}", names.join(", "))
    }
}

/// Where the user's profiles are.
pub(crate) fn path(environment: &Environment) -> Result<PathBuf, Error> {
    let folder = |name: &str| environment.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // A relative XDG_CONFIG_HOME is to be ignored, says the specification.
    let base = folder("XDG_CONFIG_HOME").or_else(|| folder("APPDATA"));
    let base = base.or_else(|| folder("HOME").map(|home| home.join(".config"))).ok_or(Error::NoHome)?;
    Ok(base.join("recache/profiles.toml"))
}

impl Profiles {
    /// Those of a file; none when it is not there.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(Error::File { path: path.to_owned(), deed: "read", source }),
        };
        let wrong = |why: String| Error::Wrong { path: path.to_owned(), why };
        let read: Self = toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        for (name, profile) in &read.profiles {
            check_name(name)
                .and_then(|()| profile.check())
                .map_err(|error| wrong(format!("{name}: {error}")))?;
        }
        Ok(read)
    }

    /// Puts them in the place of what was there: whoever reads at the same time sees the one or the other.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::File { path: path.to_owned(), deed: "written", source };
        let text = toml::to_string_pretty(self).map_err(|error| failed(io::Error::other(error)))?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(folder).map_err(failed)?;
        let beside = path.with_extension(format!("toml.{}", std::process::id()));
        let written = create(&beside).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, path)
        });
        written.map_err(|error| {
            let _ = fs::remove_file(&beside);
            failed(error)
        })
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Profile, Error> {
        let known = || self.profiles.keys().cloned().collect();
        self.profiles.get(name).ok_or_else(|| Error::Unknown { name: name.to_owned(), known: known() })
    }

    /// Keeps a profile. True: there was none of that name.
    pub(crate) fn set(&mut self, name: &str, profile: Profile) -> Result<bool, Error> {
        check_name(name)?;
        profile.check()?;
        if self.profiles.len() >= PROFILES_MAX && !self.profiles.contains_key(name) {
            return Err(Error::Invalid(format!("there are {PROFILES_MAX} profiles already")));
        }
        Ok(self.profiles.insert(name.to_owned(), profile).is_none())
    }
}

#[cfg(unix)]
fn create(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn create(path: &Path) -> io::Result<fs::File> {
    fs::File::create(path)
}

fn check_name(name: &str) -> Result<(), Error> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
        return Err(Error::Invalid(format!(
            "`{}` cannot be the name of a profile: 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`",
            name.escape_debug()
        )));
    }
    Ok(())
}

impl Profile {
    fn check(&self) -> Result<(), Error> {
        let invalid = |why: &str| Err(Error::Invalid(why.to_owned()));
        if self.server.contains(['@', '?']) {
            // Not repeated: it may hold a password.
            return invalid(
                "the server's URL must hold neither a user nor a query; a token belongs into a file of its own",
            );
        }
        if !self.server.starts_with("http://") && !self.server.starts_with("https://") {
            return invalid("the server's URL must begin with http:// or https://");
        }
        if self.token_file.as_ref().is_some_and(|path| !path.is_absolute()) {
            return invalid("the token file's path must be absolute: profiles are used in every folder");
        }
        if self.namespace.as_ref().is_some_and(|namespace| namespace.is_empty() || namespace.len() > 256) {
            return invalid("the namespace must have 1 to 256 bytes");
        }
        Ok(())
    }

    /// The token for its server, if it has one.
    pub(crate) fn token(&self) -> Result<Option<String>, Error> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let file = |source| Error::File { path: path.clone(), deed: "read", source };
        let wrong = |why: &str| Error::Invalid(format!("{} {why}", path.display()));
        if is_open_to_others(path).map_err(file)? {
            return Err(wrong(
                "can be read by others than its owner, and holds a token: chmod 600 mends that",
            ));
        }
        let text = fs::read_to_string(path).map_err(file)?;
        let token = text.trim();
        if token.is_empty()
            || token.len() > TOKEN_BYTES_MAX
            || token.contains(|letter: char| !letter.is_ascii_graphic())
        {
            return Err(wrong("holds no token: one line of visible ASCII is expected"));
        }
        Ok(Some(token.to_owned()))
    }
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(server: &str) -> Profile {
        Profile { server: server.to_owned(), ..Profile::default() }
    }

    #[test]
    fn what_is_written_is_read_and_unknown_fields_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/recache/profiles.toml");
        assert_eq!(Profiles::read(&path).unwrap(), Profiles::default(), "there is none yet");
        let mut profiles = Profiles::default();
        let whole = Profile {
            token_file: Some("/t".into()),
            namespace: Some("shop".to_owned()),
            ..profile("https://a")
        };
        assert!(profiles.set("prod", whole).unwrap());
        assert!(profiles.set("local.dev", profile("http://127.0.0.1:7878")).unwrap());
        assert!(!profiles.set("local.dev", profile("http://127.0.0.1:7879")).unwrap());
        profiles.write(&path).unwrap();
        assert_eq!(Profiles::read(&path).unwrap(), profiles);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        for text in
            ["[profiles.a]\nserver = \"http://a\"\ntoken = \"secret\"\n", "x = 1\n", "[profiles.a]\n", "["]
        {
            fs::write(&path, text).unwrap();
            let said = Profiles::read(&path).unwrap_err().to_string();
            assert!(said.contains("profiles.toml") && !said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn profile_that_cannot_be_meant_is_refused() {
        let mut profiles = Profiles::default();
        for (name, wrong) in [
            ("", profile("http://a")),
            ("a b", profile("http://a")),
            ("../a", profile("http://a")),
            ("a", profile("")),
            ("a", profile("a.example")),
            ("a", profile("https://u:hunter2@a")),
            ("a", Profile { token_file: Some("relative".into()), ..profile("http://a") }),
            ("a", Profile { namespace: Some(String::new()), ..profile("http://a") }),
        ] {
            let said = profiles.set(name, wrong).unwrap_err().to_string();
            assert!(!said.contains("hunter2"), "{said}");
        }
        let said = profiles.get("prod").unwrap_err().to_string();
        assert!(said.contains("there is none yet"), "{said}");
    }

    #[cfg(unix)]
    #[test]
    fn token_is_read_from_a_file_that_only_its_owner_can_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let profile = Profile { token_file: Some(path.clone()), ..profile("http://a") };
        assert!(profile.token().unwrap_err().to_string().contains("token cannot be read"));
        for (text, mode, expected) in [
            ("rck_1\n", 0o600, Some("rck_1")),
            ("rck_1", 0o400, Some("rck_1")),
            ("rck_1\n", 0o644, None),
            ("rck_1\n", 0o660, None),
            ("", 0o600, None),
            ("a b", 0o600, None),
        ] {
            let _ = fs::remove_file(&path);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(profile.token().ok().flatten().as_deref(), expected, "{text:?} {mode:o}");
        }
    }
}
