//! What is printed at the end.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use recache_model::ids::WorkflowId;
use recache_model::job::{JobError, JobState};
use recache_model::time::Timestamp;
use recache_model::workflow::WorkflowState;
use recache_store::{HistoryRow, StepRecord, Store};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// A workflow's end, as `recache run` prints it: `{"schema", "workflow", "state", "steps", "output"}`.
#[derive(Debug, serde::Serialize)]
pub(super) struct RunResult {
    schema: &'static str,
    workflow: String,
    state: &'static str,
    /// By name, in the template's order.
    #[serde(serialize_with = "as_map")]
    steps: Vec<(String, StepResult)>,
    /// Of the steps that no other waits for, by name; null for one that did not complete.
    #[serde(serialize_with = "as_map")]
    output: Vec<(String, Value)>,
}

/// One step.
#[derive(Debug, serde::Serialize)]
pub(super) struct StepResult {
    state: JobState,
    attempts: u32,
    output: Value,
    /// Of the last attempt; null when the step completed.
    error: Option<JobError>,
    /// Why it was skipped; for people.
    #[serde(skip)]
    skipped: Option<String>,
    /// How long it was ready to run and did not, pauses between attempts included.
    queued_ms: u64,
    /// How long its attempts took together.
    run_ms: u64,
}

fn as_map<S: Serializer, T: Serialize>(entries: &[(String, T)], to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(entries.len()))?;
    for (name, value) in entries {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

impl RunResult {
    /// Reads it from the store.
    pub(super) async fn read(store: &dyn Store, workflow: WorkflowId) -> recache_store::Result<Self> {
        let record = store.workflow_get(workflow).await?;
        let records = store.workflow_steps(workflow).await?;
        let mut steps = Vec::with_capacity(records.len());
        for record in &records {
            let history = store.job_history(record.job.id).await?;
            steps.push((name_of(record), step(record, &history)));
        }
        let waited_for: std::collections::HashSet<&String> =
            records.iter().flat_map(|record| &record.waits_for).collect();
        // The runs of a step that was split are in that one's result.
        let is_run: std::collections::HashSet<String> =
            records.iter().filter(|record| record.job.parent.is_some()).map(name_of).collect();
        let output = steps
            .iter()
            .filter(|(name, _)| !waited_for.contains(name) && !is_run.contains(name))
            .map(|(name, step)| (name.clone(), step.output.clone()))
            .collect();
        Ok(Self {
            schema: "recache.run.v1",
            workflow: workflow.to_string(),
            state: record.state.as_str(),
            steps,
            output,
        })
    }

    pub(super) fn state(&self) -> Option<WorkflowState> {
        self.state.parse().ok()
    }

    /// The steps that failed, each with its error, as lines for a person.
    pub(super) fn failures(&self) -> Vec<String> {
        self.steps
            .iter()
            .filter(|(_, step)| step.state == JobState::Failed)
            .map(|(name, step)| {
                let attempts = match step.attempts {
                    1 => "1 attempt".to_owned(),
                    attempts => format!("{attempts} attempts"),
                };
                let error = step.error.as_ref().map(error_text).unwrap_or_default();
                format!("step `{name}` failed after {attempts}: {error}")
            })
            .collect()
    }

    /// As one JSON object.
    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// For people.
    pub(super) fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(NOTHING).force_no_tty();
        table.set_header(["STEP", "STATE", "ATTEMPTS", "QUEUED", "RUN", "RESULT"]);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for (name, step) in &self.steps {
            let result = match &step.error {
                Some(error) => error_text(error),
                None if step.output.is_null() => step.skipped.clone().unwrap_or_default(),
                None => step.output.to_string(),
            };
            table.add_row([
                name.as_str(),
                step.state.as_str(),
                &step.attempts.to_string(),
                &duration_text(Duration::from_millis(step.queued_ms)),
                &duration_text(Duration::from_millis(step.run_ms)),
                &short(&result),
            ]);
        }
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        writeln!(out, "workflow {} {}", self.workflow, self.state)
    }
}

/// The name of a step.
pub(super) fn name_of(record: &StepRecord) -> String {
    record.job.step.clone().unwrap_or_else(|| record.job.id.to_string())
}

/// An error in one line, with its code.
pub(super) fn error_text(error: &JobError) -> String {
    match &error.code {
        Some(code) => format!("{} ({code})", error.message),
        None => error.message.clone(),
    }
}

/// A duration in the unit that suits it.
pub(super) fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

fn short(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    let visible: String = text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    match visible.char_indices().nth(CHARACTERS_MAX) {
        None => visible,
        Some((cut, _)) => format!("{}…", &visible[..cut]),
    }
}

fn step(record: &StepRecord, history: &[HistoryRow]) -> StepResult {
    let job = &record.job;
    let (queued, run) = times(job.created_at, history);
    StepResult {
        state: job.state,
        attempts: job.attempt,
        output: job.output.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null),
        error: job.error.clone().filter(|_| job.state != JobState::Completed),
        skipped: job.message.clone().filter(|_| job.state == JobState::Skipped),
        queued_ms: u64::try_from(queued.as_millis()).unwrap_or(u64::MAX),
        run_ms: u64::try_from(run.as_millis()).unwrap_or(u64::MAX),
    }
}

/// How long a job was queued and running, by its history.
fn times(created_at: Timestamp, history: &[HistoryRow]) -> (Duration, Duration) {
    let (mut queued, mut run, mut since) = (Duration::ZERO, Duration::ZERO, created_at);
    for row in history {
        let passed = row.at.since(since);
        match row.from {
            JobState::Queued => queued += passed,
            JobState::Running => run += passed,
            _ => {}
        }
        since = row.at;
    }
    (queued, run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_and_running_are_told_apart() {
        let row = |seq, at, from, to| HistoryRow {
            seq,
            at: Timestamp::from_micros(at),
            from,
            to,
            attempt: 1,
            epoch: 1,
            session: None,
            detail: None,
        };
        let history = [
            row(1, 10_000, JobState::Blocked, JobState::Queued),
            row(2, 13_000, JobState::Queued, JobState::Running),
            row(3, 18_000, JobState::Running, JobState::Queued),
            row(4, 118_000, JobState::Queued, JobState::Running),
            row(5, 125_000, JobState::Running, JobState::Completed),
        ];
        let (queued, run) = times(Timestamp::from_micros(0), &history);
        assert_eq!((queued, run), (Duration::from_millis(103), Duration::from_millis(12)));
    }

    #[test]
    fn durations_are_shown_in_the_unit_that_suits_them() {
        for (ms, text) in
            [(0, "0 ms"), (999, "999 ms"), (1_500, "1.5 s"), (61_000, "1 min 1 s"), (3_720_000, "1 h 2 min")]
        {
            assert_eq!(duration_text(Duration::from_millis(ms)), text);
        }
    }
}
