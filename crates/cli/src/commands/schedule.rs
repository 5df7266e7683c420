//! `recache schedule`: jobs that begin at the ticks of a clock.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use recache_api::client::{Client, SchedulesQuery};
use recache_api::{
    DefineSchedule, Json, OnMissed, Schedule, ScheduleAnswer, ScheduleList, SubmitRetry, Ticks,
};
use recache_model::ids::JobId;
use recache_model::retry::RetryPolicy;
use recache_model::schedule::{CatchUp, CronSpec, Overlap};
use recache_store::{Error, NewSchedule, ScheduleRecord, Store, Word};
use serde_json::{Value, json};

use super::against::{Against, because, ms, no_actor};
use super::audited::{Deed, audited};
use super::failure::Result;
use super::name::wait;
use super::{Context, Outcome};
use crate::cli_error::ExitStatus;
use crate::output::{self, Format, Tone};
use crate::run::read_input;

/// Schedules that one look at the database takes.
const PAGE_ROWS: u32 = 1_000;

/// Make jobs at the ticks of a clock
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache schedule add report '30 2 * * MON-FRI' make_report --zone Europe/Berlin
  recache schedule next report
  recache schedule pause report --reason \"the month is closed\""
)]
pub(crate) struct Args {
    #[command(flatten)]
    against: Against,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(List),
    Show(Show),
    Add(Add),
    Pause(Pause),
    Resume(Resume),
    Run(Run),
    Next(Next),
    Delete(Delete),
}

#[derive(Debug, Clone, clap::Args)]
struct Which {
    /// The schedule
    name: String,
    /// Who it belongs to
    #[arg(long, default_value = "default")]
    namespace: String,
}

/// List schedules by namespace and name
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache schedule list -o json")]
struct List {
    /// Only of this namespace
    #[arg(long)]
    namespace: Option<String>,
}

/// Show a schedule
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache schedule show report")]
struct Show {
    #[command(flatten)]
    which: Which,
}

/// Add a schedule, or change the one of this name
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache schedule add report '30 2 * * MON-FRI' make_report --zone Europe/Berlin
  recache schedule add poll '*/20 * * * * *' poll_feed --overlap skip

