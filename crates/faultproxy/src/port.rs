//! A loopback port that stays ours, also while nobody listens on it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

const BACKLOG: u32 = 1_024;

/// How long an attempt is given to show that it is not answered.
const UNANSWERED: Duration = Duration::from_millis(50);

/// A port of this process. A socket that is bound and never listens holds it: no other program is given the port, and who
/// connects is refused. It may be listened on all the same, here or by a child process, because both ask for the address to be
/// shared (`SO_REUSEADDR`), as servers do.
#[derive(Debug)]
pub(crate) struct Port {
    address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    pub(crate) fn reserve() -> io::Result<Self> {
        let held = TcpSocket::new_v4()?;
        held.set_reuseaddr(true)?;
        held.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self { address: held.local_addr()?, _held: held })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn listen(&self) -> io::Result<TcpListener> {
        self.listen_with_backlog(BACKLOG)
    }

    fn listen_with_backlog(&self, backlog: u32) -> io::Result<TcpListener> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.address)?;
        socket.listen(backlog)
    }

    /// Listens so that nobody gets through: the queue of connections is filled with our own, and the system does not answer
    /// further attempts.
    pub(crate) async fn ignore(&self) -> io::Result<Deaf> {
        let listener = self.listen_with_backlog(0)?;
        let mut queued = Vec::new();
        while let Ok(connected) = timeout(UNANSWERED, TcpStream::connect(self.address)).await {
            queued.push(connected?);
        }
        Ok(Deaf { _listener: listener, _queued: queued })
    }
}

/// While it lives, who connects is not answered.
#[derive(Debug)]
pub(crate) struct Deaf {
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}
