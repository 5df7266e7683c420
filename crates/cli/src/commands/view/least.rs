//! Waiting for a version: whoever reads it, or a newer one, sees the change of the touch that asked for it.

use std::time::Duration;

use recache_api::client::{Error as ClientError, Result as Answer};
use recache_store::{Store, ViewRead};
use tokio::time::{Instant, sleep_until};

use super::super::against::WAIT_OF_ONE_REQUEST;
use super::super::failure::Result;
use super::super::name::{ViewName, wait};
use crate::cli_error::{CliError, ExitStatus};
use crate::output;

/// Between two looks while waiting.
const POLL: Duration = Duration::from_millis(50);

/// Which version must be live at least, and how long it is waited for
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Least {
    /// Wait until this version or a newer one is live
    #[arg(long, value_name = "VERSION", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    min_version: i64,
    /// How long to wait for it
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = wait)]
    timeout: Duration,
}

impl Least {
    pub(super) fn version(&self) -> Option<i64> {
        (self.min_version > 0).then_some(self.min_version)
    }

    /// Reads from the store, as soon as the version is live.
    pub(super) async fn read(
        &self,
        view: &ViewName,
        items: Option<&[String]>,
        store: &dyn Store,
    ) -> Result<ViewRead> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let asked = Instant::now();
            let read = store.view_read(&view.namespace, &view.key, items.map(<[String]>::to_vec)).await?;
            if read.version >= self.min_version {
                return Ok(read);
            }
            if asked >= deadline {
                return Err(self.late(view, store, read.version, read.wanted).await?.into());
            }
            sleep_until((asked + POLL).min(deadline)).await;
        }
    }

    /// Asks a server, again while the version is not live: it answers so after the time that it is told to wait.
    pub(super) async fn ask<T>(
        &self,
        view: &ViewName,
        mut call: impl AsyncFnMut(Option<Duration>) -> Answer<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match call(self.version().map(|_| left.min(WAIT_OF_ONE_REQUEST))).await {
                Err(ClientError::Refused(problem))
                    if problem.code == "conflict" && self.version().is_some() =>
                {
                    if left.is_zero() {
                        let what = format!("{}: {}", self.what(view), problem.detail);
                        let help =
                            format!("see `recache view explain {view}`, or wait longer with --timeout");
                        return Err(timed_out(what).help(help).into());
                    }
                    tokio::time::sleep(POLL).await;
                }
                answer => return Ok(answer?),
            }
        }
    }

    fn what(&self, view: &ViewName) -> String {
        let waited = output::duration(u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX));
        format!("version {} of view `{view}` was not live within {waited}", self.min_version)
    }

    /// The version did not come in time: says how far the view is, and why.
    async fn late(
        &self,
        view: &ViewName,
        store: &dyn Store,
        live: i64,
        wanted: i64,
    ) -> recache_store::Result<CliError> {
        let error = timed_out(format!("{}: version {live} is", self.what(view)));
        if wanted < self.min_version {
            return Ok(error.help(format!(
                "nobody has asked for it yet: {wanted} is the newest version that is wanted; `recache view touch {view}` asks for the next"
            )));
        }
        let record = store.view_get(&view.namespace, &view.key).await?;
        Ok(error.help(match (record.last_error, record.build) {
            (Some(reason), _) => format!("its last build failed: {reason}"),
            (None, Some(build)) => format!("see `recache job show {build}`, or wait longer with --timeout"),
            (None, None) => "its build has not begun: check that a worker runs, or wait longer".to_owned(),
        }))
    }
}

fn timed_out(what: String) -> CliError {
    CliError::new("E-TIMED-OUT", ExitStatus::TimedOut, what)
}
