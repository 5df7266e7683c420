//! Numbers and small values that many processes change at once.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::cmd;

use super::errors::protocol;
use super::node::Line;
use super::{Redis, millis, names, script, value};
use crate::key::Key;
use crate::provider::{Atomics, Error};

#[async_trait]
impl Atomics for Redis {
    /// A transaction rather than a script: numbers in scripts are floating, and lose what is beyond 2^53.
    async fn add(&self, key: &Key, delta: i64, keep_for: Duration) -> Result<i64, Error> {
        let name = names::atomic(key);
        let (mut add, mut keep) = (cmd("INCRBY"), cmd("PEXPIRE"));
        add.arg(&name).arg(delta);
        keep.arg(&name).arg(millis(keep_for));
        let answers = self.inner.servers.transaction(&name, &[add, keep]).await?;
        answers.first().map_or_else(|| Err(protocol("a number was expected")), value::integer)
    }

    async fn read(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let name = names::atomic(key);
        let mut get = cmd("GET");
        get.arg(&name);
        value::bytes(self.inner.servers.one(&name, Line::Any, &get).await?)
    }

    async fn compare_and_swap(
        &self,
        key: &Key,
        expected: Option<&[u8]>,
        new: Option<Bytes>,
        keep_for: Duration,
    ) -> Result<bool, Error> {
        let (name, keep_ms) = (names::atomic(key), millis(keep_for));
        let flag = |is_there: bool| -> &[u8] { if is_there { b"1" } else { b"0" } };
        let arguments = [
            flag(expected.is_some()),
            expected.unwrap_or_default(),
            flag(new.is_some()),
            new.as_deref().unwrap_or_default(),
            keep_ms.as_bytes(),
        ];
        let swapped = self.inner.servers.script(&script::SWAP, &[&name], &arguments).await?;
        Ok(value::integer(&swapped)? == 1)
    }
}
