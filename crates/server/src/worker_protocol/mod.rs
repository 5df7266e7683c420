//! The worker protocol: workers in any language, without a database.
//!
//! What it promises is told in `docs/reference/worker-protocol.md`; what is done about it is the engine's
//! ([`recache_engine::remote`]). Here requests become calls and answers become documents.

mod answers;
mod calls;
mod routes;

pub(crate) use routes::routes;
