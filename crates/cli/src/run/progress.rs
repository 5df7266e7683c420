//! What a person sees while the workflow runs: a line for each thing that happens to a step, and on a terminal, below
//! them, what is going on now. All of it on stderr.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::{JobError, JobState};
use recache_model::time::Timestamp;
use recache_store::{HistoryRow, JobRecord, StepRecord, Store};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::result::{duration_text, error_text, name_of};

/// Between two looks, at least.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Looking may take at most a fifth of the time, however many steps there are.
const LOOK_SHARE: u32 = 4;
/// Steps that are shown live at once.
const LIVE_MAX: usize = 12;

/// Tells of a workflow until `ended`, then once more what is left to tell.
pub(super) async fn follow(store: Arc<dyn Store>, workflow: WorkflowId, ended: CancellationToken) {
    let mut teller = Teller::default();
    loop {
        let is_last = ended.is_cancelled();
        let began = Instant::now();
        // A look that fails is made up for by the next one; the run itself says when the store is lost.
        let _ = teller.look(store.as_ref(), workflow).await;
        if is_last {
            teller.screen.clear();
            return;
        }
        let pause = LOOK_PAUSE.max(began.elapsed() * LOOK_SHARE);
        tokio::select! {
            () = ended.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Remembers how much of each step's history was told.
#[derive(Debug, Default)]
struct Teller {
    told: HashMap<JobId, i64>,
    screen: Screen,
}

impl Teller {
    async fn look(&mut self, store: &dyn Store, workflow: WorkflowId) -> recache_store::Result<()> {
        let steps = store.workflow_steps(workflow).await?;
        let now = store.now().await?;
        let mut lines: Vec<(Timestamp, String)> = Vec::new();
        for step in &steps {
            let job = &step.job;
            let told = self.told.get(&job.id).copied();
            if told == Some(job.transitions) {
                continue;
            }
            let history = if job.transitions == 0 { Vec::new() } else { store.job_history(job.id).await? };
            let first = history.first().map_or(job.state, |row| row.from);
            if told.is_none() && first == JobState::Queued {
                lines.push((job.created_at, format!("{}: queued", name_of(step))));
            }
            for (index, row) in history.iter().enumerate() {
                if row.seq > told.unwrap_or(0) {
                    let before = index.checked_sub(1).and_then(|before| history.get(before));
                    let after = history.get(index + 1);
                    let times = Times { since: before.map(|row| row.at), until: after.map(|row| row.at) };
                    lines.push((row.at, line(step, row, times)));
                }
            }
            self.told.insert(job.id, history.last().map_or(job.transitions, |row| row.seq));
        }
        // Of one instant in the order of the steps, and of one step in its own order: the sort is stable.
        lines.sort_by_key(|(at, _)| *at);
        for (_, line) in lines {
            self.screen.line(&line);
        }
        self.screen.show(&steps, now);
        Ok(())
    }
}

/// Of the transitions before and after one, if there are any.
#[derive(Debug, Clone, Copy)]
struct Times {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// What happened to a step.
fn line(step: &StepRecord, row: &HistoryRow, times: Times) -> String {
    let name = name_of(step);
    let took = duration_text(row.at.since(times.since.unwrap_or(step.job.created_at)));
    let attempt = format!("attempt {} of {}", row.attempt, step.job.attempts_max);
    match (row.from, row.to) {
        (JobState::Running, JobState::Queued) if row.detail.is_none() => {
            format!("{name}: handed back by its worker after {took}")
        }
        (JobState::Running, JobState::Queued) => {
            // What came of it says how long it was, when the look came too late to see it waiting.
            let pause = times.until.unwrap_or(step.job.due_at).since(row.at);
            format!("{name}: {attempt} failed after {took}{}; retry in {}", why(row), duration_text(pause))
        }
        (_, JobState::Queued) => format!("{name}: queued"),
        (_, JobState::Running) => format!("{name}: running, {attempt}"),
        (JobState::Running, JobState::Completed) => format!("{name}: completed in {took}, {attempt}"),
        (JobState::Running, JobState::Failed) => {
            format!("{name}: failed after {took}, {attempt}{}", why(row))
        }
        (_, state) => format!("{name}: {state}{}", why(row)),
    }
}

fn why(row: &HistoryRow) -> String {
    let Some(detail) = &row.detail else { return String::new() };
    let text = match serde_json::from_str::<JobError>(detail) {
        Ok(error) => error_text(&error),
        Err(_) => detail.clone(),
    };
    format!(": {}", visible(&text))
}

/// One line, and nothing in it that moves the cursor.
fn visible(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

/// stderr: plain lines, or lines above a few live ones.
#[derive(Debug)]
struct Screen(Option<Live>);

#[derive(Debug, Default)]
struct Live {
    bars: MultiProgress,
    by_step: HashMap<JobId, (i64, ProgressBar)>,
}

impl Default for Screen {
    fn default() -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self((io::stderr().is_terminal() && !is_dumb).then(Live::default))
    }
}

impl Screen {
    fn line(&self, line: &str) {
        // Whoever read stderr may have gone; the workflow goes on.
        let _ = match &self.0 {
            None => writeln!(io::stderr().lock(), "{line}"),
            Some(live) => live.bars.println(line),
        };
    }

    /// Shows what is active now; does nothing where there is no terminal.
    fn show(&mut self, steps: &[StepRecord], now: Timestamp) {
        let Some(live) = &mut self.0 else { return };
        let is_active = |job: &JobRecord| matches!(job.state, JobState::Queued | JobState::Running);
        let active: Vec<&StepRecord> =
            steps.iter().filter(|step| is_active(&step.job)).take(LIVE_MAX).collect();
        live.by_step.retain(|id, (_, bar)| {
            let stays = active.iter().any(|step| step.job.id == *id);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        for step in active {
            let job = &step.job;
            let (seq, bar) = live.by_step.entry(job.id).or_insert_with(|| {
                let bar = live.bars.add(ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                    bar.set_style(style);
                }
                bar.enable_steady_tick(Duration::from_millis(100));
                (job.transitions, bar)
            });
            if *seq != job.transitions {
                *seq = job.transitions;
                bar.reset_elapsed();
            }
            bar.set_message(now_text(step, now));
        }
    }

    fn clear(&mut self) {
        if let Some(live) = &mut self.0 {
            for (_, (_, bar)) in live.by_step.drain() {
                bar.finish_and_clear();
            }
            let _ = live.bars.clear();
        }
    }
}

fn now_text(step: &StepRecord, now: Timestamp) -> String {
    let (name, job) = (name_of(step), &step.job);
    let progress = job.progress.map(|part| format!(" {:.0} %", part * 100.0)).unwrap_or_default();
    let said = job.message.as_deref().map(|message| format!(": {}", visible(message))).unwrap_or_default();
    match job.state {
        JobState::Running => {
            format!("{name} running, attempt {} of {}{progress}{said}", job.attempt, job.attempts_max)
        }
        _ if job.attempt > 0 => {
            format!(
                "{name} retry {} of {} in {}",
                job.attempt + 1,
                job.attempts_max,
                duration_text(job.due_at.since(now))
            )
        }
        _ => format!("{name} queued"),
    }
}
