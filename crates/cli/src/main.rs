//! The `recache` command.
fn main() {}
