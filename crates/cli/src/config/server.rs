//! `[server]`: where the HTTP API listens, and what it takes at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::schema::{ConfigOption, Kind, Refusal};

/// Where the server listens, and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerConfig {
    /// Address and port; without `[auth]` loopback only; port 0 lets the system choose. Default `127.0.0.1:7878`.
    pub(crate) address: SocketAddr,
    /// Built-in handlers that run in this process. Default [`BuiltinHandlers::Safe`].
    pub(crate) builtin_handlers: BuiltinHandlers,
    /// Connections at once. Default 4,096.
    pub(crate) connections_max: u32,
    /// Requests being worked on at once. Default 256.
    pub(crate) requests_max: u32,
    /// Requests that wait for something to happen at once. Default 1,024.
    pub(crate) waits_max: u32,
    /// Streams of events at once. Default 2,048.
    pub(crate) streams_max: u32,
    /// Streams of events of one caller at once, where callers are known. Default 1,024.
    pub(crate) streams_per_caller_max: u32,
    /// For how long a request may wait for something to happen. Default 30 s.
    pub(crate) wait_max: Duration,
    /// How long a request may take, waits not counted. Default 30 s.
    pub(crate) request_max: Duration,
    /// For how long a client may leave its answer unread. Default 30 s.
    pub(crate) answer_wait_max: Duration,
    /// Requests a second of one caller. Default 20,000.
    pub(crate) requests_per_second_max: u32,
    /// KiB of one body. Default 8,192.
    pub(crate) body_kib_max: u32,
    /// Certificates, PEM. With it and its key the server speaks TLS only.
    pub(crate) tls_certificate_file: Option<PathBuf>,
    /// The key of the first certificate, PEM.
    pub(crate) tls_key_file: Option<PathBuf>,
}

/// Which of the built-in handlers run in the server's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuiltinHandlers {
    /// None.
    Off,
    /// Those that touch nothing outside: `echo`, `fail`, `sleep`.
    Safe,
    /// And `http`.
    All,
}

impl BuiltinHandlers {
    const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Safe => "safe",
            Self::All => "all",
        }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 7878)),
            builtin_handlers: BuiltinHandlers::Safe,
            connections_max: 4_096,
            requests_max: 256,
            waits_max: 1_024,
            streams_max: 2_048,
            streams_per_caller_max: 1_024,
            wait_max: Duration::from_secs(30),
            request_max: Duration::from_secs(30),
            answer_wait_max: Duration::from_secs(30),
            requests_per_second_max: 20_000,
            body_kib_max: 8_192,
            tls_certificate_file: None,
            tls_key_file: None,
        }
    }
}

/// Reads an address. Whether others may reach it depends on `[auth]`, and is judged when all is read.
fn parse(text: &str) -> Result<SocketAddr, Refusal> {
    text.parse().map_err(|_| {
        Refusal::new(
            format!("is `{}`, not an IP address with a port", super::problem::short(text)),
            "write 127.0.0.1:7878 or [::1]:7878; names are not looked up",
        )
    })
}

/// Why an address must not be served while nobody asks who calls.
pub(super) fn open_to_others(address: SocketAddr) -> Option<Refusal> {
    (!address.ip().is_loopback()).then(|| {
        Refusal::new(
            format!("is `{address}`, which other machines can reach, and no authentication is configured"),
            format!(
                "set auth.api_keys = true and make a key with `recache token create`, or write 127.0.0.1:{}",
                address.port()
            ),
        )
    })
}

