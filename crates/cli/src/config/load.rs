//! Puts the layers together: default, file, environment, flags; then checks what came out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::environment::Environment;
use super::interpolate;
use super::mask::names_secret;
use super::problem::{Place, Problem, short};
use super::schema::{self, ConfigOption, Kind, Refusal, Zone};
use super::source::{self, Raw, SourceFile};
use super::{Config, EngineConfig, server};

/// An option that was set by a flag of the command line.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Flag {
    /// The flag as typed, for messages: `--slots`.
    pub(crate) name: String,
    /// The option that it sets: `engine.slots`.
    pub(crate) path: String,
    /// The value as typed.
    pub(crate) value: String,
}

impl std::fmt::Debug for Flag {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The value may be a URL with a password.
        formatter
            .debug_struct("Flag")
            .field("name", &self.name)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Where an option's effective value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nothing else says anything, or what it says is wrong.
    Default,
    /// Something says it; of a value in the file, the variables that were filled in.
    Given { place: Place, variables: Vec<String> },
}

/// What loading came to.
///
/// Whoever starts something must look at `problems` first: where there is one, nothing may start. A `warning` is a
/// problem inside the cache's own sections: log it, and the cache runs as no-op ([`super::CacheConfig::tables`] gives
/// nothing). `config check` fails on both.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The effective configuration. An option with a problem has its default.
    pub(crate) config: Config,
    /// What stops a start.
    pub(crate) problems: Vec<Problem>,
    /// What only stops the cache.
    pub(crate) warnings: Vec<Problem>,
    /// The file, when there was one that could be read.
    pub(crate) source: Option<SourceFile>,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Where the option's value comes from.
    pub(super) fn origin(&self, path: &str) -> &Origin {
        self.origins.get(path).unwrap_or(&Origin::Default)
    }

    /// Whether anything at all is wrong, in the cache's sections or outside them.
    pub(crate) fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.warnings.is_empty()
    }
}

/// A value that something says, before it is looked at.
struct Given {
    raw: Raw,
    place: Place,
}

/// Loads from a file that was read, or none, and everything above it.
pub(super) fn load(source: Option<SourceFile>, environment: &Environment, flags: &[Flag]) -> Loaded {
    let mut found = Vec::new();
    let mut given: BTreeMap<&'static str, Given> = BTreeMap::new();
    for entry in source.iter().flat_map(|source| source.entries(&mut found)) {
        given.insert(entry.path, Given { raw: entry.raw, place: Place::File(entry.position) });
    }
    let variables = environment.variables.iter().filter_map(|(name, value)| {
        let path = schema::path_of_variable(name)?;
        Some((path, value, Place::Environment(name.clone())))
    });
    let flags = flags.iter().map(|flag| (flag.path.clone(), &flag.value, Place::Flag(flag.name.clone())));
    for (path, value, place) in variables.chain(flags) {
        match schema::option(&path) {
            Some(option) => {
                given.insert(option.path, Given { raw: Raw::Loose(value.clone()), place });
            }
            None => found.push(unknown(&path, place)),
        }
    }

    let defaults = Config::defaults(environment.cores);
    let mut config = defaults.clone();
    let mut origins = BTreeMap::new();
    for option in schema::options() {
        let Some(given) = given.get(option.path) else { continue };
        match apply(option, &given.raw, environment, &mut config) {
            Ok(variables) => {
                origins.insert(option.path, Origin::Given { place: given.place.clone(), variables });
            }
            Err(refusal) => found.push(Problem {
                zone: schema::zone(option.path),
                path: Some(option.path.to_owned()),
                message: format!("`{}` {}", option.path, refusal.why),
                remedy: Some(refusal.remedy),
                place: given.place.clone(),
            }),
        }
    }
    check_beat(&mut config, &defaults, &mut origins, &mut found);
    check_ttl(&mut config, &defaults, &mut origins, &mut found);
    check_address(&mut config, &defaults, &mut origins, &mut found);

    found.sort_by_key(Problem::order);
    let (warnings, problems): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|problem| problem.zone == Zone::Cache);
    if !warnings.is_empty() {
        config.cache.distrust();
    }
    Loaded { config, problems, warnings, source, origins }
}

/// A variable or flag that names no option: says what it may have meant, in its own spelling.
fn unknown(path: &str, place: Place) -> Problem {
    let near = schema::nearest(path, schema::options().map(|option| option.path));
    let remedy = match (&place, near) {
        (_, None) => "run `recache config explain` for the list of options".to_owned(),
        (Place::Environment(_), Some(near)) => format!("did you mean `{}`?", schema::variable(near)),
        (_, Some(near)) => format!("did you mean `{near}`?"),
    };
    let what = if schema::is_section(path) { "a section, not an option" } else { "no option" };
    Problem {
        zone: schema::zone(path),
        path: Some(path.to_owned()),
        message: format!("`{}` is {what}", short(path)),
        remedy: Some(remedy),
        place,
    }
}

