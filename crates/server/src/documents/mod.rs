//! From the store's records and the engine's findings to the documents of the wire contract.
//!
//! The one place for it: what `recache -o json` prints and what the server answers are the same documents.

mod access;
mod analysis;
mod analytics;
mod cache;
mod events;
mod figures;
mod handler_drawing;
mod handlers;
mod records;
pub mod templates;
mod view_explained;
mod views;

pub use access::{api_key, audit_row};
pub use analysis::{Drawn, analysis};
pub use analytics::{bottlenecks, performance};
pub use cache::{
    cache_capabilities, cache_change, cache_explanation, cache_health, cache_overview, cache_stats,
    cache_tiers, cache_value, ttl_explanation,
};
pub use events::{address_shown, delivery, event, subscriber};
pub use figures::{Figure, Report, UnknownFigure, figure_explanation};
pub use handler_drawing::{handler_mermaid, handler_text};
pub use handlers::{handler_details, handler_graph, handler_list, worker};
pub use records::{
    attempts, batch, batch_member, generation, history, instant, items, job, job_state, json_text, letter,
    letter_note, limit, log, ms, passed_limits, queue, schedule, tracked, view, view_pattern, workflow,
    workflow_signal, workflow_step,
};
pub use view_explained::view_explanation;
pub(crate) use views::{item_page, items_read};
pub use views::{touched, view_diff, view_history, view_restored};
