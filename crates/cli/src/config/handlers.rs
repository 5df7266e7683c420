//! `[handlers]`: what the built-in handlers may do. The operator decides it, never a template.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use recache_model::webhook::Secret;
use reqwest::Url;
use serde_json::Value;

use super::mask::mask;
use super::schema::{ConfigOption, Kind, Refusal};

/// Longest name of a program.
const NAME_BYTES_MAX: usize = 64;
/// Longest name of a publisher.
const NAME_BYTES_MAX_PUBLISHER: usize = 256;

/// Bounds of `command`, and whom `http` shows that it is us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandlersConfig {
    /// The programs that `command` may run, by the names that templates call them. Default none: then there is no `command`.
    pub(crate) commands: BTreeMap<String, PathBuf>,
    /// Programs that run at the same time. Default 4.
    pub(crate) commands_at_once: u32,
    /// The longest that a template may let one run, in seconds. Default 3,600.
    pub(crate) command_seconds_max: u32,
    /// Address space of each of a program's processes, in MiB. Default 1,024.
    pub(crate) command_memory_mib: u32,
    /// The most that a program may write to its standard output, in KiB. Default 1,024.
    pub(crate) command_output_kib_max: u32,
    /// The servers whose requests `http` signs, by host, each with the secret that it shares with us. Default none.
    pub(crate) http_signing: BTreeMap<String, Secret>,
    /// Where the payloads of events are made, by the names of publishers that templates give. Default none.
    pub(crate) publishers: BTreeMap<String, Url>,
}

impl Default for HandlersConfig {
    fn default() -> Self {
        Self {
            commands: BTreeMap::new(),
            commands_at_once: 4,
            command_seconds_max: 3_600,
            command_memory_mib: 1_024,
            command_output_kib_max: 1_024,
            http_signing: BTreeMap::new(),
            publishers: BTreeMap::new(),
        }
    }
}

/// The parts of `name=value, name=value`; no name twice.
fn pairs(text: &str) -> Result<Vec<(&str, &str)>, Refusal> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            return Err(Refusal::new("has a part without `=`", "write NAME=VALUE, with commas between"));
        };
        let (name, value) = (name.trim(), value.trim());
        if pairs.iter().any(|(known, _)| *known == name) {
            return Err(Refusal::new(format!("names {name:?} twice"), "keep one of them"));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// One program that may be run, as a flag names it: `NAME=/absolute/path`.
pub(crate) fn parse_command(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("write NAME=PATH, such as resize=/usr/bin/convert")?;
    allowed_command(name, path).map_err(|Refusal { why, remedy }| format!("it {why}; {remedy}"))
}

fn allowed_command(name: &str, path: &str) -> Result<(String, PathBuf), Refusal> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
        let remedy = format!("use 1 to {NAME_BYTES_MAX} letters, digits, `.`, `-` and `_`");
        return Err(Refusal::new(format!("has the name {name:?}, which no program here may have"), remedy));
    }
    if !Path::new(path).is_absolute() {
        let why = format!("has no absolute path for {name:?}");
        return Err(Refusal::new(why, "write where the program lies, such as /usr/bin/convert"));
    }
    Ok((name.to_owned(), PathBuf::from(path)))
}

fn commands(text: &str) -> Result<BTreeMap<String, PathBuf>, Refusal> {
    pairs(text)?.into_iter().map(|(name, path)| allowed_command(name, path)).collect()
}

fn signing(text: &str) -> Result<BTreeMap<String, Secret>, Refusal> {
    let signed = |(host, secret): (&str, &str)| {
        let is_host = !host.is_empty()
            && Url::parse(&format!("https://{host}/"))
                .is_ok_and(|url| url.host_str() == Some(host) && url.port().is_none());
        if !is_host {
            let remedy = "write the host as it stands in the URL, in small letters, without port";
            return Err(Refusal::new("has a part that begins with no host", remedy));
        }
        let Ok(secret) = Secret::from_str(secret) else {
            let remedy = "a secret is whsec_ and the base64 of 24 to 64 bytes, best from a variable";
            return Err(Refusal::new(format!("has no good secret for {host}"), remedy));
        };
        Ok((host.to_owned(), secret))
    };
    pairs(text)?.into_iter().map(signed).collect()
}

