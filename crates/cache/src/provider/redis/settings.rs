//! How the servers are reached.

use std::time::Duration;

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

use super::{KnownServer, errors};
use crate::config::{Backend, ConfigProblem, RedisConfig, RedisMode, ServerUrl};

/// Where `redis://` listens when no port is given.
const PORT_DEFAULT: u16 = 6_379;
/// Where a sentinel listens when no port is given.
const SENTINEL_PORT_DEFAULT: u16 = 26_379;

/// Host and port.
pub(super) type Place = (String, u16);

/// How a [`Redis`](super::Redis) finds and enters its servers.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    pub(super) servers: ServersAt,
    pub(super) login: Login,
    pub(super) has_tls: bool,
    pub(super) ca_file: Option<String>,
    pub(super) connections_max: usize,
    pub(super) connection_timeout: Duration,
    pub(super) known: Option<KnownServer>,
}

/// Where the servers are.
#[derive(Debug, Clone)]
pub(super) enum ServersAt {
    One(Place),
    /// The sentinels know where the master is.
    Sentinels {
        sentinels: Vec<(Place, Login)>,
        master: String,
    },
    /// Any of these knows where all are.
    Cluster(Vec<Place>),
}

/// User, password and number of the database.
#[derive(Clone, Default)]
pub(super) struct Login(RedisConnectionInfo);

impl Login {
    pub(super) fn info(&self) -> &RedisConnectionInfo {
        &self.0
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login(***, database {})", self.0.db())
    }
}

impl RedisSettings {
    /// One server at `redis://` or `rediss://`, all else as by default.
    pub fn single(url: &str) -> Result<Self, Vec<ConfigProblem>> {
        Self::from_config(&RedisConfig { url: ServerUrl::new(url), ..RedisConfig::default() })
    }

    /// As `[common.cache.redis]` says; or everything that is wrong with it.
    pub fn from_config(config: &RedisConfig) -> Result<Self, Vec<ConfigProblem>> {
        let mut problems = config.problems();
        let mut read = |path: &str, url: &ServerUrl, port| match entrance(url, port) {
            Ok(entrance) => Some(entrance),
            Err(problem) => {
                problems.push(ConfigProblem { path: path.to_owned(), ..problem });
                None
            }
        };
        let url = read("common.cache.redis.url", &config.url, PORT_DEFAULT);
        let node_port = match config.mode {
            RedisMode::Sentinel => SENTINEL_PORT_DEFAULT,
            RedisMode::Single | RedisMode::Cluster => PORT_DEFAULT,
        };
        let nodes: Vec<_> = config
            .nodes
            .iter()
            .filter_map(|node| read("common.cache.redis.nodes", node, node_port))
            .map(|node| (node.place, node.login))
            .collect();
        let Some(url) = url.filter(|_| problems.is_empty()) else {
            dedup(&mut problems);
            return Err(problems);
        };
        let servers = match config.mode {
            RedisMode::Single => ServersAt::One(url.place),
            RedisMode::Sentinel => ServersAt::Sentinels {
                sentinels: nodes.into_iter().map(|(place, login)| (place, login.database(0))).collect(),
                master: config.sentinel_master.clone(),
            },
            RedisMode::Cluster => ServersAt::Cluster(
                [url.place].into_iter().chain(nodes.into_iter().map(|(place, _)| place)).collect(),
            ),
        };
        let login = if config.database == 0 { url.login } else { url.login.database(config.database) };
        Ok(Self {
            servers,
            login,
            has_tls: url.has_tls,
            ca_file: config.ca_file.clone(),
            connections_max: usize::try_from(config.max_connections).unwrap_or(1).max(1),
            connection_timeout: Duration::from_secs(config.connection_timeout_seconds),
            known: None,
        })
    }

    /// Which server the configuration names: the table of known servers then speaks for what was not probed.
    #[must_use]
    pub fn of_backend(mut self, backend: Backend) -> Self {
        self.known = KnownServer::of_backend(backend);
        self
    }
}

impl Login {
    fn database(self, number: u32) -> Self {
        Self(self.0.set_db(i64::from(number)))
    }
}

/// What one URL says.
struct Entrance {
    place: Place,
    login: Login,
    has_tls: bool,
}

/// Never shows the URL: it may hold a password.
fn entrance(url: &ServerUrl, port_default: u16) -> Result<Entrance, ConfigProblem> {
    let problem = |message: &str, remedy: &str| ConfigProblem {
        path: String::new(),
        message: message.to_owned(),
        remedy: remedy.to_owned(),
    };
    let text = url.expose();
    let has_tls = text.starts_with("rediss://");
    if has_tls && !cfg!(feature = "cache-redis-tls") {
        return Err(problem(
            "TLS is not built into this version",
            "build with the feature cache-redis-tls, or write redis://",
        ));
    }
    // The client reads `rediss://` only with a TLS of its own; this crate brings its own (see `connect`).
    let plain = if has_tls { text.replacen("rediss://", "redis://", 1) } else { text.to_owned() };
    let not_an_address =
        || problem("not an address of such a server", "write redis://host:port or rediss://host:port");
    let info = plain.as_str().into_connection_info().map_err(|_| not_an_address())?;
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err(not_an_address());
    };
    let names_port = text.rsplit('@').next().is_some_and(|rest| {
        let authority = rest.trim_start_matches("redis://").trim_start_matches("rediss://");
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'))
    });
    let port = if names_port { *port } else { port_default };
    let login = info.redis_settings().clone().set_lib_name("recache", env!("CARGO_PKG_VERSION"));
    Ok(Entrance { place: (host.clone(), port), login: Login(login), has_tls })
}

fn dedup(problems: &mut Vec<ConfigProblem>) {
    let mut seen = Vec::new();
    problems.retain(|problem| {
        let is_new = !seen.contains(&problem.path);
        seen.push(problem.path.clone());
        is_new
    });
}

/// The text for logs and errors: which kind of place, never where.
impl ServersAt {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::One(_) => "single",
            Self::Sentinels { .. } => "sentinel",
            Self::Cluster(_) => "cluster",
        }
    }
}

/// For who is told to connect to nothing.
pub(super) fn nowhere() -> crate::provider::Error {
    errors::unavailable("no server is known yet")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str, port: u16) -> Option<(Place, i64)> {
        let entrance = entrance(&ServerUrl::new(url), port).ok()?;
        Some((entrance.place, entrance.login.info().db()))
    }

    #[test]
    fn a_url_says_where_and_as_whom() {
        let at = |host: &str, port, db| Some(((host.to_owned(), port), db));
        assert_eq!(place("redis://localhost:6379", 1), at("localhost", 6_379, 0));
        assert_eq!(place("redis://localhost", 26_379), at("localhost", 26_379, 0));
        assert_eq!(place("redis://:p%40ss@10.0.0.1:7000/3", 1), at("10.0.0.1", 7_000, 3));
        assert_eq!(place("redis://user:a:b@host/2", 6_379), at("host", 6_379, 2));
        assert_eq!(place("http://host", 1), None);
        assert_eq!(place("redis+unix:///tmp/s", 1), None);
        let login = entrance(&ServerUrl::new("redis://me:p%40ss@h"), 1).map(|entrance| entrance.login).ok();
        let login = login.expect("it is an address");
        assert_eq!((login.info().username(), login.info().password()), (Some("me"), Some("p@ss")));
        assert!(!format!("{login:?}").contains("ss"));
    }
}
