//! What a handler says while it runs.

use serde_json::Value;

use crate::link::Keep;

/// An item that was put or taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutItem {
    /// Its key.
    pub item: String,
    /// Of its inputs.
    pub fingerprint: Option<String>,
    /// Its value; `None`: what an earlier build made of it was taken over.
    pub value: Option<Value>,
}

/// Everything that a handler has reported, each in its order. What was refused, because the job was no longer its own, is not in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reported {
    /// Fractions, 0 to 1, and messages.
    pub progress: Vec<(f64, Option<String>)>,
    /// Lines.
    pub log: Vec<String>,
    /// What was kept for the next attempt; the last one counts.
    pub checkpoints: Vec<Value>,
    /// Items that were put or taken over. A build sends them some at a time.
    pub items: Vec<PutItem>,
    /// What a step's part of a build said of items that it did not put.
    pub kept: Vec<Keep>,
}
