//! What the store measures of itself, as metrics: its pool and the times of its calls. Calls are labelled by the names of the store's own
//! methods, never by anything that a caller chose.

use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use recache_engine::ClaimLimit;
use recache_model::pool::Band;
use recache_store::measured::BOUNDS_US;
use recache_store::{Measured, PoolFigures, StatementFigures, WriterFigures};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatementLabels {
    statement: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BandLabels {
    band: &'static str,
}

/// How many jobs may run.
pub(crate) fn encode_limit(encoder: &mut DescriptorEncoder<'_>, limit: ClaimLimit) -> std::fmt::Result {
    let help = "Jobs that may run in this process at once";
    gauge(encoder, "engine_claim_limit", help, limit.limit.into())
}

/// What the store measured.
pub(crate) fn encode(encoder: &mut DescriptorEncoder<'_>, measured: &Measured) -> std::fmt::Result {
    if let Some(pool) = &measured.pool {
        encode_pool(encoder, pool)?;
    }
    if let Some(writer) = &measured.writer {
        encode_writer(encoder, writer)?;
    }
    encode_calls(encoder, &measured.statements)?;
    let help = "Ends that figures count under no handler, step or queue of their own: there were too many in a minute";
    let metric = encoder.encode_descriptor("figures_other", help, None, MetricType::Counter)?;
    ConstCounter::new(measured.figures_other).encode(metric)
}

fn encode_pool(encoder: &mut DescriptorEncoder<'_>, pool: &PoolFigures) -> std::fmt::Result {
    let state = pool.state;
    for (name, help, count) in [
        ("database_pool_max", "Connections that the pool may have", state.max),
        ("database_pool_size", "Connections that it has", state.size),
        ("database_pool_busy", "Connections in use", state.busy),
        ("database_pool_waiting", "Callers who wait for a connection", state.waiting),
    ] {
        gauge(encoder, name, help, count.into())?;
    }
    let help = "1: how full the pool is, from low over moderate and high to critical";
    encode_band(encoder, "database_pool_band", help, state.band())?;
    for (name, help, count) in [
        ("database_pool_taken", "Connections taken from the pool", pool.used.taken),
        ("database_pool_waited", "Takings that waited for longer than a millisecond", pool.used.waited),
        ("database_connections_opened", "Connections opened", pool.opened),
    ] {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(count).encode(metric)?;
    }
    let help = "Waits for connections, together";
    seconds(encoder, "database_pool_wait", help, pool.waited)
}

fn encode_writer(encoder: &mut DescriptorEncoder<'_>, writer: &WriterFigures) -> std::fmt::Result {
    let help = "Callers who wait for their turn with the one writer";
    gauge(encoder, "database_writer_waiting", help, writer.state.waiting.into())?;
    let help = "1: how full the one writer is, from low over moderate and high to critical";
    encode_band(encoder, "database_writer_band", help, writer.state.band())?;
    for (name, help, count) in [
        ("database_writer_calls", "Calls that the one writer carried out", writer.used.calls),
        ("database_writer_transactions", "Transactions that carried them", writer.used.groups),
    ] {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(count).encode(metric)?;
    }
    let help = "Waits for the one writer, together";
    seconds(encoder, "database_writer_wait", help, writer.used.waited)?;
    let help = "Time in which the one writer had a transaction open; its rate is how full it is";
    seconds(encoder, "database_writer_busy", help, writer.used.busy)
}

fn encode_band(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, found: Band) -> std::fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for band in Band::ALL {
        let labels = BandLabels { band: band.as_str() };
        let metric = family.encode_family(&labels)?;
        ConstGauge::new(i64::from(band == found)).encode(metric)?;
    }
    Ok(())
}

fn encode_calls(encoder: &mut DescriptorEncoder<'_>, calls: &[StatementFigures]) -> std::fmt::Result {
    if calls.is_empty() {
        return Ok(());
    }
    let help = "How long calls of the database took, without the wait for a connection";
    let name = "database_call_duration";
    let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for one in calls {
        let bounds = BOUNDS_US.iter().map(|us| f64::from(u32::try_from(*us).unwrap_or(u32::MAX)) / 1e6);
        let buckets: Vec<(f64, u64)> =
            bounds.chain([f64::MAX]).zip(&one.buckets).map(|(bound, count)| (bound, *count)).collect();
        let labels = StatementLabels { statement: one.name };
        let mut metric = family.encode_family(&labels)?;
        metric.encode_histogram::<NoLabelSet>(one.sum.as_secs_f64(), one.count, &buckets, None)?;
    }
    let mut family = encoder.encode_descriptor(
        "database_calls_slow",
        "Calls of the database that took longer than `database.slow_ms`",
        None,
        MetricType::Counter,
    )?;
    for one in calls.iter().filter(|one| one.slow > 0) {
        let labels = StatementLabels { statement: one.name };
        let metric = family.encode_family(&labels)?;
        ConstCounter::new(one.slow).encode(metric)?;
    }
    Ok(())
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, count: u64) -> std::fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(metric)
}

fn seconds(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, sum: Duration) -> std::fmt::Result {
    let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
    ConstCounter::new(sum.as_secs_f64()).encode(metric)
}
