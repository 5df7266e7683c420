//! The process that owns the servers.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use super::leftover::{self, RunFolder};
use super::server::{Account, Server};
use super::{FSYNC_OPTION, Fsync, READY, SHARED_VARIABLE, memcached, postgres, redis};
use crate::Failure;
use crate::find::{Found, Tool};

/// Starts the servers that the arguments name, says where they are, and stops them at the end of stdin.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let (found, fsync) = parse(arguments)?;
    let parent = std::env::temp_dir();
    leftover::remove_all(&parent);
    // Dropped in reverse: first the servers, then what they wrote.
    let folder = RunFolder::create(&parent)?;
    let account = Account::choose()?;
    let mut servers: Vec<Server> = Vec::new();
    let mut lines = String::new();
    let mut started = |tool: Tool, server: Server| {
        lines.push_str(&format_line(tool, &server));
        servers.push(server);
    };
    if let Some(bin) = &found.postgres_bin {
        started(Tool::Postgres, postgres::start(bin, fsync, &folder, &account)?);
    }
    if let Some(program) = &found.redis {
        started(Tool::Redis, redis::start(program, &folder, &account)?);
    }
    if let Some(program) = &found.memcached {
        started(Tool::Memcached, memcached::start(program, &folder, &account)?);
    }
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared).map_err(Failure::at("cannot make the folder of what tests share"))?;
    let shared = format!("{SHARED_VARIABLE}={}\n", shared.display());
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{lines}{shared}{READY}")
        .and_then(|()| stdout.flush())
        .map_err(Failure::at("cannot tell where the servers are"))?;
    wait_for_end_of_stdin();
    Ok(())
}

fn format_line(tool: Tool, server: &Server) -> String {
    format!("{}={}\n", tool.variable(), server.url)
}

fn wait_for_end_of_stdin() {
    let mut ignored = [0; 64];
    // An error is an end too.
    while std::io::stdin().read(&mut ignored).is_ok_and(|count| count > 0) {}
}

fn parse(arguments: &[String]) -> Result<(Found, Fsync), Failure> {
    let (mut found, mut fsync) = (Found::default(), Fsync::default());
    for pair in arguments.chunks(2) {
        let path = |value: &String| Some(PathBuf::from(value));
        match pair {
            [option, value] if option == "--postgres-bin" => found.postgres_bin = path(value),
            [option, value] if option == "--redis" => found.redis = path(value),
            [option, value] if option == "--memcached" => found.memcached = path(value),
            [option, value] if option == FSYNC_OPTION && value == Fsync::On.as_str() => fsync = Fsync::On,
            [option, value] if option == FSYNC_OPTION && value == Fsync::Off.as_str() => fsync = Fsync::Off,
            _ => return Err(Failure::new(format!("the servers' guard does not know {pair:?}"))),
        }
    }
    Ok((found, fsync))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_pairs() {
        let arguments = ["--redis", "/r", "--fsync", "off", "--postgres-bin", "/p"].map(str::to_owned);
        let (found, fsync) = parse(&arguments).unwrap();
        assert_eq!((fsync, parse(&[]).unwrap().1), (Fsync::Off, Fsync::On));
        assert_eq!(
            found,
            Found {
                postgres_bin: Some("/p".into()),
                redis: Some("/r".into()),
                memcached: None,
                php: None,
                prometheus: None
            }
        );
        assert!(parse(&["--redis".to_owned()]).is_err());
        assert!(parse(&["--fsync".to_owned(), "perhaps".to_owned()]).is_err());
        assert!(parse(&["--valkey".to_owned(), "/v".to_owned()]).is_err());
    }
}
