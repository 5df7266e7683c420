//! What `recache run` is told.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The arguments of `recache run`.
#[derive(Clone, clap::Args)]
pub(crate) struct RunArgs {
    /// The template, in YAML or JSON
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The workflow's input: JSON, @FILE that holds it, or - for standard input
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    pub(crate) input: Option<String>,

    /// Run it once for each input of this file, as members of one batch: one JSON value a line, or one JSON list of them; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    pub(crate) batch: Option<PathBuf>,

    /// Cancel the workflow after this long, such as 500ms, 60s, 5m or 1h; by default it may take as long as it likes
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// Apply the overlays of this environment of the template
    #[arg(long, value_name = "NAME")]
    pub(crate) environment: Option<String>,

    /// A dry run: take the results of steps from this JSON file, {"step": result}, instead of calling handlers
    #[arg(long, value_name = "FILE")]
    pub(crate) results: Option<PathBuf>,

    /// A dry run: let a built-in handler do what callables of this form would; may be given again
    #[arg(long = "handler", value_name = "PATTERN=HANDLER", value_parser = super::stand_in::parse_mapping)]
    pub(crate) handlers: Vec<(String, String)>,

    /// Let `http` steps reach private, loopback, link-local and metadata addresses
    #[arg(long)]
    pub(crate) allow_private_addresses: bool,

    /// Let `command` steps run this program; may be given again
    #[arg(long = "allow-command", value_name = "NAME=PATH", value_parser = crate::config::parse_command)]
    pub(crate) commands: Vec<(String, PathBuf)>,
}

impl fmt::Debug for RunArgs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The input may hold secrets.
        out.debug_struct("RunArgs").field("file", &self.file).finish_non_exhaustive()
    }
}

/// The longest that may be waited: 30 days.
const SECONDS_MAX: f64 = 30.0 * 24.0 * 60.0 * 60.0;

/// Reads a number with its unit.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let form = || "write a number with its unit, such as 500ms, 60s, 5m or 1h".to_owned();
    let split = text.find(|character: char| character.is_ascii_alphabetic()).ok_or_else(form)?;
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(form()),
    };
    let seconds = number.parse::<f64>().map_err(|_| form())? * factor;
    if !(seconds > 0.0 && seconds <= SECONDS_MAX) {
        return Err("it must be more than 0 and at most 720h".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| form())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, ms) in
            [("500ms", 500), ("60s", 60_000), ("1.5s", 1_500), ("5m", 300_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "60", "s", "-1s", "0s", "1e999s", "nans", "infs", "1d", "721h", "1 s2"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
