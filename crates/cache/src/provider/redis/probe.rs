//! Finds out what the live server can do, by doing it under a key of its own: two exchanges, after each reconnect.

use std::time::Duration;

use redis::{Pipeline, Value, cmd};
use uuid::Uuid;

use super::errors::Failure;
use super::known::{DEPENDS_ON_THE_SERVER, KnownServer};
use super::node::Line;
use super::servers::Servers;
use super::{declared, script, value};
use crate::key::KeyPrefix;
use crate::provider::{Capabilities, Capability, Error, Known, Source};
use crate::usage::Coherence;

/// What the probe stores ends by itself, should the probe not come to its end.
const PROBE_MS: u64 = 10_000;

/// What is known once nothing was probed: the table, by what the server says or else by what was configured, and the
/// detectors.
pub(super) fn unprobed(
    info: &str,
    configured: Option<KnownServer>,
    detectors: &[super::Detector],
) -> Capabilities {
    let mut capabilities = declared();
    if let Some(known) = KnownServer::of_info(info).or(configured.filter(|_| info.is_empty())) {
        known.claim(&mut capabilities);
    }
    for detector in detectors {
        for (capability, known) in detector(info) {
            capabilities.claim(capability, known, Source::Detector);
        }
    }
    capabilities
}

/// Adds to `capabilities` what the server has shown.
pub(super) async fn probe(
    servers: &Servers,
    prefix: &KeyPrefix,
    channel: &str,
    unprobed: &Capabilities,
) -> Result<Capabilities, Error> {
    let mut capabilities = *unprobed;
    let tag = format!("{{{}:~probe:{}}}", prefix.as_str(), Uuid::new_v4().simple());
    let (number, text) = (format!("{tag}n"), format!("{tag}t"));
    let node = servers.of(&number)?;
    let mut commands = Pipeline::new();
    commands.cmd("INCRBY").arg(&number).arg(2);
    commands.cmd("PEXPIRE").arg(&number).arg(PROBE_MS);
    commands.cmd("PTTL").arg(&number);
    commands.cmd("SET").arg(&text).arg("1").arg("PX").arg(PROBE_MS).arg("NX");
    commands.cmd("SET").arg(&text).arg("2").arg("PX").arg(PROBE_MS).arg("NX");
    commands.cmd("MGET").arg(&text).arg(&number);
    commands.add_command(script::SWAP.in_full(&[&text], &[b"1", b"1", b"1", b"3", b"10000"]));
    commands.cmd("GET").arg(&text);
    commands.cmd("PUBLISH").arg(channel).arg("");
    let answers =
        node.many(Line::Ordered, &commands).await.map_err(|failure| servers.broke(failure, &node))?;
    servers.learn(&answers, &node);
    if let Some(told) = answers.iter().find_map(refused_for_now) {
        return Err(told.into_error());
    }
    let mut clean = cmd("UNLINK");
    clean.arg(&number).arg(&text);
    // Whether that is allowed changes nothing: what is left ends by itself.
    let _ = node.one(Line::Ordered, &clean).await;

    let at = |place: usize| answers.get(place);
    let is_number =
        |place, low, high| matches!(at(place), Some(Value::Int(found)) if (low..=high).contains(found));
    let is_text = |place, text: &[u8]| matches!(at(place), Some(Value::BulkString(found)) if found == text);
    let increments = is_number(0, 2, 2);
    let expires = is_number(1, 1, 1);
    let inspects = is_number(2, 1, i64::try_from(PROBE_MS).unwrap_or(i64::MAX));
    let sets_if_absent = matches!(at(3), Some(Value::Okay)) && matches!(at(4), Some(Value::Nil));
    let batches =
        at(5).cloned().and_then(|answer| value::array(answer).ok()).is_some_and(|found| found.len() == 2);
    let scripts = is_number(6, 1, 1) && is_text(7, b"3");
    let publishes = matches!(at(8), Some(Value::Int(_)));
    for capability in DEPENDS_ON_THE_SERVER.into_iter().chain([Capability::Batch]) {
        let has = match capability {
            Capability::AtomicIncrement => increments && expires && scripts,
            Capability::CompareAndSwap | Capability::Leases => scripts,
            Capability::SetIfAbsent => sets_if_absent,
            Capability::TtlInspection => inspects,
            Capability::PushInvalidation => publishes,
            _ => batches,
        };
        capabilities.claim(capability, Known::Has(has), Source::Probed);
    }
    if !scripts || node.identity().run.is_empty() {
        // Nobody can tell here whether the epochs have gone back in time.
        capabilities = capabilities.coherent(Coherence::Eventual);
    }
    Ok(capabilities)
}

/// A server that takes no writes at the moment does not show what it can do.
fn refused_for_now(answer: &Value) -> Option<Failure> {
    let Value::ServerError(told) = answer else { return None };
    let passes = ["OOM", "READONLY", "MISCONF", "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS"];
    passes.contains(&told.code()).then(|| Failure::Told(told.clone()))
}

/// How long a probe may take before it is given up until the next reconnect.
pub(super) const PROBE_WITHIN: Duration = Duration::from_secs(5);
