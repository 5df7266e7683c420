//! The statements that read the same on both databases.
//!
//! This folder is compiled twice, once inside `postgres` and once inside `sqlite`; `super` is then that engine, which
//! says what a `Connection` and a `Row` are and brings the few words that differ as macros (`for_update!`, `in_ids!`,
//! `in_texts!`). SQL text is shared without being built at run time, and each engine's types are concrete. What needs another shape
//! on each engine (bulk insert, claim, settle) is in the engine's own `bulk.rs`.
//!
//! Every function runs inside a transaction of its caller. Locks are taken in one order everywhere: views by id,
//! workflows by id, then jobs, then batches, then the record of a cache's epochs, then the row of the stream of events, then the counts of batches; so transactions wait for each other but never in a circle.

pub(super) mod api_keys;
pub(super) mod attempts;
pub(super) mod audit;
pub(super) mod batch_members;
pub(super) mod batches;
pub(super) mod build_workflows;
pub(super) mod bulk_jobs;
pub(super) mod cache_epochs;
pub(super) mod chains;
pub(super) mod deliveries;
pub(super) mod effects;
pub(super) mod event_drafts;
pub(super) mod event_stream;
pub(super) mod events;
pub(super) mod figures;
pub(super) mod finished;
pub(super) mod flow;
pub(super) mod given;
pub(super) mod handler_offers;
pub(super) mod held_items;
pub(super) mod items;
pub(super) mod job_changes;
pub(super) mod jobs;
pub(super) mod known_items;
pub(super) mod letters;
pub(super) mod lifecycles;
pub(super) mod limited;
pub(super) mod lists;
pub(super) mod maintenance;
pub(super) mod queues;
pub(super) mod remote_workers;
pub(super) mod request_keys;
pub(super) mod schedules;
pub(super) mod sessions;
pub(super) mod settle;
pub(super) mod signals;
pub(super) mod steps;
pub(super) mod submit;
pub(super) mod subscribers;
pub(super) mod templates;
pub(super) mod touch_requests;
pub(super) mod tracked;
pub(super) mod view_control;
pub(super) mod view_patterns;
pub(super) mod views;
pub(super) mod workflows;
