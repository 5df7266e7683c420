//! How a view is made, beyond when: stored with the view as JSON.

use std::ops::RangeInclusive;

use semver::VersionReq;
use serde::{Deserialize, Serialize};

/// Longest name of a template, and of its namespace, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// What a view asks for beyond its policy. Empty by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewOptions {
    /// A workflow builds it, in place of a handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<BuildWorkflow>,
    /// Where the values of its items are kept.
    #[serde(default, skip_serializing_if = "ItemsKept::is_durable")]
    pub items: ItemsKept,
    /// Items of each new generation that go into the cache before anybody asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<Prefetch>,
    /// How long a generation can be read after it was replaced, in milliseconds; see [`GENERATION_KEEP_MS`]. `None`: as the engine says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_keep_ms: Option<u64>,
    /// How long the worker of a build may be silent before the build is given to another one, in milliseconds; see [`LEASE_MS`]. It counts where it is
    /// longer than the worker's own lease. `None`: that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// Of all views of a pattern so many are built at once; see [`CONCURRENCY`]. `None`: as many as there are. Of one view never more than one build runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

/// How long a replaced generation may be kept, in milliseconds: 1 s to 30 days.
pub const GENERATION_KEEP_MS: RangeInclusive<u64> = 1_000..=2_592_000_000;
/// How long the worker of a build may be silent, in milliseconds: 1 s to a day.
pub const LEASE_MS: RangeInclusive<u64> = 1_000..=86_400_000;
/// How many views of a pattern may be built at once.
pub const CONCURRENCY: RangeInclusive<u32> = 1..=1_000;

/// Where the values of a view's items are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemsKept {
    /// In the store; the cache has copies.
    #[default]
    Durable,
    /// In the cache alone, which all processes must share; the store has their digests. What the cache loses is made anew.
    CacheOnly,
}

impl ItemsKept {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_durable(&self) -> bool {
        *self == Self::Durable
    }
}

/// Most items of a generation that are fetched ahead.
pub const PREFETCH_ITEMS_MAX: usize = 10_000;

/// Which items are fetched ahead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Prefetch {
    /// These, as far as they are there.
    Items(Vec<String>),
    /// The first so many, by key.
    First(u32),
}

impl Prefetch {
    fn problems(&self) -> Vec<String> {
        let (count, bad) = match self {
            Self::Items(items) => {
                let is_bad = |item: &&String| item.is_empty() || item.len() > 1024 || item.contains('\0');
                (items.len(), items.iter().filter(is_bad).count())
            }
            Self::First(count) => (usize::try_from(*count).unwrap_or(usize::MAX), 0),
        };
        let mut problems = Vec::new();
        if count == 0 || count > PREFETCH_ITEMS_MAX {
            problems
                .push(format!("{count} items are to be fetched ahead; it must be 1 to {PREFETCH_ITEMS_MAX}"));
        }
        if bad > 0 {
            problems.push(format!(
                "{bad} of the items to be fetched ahead can be none: a key has 1 to 1024 bytes and no NUL"
            ));
        }
        problems
    }
}

/// The template of the workflow that builds a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildWorkflow {
    /// Its name.
    pub name: String,
    /// Its namespace; `None`: the view's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Which versions will do (`1.4`, `^1`, `=1.4.2`); each build takes the newest of them that is stored when it begins. `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl ViewOptions {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with them.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.workflow.as_ref().map(BuildWorkflow::problems).unwrap_or_default();
        problems.extend(self.prefetch.as_ref().map(Prefetch::problems).unwrap_or_default());
        problems.extend(outside("generation_keep_ms", self.generation_keep_ms, &GENERATION_KEEP_MS));
        problems.extend(outside("lease_ms", self.lease_ms, &LEASE_MS));
        let (least, most) = CONCURRENCY.into_inner();
        let concurrency = u64::from(least)..=u64::from(most);
        problems.extend(outside("concurrency", self.concurrency.map(u64::from), &concurrency));
        if self.workflow.is_some() && (self.concurrency.is_some() || self.lease_ms.is_some()) {
            let why = "a workflow builds it, and so neither `concurrency` nor `lease_ms` is kept: its steps wait for workers of their own";
            problems.push(why.to_owned());
        }
        problems
    }
}

fn outside(name: &str, given: Option<u64>, range: &RangeInclusive<u64>) -> Option<String> {
    let given = given.filter(|given| !range.contains(given))?;
    Some(format!("`{name}` is {given}; it must be {} to {}", range.start(), range.end()))
}

