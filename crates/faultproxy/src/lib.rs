//! Makes the network and the servers fail, for tests: a TCP proxy with faults that a test switches on and off, and real
//! server processes that it kills, freezes and starts again.
//!
//! A test puts a [`Proxy`] between a client and a server. What the proxy does to the bytes stands in a [`Plan`]: how it
//! takes new connections, and for each direction whether bytes pass, are held or vanish, how late and how fast they come, in
//! what slices, where the connection is cut and which bits are flipped. All of it can be combined, changed while connections
//! live, and given to a single connection. Everything random comes from one seed, printed at the start; the variable
//! [`SEED_VARIABLE`] repeats a run. [`Counts`] says what was done, so that a test can prove that its fault took place.
//!
//! ```
//! use std::time::Duration;
//! use recache_faultproxy::{Ending, Lane, Plan, Proxy};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! # async fn example() -> std::io::Result<()> {
//! let server = TcpListener::bind("127.0.0.1:0").await?;
//! let proxy = Proxy::start(server.local_addr()?)?;
//! let mut client = TcpStream::connect(proxy.address()).await?;
//! let (mut at_server, _) = server.accept().await?;
//!
//! // What the client says is held back ...
//! proxy.set(Plan::default().to_server(Lane::default().held())).await;
//! client.write_all(b"hello").await?;
//! let mut heard = [0; 5];
//! let early = tokio::time::timeout(Duration::from_millis(50), at_server.read_exact(&mut heard)).await;
//! assert!(early.is_err());
//!
//! // ... and comes through when the fault is healed.
//! proxy.heal().await;
//! at_server.read_exact(&mut heard).await?;
//! assert_eq!(&heard, b"hello");
//! assert_eq!(proxy.counts().held_bytes, 5);
//!
//! // The network breaks: the client's connection is reset.
//! assert_eq!(proxy.end_all(Ending::Reset), 1);
//! assert_eq!(client.read(&mut heard).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```
//!
//! [`plan`](Plan) and the module `lane` behind it decide, without I/O and without a clock; `pump` and `proxy` carry out.

mod counts;
mod lane;
mod plan;
mod port;
mod process;
mod proxy;
mod pump;
mod random;

pub use self::counts::Counts;
pub use self::plan::{Accept, Chance, Cut, CutAt, Ending, Flip, Flow, Lane, Plan};
pub use self::process::{Error, ServerProcess, ServerRecipe};
pub use self::proxy::{ConnectionId, Direction, Proxy, SEED_VARIABLE};
pub use self::random::Random;
