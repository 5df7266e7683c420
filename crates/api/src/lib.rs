//! The wire contract of Recache: the JSON documents that programs read.
