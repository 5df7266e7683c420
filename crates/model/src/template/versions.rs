//! Which of several versions is the newest.

use std::cmp::Ordering;

use semver::Version;

/// Orders versions written as text by their precedence: `0.10.0` is above `0.9.0`, and a release above its
/// pre-releases. What is no version is below all that are.
pub fn compare_versions(one: &str, other: &str) -> Ordering {
    match (Version::parse(one), Version::parse(other)) {
        (Ok(left), Ok(right)) => left.cmp(&right),
        (Ok(_), Err(_)) => Ordering::Greater,
        (Err(_), Ok(_)) => Ordering::Less,
        (Err(_), Err(_)) => one.cmp(other),
    }
}

/// The newest of these versions: the highest release, or, where there is none, the highest pre-release. Whoever stores
/// `2.0.0-rc.1` to try it out must not change what everybody else gets.
pub fn newest_version<'v>(versions: impl IntoIterator<Item = &'v str>) -> Option<&'v str> {
    let is_release = |version: &str| Version::parse(version).is_ok_and(|version| version.pre.is_empty());
    versions.into_iter().max_by(|one, other| {
        is_release(one).cmp(&is_release(other)).then_with(|| compare_versions(one, other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_goes_by_numbers_and_releases_not_by_text() {
        assert_eq!(newest_version(["0.9.0", "0.10.0", "0.2.0"]), Some("0.10.0"));
        assert_eq!(newest_version(["1.0.0", "1.0.1-rc.1"]), Some("1.0.0"));
        assert_eq!(newest_version(["1.0.0-rc.9", "1.0.0-rc.10"]), Some("1.0.0-rc.10"));
        assert_eq!(newest_version(["what", "0.0.1-a"]), Some("0.0.1-a"));
        assert_eq!(newest_version([]), None);
        assert_eq!(compare_versions("1.0.0", "1.0.0-rc.1"), Ordering::Greater);
        assert_eq!(compare_versions("a", "b"), Ordering::Less);
    }
}