Five fields: minute, hour, day of month, month, day of week; with six the first
is the second. Where the clock is put forward a time of day that does not exist
is taken right after the gap; where it is put back it is taken once.")]
struct Add {
    #[command(flatten)]
    which: Which,
    /// When it ticks
    cron: String,
    /// What does its jobs
    handler: String,
    /// In which time zone: a name of the IANA database
    #[arg(long, default_value = "UTC")]
    zone: String,
    /// JSON for the handler, or @FILE, or - for stdin
    #[arg(long, value_name = "JSON")]
    input: Option<String>,
    /// Where its jobs wait
    #[arg(long, default_value = "default")]
    queue: String,
    /// Larger is more urgent
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i64,
    /// Attempts of each job
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    attempts: u32,
    /// How long one attempt may run: 30s, 5m
    #[arg(long, value_name = "TIME", value_parser = wait)]
    timeout: Option<Duration>,
    /// When a tick comes while the former job has not ended
    #[arg(long, value_enum, default_value_t = OnOverlap::Skip)]
    overlap: OnOverlap,
    /// When ticks were missed because nothing ran
    #[arg(long, value_enum, default_value_t = Missed::Skip)]
    catch_up: Missed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnOverlap {
    /// Skip the tick
    Skip,
    /// Run both
    Allow,
    /// Cancel the former
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Missed {
    /// They are gone
    Skip,
    /// One job stands for all of them
    Once,
}

/// Let ticks lead to nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache schedule pause report --reason \"the month is closed\"")]
struct Pause {
    #[command(flatten)]
    which: Which,
    /// Why; shown to whoever looks
    #[arg(long)]
    reason: String,
    /// Who says so [default: the user who runs the command]
    #[arg(long)]
    actor: Option<String>,
}

/// End a pause; the ticks in it are gone
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache schedule resume report")]
struct Resume {
    #[command(flatten)]
    which: Which,
}

/// Make a job now, besides the ticks
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache schedule run report")]
struct Run {
    #[command(flatten)]
    which: Which,
}

/// Show when a schedule ticks next
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache schedule next report --count 10
  recache schedule next --cron '30 2 * * *' --zone Europe/Berlin")]
struct Next {
    /// The schedule
    #[arg(required_unless_present = "cron", conflicts_with = "cron")]
    name: Option<String>,
    /// Who it belongs to
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Look at this expression instead
    #[arg(long)]
    cron: Option<String>,
    /// The time zone of the expression
    #[arg(long, default_value = "UTC", requires = "cron")]
    zone: String,
    /// So many ticks, 1 to 1000
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
}

/// Delete a schedule; its jobs stay
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache schedule delete report")]
struct Delete {
    #[command(flatten)]
    which: Which,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(client) = self.against.client(context)? {
            return self.verb.ask(&client, context).await;
        }
        let store = context.open().await?;
        let outcome = match self.verb {
            Verb::List(arguments) => arguments.run(&*store, context).await,
            Verb::Show(arguments) => arguments.which.show(false, &*store, context).await,
            Verb::Add(arguments) => arguments.run(&*store, context).await,
            Verb::Pause(arguments) => arguments.run(&*store, context).await,
            Verb::Resume(arguments) => arguments.run(&*store, context).await,
            Verb::Run(arguments) => arguments.run(&*store, context).await,
            Verb::Next(arguments) => arguments.run(&*store, context).await,
            Verb::Delete(arguments) => arguments.run(&*store, context).await,
        };
        store.close().await;
        outcome
    }
}

impl Verb {
    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let why = |deed: &str| because(format!("{deed} from the command line"));
        match self {
            Self::List(arguments) => arguments.ask(client, context).await,
            Self::Show(Show { which: Which { name, namespace } }) => {
                print_one(&client.schedule(&namespace, &name).await?, context)
            }
            Self::Add(arguments) => {
                let Which { name, namespace } = arguments.which.clone();
                print_one(&client.define_schedule(&namespace, &name, &arguments.asked()?).await?, context)
            }
            Self::Pause(Pause { which: Which { name, namespace }, reason, actor }) => {
                no_actor(actor.as_deref())?;
                print_one(&client.pause_schedule(&namespace, &name, &because(reason)).await?, context)
            }
            Self::Resume(Resume { which: Which { name, namespace } }) => {
                let answer = client.resume_schedule(&namespace, &name, &why("resumed")).await?;
                if !answer.changed {
                    context.note(&not_paused(&name))?;
                }
                print_one(&answer, context)
            }
            Self::Run(Run { which: Which { name, namespace } }) => {
                print_one(&client.run_schedule(&namespace, &name, &why("run")).await?, context)
            }
            Self::Next(arguments) => arguments.ask(client, context).await,
            Self::Delete(Delete { which: Which { name, namespace } }) => {
                client.delete_schedule(&namespace, &name, &why("deleted")).await?;
                context.note(&gone(&namespace, &name))?;
                Ok(ExitStatus::Ok)
            }
        }
    }
}

fn not_paused(name: &str) -> String {
    format!("schedule `{name}` was not paused")
}

fn gone(namespace: &str, name: &str) -> String {
    format!("schedule `{namespace}/{name}` is gone")
}

impl Which {
    async fn show(&self, changed: bool, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let record = store.schedules().schedule_get(&self.namespace, &self.name).await?;
        show(record, changed, context)
    }
}

fn show(record: ScheduleRecord, changed: bool, context: &mut Context<'_>) -> Outcome {
    print_one(&ScheduleAnswer::new(output::schedule(record), changed), context)
}

fn print_one(answer: &ScheduleAnswer, context: &mut Context<'_>) -> Outcome {
    let schedule = &answer.schedule;
    match context.format() {
        Format::Json | Format::Jsonl => context.print(answer)?,
        Format::Table => {
            let mut table = context.table(["", ""]);
            let mut fact = |name: &str, value: String| table.row([name.to_owned(), value]);
            fact("schedule", format!("{}/{}", schedule.namespace, schedule.name));
            fact("state", state(schedule).0);
            if let (Some(at), Some(actor), Some(reason)) =
                (schedule.paused_at, &schedule.pause_actor, &schedule.pause_reason)
            {
                fact("paused", format!("{} by {actor}: {reason}", output::instant(at)));
            }
            fact("ticks", format!("{} in {}", schedule.cron, schedule.zone));
            fact("next", schedule.next_at.map_or_else(|| "never".to_owned(), output::instant));
            fact("overlap", schedule.overlap.clone());
            fact("catch up", schedule.catch_up.clone());
            fact("handler", schedule.handler.clone());
            fact("queue", format!("{}, priority {}", schedule.queue, schedule.priority));
            fact("input", schedule.input.text().to_owned());
            if let Some(job) = &schedule.last_job_id {
                fact("last job", job.clone());
            }
            if let Some(tick) = schedule.last_tick_at {
                fact("last tick", output::instant(tick));
            }
            fact("skipped", schedule.ticks_skipped.to_string());
            context.print_text(&table.text())?;
        }
    }
    Ok(ExitStatus::Ok)
}