impl BuildWorkflow {
    /// Which versions will do; `None`: any. Text that is no range, which no stored view has, is none that will do.
    pub fn range(&self) -> Result<Option<VersionReq>, semver::Error> {
        self.version.as_deref().map(VersionReq::parse).transpose()
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (what, text) in [("name", Some(&self.name)), ("namespace", self.namespace.as_ref())] {
            let Some(text) = text else { continue };
            if text.is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
                problems.push(format!(
                    "the {what} of its workflow's template must have 1 to {NAME_BYTES_MAX} bytes and no control characters, and has {} bytes",
                    text.len()
                ));
            }
        }
        if let Err(error) = self.range() {
            problems.push(format!(
                "`{}` is no range of versions: {error}",
                self.version.as_deref().unwrap_or_default().escape_debug()
            ));
        }
        problems
    }
}

/// As it is written on a command line: `NAME`, `NAMESPACE/NAME`, either with `@RANGE`.
impl std::fmt::Display for BuildWorkflow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)?;
        if let Some(version) = &self.version {
            write!(f, "@{version}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for BuildWorkflow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (named, version) = match text.split_once('@') {
            Some((named, version)) => (named, Some(version.to_owned())),
            None => (text, None),
        };
        let (namespace, name) = match named.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, named),
        };
        let workflow = Self { name: name.to_owned(), namespace, version };
        let problems = workflow.problems();
        if problems.is_empty() { Ok(workflow) } else { Err(problems.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workflow_is_written_as_it_is_read() {
        for text in ["prices", "shop/prices", "prices@^1", "shop/prices@=1.4.2"] {
            let workflow: BuildWorkflow = text.parse().unwrap();
            assert_eq!(workflow.to_string(), text);
            let json = serde_json::to_string(&workflow).unwrap();
            assert_eq!(serde_json::from_str::<BuildWorkflow>(&json).unwrap(), workflow);
        }
    }

    #[test]
    fn what_is_no_template_is_refused_with_every_reason() {
        let answer = "/\n@one".parse::<BuildWorkflow>().unwrap_err();
        assert!(
            answer.contains("name") && answer.contains("namespace") && answer.contains("range"),
            "{answer}"
        );
    }

    #[test]
    fn what_cannot_be_fetched_ahead_is_refused() {
        let options = |prefetch| ViewOptions { prefetch: Some(prefetch), ..ViewOptions::default() };
        assert!(options(Prefetch::First(10_000)).problems().is_empty());
        for wrong in [Prefetch::First(0), Prefetch::First(10_001), Prefetch::Items(vec![])] {
            assert_eq!(options(wrong.clone()).problems().len(), 1, "{wrong:?}");
        }
        assert_eq!(options(Prefetch::Items(vec![String::new()])).problems().len(), 1);
        let text = serde_json::to_string(&options(Prefetch::First(5))).unwrap();
        assert_eq!(text, "{\"prefetch\":{\"first\":5}}");
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_every_reason() {
        let options = |keep, lease, concurrency| ViewOptions {
            generation_keep_ms: Some(keep),
            lease_ms: Some(lease),
            concurrency: Some(concurrency),
            ..ViewOptions::default()
        };
        for good in [options(1_000, 1_000, 1), options(2_592_000_000, 86_400_000, 1_000)] {
            assert_eq!(good.problems(), Vec::<String>::new());
            let text = serde_json::to_string(&good).unwrap();
            assert_eq!(serde_json::from_str::<ViewOptions>(&text).unwrap(), good);
        }
        for wrong in [options(999, 999, 0), options(2_592_000_001, 86_400_001, 1_001)] {
            let problems = wrong.problems().join("; ");
            for name in ["generation_keep_ms", "lease_ms", "concurrency"] {
                assert!(problems.contains(&format!("`{name}` is ")), "{problems}");
            }
        }
        let workflow = Some("prices".parse().unwrap());
        assert_eq!(ViewOptions { workflow, ..options(1_000, 1_000, 1) }.problems().len(), 1);
    }

    #[test]
    fn durable_items_are_not_written_down_and_others_are() {
        let options = ViewOptions { items: ItemsKept::CacheOnly, ..ViewOptions::default() };
        assert!(!options.is_empty());
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(text, "{\"items\":\"cache_only\"}");
        assert_eq!(serde_json::from_str::<ViewOptions>(&text).unwrap(), options);
        assert_eq!(serde_json::to_string(&ViewOptions::default()).unwrap(), "{}");
    }

    #[test]
    fn unknown_option_is_not_accepted() {
        assert!(serde_json::from_str::<ViewOptions>("{\"workflows\":{}}").is_err());
        assert_eq!(serde_json::from_str::<ViewOptions>("{}").unwrap(), ViewOptions::default());
    }
}
