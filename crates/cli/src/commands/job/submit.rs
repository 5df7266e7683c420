//! `recache job submit`.

use std::time::Duration;

use clap::ValueEnum;
use recache_api::client::Client;
use recache_api::{
    Backoff as ApiBackoff, IfThere as ApiIfThere, Instant, JobSubmitted, Json, SubmitJob, SubmitRetry,
    SubmitUnique,
};
use recache_model::ids::BatchId;
use recache_model::job::JobState;
use recache_model::retry::{Backoff, RetryPolicy};
use recache_model::time::Timestamp;
use recache_model::unique::{OnDuplicate, UniqueRule};
use recache_store::{Due, NewJob, Store};

use super::super::against::ms;
use super::super::name::{far, wait};
use super::{Context, Outcome};
use crate::cli_error::ExitStatus;
use crate::output::{self, Format};
use crate::run::read_input;

/// Submit a job for the workers of its queue
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache job submit send_mail --input '{\"to\":\"a@b.c\"}' --queue mail
  recache job submit send_mail --input @order.json --idempotency-key order-7
  recache job submit nightly --unique nightly --unique-per 24h --unique-also completed
  recache job submit poll --attempts 20 --backoff linear --backoff-base 30s

With an idempotency key the command can be repeated safely for 7 days: the same
key and body answer the same job, another body is a conflict.")]
pub(super) struct Submit {
    /// What does the job
    handler: String,
    /// JSON for the handler, or @FILE, or - for stdin
    #[arg(long, value_name = "JSON")]
    input: Option<String>,
    /// Where it waits
    #[arg(long, default_value = "default")]
    queue: String,
    /// Who it belongs to
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Larger is more urgent
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i64,
    /// Runs no sooner than after this long: 30s, 2h
    #[arg(long, value_name = "TIME", value_parser = far)]
    delay: Option<Duration>,
    /// Runs no sooner than at this instant: 2026-05-01T12:00:00Z
    #[arg(long, value_name = "INSTANT", conflicts_with = "delay")]
    due_at: Option<Instant>,
    /// How long one attempt may run: 30s, 5m
    #[arg(long, value_name = "TIME", value_parser = wait)]
    timeout: Option<Duration>,
    /// Attempts in all
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    attempts: u32,
    /// How the wait between attempts grows [default: exponential]
    #[arg(long, value_enum)]
    backoff: Option<Growth>,
    /// The first of these waits [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = far)]
    backoff_base: Option<Duration>,
    /// The longest of them [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = far)]
    backoff_cap: Option<Duration>,
    /// The fraction of a wait, 0 to 1, that chance may take away [default: 0.1]
    #[arg(long, value_name = "FRACTION")]
    jitter: Option<f64>,
    /// Ties what belongs together: a trace, an order [default: an id of its own]
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// Makes the command safe to repeat
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// No second job of this handler with the same key while the first has not ended
    #[arg(long, value_name = "KEY")]
    unique: Option<String>,
    /// No second job of this handler with the same input
    #[arg(long)]
    unique_by_input: bool,
    /// What was submitted in another period of this length is another job
    #[arg(long, value_name = "TIME", value_parser = far)]
    unique_per: Option<Duration>,
    /// Ended jobs in these states stand in the way too
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    unique_also: Vec<JobState>,
    /// No two jobs of the same key run at once, unless its limit allows more
    #[arg(long, value_name = "KEY")]
    concurrency_key: Option<String>,
    /// Make it a member of this batch
    #[arg(long, value_name = "ID")]
    batch: Option<BatchId>,
    /// What to do when the job is there already
    #[arg(long, value_enum, default_value_t = IfThere::Return)]
    if_there: IfThere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum IfThere {
    /// Answer the job that is there
    Return,
    /// Refuse, as a conflict
    Reject,
    /// Let it take over the new input while it is queued
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Growth {
    /// At once
    None,
    /// 1, 2, 3, 4, … times the first
    Linear,
    /// 1, 2, 4, 8, … times the first
    Exponential,
    /// 1, 1, 2, 3, 5, … times the first
    Fibonacci,
}

impl Submit {
    fn retry(&self) -> RetryPolicy {
        let default = RetryPolicy::default();
        RetryPolicy {
            attempts_max: self.attempts,
            backoff: match self.backoff {
                None => default.backoff,
                Some(Growth::None) => Backoff::None,
                Some(Growth::Linear) => Backoff::Linear,
                Some(Growth::Exponential) => Backoff::Exponential,
                Some(Growth::Fibonacci) => Backoff::Fibonacci,
            },
            base_ms: self.backoff_base.map_or(default.base_ms, ms),
            cap_ms: self.backoff_cap.map_or(default.cap_ms, ms),
            jitter: self.jitter.unwrap_or(default.jitter),
        }
    }

    /// The same as it is asked of a server: only what is said.
    fn retry_asked(&self) -> SubmitRetry {
        SubmitRetry {
            attempts_max: Some(self.attempts),
            backoff: self.backoff.map(|growth| match growth {
                Growth::None => ApiBackoff::None,
                Growth::Linear => ApiBackoff::Linear,
                Growth::Exponential => ApiBackoff::Exponential,
                Growth::Fibonacci => ApiBackoff::Fibonacci,
            }),
            base_ms: self.backoff_base.map(ms),
            cap_ms: self.backoff_cap.map(ms),
            jitter: self.jitter,
        }
    }

    fn unique(&self) -> Option<UniqueRule> {
        let is_unique = self.unique.is_some() || self.unique_by_input || self.unique_per.is_some();
        is_unique.then(|| UniqueRule {
            key: self.unique.clone(),
            by_arguments: self.unique_by_input,
            period: self.unique_per,
            also_ended: self.unique_also.clone(),
            on_duplicate: match self.if_there {
                IfThere::Return => OnDuplicate::Return,
                IfThere::Reject => OnDuplicate::Reject,
                IfThere::Replace => OnDuplicate::Replace,
            },
        })
    }

    /// The same as it is asked of a server.
    fn unique_asked(&self) -> Option<SubmitUnique> {
        self.unique().map(|rule| SubmitUnique {
            key: rule.key,
            by_input: rule.by_arguments,
            per_ms: rule.period.map(ms),
            also_ended: rule.also_ended.into_iter().map(output::job_state).collect(),
            if_there: match self.if_there {
                IfThere::Return => ApiIfThere::Return,
                IfThere::Reject => ApiIfThere::Reject,
                IfThere::Replace => ApiIfThere::Replace,
            },
        })
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let input = match &self.input {
            Some(_) => read_input(self.input.as_deref())?.to_string(),
            None => "null".to_owned(),
        };
        let unique = self.unique_asked();
        let retry = self.retry_asked();
        let job = SubmitJob {
            handler: self.handler,
            namespace: self.namespace,
            queue: self.queue,
            input: Json::from_text(&input).unwrap_or_else(|_| Json::null()),
            priority: self.priority,
            delay_ms: self.delay.map(ms),
            due_at: self.due_at,
            retry: Some(retry),
            timeout_ms: self.timeout.map(ms),
            correlation_id: self.correlation_id,
            trace_context: None,
            idempotency_key: self.idempotency_key,
            unique,
            concurrency_key: self.concurrency_key,
            batch_id: self.batch.map(|id| id.to_string()),
        };
        print_submitted(&client.submit_job(&job, None).await?, context)
    }

    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let input = match &self.input {
            Some(_) => read_input(self.input.as_deref())?.to_string(),
            None => "null".to_owned(),
        };
        let (unique, retry) = (self.unique(), self.retry());
        let due = match (self.due_at, self.delay) {
            (Some(at), _) => Due::At(Timestamp::from_micros(at.micros())),
            (None, delay) => delay.map_or(Due::Now, Due::In),
        };
        let new = NewJob::new(self.handler, input);
        let job = NewJob {
            namespace: self.namespace,
            queue: self.queue,
            priority: self.priority,
            due,
            retry,
            timeout: self.timeout,
            idempotency_key: self.idempotency_key,
            concurrency_key: self.concurrency_key,
            batch: self.batch,
            unique,
            correlation_id: self.correlation_id.unwrap_or_else(|| new.correlation_id.clone()),
            ..new
        };
        let answer = store.jobs_submit(vec![job]).await?;
        for submitted in answer {
            let id = submitted.id.to_string();
            print_submitted(&JobSubmitted::new(id, submitted.existed, submitted.replaced), context)?;
        }
        Ok(ExitStatus::Ok)
    }
}

fn print_submitted(submitted: &JobSubmitted, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(submitted)?,
        Format::Table => {
            context.print_text(&format!("{}\n", submitted.id))?;
            match (submitted.replaced, submitted.existed) {
                (true, _) => context.note("it was queued already and waits now with this input")?,
                (false, true) => context.note("it was there already; nothing was stored")?,
                (false, false) => {}
            }
        }
    }
    Ok(ExitStatus::Ok)
}
