//! The `recache` command.

#[allow(dead_code, reason = "the commands that fail are not here yet")]
mod cli_error;

fn main() {}
