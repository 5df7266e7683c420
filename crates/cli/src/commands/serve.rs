//! `recache serve`: the HTTP API, and an engine that keeps leases and views moving.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use recache_engine::Engine;
use recache_server::{App, Auth, Error, JwtKeys, JwtSettings, Settings, Tls, bind, serve};
use recache_store::Store;
use recache_worker::Handlers;

use super::{Context, Outcome, compose};
use crate::builtin;
use crate::cli_error::{CliError, ExitStatus};
use crate::config::{BuiltinHandlers, Config, JwtConfig};
use crate::outbound::{IssuerKeys, WebhookCourier};
use crate::telemetry::Telemetry;

/// How long the database may take to let go at the end: one that hangs must not keep the process.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Serve the HTTP API, sweep dead workers, start due builds, send webhooks
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache serve
  recache serve --database postgres://app@db/app

The API is described at /docs and /v1/openapi.json; /health and /metrics are
there too. Without [auth] only this machine can connect. Runs the built-in
handlers echo, fail and sleep; yours live in your workers. SIGTERM: no new
work, what runs may end, what is left goes back to the queue.")]
pub(crate) struct Args {}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let loaded = context.load()?;
        let config = &loaded.config;
        let telemetry = Telemetry::start(&config.telemetry, "serve").map_err(|why| of_telemetry(&why))?;
        context.log_as_configured(&config.log, telemetry.as_ref().map(Telemetry::layer));
        raise_open_files();
        // What needs no database first: a start that cannot listen touches none.
        let auth = auth(config)?;
        let tls = tls(config)?;
        let (has_auth, has_tls) = (auth.is_on(), tls.is_some());
        let address = config.server.address;
        let listener = bind(address, has_auth).await.map_err(|error| of_server(&error))?;
        let address = listener.local_addr()?;
        let database = context.database()?;
        let place = database.place();
        let store = database.open_or_create().await?;
        let engine = start(config, &store).await?;
        say_choices(config, &store, &place, &engine).await;

        let app = App::new(engine.clone(), settings(config), auth);
        if let Some(telemetry) = &telemetry {
            telemetry.watch(app.clone());
        }
        let scheme = if has_tls { "https" } else { "http" };
        context.note(&format!("{} ready, health on {scheme}://{address}/health", store.kind()))?;
        let serving = tokio::spawn(serve(listener, app.clone(), tls));
        asked_to_stop().await?;
        tracing::info!("stopping: no new work; what runs may end");
        // Both at once: requests that wait for jobs end, and jobs that run end or go back.
        app.stop().cancel();
        engine.shut_down().await;
        let served = serving.await;
        if tokio::time::timeout(CLOSE_WITHIN, store.close()).await.is_err() {
            tracing::warn!("the database did not let go in time; it is left as it is");
        }
        if let Some(telemetry) = telemetry {
            telemetry.end().await;
        }
        match served {
            Ok(Ok(())) => Ok(ExitStatus::Ok),
            Ok(Err(error)) => Err(of_server(&error).into()),
            Err(error) => Err(CliError::new("E-SERVE", ExitStatus::Failed, error.to_string()).into()),
        }
    }
}

