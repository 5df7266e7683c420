//! Whoever keeps the job in a test.

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;

use super::job::{Build, Condition, Existing, TestJob};
use super::reported::{PutItem, Reported};
use crate::link::{Item, Keep, Link, LinkError, PartSource};
use crate::stop::{Stop, StopSignal};

/// Of a checkpoint, as a server holds it.
const CHECKPOINT_BYTES_MAX: usize = 64 * 1024;

/// How far a job is.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) reported: Reported,
    pub(super) has_ended: bool,
}

pub(super) struct TestLink {
    pub(super) said: watch::Sender<Said>,
    stop: StopSignal,
    stops: Vec<(Stop, Condition)>,
    unreachable: Option<Condition>,
    namespace: String,
    build: Option<Build>,
}

impl fmt::Debug for TestLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestLink").field("said", &*self.said.borrow()).finish_non_exhaustive()
    }
}

impl TestLink {
    pub(super) fn new(job: &TestJob, stop: StopSignal) -> Self {
        let link = Self {
            said: watch::Sender::new(Said::default()),
            stop,
            stops: job.stops.clone(),
            unreachable: job.unreachable.clone(),
            namespace: job.facts.namespace.clone(),
            build: job.build.clone(),
        };
        link.judge();
        link
    }

    pub(super) fn reported(&self) -> Reported {
        self.said.borrow().reported.clone()
    }

    /// Tells the handler to stop if it has reported what was waited for.
    fn judge(&self) {
        let said = self.said.borrow();
        if let Some((why, _)) = self.stops.iter().find(|(_, when)| when(&said.reported)) {
            self.stop.stop(*why);
        }
    }

    /// Why a call is not answered, if it is not.
    fn answers(&self) -> Result<(), LinkError> {
        if let Some(why) = self.stop.reason() {
            return Err(LinkError::Revoked(why));
        }
        let is_unreachable = self.unreachable.as_ref().is_some_and(|when| when(&self.said.borrow().reported));
        if is_unreachable {
            return Err(LinkError::Unavailable("the test's server cannot be reached".to_owned()));
        }
        Ok(())
    }

    fn report(&self, change: impl FnOnce(&mut Reported)) -> Result<(), LinkError> {
        self.answers()?;
        self.said.send_modify(|said| change(&mut said.reported));
        self.judge();
        Ok(())
    }

    fn build(&self) -> Result<&Build, LinkError> {
        self.build.as_ref().ok_or_else(|| {
            LinkError::Refused("this job belongs to no build; `TestJob::view` says to which".to_owned())
        })
    }
}

fn json(what: &str, text: &str) -> Result<Value, LinkError> {
    serde_json::from_str(text).map_err(|error| LinkError::Refused(format!("{what} is no JSON: {error}")))
}

fn is_same(known: Option<&Existing>, fingerprint: &str) -> bool {
    known.is_some_and(|known| known.fingerprint.as_deref() == Some(fingerprint))
}

#[async_trait]
impl Link for TestLink {
    async fn check(&self) -> Result<(), LinkError> {
        self.answers()
    }

    async fn progress(&self, fraction: f64, message: Option<String>) -> Result<(), LinkError> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(LinkError::Refused(format!("progress is {fraction}; it must be 0 to 1")));
        }
        self.report(|reported| reported.progress.push((fraction, message)))
    }

    async fn save(&self, checkpoint: String) -> Result<(), LinkError> {
        if checkpoint.len() > CHECKPOINT_BYTES_MAX {
            let bytes = checkpoint.len();
            return Err(LinkError::Refused(format!(
                "the checkpoint has {bytes} bytes; at most {CHECKPOINT_BYTES_MAX} are kept"
            )));
        }
        let checkpoint = json("the checkpoint", &checkpoint)?;
        self.report(|reported| reported.checkpoints.push(checkpoint))
    }

    async fn log(&self, lines: Vec<String>) -> Result<(), LinkError> {
        self.report(|reported| reported.log.extend(lines))
    }

    async fn put(&self, items: Vec<Item>) -> Result<(), LinkError> {
        let items = items.into_iter().map(|item| {
            let value = item.value.as_deref().map(|value| json("a value", value)).transpose()?;
            Ok(PutItem { item: item.key, fingerprint: item.fingerprint, value })
        });
        let items = items.collect::<Result<Vec<_>, LinkError>>()?;
        self.report(|reported| reported.items.extend(items))
    }

    async fn part(&self) -> Result<PartSource, LinkError> {
        self.answers()?;
        let build = self.build()?;
        Ok(PartSource {
            namespace: self.namespace.clone(),
            key: build.key.clone(),
            version: build.version,
            live_version: build.live_version,
            touched: build.touched.clone(),
        })
    }

    async fn keep(&self, keep: Keep) -> Result<Vec<bool>, LinkError> {
        let build = self.build()?;
        let answers = match &keep {
            Keep::Unchanged(items) => items
                .iter()
                .map(|(item, fingerprint)| {
                    is_same(build.live.get(item), fingerprint) || is_same(build.staged.get(item), fingerprint)
                })
                .collect(),
            Keep::Live(items) => items.iter().map(|item| build.live.contains_key(item)).collect(),
            Keep::Rest | Keep::Dropped(_) => Vec::new(),
        };
        self.report(|reported| reported.kept.push(keep))?;
        Ok(answers)
    }

    async fn previous(&self, items: Vec<String>) -> Result<Vec<(String, String)>, LinkError> {
        self.answers()?;
        let build = self.build()?;
        let wanted: BTreeSet<String> = items.into_iter().collect();
        let found = build.live.iter().filter(|(item, _)| wanted.contains(*item));
        Ok(found.map(|(item, existing)| (item.clone(), existing.value.to_string())).collect())
    }
}
