//! What goes to stdout: documents for programs, which are the server's too, and tables for people.

mod table;
mod text;

use clap::ValueEnum;

pub(crate) use recache_server::documents::instant as timestamp;
pub(crate) use recache_server::documents::{
    Drawn, Figure, Report, analysis, attempts, batch, batch_member, bottlenecks, cache_change,
    cache_explanation, cache_health, cache_overview, cache_stats, cache_value, delivery, event,
    figure_explanation, generation, handler_details, handler_graph, handler_list, handler_mermaid,
    handler_text, history, items, job, job_state, json_text, letter, letter_note, limit, log, ms,
    passed_limits, performance, queue, schedule, subscriber, touched, tracked, ttl_explanation, view,
    view_diff, view_explanation, view_history, view_pattern, view_restored, workflow, workflow_signal,
    workflow_step,
};
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
