//! From a tracker that keeps its jobs in a cache to one that does not forget: reads JSON records from a Redis, keeps them as tracked
//! jobs and batches, and says what it could not read.
//!
//! Ids that are UUIDs stay; others are derived from prefix and id, so that importing again finds what is there. States only move
//! forward, so importing again while the old tracker still runs brings what is new: a batch is closed when it has ended there, not before.

mod record;
mod target;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use recache_cache::foreign::{ForeignError, ForeignRedis, ForeignValue};
use recache_model::ids::{BatchId, JobId};
use recache_model::tracked::Report;
use recache_model::unique::PartsHash;
use recache_store::{Error, NewBatch, NewTrackedJob};
use serde_json::{Value, json};
use uuid::{Builder, Uuid};

pub(crate) use target::Target;

/// Keys that are taken up; a larger tracker is refused before anything is stored.
const KEYS_MAX: usize = 2_000_000;
/// Jobs that one transaction keeps.
const CHUNK: usize = 500;

/// What is imported, and as what.
#[derive(Debug)]
pub(crate) struct Import<'a> {
    /// With what the keys begin.
    pub(crate) prefix: &'a str,
    /// Who it belongs to here.
    pub(crate) namespace: &'a str,
    /// Jobs that have not ended fail after this long without a word.
    pub(crate) stale_after: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    /// Jobs that are new here.
    pub(crate) jobs_new: u64,
    /// Jobs that were here before.
    pub(crate) jobs_known: u64,
    /// Batches that are new here.
    pub(crate) batches_new: u64,
    /// Batches that were here before.
    pub(crate) batches_known: u64,
    /// Batches that still run there, and stay open here for what comes.
    pub(crate) batches_open: u64,
    /// Keys that could not be taken over whole, and why.
    pub(crate) unread: Vec<(String, String)>,
}