fn state(schedule: &Schedule) -> (String, Tone) {
    match (schedule.paused_at, schedule.next_at) {
        (Some(_), _) => ("paused".to_owned(), Tone::Doubtful),
        (None, None) => ("over".to_owned(), Tone::Plain),
        (None, Some(_)) => ("ticking".to_owned(), Tone::Good),
    }
}

impl List {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let (mut schedules, mut after): (Vec<Schedule>, _) = (Vec::new(), None);
        loop {
            let namespace = self.namespace.as_deref();
            let page = store.schedules().schedules_list(namespace, after, PAGE_ROWS).await?;
            let last = page.last().map(|one| (one.definition.namespace.clone(), one.definition.name.clone()));
            let is_full = u32::try_from(page.len()).is_ok_and(|rows| rows >= PAGE_ROWS);
            after = last.filter(|_| is_full);
            schedules.extend(page.into_iter().map(output::schedule));
            if after.is_none() {
                break;
            }
        }
        print_list(schedules, context)
    }

    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let mut schedules = Vec::new();
        let mut query = SchedulesQuery { namespace: self.namespace, limit: Some(PAGE_ROWS), cursor: None };
        loop {
            let page = client.schedules(&query).await?;
            schedules.extend(page.schedules);
            query.cursor = page.next;
            if query.cursor.is_none() {
                return print_list(schedules, context);
            }
        }
    }
}

fn print_list(schedules: Vec<Schedule>, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&ScheduleList::new(schedules, None))?,
        Format::Jsonl => context.print_lines(&schedules)?,
        Format::Table => {
            if schedules.is_empty() {
                context.note("no schedules")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table =
                context.table(["NAME", "NAMESPACE", "STATE", "CRON", "ZONE", "HANDLER", "NEXT", "SKIPPED"]);
            for schedule in schedules {
                let plain = |text| (text, Tone::Plain);
                let state = state(&schedule);
                table.toned([
                    plain(schedule.name),
                    plain(schedule.namespace),
                    state,
                    plain(schedule.cron),
                    plain(schedule.zone),
                    plain(schedule.handler),
                    plain(schedule.next_at.map(output::instant).unwrap_or_default()),
                    plain(schedule.ticks_skipped.to_string()),
                ]);
            }
            context.print_text(&table.leaving_out(&["NAMESPACE", "SKIPPED", "ZONE"]).text())?;
        }
    }
    Ok(ExitStatus::Ok)
}

impl Add {
    fn input(&self) -> Result<String> {
        Ok(match &self.input {
            Some(_) => read_input(self.input.as_deref())?.to_string(),
            None => "null".to_owned(),
        })
    }

    /// As it is asked of a server.
    fn asked(self) -> Result<DefineSchedule> {
        let input = self.input()?;
        Ok(DefineSchedule {
            cron: self.cron,
            zone: self.zone,
            overlap: match self.overlap {
                OnOverlap::Skip => recache_api::OnOverlap::Skip,
                OnOverlap::Allow => recache_api::OnOverlap::Allow,
                OnOverlap::Replace => recache_api::OnOverlap::Replace,
            },
            catch_up: match self.catch_up {
                Missed::Skip => OnMissed::Skip,
                Missed::Once => OnMissed::Once,
            },
            handler: self.handler,
            queue: self.queue,
            input: Json::from_text(&input).map_err(std::io::Error::from)?,
            priority: self.priority,
            retry: Some(SubmitRetry {
                attempts_max: Some(self.attempts),
                backoff: None,
                base_ms: None,
                cap_ms: None,
                jitter: None,
            }),
            timeout_ms: self.timeout.map(ms),
        })
    }

    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let input = self.input()?;
        let schedule = NewSchedule {
            namespace: self.which.namespace,
            zone: self.zone,
            overlap: match self.overlap {
                OnOverlap::Skip => Overlap::Skip,
                OnOverlap::Allow => Overlap::Allow,
                OnOverlap::Replace => Overlap::Replace,
            },
            catch_up: match self.catch_up {
                Missed::Skip => CatchUp::Skip,
                Missed::Once => CatchUp::Once,
            },
            queue: self.queue,
            input,
            priority: self.priority,
            retry: RetryPolicy { attempts_max: self.attempts, ..RetryPolicy::default() },
            timeout: self.timeout,
            ..NewSchedule::new(self.which.name, self.cron, self.handler)
        };
        show(store.schedules().schedule_put(schedule).await?, true, context)
    }
}

