//! What comes in, read strictly: each extractor here either gives what the handler asked for, or a refusal that names everything that
//! is wrong and where.
//!
//! | Extractor | Reads | Refuses |
//! |---|---|---|
//! | [`Input`] | a JSON body | another media type, too much, too slow, too deep, a key twice, unknown fields, wrong values |
//! | [`Source`] | a template as text | another media type, too much, too slow, what is no UTF-8 |
//! | [`Params`] | the query | unknown, repeated and wrong parameters |
//! | [`Id`], [`Segments`] | the path | what is no id, what is no text |
//! | [`Accepted`] | `Accept` | nothing: what it does not know is passed over |
//! | [`Wait`] | `Prefer: wait=N` | what is no number of seconds |
//!
//! What a body or a query may hold is the type's schema in the API's description ([`schema`]).

mod body;
pub(crate) mod cursor;
mod form;
mod prefer;
mod query;
pub(crate) mod schema;
mod segments;
pub(crate) mod strict;

pub(crate) use body::{Input, Source, read_body};
pub(crate) use form::Accepted;
pub(crate) use prefer::Wait;
pub(crate) use query::Params;
pub(crate) use segments::{Id, Segments, read_id};