/// Why nothing more was taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// The Redis.
    #[error(transparent)]
    Source(#[from] ForeignError),
    /// The store.
    #[error(transparent)]
    Store(#[from] Error),
    /// The server, or the way to it.
    #[error(transparent)]
    Server(#[from] recache_api::client::Error),
    /// There are more keys than are taken up.
    #[error("there are more than {KEYS_MAX} keys that begin with the prefix")]
    TooMany,
}

/// Its key, what it is, and how it stands.
pub(crate) type Job = (String, NewTrackedJob, Report);

/// A batch, as far as its jobs need it.
#[derive(Debug, Clone, Copy)]
struct Batch {
    id: BatchId,
    /// Jobs that it says it has.
    total: Option<u64>,
    /// Whether it has ended, if it says so.
    has_ended: Option<bool>,
}

/// What was found of the jobs of a batch.
#[derive(Debug, Default)]
struct Members {
    count: u64,
    /// Some of them have not ended.
    some_run: bool,
}

/// The ids of what is there, by kind.
#[derive(Debug, Default)]
struct Found {
    jobs: BTreeSet<String>,
    batches: BTreeSet<String>,
    lists: BTreeSet<String>,
}

impl Import<'_> {
    /// Takes over what can be.
    pub(crate) async fn run(
        &self,
        source: &mut ForeignRedis,
        target: &dyn Target,
    ) -> Result<Imported, ImportError> {
        let mut imported = Imported::default();
        let found = self.find(source, &mut imported).await?;
        let batch_of = self.members(source, &found, &mut imported).await?;
        let batches = self.batches(source, &found, target, &mut imported).await?;
        let members = self.jobs(source, &found, &batch_of, &batches, target, &mut imported).await?;
        for (id, batch) in &batches {
            let (count, some_run) =
                members.get(&batch.id).map_or((0, false), |members| (members.count, members.some_run));
            if batch.has_ended.map_or(some_run, |has_ended| !has_ended) {
                // A closed batch takes no job any more, and this one may still get some.
                imported.batches_open += 1;
            } else {
                // Whatever the tracker forgot will not come any more.
                target.close(batch.id).await?;
            }
            if let Some(total) = batch.total.filter(|total| *total > count) {
                let why = format!("it says that it has {total} jobs; {count} were found");
                imported.unread.push((self.key("batch_", id), why));
            }
        }
        let all: Vec<BatchId> = batches.values().map(|batch| batch.id).collect();
        for part in all.chunks(CHUNK) {
            target.settle(part.to_vec()).await?;
        }
        Ok(imported)
    }

    fn key(&self, kind: &str, id: &str) -> String {
        format!("{}{kind}{id}", self.prefix)
    }

    async fn find(&self, source: &mut ForeignRedis, imported: &mut Imported) -> Result<Found, ImportError> {
        let mut found = Found::default();
        let mut others = BTreeSet::new();
        let mut cursor = 0;
        loop {
            let (next, keys) = source.scan(self.prefix, cursor).await?;
            for key in keys {
                let text = String::from_utf8_lossy(&key).into_owned();
                // The longer name first: a list of jobs is not a batch with the id `jobs_…`.
                match text.strip_prefix(self.prefix).filter(|_| std::str::from_utf8(&key).is_ok()) {
                    Some(rest) if rest.starts_with("batch_jobs_") => {
                        found.lists.insert(rest[11..].to_owned())
                    }
                    Some(rest) if rest.starts_with("batch_") => found.batches.insert(rest[6..].to_owned()),
                    Some(rest) if rest.starts_with("job_") => found.jobs.insert(rest[4..].to_owned()),
                    _ => others.insert(text),
                };
            }
            if found.jobs.len() + found.batches.len() + found.lists.len() + others.len() > KEYS_MAX {
                return Err(ImportError::TooMany);
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let why = || "its name says neither job nor batch".to_owned();
        imported.unread.extend(others.into_iter().map(|key| (key, why())));
        Ok(found)
    }

    /// Which batch a job is in, as the batches' lists say.
    async fn members(
        &self,
        source: &mut ForeignRedis,
        found: &Found,
        imported: &mut Imported,
    ) -> Result<HashMap<String, String>, ImportError> {
        let mut batch_of: HashMap<String, String> = HashMap::new();
        for batch in &found.lists {
            let key = self.key("batch_jobs_", batch);
            let ids = read(source, &key).await?.and_then(|value| match value {
                ForeignValue::Bytes(bytes) => record::json(&bytes).and_then(|list| record::ids(&list)),
                ForeignValue::Elements(elements) => elements
                    .into_iter()
                    .map(|id| String::from_utf8(id).map_err(|_| "an id is no text".to_owned()))
                    .collect(),
                other => Err(unsuitable(&other)),
            });
            match ids {
                Err(why) => imported.unread.push((key, why)),
                Ok(ids) => {
                    for id in ids {
                        if !found.jobs.contains(&id) {
                            let why = format!("job `{}` of it is not there any more", id.escape_debug());
                            imported.unread.push((key.clone(), why));
                        } else if let Some(other) = batch_of.get(&id).filter(|other| *other != batch) {
                            let why = format!(
                                "job `{}` is in batch `{other}` too, and stays there",
                                id.escape_debug()
                            );
                            imported.unread.push((key.clone(), why));
                        } else {
                            batch_of.insert(id, batch.clone());
                        }
                    }
                }
            }
        }
        Ok(batch_of)
    }

    /// Batches by their old ids.
    async fn batches(
        &self,
        source: &mut ForeignRedis,
        found: &Found,
        target: &dyn Target,
        imported: &mut Imported,
    ) -> Result<BTreeMap<String, Batch>, ImportError> {
        let mut batches = BTreeMap::new();
        for id in found.batches.union(&found.lists) {
            let key = self.key("batch_", id);
            let batch = BatchId::from_uuid(self.uuid("batch", id));
            let record = read(source, &key).await?.and_then(|value| match value {
                // Only its list was left.
                ForeignValue::Gone => Ok(record::BatchRecord {
                    action: "imported".to_owned(),
                    total: None,
                    has_ended: None,
                    original: Value::Null,
                }),
                ForeignValue::Bytes(bytes) => record::json(&bytes).and_then(record::batch),
                other => Err(unsuitable(&other)),
            });
            let record = match record {
                Ok(record) => record,
                Err(why) => {
                    imported.unread.push((key, why));
                    continue;
                }
            };
            let new = NewBatch {
                id: batch,
                namespace: self.namespace.to_owned(),
                metadata: json!({ "imported_from": key, "record": record.original }).to_string(),
                ..NewBatch::new(record.action)
            };
            match target.batch(new).await? {
                Ok(true) => imported.batches_new += 1,
                Ok(false) => imported.batches_known += 1,
                Err(why) => {
                    imported.unread.push((key, why));
                    continue;
                }
            }
            let (total, has_ended) = (record.total, record.has_ended);
            batches.insert(id.clone(), Batch { id: batch, total, has_ended });
        }
        Ok(batches)
    }

    /// Answers which jobs each batch has.
    async fn jobs(
        &self,
        source: &mut ForeignRedis,
        found: &Found,
        batch_of: &HashMap<String, String>,
        batches: &BTreeMap<String, Batch>,
        target: &dyn Target,
        imported: &mut Imported,
    ) -> Result<HashMap<BatchId, Members>, ImportError> {
        let mut members = HashMap::new();
        let ids: Vec<&String> = found.jobs.iter().collect();
        for part in ids.chunks(CHUNK) {
            let mut jobs = Vec::with_capacity(part.len());
            for id in part {
                let key = self.key("job_", id);
                let record = read(source, &key).await?.and_then(|value| match value {
                    ForeignValue::Gone => Err("it expired while the others were read".to_owned()),
                    ForeignValue::Bytes(bytes) => record::json(&bytes).and_then(record::job),
                    other => Err(unsuitable(&other)),
                });
                let record = match record {
                    Ok(record) => record,
                    Err(why) => {
                        imported.unread.push((key, why));
                        continue;
                    }
                };
                let old_batch = batch_of.get(*id).or(record.batch.as_ref());
                let batch = old_batch.and_then(|old| batches.get(old)).map(|batch| batch.id);
                if let (Some(old), None) = (old_batch, batch) {
                    let why =
                        format!("its batch `{}` is not there; it was imported without", old.escape_debug());
                    imported.unread.push((key.clone(), why));
                }
                let job = NewTrackedJob {
                    id: JobId::from_uuid(self.uuid("job", id)),
                    namespace: self.namespace.to_owned(),
                    context: record.context,
                    batch,
                    owner: record.owner,
                    metadata: json!({ "imported_from": key, "record": record.original }).to_string(),
                    stale_after: self.stale_after,
                    ..NewTrackedJob::new(record.action)
                };
                jobs.push((key, job, record.report));
            }
            self.keep(&jobs, &mut members, target, imported).await?;
        }
        Ok(members)
    }

    /// As many at once as the target takes.
    async fn keep(
        &self,
        jobs: &[Job],
        members: &mut HashMap<BatchId, Members>,
        target: &dyn Target,
        imported: &mut Imported,
    ) -> Result<(), ImportError> {
        let mut rest = jobs;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(target.fitting(rest).clamp(1, rest.len()));
            self.keep_part(now, members, target, imported).await?;
            rest = later;
        }
        Ok(())
    }

    /// All at once; when one of them cannot be kept, one by one, to tell which.
    async fn keep_part(
        &self,
        jobs: &[Job],
        members: &mut HashMap<BatchId, Members>,
        target: &dyn Target,
        imported: &mut Imported,
    ) -> Result<(), ImportError> {
        let whole = target.jobs(jobs).await?;
        let mut one_by_one = Vec::with_capacity(jobs.len());
        match whole {
            Ok(are_new) => one_by_one.extend(are_new.into_iter().map(Ok)),
            Err(_) => {
                for job in jobs {
                    let kept = target.jobs(std::slice::from_ref(job)).await?;
                    one_by_one.push(kept.map(|mut are_new| are_new.pop().unwrap_or(false)));
                }
            }
        }
        for (job, kept) in jobs.iter().zip(one_by_one) {
            let (kept, batch) = match (kept, job.1.batch) {
                (Err(why), Some(batch)) => (without_batch(job, batch, why, target, imported).await?, None),
                (kept, batch) => (kept, batch),
            };
            match kept {
                Err(why) => {
                    imported.unread.push((job.0.clone(), why));
                    continue;
                }
                Ok(true) => imported.jobs_new += 1,
                Ok(false) => imported.jobs_known += 1,
            }
            if let Some(batch) = batch {
                let members = members.entry(batch).or_default();
                members.count += 1;
                members.some_run |= job.2.state.is_some_and(|state| !state.is_terminal());
            }
        }
        Ok(())
    }

    /// A UUID stays; of any other id the same one follows every time.
    fn uuid(&self, kind: &str, id: &str) -> Uuid {
        Uuid::parse_str(id).unwrap_or_else(|_| {
            let mut hash = PartsHash::default();
            for part in [self.prefix, kind, id] {
                hash.part(part);
            }
            let number = u128::from_str_radix(&hash.hex(32), 16).unwrap_or_default();
            Builder::from_custom_bytes(number.to_be_bytes()).into_uuid()
        })
    }
}

/// A value, or why this key cannot be taken over: one that is too long is reported and left out, as any other that is not understood.
async fn read(source: &mut ForeignRedis, key: &str) -> Result<Result<ForeignValue, String>, ImportError> {
    match source.read(key.as_bytes()).await {
        Ok(value) => Ok(Ok(value)),
        Err(error @ ForeignError::TooLong(_)) => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Keeps a job that was refused with its batch without it, if that is what was wrong: a job is worth more than its place.
async fn without_batch(
    (key, job, report): &Job,
    batch: BatchId,
    why: String,
    target: &dyn Target,
    imported: &mut Imported,
) -> Result<Result<bool, String>, ImportError> {
    let alone = NewTrackedJob { batch: None, ..job.clone() };
    match target.jobs(&[(key.clone(), alone, report.clone())]).await? {
        Ok(mut are_new) => {
            imported.unread.push((key.clone(), format!("it is kept without batch `{batch}`: {why}")));
            Ok(Ok(are_new.pop().unwrap_or(false)))
        }
        Err(_) => Ok(Err(why)),
    }
}

fn unsuitable(value: &ForeignValue) -> String {
    match value {
        ForeignValue::Gone => "it expired while it was read".to_owned(),
        ForeignValue::Bytes(_) => "it is a string".to_owned(),
        ForeignValue::Elements(_) => "it is a set or a list, where a JSON object was expected".to_owned(),
        ForeignValue::Fields(_) => "it is a hash, where JSON was expected".to_owned(),
        ForeignValue::Other(kind) => format!("it is a {kind}"),
    }
}
