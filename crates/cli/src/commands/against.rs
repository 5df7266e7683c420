//! A verb against a server in place of a database: the same documents, the same output.

use std::time::Duration;

use recache_api::client::{Client, Error, Options};
use recache_api::{Because, Problem};
use recache_model::time::{Clock as _, SystemClock};

use super::Context;
use super::failure::{Failure, Result};
use crate::cli_error::{CliError, ExitStatus};
use crate::profiles::Profile;

/// One request lets the server wait no longer than it likes to by default; whoever waits longer asks again.
pub(super) const WAIT_OF_ONE_REQUEST: Duration = Duration::from_secs(25);

/// Where a server is that was started as it comes.
pub(super) const LOCAL: &str = "http://127.0.0.1:7878";

/// The names of the flags that say which server, as the parser knows them.
pub(super) const PROFILE: &str = "profile";
pub(super) const SERVER: &str = "server";

/// Which server.
#[derive(Debug, clap::Args)]
pub(super) struct Against {
    /// Ask this server in place of a database [env: RECACHE_SERVER]
    #[arg(long, global = true, value_name = "URL", help_heading = "Server")]
    server: Option<String>,
    /// Ask the server of this profile [env: RECACHE_PROFILE]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Server")]
    profile: Option<String>,
    /// API key or JWT, where the server asks for one [env: RECACHE_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN", help_heading = "Server")]
    token: Option<String>,
}

impl Against {
    /// A client of the server that was named, or of the one on this machine: for what only a server can be asked.
    pub(super) fn client_or_local(&self, context: &mut Context<'_>) -> Result<Client> {
        if context.globals.has_database_flag() {
            let error = CliError::new("E-USAGE", ExitStatus::Usage, "this asks a server, and no database");
            return Err(error.at("--database").help("name a server with --server or --profile").into());
        }
        if self.server.is_none() && self.profile.is_none() && self.place(context)?.is_none() {
            let local = Self { server: Some(LOCAL.to_owned()), profile: None, token: self.token.clone() };
            return local.client_or_local(context);
        }
        let none = || {
            CliError::new("E-USAGE", ExitStatus::Usage, "no server is named").help("name it with --server")
        };
        self.client(context)?.ok_or_else(|| none().into())
    }

    /// A client of the server that was named, if one was. A flag stands above the environment; two answers to the same question from the same
    /// place are one too many.
    pub(super) fn client(&self, context: &mut Context<'_>) -> Result<Option<Client>> {
        let Some(place) = self.place(context)? else {
            if self.token.is_none() {
                return Ok(None);
            }
            let what = "--token is for a server, and none is named";
            let error = CliError::new("E-USAGE", ExitStatus::Usage, what);
            return Err(error.help("name it with --server or --profile, or RECACHE_SERVER").into());
        };
        context.log();
        let variable = || variable(context, "RECACHE_TOKEN").map(str::to_owned);
        let (server, token) = match place {
            Place::Server(server) => (server, self.token.clone().or_else(variable)),
            Place::Profile(profile) => {
                // Its own token first: the variable may be meant for another server.
                let token = match &self.token {
                    Some(token) => Some(token.clone()),
                    None => profile.token().map_err(super::profile::said)?.or_else(variable),
                };
                (profile.server, token)
            }
        };
        let options = Options { token, ..Options::new(|| uuid::Uuid::new_v4().to_string()) };
        Ok(Some(Client::new(&server, options)?))
    }

    fn place(&self, context: &Context<'_>) -> Result<Option<Place>> {
        let of_profile = || context.profile.clone().map(Place::Profile);
        let of_server = |server: &str| Some(Place::Server(server.to_owned()));
        let flags = [
            ("--server", self.server.is_some()),
            ("--profile", self.profile.is_some()),
            ("--database", context.globals.has_database_flag()),
        ];
        match one_of(flags)? {
            Some("--server") => return Ok(self.server.as_deref().and_then(of_server)),
            Some("--profile") => return Ok(of_profile()),
            Some(_) => return Ok(None),
            None => {}
        }
        let server = variable(context, "RECACHE_SERVER");
        let variables = [
            ("RECACHE_SERVER", server.is_some()),
            ("RECACHE_PROFILE", variable(context, "RECACHE_PROFILE").is_some()),
            ("RECACHE_DATABASE", variable(context, "RECACHE_DATABASE").is_some()),
        ];
        Ok(match one_of(variables)? {
            Some("RECACHE_SERVER") => server.and_then(of_server),
            Some("RECACHE_PROFILE") => of_profile(),
            _ => None,
        })
    }
}

