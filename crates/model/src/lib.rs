//! The rules of Recache, pure: states, transitions, retry, view versions, templates.

pub mod template;
