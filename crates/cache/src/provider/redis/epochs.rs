//! Epochs: a hash with one field for each slot that was ever raised, and with the run of the server that wrote it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use redis::cmd;
use uuid::Uuid;

use super::errors::{protocol, unavailable};
use super::node::Line;
use super::{Redis, script, value, wakes};
use crate::epochs::{EpochRecord, Slot};
use crate::provider::{EpochStore, Error};

#[async_trait]
impl EpochStore for Redis {
    async fn read(&self, incarnation: u64, version: u64) -> Result<Option<EpochRecord>, Error> {
        let inner = &self.inner;
        let run = self.run()?;
        let mut question = cmd("HMGET");
        question.arg(&inner.epochs_name).arg("run").arg("incarnation").arg("version");
        // In the line of the raises, so that who has raised reads what it raised.
        let answer = match inner
            .servers
            .one(&inner.epochs_name, Line::Ordered, &question)
            .await
            .and_then(value::array)
        {
            // What stands there is no record (WRONGTYPE): it is begun anew.
            Err(Error::Refused { .. }) => return self.raise_at(&run, &[]).await.map(Some),
            answer => answer?,
        };
        let mut known = answer.into_iter().map(value::text);
        let mut next = || known.next().flatten();
        let is_same_run = next().is_some_and(|known| known == run);
        let is_unchanged = next().and_then(|text| text.parse().ok()) == Some(incarnation)
            && next().and_then(|text| text.parse().ok()) == Some(version);
        if is_same_run && is_unchanged && incarnation != 0 {
            self.still(&run)?;
            return Ok(None);
        }
        self.raise_at(&run, &[]).await.map(Some)
    }

    async fn raise(&self, slots: &[Slot]) -> Result<EpochRecord, Error> {
        self.raise_at(&self.run()?, slots).await
    }

    fn entered(&self) -> u64 {
        self.inner.entered.load(Ordering::SeqCst)
    }

    fn changed<'life0, 'async_trait>(&'life0 self) -> Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        self.hear_wakes();
        Box::pin(self.inner.wakes.epochs_changed())
    }
}

impl Redis {
    /// Which run of the server keeps the record. One that does not tell cannot be caught coming back from a snapshot;
    /// [`capabilities`](crate::Provider::capabilities) then promises less.
    fn run(&self) -> Result<String, Error> {
        let node = self.inner.servers.of(&self.inner.epochs_name)?;
        if !node.is_open() {
            return Err(unavailable(node.reason()));
        }
        Ok(node.identity().run.clone())
    }

    /// The server may have been restarted between the look at its run and the answer; then that means nothing.
    fn still(&self, run: &str) -> Result<(), Error> {
        if self.run()? == run { Ok(()) } else { Err(unavailable("the server was just restarted")) }
    }

    async fn raise_at(&self, run: &str, slots: &[Slot]) -> Result<EpochRecord, Error> {
        let inner = &self.inner;
        let fresh = (Uuid::new_v4().as_u64_pair().1 | 1).to_string();
        let numbers: Vec<_> = slots.iter().map(|slot| slot.number().to_string()).collect();
        let channel = inner.wakes.channel();
        let mut arguments =
            vec![run.as_bytes(), fresh.as_bytes(), channel.as_bytes(), wakes::EPOCHS.as_bytes()];
        arguments.extend(numbers.iter().map(String::as_bytes));
        let raise = async || {
            let answer = inner.servers.script(&script::RAISE, &[&inner.epochs_name], &arguments).await?;
            self.still(run)?;
            Ok::<_, Error>(record(fields(answer)?))
        };
        if let Some(record) = raise().await? {
            return Ok(record);
        }
        // What cannot be read is as good as lost: it is begun anew.
        inner.servers.one(&inner.epochs_name, Line::Ordered, cmd("DEL").arg(&inner.epochs_name)).await?;
        raise().await?.ok_or_else(|| protocol("not a record of epochs"))
    }
}

fn fields(answer: redis::Value) -> Result<Vec<redis::Value>, Error> {
    match answer {
        redis::Value::Map(pairs) => Ok(pairs.into_iter().flat_map(|(name, value)| [name, value]).collect()),
        other => value::array(other),
    }
}

/// Names and numbers in turn. Fields that mean nothing here belong to a later version.
fn record(fields: Vec<redis::Value>) -> Option<EpochRecord> {
    let mut record = EpochRecord::default();
    let mut fields = fields.into_iter().map(value::text);
    while let (Some(name), Some(number)) = (fields.next(), fields.next()) {
        let Some(name) = name else { continue };
        let number = number?;
        match name.as_str() {
            "run" => {}
            "incarnation" => record.incarnation = number.parse().ok()?,
            "version" => record.version = number.parse().ok()?,
            slot => {
                if let Some(slot) = slot.parse().ok().and_then(Slot::from_number) {
                    record.epochs.push((slot, number.parse().ok()?));
                }
            }
        }
    }
    (record.incarnation != 0).then_some(record)
}
