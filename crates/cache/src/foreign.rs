//! What another application keeps in a Redis: looked at, never changed. For moving what was tracked there to a place that does not
//! forget; nothing of the cache is read or written here.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, RedisError, cmd};
use tokio::time::timeout;

/// Keys that one step of a scan asks for.
const SCAN_COUNT: u32 = 500;
/// Elements of one set, list or hash that are read; a longer one is refused.
const ELEMENTS_MAX: u64 = 1_000_000;

/// Why a key or a server could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// The URL names no server that can be used.
    #[error("{0}; expected redis://[user:password@]host[:port][/database]")]
    Address(String),
    /// The server did not answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// The server answered with an error, or the connection broke.
    #[error("{0}")]
    Server(#[from] RedisError),
    /// The value has more elements than are read.
    #[error("it has {0} elements; at most {ELEMENTS_MAX} are read")]
    TooLong(u64),
}

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForeignValue {
    /// There is none any more.
    Gone,
    /// A string.
    Bytes(Vec<u8>),
    /// The elements of a set, a sorted set or a list.
    Elements(Vec<Vec<u8>>),
    /// The fields of a hash.
    Fields(Vec<(Vec<u8>, Vec<u8>)>),
    /// Something else, by its name.
    Other(String),
}

/// A connection that only reads.
pub struct ForeignRedis {
    connection: MultiplexedConnection,
    within: Duration,
}

impl std::fmt::Debug for ForeignRedis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForeignRedis").finish_non_exhaustive()
    }
}

impl ForeignRedis {
    /// Connects. Every call is given up after `within`.
    pub async fn open(url: &str, within: Duration) -> Result<Self, ForeignError> {
        let client = Client::open(url).map_err(|error| ForeignError::Address(error.to_string()))?;
        let connecting = timeout(within, client.get_multiplexed_async_connection());
        let connection = connecting.await.map_err(|_| ForeignError::Silent(within))??;
        Ok(Self { connection, within })
    }

    /// The next keys that begin with `prefix`, and where to go on: 0 at the start, and again at the end. A key may come more than
    /// once.
    pub async fn scan(&mut self, prefix: &str, cursor: u64) -> Result<(u64, Vec<Vec<u8>>), ForeignError> {
        let mut command = cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern(prefix)).arg("COUNT").arg(SCAN_COUNT);
        self.ask(&command).await
    }

    /// The value of a key, whatever its type.
    pub async fn read(&mut self, key: &[u8]) -> Result<ForeignValue, ForeignError> {
        let kind: String = self.ask(cmd("TYPE").arg(key)).await?;
        Ok(match kind.as_str() {
            "none" => ForeignValue::Gone,
            "string" => {
                let value: Option<Vec<u8>> = self.ask(cmd("GET").arg(key)).await?;
                value.map_or(ForeignValue::Gone, ForeignValue::Bytes)
            }
            "set" => {
                self.check_length("SCARD", key).await?;
                ForeignValue::Elements(self.ask(cmd("SMEMBERS").arg(key)).await?)
            }
            "list" => {
                self.check_length("LLEN", key).await?;
                ForeignValue::Elements(self.ask(cmd("LRANGE").arg(key).arg(0).arg(-1)).await?)
            }
            "zset" => {
                self.check_length("ZCARD", key).await?;
                ForeignValue::Elements(self.ask(cmd("ZRANGE").arg(key).arg(0).arg(-1)).await?)
            }
            "hash" => {
                self.check_length("HLEN", key).await?;
                ForeignValue::Fields(self.ask(cmd("HGETALL").arg(key)).await?)
            }
            _ => ForeignValue::Other(kind),
        })
    }

    async fn check_length(&mut self, how: &str, key: &[u8]) -> Result<(), ForeignError> {
        let length: u64 = self.ask(cmd(how).arg(key)).await?;
        if length > ELEMENTS_MAX { Err(ForeignError::TooLong(length)) } else { Ok(()) }
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, ForeignError> {
        let asked = timeout(self.within, command.query_async(&mut self.connection));
        Ok(asked.await.map_err(|_| ForeignError::Silent(self.within))??)
    }
}

/// A pattern that matches what begins with exactly this.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for letter in prefix.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_means_itself() {
        assert_eq!(pattern("magic_actions_"), "magic_actions_*");
        assert_eq!(pattern("a*b[c]\\d?"), "a\\*b\\[c\\]\\\\d\\?*");
    }
}