fn file(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn shown(path: Option<&PathBuf>) -> Value {
    Value::from(path.map(|path| path.display().to_string()).unwrap_or_default())
}

fn ms(duration: Duration) -> Value {
    Value::from(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

macro_rules! count {
    ($path:literal, $meaning:literal, $unit:literal, $max:literal, $field:ident) => {
        ConfigOption {
            path: $path,
            meaning: $meaning,
            kind: Kind::Whole {
                unit: $unit,
                min: 1,
                max: $max,
                write: |config, _, count| config.server.$field = count,
            },
            read: |config, _| Value::from(config.server.$field),
        }
    };
}

macro_rules! length {
    ($path:literal, $meaning:literal, $field:ident) => {
        ConfigOption {
            path: $path,
            meaning: $meaning,
            kind: Kind::Whole {
                unit: "milliseconds",
                min: 1,
                max: 600_000,
                write: |config, _, count| config.server.$field = Duration::from_millis(count.into()),
            },
            read: |config, _| ms(config.server.$field),
        }
    };
}

macro_rules! path {
    ($path:literal, $meaning:literal, $field:ident) => {
        ConfigOption {
            path: $path,
            meaning: $meaning,
            kind: Kind::Text {
                form: "a path",
                write: |config, _, text| {
                    config.server.$field = file(text);
                    Ok(())
                },
            },
            read: |config, _| shown(config.server.$field.as_ref()),
        }
    };
}

pub(super) const OPTIONS: &[ConfigOption] = &[
    ConfigOption {
        path: "server.address",
        meaning: "where the HTTP API listens; without [auth] loopback only",
        kind: Kind::Text {
            form: "an IP address with a port",
            write: |config, _, text| {
                config.server.address = parse(text)?;
                Ok(())
            },
        },
        read: |config, _| Value::from(config.server.address.to_string()),
    },
    ConfigOption {
        path: "server.builtin_handlers",
        meaning: "built-in handlers that `serve` runs: \"safe\" are echo, fail and sleep; \"all\" has http too",
        kind: Kind::Choice {
            allowed: &["off", "safe", "all"],
            write: |config, _, name| {
                config.server.builtin_handlers = match name {
                    "off" => BuiltinHandlers::Off,
                    "all" => BuiltinHandlers::All,
                    _ => BuiltinHandlers::Safe,
                };
            },
        },
        read: |config, _| Value::from(config.server.builtin_handlers.name()),
    },
    count!("server.connections_max", "connections at once", "connections", 100_000, connections_max),
    count!("server.requests_max", "requests being worked on at once", "requests", 100_000, requests_max),
    count!("server.waits_max", "requests that wait for something at once", "requests", 100_000, waits_max),
    count!(
        "server.streams_max",
        "streams of events at once; fewer than connections, so that other requests find one",
        "streams",
        100_000,
        streams_max
    ),
    count!(
        "server.streams_per_caller_max",
        "streams of events of one caller at once, where callers are known",
        "streams",
        100_000,
        streams_per_caller_max
    ),
    length!("server.wait_max_ms", "for how long a request may wait for something", wait_max),
    length!("server.request_max_ms", "how long a request may take, waits not counted", request_max),
    length!(
        "server.answer_wait_max_ms",
        "for how long a client may take less than 64 KiB of an answer, then it is hung up on",
        answer_wait_max
    ),
    count!(
        "server.requests_per_second_max",
        "requests a second of one caller, on average",
        "requests",
        1_000_000,
        requests_per_second_max
    ),
    count!("server.body_kib_max", "size of one body", "KiB", 262_144, body_kib_max),
    path!(
        "server.tls_certificate_file",
        "certificates in PEM; with tls_key_file the server speaks TLS only",
        tls_certificate_file
    ),
    path!("server.tls_key_file", "the key of the first certificate, in PEM", tls_key_file),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_others_can_reach_are_told_from_loopback_ones() {
        for text in ["127.0.0.1:7878", "127.9.9.9:1", "[::1]:0"] {
            let address = parse(text).unwrap();
            assert_eq!((address.to_string(), open_to_others(address)), (text.to_owned(), None));
        }
        for text in ["0.0.0.0:7878", "[::]:7878", "10.0.0.1:80", "[::ffff:127.0.0.1]:80", "[fe80::1]:80"] {
            let refusal = open_to_others(parse(text).unwrap()).unwrap();
            assert!(refusal.why.ends_with("no authentication is configured"), "{text}: {refusal:?}");
            assert!(refusal.remedy.contains("recache token create"));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "localhost:7878", "127.0.0.1", ":7878", "127.0.0.1:65536"] {
            assert!(parse(text).unwrap_err().why.ends_with("not an IP address with a port"), "{text}");
        }
    }
}
