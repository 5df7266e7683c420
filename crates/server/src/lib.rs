//! Recache over HTTP: in this version, its health.
//!
//! * `GET /health/live`: the process answers. Never touches the store.
//! * `GET /health/ready`: 200 when a write would be accepted and committed, 503 with the reason otherwise.
//! * `GET /health`: the same verdict with what the engine is doing, as JSON.
//!
//! Without authentication, which this version does not have, only loopback addresses are served ([`bind`]).

pub mod documents;
mod health;

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use recache_engine::Engine;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Why the server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has the address.
    #[error("{0} is in use by another process")]
    AddressInUse(SocketAddr),
    /// Without authentication nobody but this host may connect.
    #[error("{0} is not a loopback address, and this version has no authentication")]
    NotLoopback(SocketAddr),
    /// The system refused.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Serving ended by itself.
    #[error("serving ended: {0}")]
    Serve(std::io::Error),
}

/// Takes the address, which must be a loopback one.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    if !address.ip().is_loopback() {
        return Err(Error::NotLoopback(address));
    }
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::AddressInUse(address),
        _ => Error::Listen { address, source },
    })
}

/// The routes over an engine.
pub fn routes(engine: Engine) -> Router {
    Router::new()
        .route("/health", get(health::summary))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .with_state(engine)
}

/// Serves until `stop` is cancelled; requests that are under way end first.
pub async fn serve(listener: TcpListener, engine: Engine, stop: CancellationToken) -> Result<(), Error> {
    axum::serve(listener, routes(engine))
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
        .map_err(Error::Serve)
}
