//! `recache serve`: keep leases and views moving, and answer for it over HTTP.

use std::sync::Arc;

use recache_engine::Engine;
use recache_server::{App, Error, Settings, bind, serve};

use super::{Context, Outcome, compose};
use crate::cli_error::{CliError, ExitStatus};
use crate::outbound::WebhookCourier;

/// Sweep dead workers, start due builds, send webhooks, answer health checks
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache serve
  recache serve --database postgres://app@db/app

Runs no handlers: those live in your workers. Answers GET /health,
/health/live and /health/ready on the configured loopback address.")]
pub(crate) struct Args {}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let loaded = context.load()?;
        context.log_as_configured(&loaded.config.log);
        // The address first: a start that cannot listen touches no database.
        let address = loaded.config.server.address;
        let listener = bind(address, false).await.map_err(|error| of_server(&error))?;
        let store = context.database()?.open_or_create().await?;
        let engine = Engine::builder(store.clone())
            .options(compose::options(&loaded.config, "recache serve"))
            .cache(compose::cache(&loaded.config.cache, Some(&store)))
            .courier(Arc::new(WebhookCourier::new(loaded.config.outbound.allow_private_addresses)))
            .start()
            .await
            .map_err(|error| CliError::new("E-ENGINE", ExitStatus::Failed, error.to_string()))?;
        let address = listener.local_addr()?;
        context.note(&format!("{} ready, health on http://{address}/health", store.kind()))?;
        let settings = Settings { drain: loaded.config.engine.drain, ..Settings::default() };
        let app = App::new(engine.clone(), settings);
        let serving = tokio::spawn(serve(listener, app.clone()));
        asked_to_stop().await?;
        app.stop().cancel();
        let served = serving.await;
        engine.shut_down().await;
        store.close().await;
        match served {
            Ok(Ok(())) => Ok(ExitStatus::Ok),
            Ok(Err(error)) => Err(of_server(&error).into()),
            Err(error) => Err(CliError::new("E-SERVE", ExitStatus::Failed, error.to_string()).into()),
        }
    }
}

#[cfg(unix)]
async fn asked_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn asked_to_stop() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

fn of_server(error: &Error) -> CliError {
    let what = error.to_string();
    match error {
        Error::AddressInUse(address) => CliError::new("E-ADDRESS", ExitStatus::Unavailable, what)
            .at(format!("server.address = {address}"))
            .help("stop the other process, or name another port: RECACHE__SERVER__ADDRESS=127.0.0.1:7879"),
        Error::NotLoopback(address) => CliError::new("E-ADDRESS", ExitStatus::Usage, what)
            .at(format!("server.address = {address}"))
            .help("use 127.0.0.1 or [::1]"),
        Error::Listen { address, .. } => CliError::new("E-ADDRESS", ExitStatus::Unavailable, what)
            .at(format!("server.address = {address}"))
            .help("ports below 1024 need a right that this user may lack"),
    }
}
