//! Who asks: so many one after the other, or at a rate, whatever is answered.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::figures::Seen;
use crate::wire::{Request, Wire};

/// Before times are taken.
const WARM_UP: Duration = Duration::from_secs(1);

/// Each connection asks when it was answered.
pub(crate) async fn closed(
    address: SocketAddr,
    request: &Request,
    connections: usize,
    time: Duration,
) -> Seen {
    asked(address, request, connections, time, None).await
}

/// Each connection has its part of the rate, and asks at its times; late, when an answer took longer than that.
pub(crate) async fn open(
    address: SocketAddr,
    request: &Request,
    connections: usize,
    per_second: f64,
    time: Duration,
) -> Seen {
    let connections_u32 = u32::try_from(connections).expect("few");
    asked(
        address,
        request,
        connections,
        time,
        Some(Duration::from_secs_f64(f64::from(connections_u32) / per_second)),
    )
    .await
}

async fn asked(
    address: SocketAddr,
    request: &Request,
    connections: usize,
    time: Duration,
    every: Option<Duration>,
) -> Seen {
    let begin = Instant::now() + WARM_UP;
    let end = begin + time;
    let mut asking = JoinSet::new();
    for number in 0..connections {
        let request = request.clone();
        asking.spawn(async move {
            let mut wire = Wire::open(address).await;
            let mut seen = Seen::default();
            let part = f64::from(u32::try_from(number).expect("few"))
                / f64::from(u32::try_from(connections).expect("few"));
            let mut next = Instant::now() + every.unwrap_or_default().mul_f64(part);
            loop {
                if let Some(every) = every {
                    tokio::time::sleep_until(next).await;
                    next += every;
                }
                let sent = Instant::now();
                if sent >= end {
                    return seen;
                }
                let status = wire.ask(&request).await;
                if sent >= begin {
                    seen.note(status, sent.elapsed());
                }
                // Many clients keep it after a refusal, as the server does.
                if status.is_none() || wire.is_ended() {
                    wire = Wire::open(address).await;
                }
            }
        });
    }
    let mut seen = Seen::default();
    while let Some(part) = asking.join_next().await {
        seen.add(part.expect("it ends"));
    }
    seen.within(time)
}
