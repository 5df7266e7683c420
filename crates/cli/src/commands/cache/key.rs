//! How a key is named on the command line.

use recache_cache::{Key, KeyPrefix};

use crate::cli_error::{CliError, ExitStatus};

/// A key: its space and its parts, or its text as it is stored.
#[derive(Debug, clap::Args)]
pub(super) struct KeyArgs {
    /// The space and the parts of the key
    #[arg(value_name = "SPACE PART", num_args = 1.., required_unless_present = "raw", conflicts_with = "raw")]
    names: Vec<String>,
    /// The key as it is stored, prefix included
    #[arg(long, value_name = "KEY")]
    raw: Option<String>,
}

impl KeyArgs {
    pub(super) fn key(&self, prefix: &KeyPrefix) -> Result<Key, CliError> {
        key(&self.names, self.raw.as_deref(), prefix)
    }

    /// The space and the parts, or the text.
    pub(super) fn named(&self) -> (&[String], Option<&str>) {
        (&self.names, self.raw.as_deref())
    }
}

/// The key that is named, under the configured prefix.
pub(super) fn key(names: &[String], raw: Option<&str>, prefix: &KeyPrefix) -> Result<Key, CliError> {
    let wrong = |what| CliError::new("E-CACHE-KEY", ExitStatus::Usage, what);
    let form = "name a space and at least one part: shop article 42";
    match (raw, names) {
        (Some(text), _) => prefix.parse(text).ok_or_else(|| {
            wrong(format!("`{text}` is no key of this cache"))
                .at("--raw")
                .help(format!("a stored key begins with `{}:`; otherwise {form}", prefix.as_str()))
        }),
        (None, [space, parts @ ..]) if !space.is_empty() && !parts.is_empty() => {
            Ok(prefix.space(space).key(parts))
        }
        (None, [space]) => Err(wrong(format!("`{space}` names a space and no key in it")).help(form)),
        (None, _) => Err(wrong("no space is named".to_owned()).help(form)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str], raw: Option<&str>) -> Result<String, String> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let key = key(&names, raw, &KeyPrefix::new("p"));
        key.map(|key| key.as_str().to_owned()).map_err(|error| error.what)
    }

    #[test]
    fn parts_are_escaped_and_raw_keys_are_not() {
        assert_eq!(named(&["s", "a:b", "c d"], None).unwrap(), "p:s:a%3Ab:c%20d");
        assert_eq!(named(&["s", ""], None).unwrap(), "p:s:");
        assert_eq!(named(&[], Some("p:s:a%3Ab")).unwrap(), "p:s:a%3Ab");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(named(&["s"], None).unwrap_err().contains("no key in it"));
        assert!(named(&["", "a"], None).is_err());
        for raw in ["", "p", "q:s:a", "p:s:a b"] {
            assert!(named(&[], Some(raw)).unwrap_err().contains("is no key"), "{raw}");
        }
    }
}
