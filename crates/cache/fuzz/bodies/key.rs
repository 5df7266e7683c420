//! Keys are made of anything that callers have at hand: whatever it is, every backend takes the key, and different parts
//! make different keys.

use recache_cache::KeyPrefix;
use recache_cache::key::KEY_BYTES_MAX;

/// The bytes are taken as text, invalid ones replaced. A NUL ends a piece; the first two pieces are prefix and space.
pub(crate) fn any_bytes(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut pieces = text.split('\0');
    let (prefix, space) = (pieces.next().unwrap_or_default(), pieces.next().unwrap_or_default());
    let parts: Vec<_> = pieces.collect();
    let prefix = KeyPrefix::new(prefix);
    let space = prefix.space(space);
    let key = space.key(&parts);

    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b":%~._-".contains(byte);
    assert!(key.as_str().len() <= KEY_BYTES_MAX);
    assert!(key.as_str().as_bytes().iter().all(is_plain), "{key}");
    assert!(prefix.contains(&key) && space.contains(&key));
    assert_eq!(key.space_text(), space.as_str());
    assert_eq!(key, space.key(&parts), "the same parts make the same key");

    let mut others = vec![[parts.as_slice(), &[""]].concat(), [&[""], parts.as_slice()].concat()];
    if let Some((last, before)) = parts.split_last() {
        others.push(before.to_vec());
        let longer = format!("{last}:");
        assert_ne!(key, space.key(before.iter().copied().chain([longer.as_str()])));
        if last.is_empty() {
            others.remove(0);
        }
    }
    for other in others {
        if other != parts {
            assert_ne!(key, space.key(&other), "{parts:?} and {other:?}");
        }
    }
    // Unescaping gives back the parts, unless they were too long to be written out.
    if !key.as_str().contains('~') {
        let written = key.as_str()[space.as_str().len()..].split(':').skip(1).map(unescaped);
        assert_eq!(written.collect::<Vec<_>>(), parts);
    }
}

fn unescaped(piece: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = piece.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        if byte == b'%' {
            let (digits, behind) = behind.split_at(2);
            let digits = std::str::from_utf8(digits).expect("two digits");
            bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
            rest = behind;
        } else {
            bytes.push(byte);
            rest = behind;
        }
    }
    String::from_utf8(bytes).expect("what was text is text again")
}