/// Fills in, types, checks and writes one value; answers with the variables that are in it.
fn apply(
    option: &ConfigOption,
    raw: &Raw,
    environment: &Environment,
    config: &mut Config,
) -> Result<Vec<String>, Refusal> {
    let (raw, variables) =
        fill_in(raw, environment).map_err(|error| Refusal::new(error.to_string(), error.remedy()))?;
    match set(option, raw, config) {
        Ok(()) => Ok(variables),
        Err(_) if variables.iter().any(|name| names_secret(name)) => {
            let names = variables.join(", ");
            Err(Refusal::new(
                format!("needs {}, which is not what it gets from {names}", option.kind.accepts()),
                format!(
                    "check the value of {names}; it is not shown here because its name says that it is secret"
                ),
            ))
        }
        Err(mut refusal) => {
            if !variables.is_empty() {
                refusal.why = format!("{} (with {})", refusal.why, variables.join(", "));
            }
            Err(refusal)
        }
    }
}

/// Fills in the variables of a text from the file. What an override says is taken as it is: whoever set it had a
/// shell to fill it in.
fn fill_in(raw: &Raw, environment: &Environment) -> Result<(Raw, Vec<String>), interpolate::Error> {
    let Raw::Quoted(text) = raw else { return Ok((raw.clone(), Vec::new())) };
    let expanded = interpolate::expand(text, |name| environment.variable(name))?;
    let raw = if expanded.whole { Raw::Loose(expanded.text) } else { Raw::Quoted(expanded.text) };
    Ok((raw, expanded.variables))
}

/// Types, checks and writes one value whose variables are filled in.
fn set(option: &ConfigOption, raw: Raw, config: &mut Config) -> Result<(), Refusal> {
    let raw = match (&option.kind, raw) {
        // Text from a variable or a flag may be a number or a boolean.
        (Kind::Whole { .. } | Kind::Boolean { .. }, Raw::Loose(text)) => {
            source::scalar(&text).unwrap_or(Raw::Loose(text))
        }
        (_, raw) => raw,
    };
    match (&option.kind, &raw) {
        (Kind::Whole { min, max, write, .. }, Raw::Whole(number)) => {
            let fitting = u32::try_from(*number).ok().filter(|number| (*min..=*max).contains(number));
            let number = fitting.ok_or_else(|| {
                Refusal::new(
                    format!("is {number}, outside {min}..={max}"),
                    format!("write {}", option.kind.accepts()),
                )
            })?;
            write(config, option.path, number);
        }
        (Kind::Boolean { write }, Raw::Boolean(on)) => write(config, option.path, *on),
        (Kind::Choice { allowed, write }, Raw::Quoted(text) | Raw::Loose(text)) => {
            if !allowed.contains(&text.as_str()) {
                let guess = schema::nearest(text, allowed.iter().copied())
                    .map(|near| format!("did you mean \"{near}\"? "))
                    .unwrap_or_default();
                return Err(Refusal::new(
                    format!("is `{}`, which is not known", short(text)),
                    format!("{guess}allowed: {}", allowed.join(", ")),
                ));
            }
            write(config, option.path, text);
        }
        (Kind::Text { write, .. }, Raw::Quoted(text) | Raw::Loose(text)) => write(config, option.path, text)?,
        _ => {
            return Err(Refusal::new(
                format!("needs {}, found {}", option.kind.accepts(), source::describe(&raw)),
                remedy_for_type(option, &raw),
            ));
        }
    }
    Ok(())
}

/// An address that others can reach needs callers that are known: a guard that cannot tell who asks says no.
fn check_address(
    config: &mut Config,
    defaults: &Config,
    origins: &mut BTreeMap<&'static str, Origin>,
    found: &mut Vec<Problem>,
) {
    const ADDRESS: &str = "server.address";
    let Some(refusal) = server::open_to_others(config.server.address) else { return };
    if config.auth.is_on() {
        return;
    }
    // The default is a loopback address, so this one was given.
    let Some(Origin::Given { place, .. }) = origins.get(ADDRESS) else { return };
    found.push(Problem {
        zone: Zone::Core,
        path: Some(ADDRESS.to_owned()),
        message: format!("`{ADDRESS}` {}", refusal.why),
        remedy: Some(refusal.remedy),
        place: place.clone(),
    });
    config.server.address = defaults.server.address;
    origins.remove(ADDRESS);
}

/// What to write instead of a value of the wrong type.
fn remedy_for_type(option: &ConfigOption, raw: &Raw) -> String {
    let name = option.path.rsplit('.').next().unwrap_or(option.path);
    match (&option.kind, raw) {
        (Kind::Whole { unit, .. }, Raw::Quoted(text) | Raw::Loose(text)) => {
            let unquoted = match source::scalar(text) {
                Some(Raw::Whole(number)) => Some(number.to_string()),
                _ => whole_duration(text, unit).map(|count| count.to_string()),
            };
            match unquoted {
                Some(number) if matches!(raw, Raw::Quoted(_)) => format!("write {name} = {number}"),
                Some(number) => format!("write {number}"),
                None => "write the number alone, without a unit or quotes".to_owned(),
            }
        }
        (Kind::Whole { .. }, _) => "write a whole number".to_owned(),
        (Kind::Boolean { .. }, Raw::Quoted(_)) => format!("write {name} = true or {name} = false"),
        (Kind::Boolean { .. }, _) => "write true or false".to_owned(),
        (Kind::Choice { .. } | Kind::Text { .. }, _) => "write the value in quotes".to_owned(),
    }
}

