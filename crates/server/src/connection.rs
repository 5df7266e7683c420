//! Connections: taken up to a limit, each with its limits on headers and time, and ended in order when the server stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::Request;
use axum::http::request::Parts;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::slow_reader::Unhurried;
use crate::state::App;
use crate::tls::Tls;
use crate::{Error, frame, routes};

/// After the system refused a connection (no file descriptor left, for example) the next try waits this long.
const AFTER_REFUSAL: Duration = Duration::from_millis(50);
/// Whoever is turned away is told so within this time.
const TURN_AWAY_WITHIN: Duration = Duration::from_secs(1);

/// What a connection too many is told.
const TURN_AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-type: application/problem+json\r\n\
connection: close\r\ncontent-length: 169\r\n\r\n{\"type\":\"about:blank\",\"title\":\"Too much to do\",\"status\":503,\
\"code\":\"overloaded\",\"detail\":\"too many connections\",\"remedy\":\"try again later\",\"request_id\":null,\"errors\":[]}";

/// Ends the connection of a request at once, whatever is still to be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct HangUp(pub(crate) CancellationToken);

impl FromRequestParts<App> for HangUp {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// Takes the address. One that others can reach needs callers that are known.
pub async fn bind(address: SocketAddr, has_auth: bool) -> Result<TcpListener, Error> {
    if !has_auth && !address.ip().is_loopback() {
        return Err(Error::NotLoopback(address));
    }
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::AddressInUse(address),
        _ => Error::Listen { address, source },
    })
}

/// Serves until [`App::stop`] is cancelled. Then no new connection is taken, requests that are under way end, and after
/// [`Settings::drain`](crate::Settings::drain) what is left is cut off.
pub async fn serve(listener: TcpListener, app: App, tls: Option<Tls>) -> Result<(), Error> {
    let router = routes::router(app.clone());
    let places = Arc::new(Semaphore::new(app.settings().connections_max));
    let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
    let preparing = app.clone();
    tokio::spawn(async move { preparing.gate().prepare().await });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.stop().cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(AFTER_REFUSAL).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            app.metrics().refused();
            // Telling takes a task too: beyond this many, hanging up must do.
            if tasks.len() < 2 * app.settings().connections_max {
                tasks.spawn(turn_away(stream));
            }
            continue;
        };
        let connected = app.metrics().connected();
        let serving = connection(stream, tls.clone(), router.clone(), app.clone(), cut.clone());
        tasks.spawn(async move {
            serving.await;
            drop((place, connected));
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(app.settings().drain, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "connections did not end in time and are cut off");
        cut.cancel();
        tasks.wait().await;
    }
    Ok(())
}

async fn connection(stream: TcpStream, tls: Option<Tls>, router: Router, app: App, cut: CancellationToken) {
    // Small answers go out at once; that it cannot be set is no reason to refuse.
    let _ = stream.set_nodelay(true);
    let stream = Unhurried::new(stream, app.settings().answer_wait_max);
    let Some(Tls(acceptor)) = tls else {
        return exchange(stream, router, &app, &cut).await;
    };
    // A handshake takes no longer than headers may.
    match tokio::time::timeout(app.settings().headers_wait_max, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => exchange(stream, router, &app, &cut).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn exchange<S>(stream: S, router: Router, app: &App, cut: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (settings, stop) = (app.settings(), app.stop());
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.headers_wait_max)
        .max_buf_size(settings.header_bytes_max)
        .max_headers(settings.headers_max);
    let hang_up = HangUp::default();
    let service = service_fn(|mut request: Request<Incoming>| {
        let refused = frame::shed(app, &request);
        request.extensions_mut().insert(hang_up.clone());
        let mut router = router.clone();
        async move {
            match refused {
                Some(refused) => Ok(refused),
                None => router.call(request).await,
            }
        }
    });
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = hang_up.0.cancelled() => return,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = hang_up.0.cancelled() => return,
                () = cut.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        // What callers do wrong on a connection is theirs to see; it says nothing about us.
        tracing::debug!(%error, "a connection ended badly");
    }
}

async fn turn_away(mut stream: TcpStream) {
    let telling = async {
        let _ = stream.write_all(TURN_AWAY).await;
        let _ = stream.shutdown().await;
    };
    let _ = tokio::time::timeout(TURN_AWAY_WITHIN, telling).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_turned_away_gets_a_whole_answer() {
        let text = std::str::from_utf8(TURN_AWAY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        let problem: recache_api::Problem = serde_json::from_str(body).unwrap();
        assert_eq!((problem.status, problem.code.as_str()), (503, "overloaded"));
    }
}
