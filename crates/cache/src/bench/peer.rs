//! The same reads without the cache: the bare client of Redis, a bare socket to Memcached.

#[cfg(feature = "cache-redis")]
use redis::AsyncCommands as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::{Backend, CacheConfig};

/// Entries that are read together.
pub(super) const BATCH: usize = 100;

/// A connection of its own, with `BATCH` entries behind it. The bare client is used as an application uses it, which has a
/// key and makes the command of it.
#[derive(Debug)]
pub(super) enum Peer {
    #[cfg(feature = "cache-redis")]
    Redis {
        connection: Box<redis::aio::MultiplexedConnection>,
        keys: Vec<String>,
        value_bytes: usize,
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
    /// Its entries are `value_bytes` long.
    pub(super) async fn connect(config: &CacheConfig, value_bytes: usize) -> Result<Self, String> {
        let prefix = &config.key_prefix;
        let keys: Vec<String> = (0..BATCH).map(|number| format!("{prefix}:bare:{number:04}")).collect();
        match config.backend() {
            Some(Backend::Memcached) => memcached(config, &keys, value_bytes).await,
            Some(Backend::Redis | Backend::Dragonfly | Backend::Valkey) => {
                redis(config, keys, value_bytes).await
            }
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
            Self::Redis { connection, keys, value_bytes } => {
                let key = keys.get(number % BATCH).ok_or("no such entry")?;
                let answer: Result<Vec<u8>, _> = connection.get(key).await;
                answer.map_err(|error| error.to_string()).and_then(|value| expect(value.len(), *value_bytes))
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
            Self::Redis { connection, keys, .. } => {
                let answer: Result<Vec<Vec<u8>>, _> = connection.mget(&*keys).await;
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
async fn redis(config: &CacheConfig, keys: Vec<String>, value_bytes: usize) -> Result<Peer, String> {
    use crate::config::RedisMode;

    if config.redis.mode != RedisMode::Single || !config.redis.url.expose().starts_with("redis://") {
        return Err("the bare client is measured on a single server without TLS".to_owned());
    }
    let told = |error: redis::RedisError| error.to_string();
    let client = redis::Client::open(config.redis.url.expose()).map_err(told)?;
    let mut connection = client.get_multiplexed_async_connection().await.map_err(told)?;
    for key in &keys {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(vec![b'v'; value_bytes]).arg("EX").arg(600);
        set.query_async::<()>(&mut connection).await.map_err(told)?;
    }
    Ok(Peer::Redis { connection: Box::new(connection), keys, value_bytes })
}

#[cfg(not(feature = "cache-redis"))]
async fn redis(_: &CacheConfig, _: Vec<String>, _: usize) -> Result<Peer, String> {
    Err("its client is not built in".to_owned())
}

async fn memcached(config: &CacheConfig, keys: &[String], value_bytes: usize) -> Result<Peer, String> {
    let url = config.memcached.url.expose();
    let place = url.split_once("://").map_or(url, |(_, place)| place);
    if place.contains([',', '@', '/']) {
        return Err("a bare socket is measured on one server without a password".to_owned());
    }
    let told = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(place).await.map_err(told)?;
    stream.set_nodelay(true).map_err(told)?;
    let value = "v".repeat(value_bytes);
    let answer = format!("VA {value_bytes}\r\n{value}\r\n").into_bytes();
    let mut gets = Vec::new();
    for key in keys {
        let set = format!("ms {key} {value_bytes} T600\r\n{value}\r\n");
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
