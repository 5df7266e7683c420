//! In which form a graph is answered: `?format=…`, or else `Accept`.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::state::App;

/// What the caller takes, as `Accept` says; the one first that it likes best.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Accepted(Vec<String>);

impl Accepted {
    /// The first of the media types that `is_known` knows.
    pub(crate) fn first<T>(&self, is_known: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(|kind| is_known(kind))
    }
}

impl FromRequestParts<App> for Accepted {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        let texts = parts.headers.get_all("accept").iter().filter_map(|value| value.to_str().ok());
        Ok(Self(read(texts)))
    }
}

/// What has no weight that can be read has the highest, as the RFC (9110) has it for one that is left out.
fn read<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut kinds: Vec<(u32, String)> = Vec::new();
    for range in texts.flat_map(|text| text.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1_000, per_mille);
        if weight > 0 && !kind.is_empty() {
            kinds.push((weight, kind));
        }
    }
    kinds.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    kinds.into_iter().map(|(_, kind)| kind).collect()
}

/// `0.7` as 700.
fn per_mille(text: &str) -> u32 {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = rest.chars().chain("000".chars()).take(3).collect();
    match (whole, digits.parse::<u32>()) {
        ("0", Ok(part)) => part,
        _ => 1_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_liked_best_comes_first() {
        let kinds = |text: &str| read([text].into_iter());
        assert_eq!(
            kinds("text/plain;q=0.5, image/svg+xml, */*;q=0.1"),
            ["image/svg+xml", "text/plain", "*/*"]
        );
        assert_eq!(kinds("Text/Plain; charset=utf-8 ; q=0.001,a/b;q=0"), ["text/plain"]);
        assert_eq!(kinds("a/b;q=x, ,"), ["a/b"]);
        assert_eq!(kinds(""), [""; 0]);
    }
}