/// Each connection is an open file: where the system lets a process have more than it gives at first, they are taken.
#[cfg(unix)]
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    const ENOUGH: u64 = 65_536;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    if current.is_some_and(|current| current < wanted) {
        // Without it fewer clients are served at once, as before.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

#[cfg(not(unix))]
fn raise_open_files() {}

pub(super) fn of_telemetry(why: &str) -> CliError {
    CliError::new("E-TELEMETRY", ExitStatus::Failed, format!("nothing can be sent to the collector: {why}"))
        .at("telemetry.otlp_endpoint")
}

async fn start(config: &Config, store: &Arc<dyn Store>) -> Result<Engine, CliError> {
    let failed = |what: String| CliError::new("E-ENGINE", ExitStatus::Failed, what);
    let allow_private_addresses = config.outbound.allow_private_addresses;
    let mut builder = Engine::builder(Arc::clone(store))
        .options(compose::options(config, "recache serve"))
        .cache(compose::cache(&config.cache, Some(store)))
        .courier(Arc::new(WebhookCourier::new(allow_private_addresses)));
    let handlers = match config.server.builtin_handlers {
        BuiltinHandlers::Off => Ok(Handlers::new()),
        BuiltinHandlers::Safe => builtin::safe_handlers(),
        BuiltinHandlers::All => builtin::handlers(builtin::Options::of(config)),
    };
    let handlers = handlers.and_then(|mut handlers| {
        builtin::publishers(&mut handlers, &builtin::Options::of(config))?;
        Ok(handlers)
    });
    if let Some(settings) = config.adaptive_ttl.chosen() {
        builder = builder.adaptive_ttl(settings);
    }
    let handlers = handlers.map_err(|error| failed(error.to_string()))?;
    builder.handlers(handlers).start().await.map_err(|error| failed(error.to_string()))
}

/// One line for each choice.
async fn say_choices(config: &Config, store: &Arc<dyn Store>, place: &str, engine: &Engine) {
    tracing::info!(kind = store.kind(), at = %place, "database");
    let health = engine.cache().health().await;
    tracing::info!(provider = health.provider, condition = ?health.condition, "cache");
    let auth = &config.auth;
    if config.telemetry.is_on() {
        tracing::info!(collector = config.telemetry.otlp_endpoint, "telemetry");
    }
    match (auth.is_on(), auth.api_keys, auth.jwt.is_given()) {
        (false, ..) => tracing::info!("auth: none; only this machine can connect, and may do everything"),
        (_, api_keys, jwt) => tracing::info!(api_keys, jwt, "auth"),
    }
    tracing::info!(builtin_handlers = ?config.server.builtin_handlers, slots = config.engine.slots, "work");
}

fn settings(config: &Config) -> Settings {
    let server = &config.server;
    let count = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    Settings {
        connections_max: count(server.connections_max),
        requests_max: count(server.requests_max),
        waits_max: count(server.waits_max),
        streams_max: count(server.streams_max),
        streams_per_caller_max: count(server.streams_per_caller_max),
        wait_max: server.wait_max,
        request_max: server.request_max,
        answer_wait_max: server.answer_wait_max,
        traces_per_mille: config.telemetry.traces_begun_per_mille(),
        requests_per_second_max: server.requests_per_second_max,
        body_bytes_max: count(server.body_kib_max).saturating_mul(1024),
        drain: config.engine.drain,
        ..Settings::default()
    }
}

fn auth(config: &Config) -> Result<Auth, CliError> {
    let auth = &config.auth;
    let allow_private_addresses = config.outbound.allow_private_addresses;
    let jwt = auth.jwt.is_given().then(|| jwt(&auth.jwt, allow_private_addresses)).transpose()?;
    Ok(Auth { api_keys: auth.api_keys, jwt })
}

fn jwt(config: &JwtConfig, allow_private_addresses: bool) -> Result<JwtSettings, CliError> {
    let wrong = |what: String| {
        CliError::new("E-AUTH", ExitStatus::Usage, format!("auth.jwt: {what}"))
            .help("`recache config explain` shows what is configured")
    };
    let algorithms: Vec<&str> = config.algorithms.iter().map(String::as_str).collect();
    let given = [
        !config.secret.0.is_empty(),
        config.public_key_file.is_some(),
        config.keys_file.is_some(),
        !config.keys_url.is_empty(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err(wrong("give one of secret, public_key_file, keys_file and keys_url".to_owned()));
    }
    let settings = |keys: &JwtKeys<'_>| {
        JwtSettings::new(&config.issuer, &config.audience, &algorithms, keys).map_err(wrong)
    };
    match (&config.public_key_file, &config.keys_file) {
        (Some(path), _) => settings(&JwtKeys::Pem(&read("auth.jwt.public_key_file", path)?)),
        (_, Some(path)) => {
            let text = String::from_utf8_lossy(&read("auth.jwt.keys_file", path)?).into_owned();
            settings(&JwtKeys::Jwks(&text))
        }
        _ if !config.keys_url.is_empty() => {
            let keys = IssuerKeys::new(&config.keys_url, allow_private_addresses)
                .map_err(|why| wrong(format!("keys_url {why}")))?;
            settings(&JwtKeys::Fetched(Arc::new(keys)))
        }
        _ => settings(&JwtKeys::Secret(&config.secret.0)),
    }
}

fn tls(config: &Config) -> Result<Option<Tls>, CliError> {
    let server = &config.server;
    let (certificates, key) = match (&server.tls_certificate_file, &server.tls_key_file) {
        (None, None) => return Ok(None),
        (Some(certificates), Some(key)) => (certificates, key),
        _ => {
            let what = "server.tls_certificate_file and server.tls_key_file need each other";
            return Err(CliError::new("E-TLS", ExitStatus::Usage, what).help("give both, or neither"));
        }
    };
    let certificates = read("server.tls_certificate_file", certificates)?;
    let key = read("server.tls_key_file", key)?;
    Tls::new(&certificates, &key).map(Some).map_err(|error| {
        CliError::new("E-TLS", ExitStatus::Usage, error).help("both files must be PEM, and belong together")
    })
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|error| {
        let what = format!("{option}: `{}` cannot be read: {error}", path.display());
        CliError::new("E-FILE", ExitStatus::Usage, what).help("check the path and its permissions")
    })
}

#[cfg(unix)]
pub(super) async fn asked_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
pub(super) async fn asked_to_stop() -> std::io::Result<()> {
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
            .help("set auth.api_keys = true and make a key with `recache token create`, or use 127.0.0.1"),
        Error::Listen { address, .. } => CliError::new("E-ADDRESS", ExitStatus::Unavailable, what)
            .at(format!("server.address = {address}"))
            .help("ports below 1024 need a right that this user may lack"),
    }
}