/// What `2s`, `500 ms`, `1m` or `1h` is in the option's unit.
fn whole_duration(text: &str, unit: &str) -> Option<u128> {
    let text = text.trim();
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let count: u64 = text[..digits].parse().ok()?;
    let duration = match text[digits..].trim() {
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        "m" | "min" => Duration::from_secs(count.checked_mul(60)?),
        "h" => Duration::from_secs(count.checked_mul(3600)?),
        _ => return None,
    };
    match unit {
        "milliseconds" => Some(duration.as_millis()),
        "seconds" if duration.subsec_nanos() == 0 => Some(u128::from(duration.as_secs())),
        _ => None,
    }
}

/// A beat must fit three times into a lease: with less, one lost beat costs a healthy worker its jobs.
fn check_beat(
    config: &mut Config,
    defaults: &Config,
    origins: &mut BTreeMap<&'static str, Origin>,
    found: &mut Vec<Problem>,
) {
    const BEAT: &str = "engine.beat_ms";
    const LEASE: &str = "engine.lease_ms";
    let EngineConfig { beat, lease, .. } = config.engine;
    if beat <= config.engine.beat_max() {
        return;
    }
    let blamed = if origins.contains_key(BEAT) { BEAT } else { LEASE };
    // The defaults fit each other, so one of the two was given.
    let Some(Origin::Given { place, .. }) = origins.get(blamed) else { return };
    let (beat_ms, lease_ms) = (beat.as_millis(), lease.as_millis());
    let (message, remedy) = if blamed == BEAT {
        (
            format!("`{BEAT}` is {beat_ms}, more than a third of `{LEASE}`, which is {lease_ms}"),
            format!("write at most {}, or a lease_ms of at least {}", lease_ms / 3, beat_ms * 3),
        )
    } else {
        (
            format!("`{LEASE}` is {lease_ms}, less than three times `{BEAT}`, which is {beat_ms} by default"),
            format!("write at least {}, or a beat_ms of at most {}", beat_ms * 3, lease_ms / 3),
        )
    };
    found.push(Problem {
        zone: Zone::Core,
        path: Some(blamed.to_owned()),
        message,
        remedy: Some(remedy),
        place: place.clone(),
    });
    config.engine.beat = defaults.engine.beat;
    config.engine.lease = defaults.engine.lease;
    origins.remove(BEAT);
    origins.remove(LEASE);
}

/// Settings of lives that contradict each other: all of them are given up, since no one knows which was meant.
fn check_ttl(
    config: &mut Config,
    defaults: &Config,
    origins: &mut BTreeMap<&'static str, Origin>,
    found: &mut Vec<Problem>,
) {
    const SECTION: &str = "adaptive_ttl.";
    let problems = config.adaptive_ttl.problems();
    if problems.is_empty() {
        return;
    }
    // The defaults fit each other, so at least one was given; that one is blamed if the other was not.
    let given = origins.iter().filter(|(path, _)| path.starts_with(SECTION));
    let given: Vec<(&str, Place)> = given
        .filter_map(|(path, origin)| match origin {
            Origin::Given { place, .. } => Some((*path, place.clone())),
            Origin::Default => None,
        })
        .collect();
    for (path, message) in problems {
        let blamed = given.iter().find(|(known, _)| *known == path).or_else(|| given.first());
        let Some((_, place)) = blamed else { continue };
        found.push(Problem {
            zone: Zone::Core,
            path: Some(path.to_owned()),
            message: format!("`{path}` {message}"),
            remedy: Some("make the bounds of `[adaptive_ttl]` fit each other".to_owned()),
            place: place.clone(),
        });
    }
    config.adaptive_ttl = defaults.adaptive_ttl;
    origins.retain(|path, _| !path.starts_with(SECTION));
}

#[cfg(test)]
mod tests {
    use super::whole_duration;

    #[test]
    fn durations_with_a_unit_are_turned_into_the_option_s_unit() {
        assert_eq!(whole_duration("2s", "milliseconds"), Some(2000));
        assert_eq!(whole_duration(" 500 ms ", "milliseconds"), Some(500));
        assert_eq!(whole_duration("1h", "seconds"), Some(3600));
        assert_eq!(whole_duration("500ms", "seconds"), None);
        assert_eq!(whole_duration("2s", "rows"), None);
        assert_eq!(whole_duration("soon", "seconds"), None);
        assert_eq!(whole_duration("18446744073709551615h", "seconds"), None);
    }
}
