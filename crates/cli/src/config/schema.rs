//! The list of everything that can be configured: one row an option, and the questions that can be asked of it.

use serde_json::Value;

use super::{Config, auth, cache, database, engine, handlers, log, outbound, server, telemetry, ttl};

/// One option: its name in the file, what it means, what it accepts, and how it is put into and read from [`Config`].
///
/// The default is what `read` finds in [`Config::defaults`]: it is written down once, in the section's struct.
#[derive(Debug)]
pub(super) struct ConfigOption {
    /// Section and key, joined by dots.
    pub(super) path: &'static str,
    /// What it does, in one line.
    pub(super) meaning: &'static str,
    /// What it accepts, and where an accepted value goes. The writer is given the path.
    pub(super) kind: Kind,
    /// The value as the file would write it, secrets masked. The reader is given the path.
    pub(super) read: fn(&Config, &str) -> Value,
}

/// What an option accepts. Bounds hold at both ends; a writer is only called with a value inside them.
#[derive(Debug)]
pub(super) enum Kind {
    /// A whole number.
    Whole { unit: &'static str, min: u32, max: u32, write: fn(&mut Config, &str, u32) },
    /// `true` or `false`.
    Boolean { write: fn(&mut Config, &str, bool) },
    /// One of a few words.
    Choice { allowed: &'static [&'static str], write: fn(&mut Config, &str, &str) },
    /// Text of a form that only the section can judge.
    Text { form: &'static str, write: fn(&mut Config, &str, &str) -> Result<(), Refusal> },
}

impl Kind {
    /// What it accepts, as a phrase.
    pub(super) fn accepts(&self) -> String {
        match self {
            Self::Whole { unit: "", min, max, .. } => format!("a whole number from {min} to {max}"),
            Self::Whole { unit, min, max, .. } => format!("a whole number of {unit} from {min} to {max}"),
            Self::Boolean { .. } => "true or false".to_owned(),
            Self::Choice { allowed, .. } => format!("one of {}", allowed.join(", ")),
            Self::Text { form, .. } => (*form).to_owned(),
        }
    }
}

/// Why a text is not accepted. Follows the option's name in a sentence, and never repeats a secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// "is …", "has …", "names …".
    pub(super) why: String,
    /// What to write instead.
    pub(super) remedy: String,
}

impl Refusal {
    pub(super) fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into() }
    }
}

/// Whom a problem stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    /// Nothing starts.
    Core,
    /// The cache runs as no-op, everything else as usual.
    Cache,
}

/// Every option, in the order in which it is shown.
pub(super) fn options() -> impl Iterator<Item = &'static ConfigOption> {
    [
        database::OPTIONS,
        engine::OPTIONS,
        server::OPTIONS,
        auth::OPTIONS,
        handlers::OPTIONS,
        outbound::OPTIONS,
        log::OPTIONS,
        telemetry::OPTIONS,
        ttl::OPTIONS,
        cache::OPTIONS,
    ]
    .into_iter()
    .flatten()
}

/// The option with this path.
pub(super) fn option(path: &str) -> Option<&'static ConfigOption> {
    options().find(|option| option.path == path)
}

/// Whether options or further sections lie below this path.
pub(super) fn is_section(path: &str) -> bool {
    options().any(|option| below(path, option.path).is_some())
}

/// The names that may stand directly in a section; the empty path is the top of the file.
pub(super) fn names_in(section: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for option in options() {
        let rest = if section.is_empty() { Some(option.path) } else { below(section, option.path) };
        let name = rest.and_then(|rest| rest.split('.').next());
        names.extend(name.filter(|name| !names.contains(name)));
    }
    names
}

/// Whom a problem at this path stops.
pub(super) fn zone(path: &str) -> Zone {
    let in_cache = cache::SECTIONS.iter().any(|section| path == *section || below(section, path).is_some());
    if in_cache { Zone::Cache } else { Zone::Core }
}

/// The environment variable that sets the option.
pub(super) fn variable(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"))
}

/// The option's path that an environment variable means, when it means one of ours.
pub(super) fn path_of_variable(name: &str) -> Option<String> {
    name.strip_prefix(VARIABLE_PREFIX).map(|rest| rest.to_ascii_lowercase().replace("__", "."))
}

const VARIABLE_PREFIX: &str = "RECACHE__";

/// The known name that was most likely meant, if one is near enough.
pub(super) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong, name), name))
        // A third of the name may be wrong; of a very short one, a letter.
        .filter(|(distance, name)| *distance <= (name.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn below<'a>(section: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(section)?.strip_prefix('.')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn paths_are_unique_and_survive_the_way_through_a_variable_name() {
        let paths: Vec<_> = options().map(|option| option.path).collect();
        assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len());
        for path in paths {
            assert_eq!(path_of_variable(&variable(path)).as_deref(), Some(path));
            assert!(!is_section(path), "{path} is an option and a section");
        }
    }

    #[test]
    fn sections_and_their_names_follow_from_the_options() {
        assert_eq!(
            names_in(""),
            [
                "database",
                "engine",
                "server",
                "auth",
                "handlers",
                "outbound",
                "log",
                "telemetry",
                "adaptive_ttl",
                "common"
            ]
        );
        assert_eq!(names_in("common"), ["cache", "circuit_breakers"]);
        assert_eq!(names_in("common.cache.moka"), ["max_capacity"]);
        assert!(is_section("common.circuit_breakers") && !is_section("common.cach") && !is_section(""));
    }

    #[test]
    fn only_the_cache_s_own_sections_are_in_its_zone() {
        for path in
            ["common.cache", "common.cache.redis.url", "common.circuit_breakers.component_configs.cache.x"]
        {
            assert_eq!(zone(path), Zone::Cache, "{path}");
        }
        for path in
            ["common", "common.cached", "common.circuit_breakers.component_configs.web", "engine.slots"]
        {
            assert_eq!(zone(path), Zone::Core, "{path}");
        }
    }

    #[test]
    fn nearest_name_must_be_near() {
        assert_eq!(nearest("slot", ["slots", "lease_ms"]), Some("slots"));
        assert_eq!(nearest("LEASE_SM", ["slots", "lease_ms"]), Some("lease_ms"));
        assert_eq!(nearest("colour", ["slots", "lease_ms"]), None);
    }
}
