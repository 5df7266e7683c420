//! One connection: a pipeline of commands goes out, as many answers come back, and only then can it be used again.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::wire::{Answer, Command, Decoder, Dialect, Malformed, encode};
use super::{protocol, unavailable};
use crate::config::MemcachedServer;
use crate::provider::Error;

/// A buffer that has grown beyond this for one large exchange is given back after it.
const BUFFER_BYTES_KEPT: usize = 64 << 10;

/// So much is asked of the socket at least.
const READ_BYTES: usize = 16 << 10;

/// And so much for each command, up to a bound: what does not come in one piece costs a wait more.
const READ_BYTES_A_COMMAND: usize = 512;
const READ_BYTES_MAX: usize = 48 << 10;

/// What a pipeline needs to know of its server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// What the server's clock shows, in seconds since 1970.
    pub(super) server_now: Option<i64>,
    /// No value is larger.
    pub(super) value_bytes_max: usize,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// The same socket, to be asked without the runtime: what that knows of it may be of before a server's restart.
    socket: std::net::TcpStream,
    dialect: Dialect,
    /// Of the next command.
    opaque: u32,
    outgoing: Vec<u8>,
    incoming: BytesMut,
    is_rested: bool,
}

impl Connection {
    /// Connects, logs in where the address says so, and finds out which dialect is spoken. All of it within `limit`.
    pub(super) async fn open(server: &MemcachedServer, limit: Duration) -> Result<Self, Error> {
        match timeout(limit, Self::connect(server)).await {
            Ok(result) => result,
            Err(_) => Err(unavailable(format!("no connection to {server} within {limit:?}"))),
        }
    }

    async fn connect(server: &MemcachedServer) -> Result<Self, Error> {
        let stream = TcpStream::connect((server.host(), server.port()))
            .await
            .map_err(|error| unavailable(format!("cannot connect to {server}: {error}")))?;
        // Small commands must not wait for one another.
        stream.set_nodelay(true).map_err(|error| broken_off(&error))?;
        let stream = stream.into_std().map_err(|error| broken_off(&error))?;
        let socket = stream.try_clone().map_err(|error| broken_off(&error))?;
        let stream = TcpStream::from_std(stream).map_err(|error| broken_off(&error))?;
        let mut connection = Self {
            stream,
            socket,
            dialect: Dialect::Classic,
            opaque: 1,
            outgoing: Vec::new(),
            incoming: BytesMut::new(),
            is_rested: true,
        };
        let terms = Terms { server_now: None, value_bytes_max: 0 };
        if let Some((user, password)) = server.login() {
            let answers = connection.exchange(&[Command::Login { user, password }], terms).await?;
            if answers != [Answer::Done { cas: None }] {
                return Err(unavailable(format!("{server} refuses the user and password of its address")));
            }
        }
        match connection.exchange(&[Command::Hello], terms).await?.as_slice() {
            [Answer::Hello { knows_meta: true }] => connection.dialect = Dialect::Meta,
            [Answer::Hello { knows_meta: false }] => {}
            _ => return Err(unavailable(format!("{server} wants a user and a password"))),
        }
        Ok(connection)
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// For a server that knows the meta commands but not as they are today.
    pub(super) fn speak_classic(&mut self) {
        self.dialect = Dialect::Classic;
    }

    /// Whether its last exchange came to its end.
    pub(super) fn is_rested(&self) -> bool {
        self.is_rested
    }

    /// Whether nothing came since: neither the server's farewell nor anything that nobody asked for.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        matches!(self.socket.peek(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends all commands at once and waits for all answers: one round trip. When it is dropped or fails, the connection
    /// is not rested any more and must not be used again.
    pub(super) async fn exchange(
        &mut self,
        commands: &[Command<'_>],
        terms: Terms,
    ) -> Result<Vec<Answer>, Error> {
        self.is_rested = false;
        let opaque = self.opaque;
        self.opaque = opaque.wrapping_add(u32::try_from(commands.len()).unwrap_or(u32::MAX));
        self.outgoing.clear();
        encode(self.dialect, commands, opaque, terms.server_now, &mut self.outgoing);
        let mut decoder = Decoder::new(self.dialect, commands, opaque, terms.value_bytes_max);

        // Both ways at once: a server that cannot get rid of its answers stops reading, and each would wait for the other.
        let (mut reader, mut writer) = self.stream.split();
        let outgoing = &self.outgoing;
        let incoming = &mut self.incoming;
        let send = async { writer.write_all(outgoing).await.map_err(|error| broken_off(&error)) };
        let receive = async {
            let at_once =
                commands.len().saturating_mul(READ_BYTES_A_COMMAND).clamp(READ_BYTES, READ_BYTES_MAX);
            let mut needed = at_once;
            while !decoder.is_complete() {
                incoming.reserve(needed.max(at_once));
                if reader.read_buf(incoming).await.map_err(|error| broken_off(&error))? == 0 {
                    return Err(unavailable("the server closed the connection"));
                }
                let (taken, bytes) = decoder.feed(incoming).map_err(|Malformed(what)| protocol(what))?;
                let _ = incoming.split_to(taken);
                needed = bytes.saturating_sub(incoming.len());
            }
            Ok(())
        };
        futures_util::future::try_join(send, receive).await?;
        if !self.incoming.is_empty() {
            return Err(protocol("more than was asked for"));
        }
        if self.outgoing.capacity() > BUFFER_BYTES_KEPT {
            self.outgoing = Vec::new();
        }
        if self.incoming.capacity() > BUFFER_BYTES_KEPT {
            self.incoming = BytesMut::new();
        }
        self.is_rested = true;
        Ok(decoder.into_answers())
    }

    /// Says that nothing more will come, and waits until the server has done what it was sent and closes in turn.
    pub(super) async fn wind_up(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut rest = vec![0; READ_BYTES];
        while matches!(self.stream.read(&mut rest).await, Ok(bytes) if bytes > 0) {}
    }
}

fn broken_off(error: &io::Error) -> Error {
    unavailable(format!("the connection broke off: {error}"))
}
