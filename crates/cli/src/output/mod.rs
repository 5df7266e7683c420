//! What goes to stdout: documents for programs, tables for people, and from the store's records to either.

mod analysis;
mod analytics;
mod convert;
mod events;
mod table;
mod text;

use clap::ValueEnum;

pub(crate) use analysis::analysis;
pub(crate) use analytics::{bottlenecks, performance};
pub(crate) use convert::instant as timestamp;
pub(crate) use convert::{
    attempts, batch, batch_member, generation, history, items, job, job_state, json_text, letter,
    letter_note, limit, log, ms, passed_limits, queue, schedule, tracked, view, workflow, workflow_signal,
    workflow_step,
};
pub(crate) use events::{delivery, event, subscriber};
pub(crate) use table::{Table, Tone, terminal_width};
pub(crate) use text::{duration, instant, instant_in, visible_json};

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs: one document, its shape named by `schema`
    Json,
    /// For programs: one document a line, lists without their envelope
    Jsonl,
}
