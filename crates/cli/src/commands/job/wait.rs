//! `recache job wait`.

use std::time::Duration;

use recache_api::client::Client;
use recache_api::{JobDetails, JobState as State};
use recache_model::ids::JobId;
use recache_store::Store;
use tokio::time::Instant;

use super::super::against::{WAIT_OF_ONE_REQUEST, now_micros};
use super::super::name::wait;
use super::{Context, Outcome, details, print_details, state};
use crate::cli_error::{CliError, ExitStatus};
use crate::output;

/// Between two looks at the database.
const LOOK: Duration = Duration::from_millis(50);

/// Wait until a job has ended, and show it
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache job wait job_0190c7a2-7b5e-7000-8000-000000000001 --timeout 5m

Exit code 0 when it is completed, skipped or resolved, 7 when it ended otherwise,
124 when it has not ended in time.")]
pub(super) struct Wait {
    /// The job
    id: JobId,
    /// How long to wait
    #[arg(long, value_name = "TIME", value_parser = wait, default_value = "10m")]
    timeout: Duration,
}

impl Wait {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let deadline = Instant::now() + self.timeout;
        loop {
            let record = store.job_get(self.id).await?;
            if record.state.is_terminal() {
                let now = store.now().await?;
                let details = details(record, store).await?;
                return ended(details, now.micros(), context);
            }
            if Instant::now() >= deadline {
                return Err(self.late(output::job_state(record.state)).into());
            }
            tokio::time::sleep(LOOK.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let details = client.job(&self.id.to_string(), Some(left.min(WAIT_OF_ONE_REQUEST))).await?;
            if !matches!(details.job.state, State::Blocked | State::Queued | State::Running) {
                return ended(details, now_micros(), context);
            }
            if left.is_zero() {
                return Err(self.late(details.job.state).into());
            }
            // A server that waits for a shorter time than it is asked to must not be asked without a pause.
            tokio::time::sleep(LOOK).await;
        }
    }

    fn late(&self, now: State) -> CliError {
        let waited = output::duration(u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX));
        let what = format!("job `{}` has not ended within {waited}: it is {}", self.id, state(now).0);
        CliError::new("E-TIMED-OUT", ExitStatus::TimedOut, what)
            .help(format!("wait longer with --timeout, or see `recache job show {}`", self.id))
    }
}

fn ended(details: JobDetails, now_micros: i64, context: &mut Context<'_>) -> Outcome {
    let is_good = matches!(details.job.state, State::Completed | State::Skipped | State::Resolved);
    print_details(details, now_micros, context)?;
    Ok(if is_good { ExitStatus::Ok } else { ExitStatus::JobFailed })
}
