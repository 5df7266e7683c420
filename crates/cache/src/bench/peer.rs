//! The same reads without the cache: the bare client of Redis, a bare socket to Memcached.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::{Backend, CacheConfig};

/// Entries that are read together.
pub(super) const BATCH: usize = 100;
/// What an entry of the cache takes with its envelope, about: both send the same.
pub(super) const VALUE_BYTES: usize = 130;

/// A connection of its own, with `BATCH` entries behind it.
#[derive(Debug)]
pub(super) enum Peer {
    #[cfg(feature = "cache-redis")]
    Redis {
        connection: Box<redis::aio::MultiplexedConnection>,
        gets: Vec<redis::Cmd>,
        get_many: redis::Cmd,
    },
    Memcached(Box<Bare>),
}

/// Commands that are sent as they are, and how long their answers will be.
#[derive(Debug)]
pub(super) struct Bare {
    stream: TcpStream,
    /// One command for each entry; all have the same answer.
    gets: (Vec<Vec<u8>>, Vec<u8>),
    get_many: (Vec<u8>, Vec<u8>),
}

impl Peer {
    pub(super) async fn connect(config: &CacheConfig) -> Result<Self, String> {
        let prefix = &config.key_prefix;
        let keys: Vec<String> = (0..BATCH).map(|number| format!("{prefix}:bare:{number:04}")).collect();
        match config.backend() {
            Some(Backend::Memcached) => memcached(config, &keys).await,
            Some(Backend::Redis | Backend::Dragonfly | Backend::Valkey) => redis(config, &keys).await,
            _ => Err("it lies in this process".to_owned()),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            #[cfg(feature = "cache-redis")]
            Self::Redis { .. } => "bare client",
            Self::Memcached(_) => "bare socket",
        }
    }

    /// One entry, another than the last time: as many lie in the processor's caches here as there.
    pub(super) async fn get(&mut self, number: usize) -> Result<(), String> {
        match self {
            #[cfg(feature = "cache-redis")]
            Self::Redis { connection, gets, .. } => {
                let get = gets.get(number % BATCH).ok_or("no such entry")?;
                let answer: Result<Vec<u8>, _> = get.query_async(&mut **connection).await;
                answer.map_err(|error| error.to_string()).and_then(|value| expect(value.len(), VALUE_BYTES))
            }
            Self::Memcached(bare) => {
                let Bare { stream, gets: (commands, answer), .. } = &mut **bare;
                let command = commands.get(number % BATCH).ok_or("no such entry")?;
                exchange(stream, command, answer).await
            }
        }
    }

    /// `BATCH` entries in one exchange.
    pub(super) async fn get_many(&mut self) -> Result<(), String> {
        match self {
            #[cfg(feature = "cache-redis")]
            Self::Redis { connection, get_many, .. } => {
                let answer: Result<Vec<Vec<u8>>, _> = get_many.query_async(&mut **connection).await;
                answer.map_err(|error| error.to_string()).and_then(|values| expect(values.len(), BATCH))
            }
            Self::Memcached(bare) => {
                let Bare { stream, get_many: (command, answer), .. } = &mut **bare;
                exchange(stream, command, answer).await
            }
        }
    }
}

fn expect(found: usize, expected: usize) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{found} in place of {expected} came back")) }
}

#[cfg(feature = "cache-redis")]
async fn redis(config: &CacheConfig, keys: &[String]) -> Result<Peer, String> {
    use crate::config::RedisMode;

    if config.redis.mode != RedisMode::Single || !config.redis.url.expose().starts_with("redis://") {
        return Err("the bare client is measured on a single server without TLS".to_owned());
    }
    let told = |error: redis::RedisError| error.to_string();
    let client = redis::Client::open(config.redis.url.expose()).map_err(told)?;
    let mut connection = client.get_multiplexed_async_connection().await.map_err(told)?;
    for key in keys {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(vec![b'v'; VALUE_BYTES]).arg("EX").arg(600);
        set.query_async::<()>(&mut connection).await.map_err(told)?;
    }
    let get = |key: &String| {
        let mut get = redis::cmd("GET");
        get.arg(key);
        get
    };
    let gets = keys.iter().map(get).collect();
    let mut get_many = redis::cmd("MGET");
    get_many.arg(keys);
    Ok(Peer::Redis { connection: Box::new(connection), gets, get_many })
}

#[cfg(not(feature = "cache-redis"))]
async fn redis(_: &CacheConfig, _: &[String]) -> Result<Peer, String> {
    Err("its client is not built in".to_owned())
}

async fn memcached(config: &CacheConfig, keys: &[String]) -> Result<Peer, String> {
    let url = config.memcached.url.expose();
    let place = url.split_once("://").map_or(url, |(_, place)| place);
    if place.contains([',', '@', '/']) {
        return Err("a bare socket is measured on one server without a password".to_owned());
    }
    let told = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(place).await.map_err(told)?;
    stream.set_nodelay(true).map_err(told)?;
    let value = "v".repeat(VALUE_BYTES);
    let answer = format!("VA {VALUE_BYTES}\r\n{value}\r\n").into_bytes();
    let mut gets = Vec::new();
    for key in keys {
        let set = format!("ms {key} {VALUE_BYTES} T600\r\n{value}\r\n");
        exchange(&mut stream, set.as_bytes(), b"HD\r\n").await?;
        gets.push(format!("mg {key} v\r\n").into_bytes());
    }
    let get_many = (gets.concat(), answer.repeat(keys.len()));
    Ok(Peer::Memcached(Box::new(Bare { stream, gets: (gets, answer), get_many })))
}

/// Sends a command and reads its answer, which is known.
async fn exchange(stream: &mut TcpStream, command: &[u8], answer: &[u8]) -> Result<(), String> {
    let mut read = vec![0; answer.len()];
    stream.write_all(command).await.map_err(|error| error.to_string())?;
    stream.read_exact(&mut read).await.map_err(|error| error.to_string())?;
    if read == answer {
        Ok(())
    } else {
        Err(format!("unexpected answer {:?}", String::from_utf8_lossy(&read)))
    }
}