impl Which {
    /// How it stands, as it is kept in the audit.
    async fn stands(&self, store: &dyn Store) -> Result<Value> {
        let record = store.schedules().schedule_get(&self.namespace, &self.name).await?;
        let last_job = record.last_job.map(|job| job.to_string());
        Ok(json!({ "paused": record.pause.is_some(), "last_job_id": last_job }))
    }

    fn deed(&self, action: &'static str, word: Word) -> Deed {
        Deed::new(action, format!("{}/{}", self.namespace, self.name), word).of(&self.namespace)
    }

    /// Does it to the schedule, with its row in the audit.
    async fn audited<T>(
        &self,
        action: &'static str,
        word: Word,
        store: &dyn Store,
        act: impl Future<Output = std::result::Result<T, Error>>,
    ) -> Result<T> {
        let before = self.stands(store).await?;
        audited(store, self.deed(action, word), &before, async {
            let done = act.await?;
            Ok((done, self.stands(store).await?))
        })
        .await
    }
}

/// Who says so where the command takes no reason.
fn by_command(deed: &str, context: &Context<'_>) -> Word {
    Word::new(context.actor(None), format!("{deed} from the command line"))
}

impl Pause {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let word = Word::new(context.actor(self.actor.as_deref()), self.reason);
        let Which { namespace, name } = &self.which;
        let pausing = store.schedules().schedule_pause(namespace, name, word.clone());
        self.which.audited("schedules.pause", word, store, pausing).await?;
        self.which.show(true, store, context).await
    }
}

impl Resume {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let resuming = store.schedules().schedule_resume(&self.which.namespace, &self.which.name);
        let word = by_command("resumed", context);
        let changed = self.which.audited("schedules.resume", word, store, resuming).await?;
        if !changed {
            context.note(&not_paused(&self.which.name))?;
        }
        self.which.show(changed, store, context).await
    }
}

impl Run {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let running = store.schedules().schedule_run(&self.which.namespace, &self.which.name, JobId::make());
        self.which.audited("schedules.run", by_command("run", context), store, running).await?;
        self.which.show(true, store, context).await
    }
}

impl Next {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let (cron, zone) = match (self.name, self.cron) {
            (Some(name), _) => {
                let record = store.schedules().schedule_get(&self.namespace, &name).await?;
                (record.definition.cron, record.definition.zone)
            }
            (None, cron) => (cron.unwrap_or_default(), self.zone),
        };
        let spec = CronSpec::parse(&cron, &zone).map_err(|error| Error::Invalid(error.to_string()))?;
        let ticks = spec.next_ticks(store.now().await?, usize::from(self.count));
        print_ticks(&Ticks::new(zone, ticks.into_iter().map(output::timestamp).collect()), context)
    }

    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let ticks = match (self.name, self.cron) {
            (Some(name), _) => client.ticks(&self.namespace, &name, self.count).await?,
            (None, cron) => client.ticks_of_cron(&cron.unwrap_or_default(), &self.zone, self.count).await?,
        };
        print_ticks(&ticks, context)
    }
}

fn print_ticks(ticks: &Ticks, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(ticks)?,
        Format::Jsonl => context.print_lines(&ticks.ticks)?,
        Format::Table => {
            let mut table = context.table(["UTC", "THERE"]);
            for tick in &ticks.ticks {
                table.row([output::instant(*tick), output::instant_in(*tick, &ticks.zone)]);
            }
            context.print_text(&table.text())?;
        }
    }
    Ok(ExitStatus::Ok)
}

impl Delete {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let before = self.which.stands(store).await?;
        let deed = self.which.deed("schedules.delete", by_command("deleted", context));
        audited(store, deed, &before, async {
            store.schedules().schedule_delete(&self.which.namespace, &self.which.name).await?;
            Ok(((), json!({ "deleted": true })))
        })
        .await?;
        context.note(&gone(&self.which.namespace, &self.which.name))?;
        Ok(ExitStatus::Ok)
    }
}
