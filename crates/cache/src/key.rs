//! Keys. A key is written `{prefix}:{space}:{part}:{part}…`; every piece is escaped, so that no two resources share a
//! key, and the text is never longer than [`KEY_BYTES_MAX`] bytes of plain ASCII, which every backend accepts.
//!
//! Escaping: ASCII letters, digits, `.`, `_` and `-` stand for themselves, any other byte is written `%XX`. A piece that
//! would be too long is replaced by `~` and the 64 hexadecimal digits of its BLAKE3 digest; `~` cannot come from
//! escaping, so that a digest is never mistaken for a name.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::epochs::KeySlots;

/// No key is longer, in bytes. Memcached takes 250.
pub const KEY_BYTES_MAX: usize = 200;

/// Prefix and space: each at most this long once escaped, or replaced by its digest. `3 * 65 + 2` is within
/// [`KEY_BYTES_MAX`], and so a key whose parts are hashed too always fits.
const PIECE_BYTES_MAX: usize = 65;

/// The beginning of every key of one deployment (`key_prefix`), so that two deployments can share a server.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPrefix(Arc<str>);

impl KeyPrefix {
    /// A prefix of any text.
    pub fn new(prefix: &str) -> Self {
        Self(piece(prefix).into())
    }

    /// The key space `name` under this prefix.
    pub fn space(&self, name: &str) -> Space {
        Space { text: format!("{}:{}", self.0, piece(name)).into() }
    }

    /// `{prefix}:template:{namespace}:{name}:{version}`
    pub fn template(&self, namespace: &str, name: &str, version: &str) -> Key {
        self.space("template").key([namespace, name, version])
    }

    /// `{prefix}:analytics:performance:{hours}`
    pub fn analytics_performance(&self, hours: u32) -> Key {
        self.space("analytics").key(["performance", &hours.to_string()])
    }

    /// `{prefix}:analytics:bottlenecks:{limit}:{min_executions}`
    pub fn analytics_bottlenecks(&self, limit: u32, min_executions: u64) -> Key {
        self.space("analytics").key(["bottlenecks", &limit.to_string(), &min_executions.to_string()])
    }

    /// A key under this prefix from its text, as [`Key::as_str`] gives it; `None` when it is not one.
    pub fn parse(&self, text: &str) -> Option<Key> {
        let rest = text.strip_prefix(&*self.0)?.strip_prefix(':')?;
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.len() > KEY_BYTES_MAX || !is_plain {
            return None;
        }
        let space_len = rest.find(':').unwrap_or(rest.len());
        let space_end = text.len() - rest.len() + space_len;
        let slots = KeySlots::new(text.get(..space_end)?, text);
        Some(Key { space_end, slots, hash: seeded_hash(text), text: text.into() })
    }

    /// The escaped text, without the colon that follows it in a key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `key` begins with this prefix.
    pub fn contains(&self, key: &Key) -> bool {
        key.text.strip_prefix(&*self.0).is_some_and(|rest| rest.starts_with(':'))
    }
}

impl fmt::Debug for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPrefix({})", self.0)
    }
}

/// A set of keys that can be invalidated together: all that begin with the same prefix and name.
///
/// Make it once and keep it: building a key from it then costs one allocation for the text and one for its count.
#[derive(Clone, PartialEq, Eq)]
pub struct Space {
    text: Arc<str>,
}

impl Space {
    /// The key of `parts` in this space. Any text, also empty, and any number of parts; `["a", ""]` and `["a"]` are
    /// different keys.
    pub fn key<P: AsRef<str>>(&self, parts: impl IntoIterator<Item = P>) -> Key {
        let mut text = String::with_capacity(self.text.len() + 48);
        text.push_str(&self.text);
        for part in parts {
            text.push(':');
            escape_into(&mut text, part.as_ref());
        }
        if text.len() > KEY_BYTES_MAX {
            let digest = blake3::hash(text.get(self.text.len()..).unwrap_or_default().as_bytes());
            text.truncate(self.text.len());
            text.push_str(":~");
            text.push_str(&digest.to_hex());
        }
        let slots = KeySlots::new(&self.text, &text);
        Key { space_end: self.text.len(), slots, hash: seeded_hash(&text), text: text.into() }
    }

    /// The escaped text, `{prefix}:{space}`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `key` lies in this space.
    pub fn contains(&self, key: &Key) -> bool {
        key.space_text() == &*self.text
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Space({})", self.text)
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The name of one cached value. Cheap to clone.
#[derive(Clone)]
pub struct Key {
    text: Arc<str>,
    space_end: usize,
    slots: KeySlots,
    /// Of the text, computed once, so that no table has to.
    hash: u64,
}

impl Key {
    /// The whole key as it is sent to a backend: printable ASCII without spaces, at most [`KEY_BYTES_MAX`] bytes.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The space that it lies in.
    pub fn space(&self) -> Space {
        Space { text: self.space_text().into() }
    }

    /// `{prefix}:{space}`, without an allocation.
    pub fn space_text(&self) -> &str {
        self.text.get(..self.space_end).unwrap_or_default()
    }

    pub(crate) fn slots(&self) -> KeySlots {
        self.slots
    }

    /// Of the text; another one in each process.
    #[inline]
    pub(crate) fn hash_bits(&self) -> u64 {
        self.hash
    }
}

/// The text says all: where the space ends follows from it, since only separators are colons.
impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
    }
}

impl Eq for Key {}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Different in every process, so that nobody can prepare keys that fall together.
fn seeded_hash(text: &str) -> u64 {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    xxh3_64_with_seed(text.as_bytes(), *SEED)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One escaped piece, or its digest when it is too long.
fn piece(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    escape_into(&mut escaped, text);
    if escaped.len() > PIECE_BYTES_MAX {
        return format!("~{}", blake3::hash(escaped.as_bytes()).to_hex());
    }
    escaped
}

fn escape_into(out: &mut String, text: &str) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}
