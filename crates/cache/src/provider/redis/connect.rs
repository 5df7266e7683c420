//! One connection: from the socket to a server that has let us in.
//!
//! The socket is opened here and handed to the client's multiplexer, which needs no feature of its own for TLS then, and
//! no reconnecting of its own: that is [`lane`](super::lane)'s. The multiplexer pairs answers with requests strictly by
//! order and drops the answer of a request whose caller is gone, so no answer can reach another (redis-rs 1.8.1,
//! `aio/multiplexed_connection.rs`, `send_result`; held by a test with cancelled calls).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::errors::{Failure, unavailable};
use super::settings::{Login, Place};
use crate::provider::Error;

/// A peer that is silently gone is noticed by the operating system after this: first probe, then two more.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// Sent bytes that nobody acknowledges break the connection after this.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// Requests that wait for the socket, per connection; further callers wait for room.
const REQUESTS_QUEUED_MAX: usize = 512;

/// Does the reading and writing of a connection; ends when that is broken.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How every connection of a provider is opened.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    pub(super) has_tls: bool,
    #[cfg_attr(not(feature = "cache-redis-tls"), expect(dead_code, reason = "only TLS needs authorities"))]
    pub(super) ca_file: Option<String>,
    pub(super) timeout: Duration,
    /// Counts how often the first connection to a server was opened.
    pub(super) opened: Arc<watch::Sender<u64>>,
    /// Counts connections, each before it is used.
    pub(super) entered: Arc<AtomicU64>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Dial {
    /// A connection for commands, within the connection timeout.
    pub(super) async fn commands(
        &self,
        place: &Place,
        login: &Login,
    ) -> Result<(MultiplexedConnection, Driver), Error> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            // Callers bound their own waits, and `lane` watches for answers that are overdue.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(REQUESTS_QUEUED_MAX);
        self.within(async {
            let stream = self.stream(place).await?;
            let (connection, driver) = MultiplexedConnection::new_with_config(login.info(), stream, config)
                .await
                .map_err(entering)?;
            let driver: Driver = Box::pin(driver);
            Ok((connection, driver))
        })
        .await
    }

    /// A connection that listens, within the connection timeout.
    pub(super) async fn listening(&self, place: &Place, login: &Login) -> Result<PubSub, Error> {
        self.within(async {
            let stream = self.stream(place).await?;
            PubSub::new(login.info(), stream).await.map_err(entering)
        })
        .await
    }

    async fn within<T>(&self, opening: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        match timeout(self.timeout, Box::pin(opening)).await {
            Ok(opened) => opened,
            Err(_) => Err(unavailable(format!("no connection within {:?}", self.timeout))),
        }
    }

    async fn stream(&self, (host, port): &Place) -> Result<Box<dyn Stream>, Error> {
        let refused = |error: std::io::Error| unavailable(format!("cannot connect: {}", error.kind()));
        let socket = TcpStream::connect((host.as_str(), *port)).await.map_err(refused)?;
        prepare(&socket).map_err(refused)?;
        if !self.has_tls {
            return Ok(Box::new(socket));
        }
        self.encrypted(host, socket).await
    }

    #[cfg(feature = "cache-redis-tls")]
    async fn encrypted(&self, host: &str, socket: TcpStream) -> Result<Box<dyn Stream>, Error> {
        let connector = super::tls::connector(self.ca_file.as_deref()).await.map_err(unavailable)?;
        let name = super::tls::server_name(host).map_err(unavailable)?;
        match connector.connect(name, socket).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(unavailable(format!("TLS handshake failed: {}", super::tls::reason(&error)))),
        }
    }

    #[cfg(not(feature = "cache-redis-tls"))]
    #[expect(clippy::unused_async, reason = "the same as with TLS")]
    async fn encrypted(&self, _host: &str, _socket: TcpStream) -> Result<Box<dyn Stream>, Error> {
        Err(unavailable("TLS is not built into this version"))
    }
}

fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    // Closing throws away what was not sent: a write that was given up must not arrive after those that followed it
    // on the next connection.
    socket.set_linger(Some(Duration::ZERO))?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(())
}

/// Whatever a server says to who knocks, it cannot be used.
fn entering(error: redis::RedisError) -> Error {
    match Failure::of(error) {
        Failure::Told(told) => unavailable(format!("the server lets nobody in: {}", told.code())),
        other => other.into_error(),
    }
}
