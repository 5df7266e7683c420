//! The `recache` command: reads the command line and hands over to one of [`commands`].

mod bench;
mod builtin;
mod commands;
mod demo;

#[allow(dead_code, reason = "not every exit code has its command yet")]
mod cli_error;
mod config;
mod import;
mod outbound;
mod output;
mod profiles;
mod run;
mod telemetry;

use std::io;
use std::process::ExitCode;

// Many small pieces live for the length of one answer: batches of 100 reads went from 0.5 to 0.65 million keys a second (Redis; a
// fifth more on memcached), one read alone is as fast as before.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Not locked: whoever logs from another thread must not wait for this one.
    commands::run(std::env::args_os(), &mut io::stdout(), &mut io::stderr()).into()
}
