//! Entity tags: what a reader has already, it is not sent again (RFC 9110, sections 8.8.3 and 13.1.2).

use axum::http::{HeaderMap, HeaderValue, header};

/// The tag of what is read of one generation. A weak one: the same items are told with another age.
pub(crate) fn of_generation(version: i64, generation: uuid::Uuid) -> String {
    format!("W/\"{version}.{}\"", generation.simple())
}

/// Whether `If-None-Match` names `tag`, in any of its lines, or is `*`, which names whatever is there. What is no list of tags names nothing: the
/// answer is sent then, and nobody is left with something old.
pub(crate) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let tag = opaque(tag);
    headers.get_all(header::IF_NONE_MATCH).iter().any(|line| names(line, tag))
}

fn names(line: &HeaderValue, tag: &str) -> bool {
    // A tag may hold bytes that are no text; ours does not.
    let line = line.as_bytes().trim_ascii();
    if line == b"*" {
        return true;
    }
    let (mut rest, mut is_named) = (line, false);
    while !rest.is_empty() {
        // A list may have empty elements.
        if let Some(after) = rest.strip_prefix(b",") {
            rest = after.trim_ascii_start();
            continue;
        }
        let quoted = rest.strip_prefix(b"W/").unwrap_or(rest);
        let Some(inner) = quoted.strip_prefix(b"\"") else { return false };
        let Some(end) = inner.iter().position(|byte| *byte == b'"') else { return false };
        is_named |= &inner[..end] == tag.as_bytes();
        rest = inner[end + 1..].trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return false;
        }
    }
    is_named
}

/// Weak or not makes no difference to whoever reads.
fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_of_tags_is_read_as_it_is_meant() {
        let is_known = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::IF_NONE_MATCH, HeaderValue::from_static(line));
            }
            is_known(&headers, "W/\"7.ab\"")
        };
        for lines in [
            &["\"7.ab\""][..],
            &["W/\"7.ab\""],
            &["*"],
            &[" * "],
            &["\"x\", W/\"7.ab\""],
            &["\"x\",,\"7.ab\" , \"y\""],
            &["\"a,b\",\"7.ab\""],
            &["\"x\"", "\"7.ab\""],
        ] {
            assert!(is_known(lines), "{lines:?}");
        }
        for lines in [
            &[][..],
            &[""],
            &["7.ab"],
            &["\"7\""],
            &["\"7.ab"],
            // One tag that holds a comma, not two.
            &["\"x,7.ab\""],
            &["\"x,\"7.ab\",y\""],
            &["w/\"7.ab\""],
            &["\"x\" \"7.ab\""],
            &["\"7.ab\" *"],
            &["\"*\""],
        ] {
            assert!(!is_known(lines), "{lines:?}");
        }
    }
}