fn publishers(text: &str) -> Result<BTreeMap<String, Url>, Refusal> {
    let read = |(name, url): (&str, &str)| {
        if name.is_empty() || name.len() > NAME_BYTES_MAX_PUBLISHER {
            let remedy = "write the name as templates do in `publisher`, 1 to 256 bytes";
            return Err(Refusal::new("has a part that begins with no name of a publisher", remedy));
        }
        // Never repeated: it may hold a secret.
        let Ok(url) = Url::parse(url) else {
            let remedy = "write it whole, such as https://shop.example.com/events";
            return Err(Refusal::new(format!("has no URL for {name:?}"), remedy));
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refusal::new(
                format!("has a URL for {name:?} that is neither http nor https"),
                "use https",
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let remedy = "share a secret with its host in handlers.http_signing: the signature says who asks";
            return Err(Refusal::new(format!("has a user name or password in the URL for {name:?}"), remedy));
        }
        Ok((name.to_owned(), url))
    };
    pairs(text)?.into_iter().map(read).collect()
}

fn shown<T>(pairs: &BTreeMap<String, T>, value: impl Fn(&T) -> String) -> Value {
    let parts: Vec<String> = pairs.iter().map(|(name, one)| format!("{name}={}", value(one))).collect();
    Value::from(parts.join(", "))
}

pub(super) const OPTIONS: &[ConfigOption] = &[
    ConfigOption {
        path: "handlers.commands",
        meaning: "the programs that `command` may run; none: there is no `command`",
        kind: Kind::Text {
            form: "names and absolute paths: resize=/usr/bin/convert, report=/opt/report",
            write: |config, _, text| {
                if cfg!(not(unix)) && !text.trim().is_empty() {
                    return Err(Refusal::new(
                        "names programs",
                        "on this system none can be held to its limits",
                    ));
                }
                config.handlers.commands = commands(text)?;
                Ok(())
            },
        },
        read: |config, _| shown(&config.handlers.commands, |path| path.display().to_string()),
    },
    ConfigOption {
        path: "handlers.commands_at_once",
        meaning: "programs that run at the same time; others wait within their time",
        kind: Kind::Whole {
            unit: "",
            min: 1,
            max: 1_000,
            write: |config, _, count| config.handlers.commands_at_once = count,
        },
        read: |config, _| Value::from(config.handlers.commands_at_once),
    },
    ConfigOption {
        path: "handlers.command_seconds_max",
        meaning: "the longest that a template may let a program run",
        kind: Kind::Whole {
            unit: "seconds",
            min: 1,
            max: 604_800,
            write: |config, _, seconds| config.handlers.command_seconds_max = seconds,
        },
        read: |config, _| Value::from(config.handlers.command_seconds_max),
    },
    ConfigOption {
        path: "handlers.command_memory_mib",
        meaning: "address space of each of a program's processes (Linux)",
        kind: Kind::Whole {
            unit: "MiB",
            min: 16,
            max: 16_777_216,
            write: |config, _, mib| config.handlers.command_memory_mib = mib,
        },
        read: |config, _| Value::from(config.handlers.command_memory_mib),
    },
    ConfigOption {
        path: "handlers.command_output_kib_max",
        meaning: "the most that a program may write to its standard output",
        kind: Kind::Whole {
            unit: "KiB",
            min: 1,
            max: 65_536,
            write: |config, _, kib| config.handlers.command_output_kib_max = kib,
        },
        read: |config, _| Value::from(config.handlers.command_output_kib_max),
    },
    ConfigOption {
        path: "handlers.http_signing",
        meaning: "the servers whose requests `http` signs as webhooks are signed, better from a variable: \"${SIGNING}\"",
        kind: Kind::Text {
            form: "hosts and secrets: billing.example.com=whsec_…",
            write: |config, _, text| {
                config.handlers.http_signing = signing(text)?;
                Ok(())
            },
        },
        read: |config, _| shown(&config.handlers.http_signing, |_| "***".to_owned()),
    },
    ConfigOption {
        path: "handlers.publishers",
        meaning: "where `recache serve` has the payloads of events made whose templates name these publishers",
        kind: Kind::Text {
            form: "names and URLs: order_payload=https://shop.example.com/events",
            write: |config, _, text| {
                config.handlers.publishers = publishers(text)?;
                Ok(())
            },
        },
        read: |config, _| shown(&config.handlers.publishers, |url| mask(url.as_str())),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn programs_have_plain_names_and_absolute_paths() {
        let read = commands(" resize=/usr/bin/convert ,report.pdf=/opt/report, ").unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read["report.pdf"], Path::new("/opt/report"));
        assert!(commands("").unwrap().is_empty());
        for (text, why) in [
            ("convert", "without `=`"),
            ("convert=bin/convert", "no absolute path"),
            ("convert=../convert", "no absolute path"),
            ("a b=/bin/true", "no program here may have"),
            ("=/bin/true", "no program here may have"),
            ("a=/bin/true, a=/bin/false", "twice"),
        ] {
            let said = commands(text).unwrap_err();
            assert!(said.why.contains(why), "{text}: {said:?}");
        }
    }

    #[test]
    fn publishers_have_names_and_whole_urls() {
        let read = publishers("a.b=https://a.example/p?x=1, c=http://127.0.0.1:1/").unwrap();
        assert_eq!(read["a.b"].as_str(), "https://a.example/p?x=1");
        assert_eq!(read.len(), 2);
        for text in
            ["a", "=https://a.example/", "a=a.example/hunter2", "a=ftp://hunter2/", "a=https://u:hunter2@a/"]
        {
            let said = format!("{:?}", publishers(text).unwrap_err());
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn secrets_of_hosts_are_read_and_never_repeated() {
        let read = signing(&format!("billing.example.com={SECRET}")).unwrap();
        assert_eq!(read["billing.example.com"].reveal(), SECRET);
        for text in [
            "billing.example.com=hunter2".to_owned(),
            format!("billing.example.com:443={SECRET}"),
            format!("https://billing.example.com={SECRET}"),
            format!("Billing.Example.Com={SECRET}"),
            format!("={SECRET}"),
            SECRET.to_owned(),
        ] {
            let said = format!("{:?}", signing(&text).unwrap_err());
            assert!(!said.contains("hunter2") && !said.contains("MfKQ"), "{said}");
        }
    }
}
