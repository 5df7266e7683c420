//! One connection: carries out what its lanes decide.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::counts::count;
use crate::lane::{State, Step};
use crate::plan::{Accept, Ending};
use crate::proxy::{ConnectionId, Direction, Shared};
use crate::random::Random;

/// How much is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// How long a server may take to end after a cut before it is left alone.
const LAST_READ_MAX: Duration = Duration::from_secs(1);

/// Longer than any connection lives; a time that a clock can still reach.
const FAR_AWAY: Duration = Duration::from_hours(24);

/// One accepted connection.
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) shared: Arc<Shared>,
    /// How the test wants it to end.
    pub(crate) orders: watch::Receiver<Option<Ending>>,
}

impl Connection {
    /// Runs until both sides have ended, or a fault or the test ends it.
    pub(crate) async fn run(self, mut client: TcpStream, upstream: SocketAddr) {
        let mut orders = self.orders.clone();
        let (ending, server) = tokio::select! {
            ending = ordered(&mut orders) => (ending, None),
            end = self.carry(&mut client, upstream) => end,
        };
        match ending {
            Ending::Reset => reset(client),
            Ending::Close => drop(client),
        }
        if let Some(server) = server {
            let _ = timeout(LAST_READ_MAX, end_in_order(server)).await;
        }
    }

    /// Answers how the client's connection is to end, and the server's, when something was forwarded that must get there.
    async fn carry(&self, client: &mut TcpStream, upstream: SocketAddr) -> (Ending, Option<TcpStream>) {
        let mut changes = self.shared.changes();
        if self.shared.plan_for(self.id).accept == Accept::Hang {
            self.shared.counters.hung.one();
            while self.shared.plan_for(self.id).accept == Accept::Hang {
                if changes.changed().await.is_err() {
                    return (Ending::Close, None);
                }
            }
        }
        let Ok(mut server) = TcpStream::connect(upstream).await else {
            self.shared.counters.unconnected.one();
            return (Ending::Reset, None);
        };
        // Slices must leave as they were written.
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let ended = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            tokio::try_join!(
                self.pump(Direction::ToServer, from_client, to_server),
                self.pump(Direction::ToClient, from_server, to_client),
            )
        };
        match ended {
            Ok(_) => (Ending::Close, None),
            Err(ending) => (ending, Some(server)),
        }
    }

    /// Carries one direction until its sender has ended; an error says how the connection ends.
    async fn pump(
        &self,
        direction: Direction,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
    ) -> Result<(), Ending> {
        let counters = &self.shared.counters;
        let began = Instant::now();
        let mut state = State::new(Random::fork(self.shared.seed, self.id.0 * 2 + direction.number()));
        let mut changes = self.shared.changes();
        let mut plan = self.shared.plan_for(self.id);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let current = self.shared.plan_for(self.id);
            if !Arc::ptr_eq(&plan, &current) {
                plan = current;
                state.plan_changed(began.elapsed(), direction.lane_of(&plan));
            }
            let lane = direction.lane_of(&plan);
            let until = match state.next(began.elapsed(), lane) {
                Step::Forward { bytes, flipped_bits } => {
                    counters.flipped_bits.add(flipped_bits);
                    if to.write_all(&bytes).await.is_err() {
                        // The receiver is gone. The other direction may still bring what it said last, and then ends.
                        return Ok(());
                    }
                    counters.slices.one();
                    match direction {
                        Direction::ToServer => counters.bytes_to_server.add(count(bytes.len())),
                        Direction::ToClient => counters.bytes_to_client.add(count(bytes.len())),
                    }
                    // The receiver gets a chance to read this slice before the next.
                    tokio::task::yield_now().await;
                    continue;
                }
                Step::Swallowed(bytes) => {
                    counters.swallowed_bytes.add(bytes);
                    continue;
                }
                Step::Finish { is_broken: true } => return Err(Ending::Reset),
                Step::Finish { is_broken: false } => {
                    let _ = to.shutdown().await;
                    return Ok(());
                }
                Step::Cut { ending, once } => {
                    if !once || self.shared.take_cut(self.id, direction, &plan) {
                        counters.cuts.one();
                        return Err(ending);
                    }
                    // Another connection was cut meanwhile, and the plan has changed.
                    continue;
                }
                Step::WaitUntil(at) => began + at,
                Step::Wait => began + FAR_AWAY,
            };
            tokio::select! {
                _ = changes.changed() => {}
                read = from.read(&mut chunk), if state.wants_more() => match read {
                    Ok(length) => {
                        let bytes = chunk.get(..length).unwrap_or_default();
                        self.shared.count_arrival(lane, length);
                        state.arrive(began.elapsed(), bytes, lane);
                    }
                    Err(_) => state.break_off(),
                },
                () = sleep_until(until) => {}
            }
        }
    }
}

/// Never returns when nobody can order any more.
async fn ordered(orders: &mut watch::Receiver<Option<Ending>>) -> Ending {
    match orders.wait_for(Option::is_some).await.map(|ending| *ending) {
        Ok(Some(ending)) => ending,
        _ => std::future::pending().await,
    }
}

/// Ends the server's connection so that it sees all that was forwarded and then an end in order. To close a socket while
/// something in it is unread would be an RST, so the rest of what the server says is read, and thrown away.
async fn end_in_order(mut server: TcpStream) -> io::Result<u64> {
    server.shutdown().await?;
    tokio::io::copy(&mut server, &mut tokio::io::sink()).await
}

/// Ends a connection by RST.
pub(crate) fn reset(stream: TcpStream) {
    let _: io::Result<()> = stream.set_zero_linger();
    drop(stream);
}
