//! Recache over HTTP: `/v1`, health and metrics, described by OpenAPI.
//!
//! ```no_run
//! # async fn run(engine: recache_engine::Engine) -> Result<(), recache_server::Error> {
//! use recache_server::{App, Auth, Settings, bind, serve};
//!
//! let app = App::new(engine, Settings::default(), Auth::default());
//! let listener = bind("127.0.0.1:7878".parse().expect("an address"), false).await?;
//! let stop = app.stop().clone();
//! tokio::spawn(serve(listener, app, None));
//! // … until something says that it is time:
//! stop.cancel();
//! # Ok(()) }
//! ```
//!
//! Where things are: [`documents`] makes what is answered; `routes` holds the handlers by noun, and says how one is added; `input` reads
//! what comes in, strictly; `access` knows who asks and what they may do; `frame` is what stands around every handler; `stream` tells many
//! clients of events; `connection` is
//! what stands around the frame. It translates, and decides nothing about the work itself.

pub mod documents;

mod etag;
mod routes;
mod stream;
mod worker_protocol;

mod audited;
mod input;
mod refusal;

mod access;

mod frame;
mod health;
mod metrics;
mod settings;
mod state;
mod store_metrics;

mod connection;
mod slow_reader;
mod tls;

use std::net::SocketAddr;

pub use access::{
    Action, Auth, Grant, GrantError, Grants, Identity, JwtKeys, JwtSettings, KeySource, Permission, make_key,
};
pub use audited::{recorded, state as audit_state};
pub use connection::{bind, serve};
pub use refusal::{Code, Refusal};
pub use routes::{api, open_pages, permissions, router};
pub use settings::Settings;
pub use state::App;
pub use tls::Tls;

/// Why the server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has the address.
    #[error("{0} is in use by another process")]
    AddressInUse(SocketAddr),
    /// Without authentication nobody but this host may connect.
    #[error("{0} can be reached from other machines, and no authentication is configured")]
    NotLoopback(SocketAddr),
    /// The system refused.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}
