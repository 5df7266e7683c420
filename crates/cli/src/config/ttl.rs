//! `[adaptive_ttl]`: how long cached values live where that is found out.

use std::time::Duration;

use recache_model::ttl::{Saves, Settings};
use serde_json::Value;

use super::schema::{ConfigOption, Kind, Refusal};

/// Whether lives are chosen, and within which budget.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct TtlConfig {
    /// Whether they are. Default false: values live as long as their usages say.
    pub(crate) enabled: bool,
    /// The budget and the bounds.
    pub(crate) settings: Settings,
}

impl TtlConfig {
    /// The settings, where lives are chosen.
    pub(crate) fn chosen(&self) -> Option<Settings> {
        self.enabled.then_some(self.settings)
    }

    /// What is wrong with the settings together, each with the path of its option.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let path = |field: &str| match field {
            "staleness" => "adaptive_ttl.staleness_seconds",
            "stale_share_max" => "adaptive_ttl.stale_share_max",
            "class_share_max" => "adaptive_ttl.class_share_max",
            "ttl_min" => "adaptive_ttl.ttl_min_seconds",
            "ttl_max" => "adaptive_ttl.ttl_max_seconds",
            _ => "adaptive_ttl.window_seconds",
        };
        self.settings.problems().into_iter().map(|problem| (path(problem.field), problem.message)).collect()
    }
}

const YEAR_SECONDS: u32 = 31_536_000;

/// A fraction. What is no number is refused here, what is out of range with the rest of the settings.
fn fraction(text: &str) -> Result<f64, Refusal> {
    let remedy = "write a fraction above 0 and below 1, such as \"0.01\"";
    let value: f64 = text.parse().map_err(|_| Refusal::new("is no number", remedy))?;
    if !(value > 0.0 && value < 1.0) {
        return Err(Refusal::new(format!("is {value}"), remedy));
    }
    Ok(value)
}

/// The option of a length of time.
macro_rules! seconds {
    ($field:ident, $min:literal to $max:expr, $meaning:literal) => {
        ConfigOption {
            path: concat!("adaptive_ttl.", stringify!($field), "_seconds"),
            meaning: $meaning,
            kind: Kind::Whole {
                unit: "seconds",
                min: $min,
                max: $max,
                write: |config, _, count| {
                    config.adaptive_ttl.settings.$field = Duration::from_secs(u64::from(count));
                },
            },
            read: |config, _| Value::from(config.adaptive_ttl.settings.$field.as_secs()),
        }
    };
}

/// The option of a fraction.
macro_rules! share {
    ($field:ident, $meaning:literal) => {
        ConfigOption {
            path: concat!("adaptive_ttl.", stringify!($field)),
            meaning: $meaning,
            kind: Kind::Text {
                form: "a fraction above 0 and below 1, as text",
                write: |config, _, text| {
                    config.adaptive_ttl.settings.$field = fraction(text)?;
                    Ok(())
                },
            },
            read: |config, _| Value::from(config.adaptive_ttl.settings.$field.to_string()),
        }
    };
}

pub(super) const OPTIONS: &[ConfigOption] = &[
    ConfigOption {
        path: "adaptive_ttl.enabled",
        meaning: "whether lives of cached analytics, graphs and handlers are chosen by cost, change and demand",
        kind: Kind::Boolean { write: |config, _, on| config.adaptive_ttl.enabled = on },
        read: |config, _| Value::from(config.adaptive_ttl.enabled),
    },
    seconds!(
        staleness,
        1 to YEAR_SECONDS,
        "a read is too stale when what it is served was outdated for longer"
    ),
    share!(stale_share_max, "the fraction of all reads that may be too stale"),
    share!(
        class_share_max,
        "the fraction of the reads of one class that may be too stale; not below stale_share_max"
    ),
    seconds!(ttl_min, 1 to YEAR_SECONDS, "no life is shorter; not above ttl_max_seconds"),
    seconds!(ttl_max, 1 to YEAR_SECONDS, "no life is longer; not below staleness_seconds"),
    seconds!(window, 60 to 604_800, "over what time reads and changes are counted"),
    ConfigOption {
        path: "adaptive_ttl.saves",
        meaning: "what is saved within the budget: the time that rebuilding takes, the number of rebuilds, or some of both",
        kind: Kind::Choice {
            allowed: &["both", "cost", "rebuilds"],
            write: |config, _, name| {
                let saves = Saves::ALL.into_iter().find(|saves| saves.as_str() == name);
                config.adaptive_ttl.settings.saves = saves.unwrap_or_default();
            },
        },
        read: |config, _| Value::from(config.adaptive_ttl.settings.saves.as_str()),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_fraction_is_refused() {
        for text in ["NaN", "inf", "-0.1", "0", "1", "1.5", "", "a", "0,01"] {
            assert!(fraction(text).is_err(), "{text}");
        }
        assert_eq!(fraction("0.25").unwrap().to_bits(), 0.25_f64.to_bits());
    }

    #[test]
    fn settings_that_contradict_each_other_are_named_by_their_options() {
        let settings = Settings {
            ttl_min: Duration::from_secs(20),
            ttl_max: Duration::from_secs(10),
            class_share_max: 0.001,
            ..Settings::default()
        };
        let problems = TtlConfig { enabled: true, settings }.problems();
        let paths: Vec<&str> = problems.iter().map(|(path, _)| *path).collect();
        assert_eq!(
            paths,
            [
                "adaptive_ttl.class_share_max",
                "adaptive_ttl.ttl_min_seconds",
                "adaptive_ttl.staleness_seconds"
            ]
        );
        assert_eq!(TtlConfig::default().problems(), []);
    }
}
