//! Hints between processes that something is worth a look. Correctness never rests on them.

use recache_model::ids::{BatchId, JobId, ViewId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::events::EventRecord;
use crate::records::CacheMark;

/// A hint. Lost ones are made up for by polling and by the beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// A queue has claimable jobs.
    Queued(String),
    /// A running job was cancelled, superseded or taken away.
    Revoked(JobId),
    /// A view was touched, or a build of it ended.
    ViewChanged(ViewId),
    /// A view has a new live version.
    Published(ViewId, i64),
    /// The end of a batch may have come. Only within the process that changed it: whoever did looks at it.
    BatchMoved(BatchId),
    /// A batch has ended, and its callbacks are made.
    BatchEnded(BatchId),
    /// Touches were asked for from SQL.
    TouchesAsked,
    /// The epochs of the caches with this key prefix were raised; the record is now this one or a later one.
    CacheRaised(String, CacheMark),
    /// Events were written, or deliveries are due, that somebody is to be told of.
    EventsWritten,
    /// Events were written whose payloads are to be made.
    DraftsWritten,
    /// An event that its template wants told at once, to this process only.
    Happened(Box<EventRecord>),
}

/// How signals travel between processes: small JSON, well below PostgreSQL's 8,000 bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Wire {
    /// The process that sent it, so that it does not hear itself twice.
    pub(crate) from: Uuid,
    q: Vec<String>,
    r: Vec<Uuid>,
    v: Vec<Uuid>,
    p: Vec<(Uuid, i64)>,
    b: Vec<Uuid>,
    /// Only written by the function `touch_many` of the PostgreSQL schema.
    t: bool,
    /// Prefix, incarnation, version; also written by the function `cache_raise` of the PostgreSQL schema.
    c: Vec<(String, u64, u64)>,
    /// Events were written.
    e: bool,
    /// Drafts of events were written.
    d: bool,
}

/// Signals in one message.
pub(crate) const WIRE_SIGNALS_MAX: usize = 100;

impl Wire {
    pub(crate) fn pack(from: Uuid, signals: &[Signal]) -> Self {
        let mut wire = Self { from, ..Self::default() };
        for signal in signals {
            match signal {
                Signal::Queued(queue) => {
                    if !wire.q.contains(queue) {
                        wire.q.push(queue.clone());
                    }
                }
                Signal::Revoked(job) => wire.r.push(job.uuid()),
                Signal::ViewChanged(view) => wire.v.push(view.uuid()),
                Signal::Published(view, version) => wire.p.push((view.uuid(), *version)),
                Signal::BatchEnded(batch) => wire.b.push(batch.uuid()),
                Signal::TouchesAsked => wire.t = true,
                Signal::CacheRaised(prefix, mark) => {
                    // The last one says all that the earlier ones did.
                    wire.c.retain(|(known, ..)| known != prefix);
                    wire.c.push((prefix.clone(), mark.incarnation, mark.version));
                }
                Signal::EventsWritten => wire.e = true,
                Signal::DraftsWritten => wire.d = true,
                // Of this process alone.
                Signal::BatchMoved(_) | Signal::Happened(_) => {}
            }
        }
        wire
    }

    pub(crate) fn unpack(self) -> Vec<Signal> {
        let mut signals: Vec<Signal> = self.q.into_iter().map(Signal::Queued).collect();
        signals.extend(self.r.into_iter().map(|id| Signal::Revoked(JobId::from_uuid(id))));
        signals.extend(self.v.into_iter().map(|id| Signal::ViewChanged(ViewId::from_uuid(id))));
        signals.extend(self.p.into_iter().map(|(id, v)| Signal::Published(ViewId::from_uuid(id), v)));
        signals.extend(self.t.then_some(Signal::TouchesAsked));
        signals.extend(self.b.into_iter().map(|id| Signal::BatchEnded(BatchId::from_uuid(id))));
        signals.extend(self.c.into_iter().map(|(prefix, incarnation, version)| {
            Signal::CacheRaised(prefix, CacheMark { incarnation, version })
        }));
        signals.extend(self.e.then_some(Signal::EventsWritten));
        signals.extend(self.d.then_some(Signal::DraftsWritten));
        signals
    }
}