/// Where a server was named.
enum Place {
    Server(String),
    Profile(Profile),
}

fn variable<'a>(context: &'a Context<'_>, name: &str) -> Option<&'a str> {
    context.environment.variable(name).filter(|value| !value.is_empty())
}

/// The one that is given, if one is.
fn one_of<const N: usize>(asked: [(&'static str, bool); N]) -> Result<Option<&'static str>> {
    let mut given = asked.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name);
    match (given.next(), given.next()) {
        (Some(one), Some(other)) => Err(both(one, other)),
        (one, _) => Ok(one),
    }
}

fn both(one: &str, other: &str) -> Failure {
    let what = format!("{one} and {other} are both given: a command asks one server, or a database");
    CliError::new("E-USAGE", ExitStatus::Usage, what)
        .help(format!("leave {other} out to ask the server"))
        .into()
}

/// Refuses a name of one's own: who asks a server is known by the token.
pub(super) fn no_actor(actor: Option<&str>) -> Result<()> {
    if actor.is_none() {
        return Ok(());
    }
    let what = "--actor has no form against a server: who asks is known by the token";
    Err(CliError::new("E-UNSUPPORTED", ExitStatus::Usage, what).help("leave --actor out").into())
}

/// The reason as it is sent.
pub(super) fn because(reason: String) -> Because {
    Because { reason: Some(reason) }
}

/// What time it is on this machine.
pub(super) fn now_micros() -> i64 {
    SystemClock.now().micros()
}

/// A length of time as it is sent.
pub(super) fn ms(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Said(of_server(&error))
    }
}

/// What a server, or the way to it, says as the command's own error.
fn of_server(error: &Error) -> CliError {
    match error {
        Error::Invalid(what) => CliError::new("E-USAGE", ExitStatus::Usage, what.clone()),
        Error::Refused(problem) => of_problem(problem),
        Error::Unreachable { .. } => {
            CliError::new("E-UNAVAILABLE", ExitStatus::Unavailable, error.to_string())
                .help("check that `recache serve` runs there, and --server")
        }
        Error::Unreadable { .. } => CliError::new("E-SERVER", ExitStatus::Failed, error.to_string())
            .help("check that --server names a Recache server, not older than this program"),
    }
}

fn of_problem(problem: &Problem) -> CliError {
    let (code, exit) = match problem.code.as_str() {
        "invalid" | "invalid_parameter" | "malformed" | "too_large" | "key_reused" => {
            ("E-INVALID", ExitStatus::Usage)
        }
        "not_found" => ("E-NOT-FOUND", ExitStatus::NotFound),
        "conflict" | "in_progress" => ("E-CONFLICT", ExitStatus::Conflict),
        "unauthenticated" | "forbidden" => ("E-DENIED", ExitStatus::Denied),
        "unavailable" | "overloaded" | "too_many_requests" => ("E-UNAVAILABLE", ExitStatus::Unavailable),
        "outcome_unknown" => ("E-OUTCOME-UNKNOWN", ExitStatus::Unavailable),
        "timed_out" => ("E-TIMEOUT", ExitStatus::TimedOut),
        _ => ("E-SERVER", ExitStatus::Failed),
    };
    let mut error = CliError::new(code, exit, problem.detail.clone());
    if let Some(request) = &problem.request_id {
        error = error.at(format!("request {request}"));
    }
    // What the server says to programs is said here in flags.
    let remedy = match problem.code.as_str() {
        "unauthenticated" => Some("give a token: --token, or RECACHE_TOKEN".to_owned()),
        "forbidden" => Some("give a token with that scope, in that namespace".to_owned()),
        "not_found" => Some("check the name, the namespace of the token, and --server".to_owned()),
        _ => problem.remedy.clone(),
    };
    match remedy {
        Some(remedy) => error.help(remedy),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_has_the_exit_code_that_a_database_would_give() {
        for (code, exit) in [
            ("invalid", ExitStatus::Usage),
            ("not_found", ExitStatus::NotFound),
            ("conflict", ExitStatus::Conflict),
            ("forbidden", ExitStatus::Denied),
            ("overloaded", ExitStatus::Unavailable),
            ("outcome_unknown", ExitStatus::Unavailable),
            ("internal", ExitStatus::Failed),
            ("a word of tomorrow", ExitStatus::Failed),
        ] {
            let problem = Problem::new(500, code, "title", "detail");
            let said = of_server(&Error::Refused(Box::new(problem)));
            assert_eq!((said.exit, said.what.as_str()), (exit, "detail"), "{code}");
        }
    }
}
