//! The text protocol of memcached, both dialects, without any I/O: [`encode`] turns commands into bytes, [`Decoder`] turns
//! bytes into one [`Answer`] for each command.
//!
//! Described in memcached's `doc/protocol.txt`; what the servers really answer was looked up on 1.6.18. Every meta
//! command carries an *opaque* number and asks for its key back; an answer with another number or key is a broken
//! exchange, and so is everything else that was not asked for.

mod classic;
mod decoder;
mod meta;
mod reply;
#[cfg(any(test, fuzzing))]
mod withstand;

use std::fmt;

pub(crate) use self::decoder::Decoder;
#[cfg(fuzzing)]
pub use self::withstand::reader_withstands;
use super::refused;
use crate::provider::Error;

/// The longest key that memcached takes. A longer one makes 1.6.18 run the value's line as a command.
pub(crate) const KEY_BYTES_MAX: usize = 250;

/// Up to here a time counts from now, above it is a date: 30 days.
pub(crate) const RELATIVE_SECONDS_MAX: u32 = 30 * 86_400;

/// How a server talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `mg`, `ms`, `md`, `ma`, `mn`.
    Meta,
    /// `gets`, `set`, `add`, `cas`, `append`, `delete`, `incr`, `decr`, `touch`.
    Classic,
}

/// A key that can be sent: nothing else fits into a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct WireKey<'a>(&'a str);

impl<'a> WireKey<'a> {
    /// Refuses what memcached would not take as one key: empty, too long, blanks, control characters, beyond ASCII.
    pub(crate) fn new(text: &'a str) -> Result<Self, Error> {
        if text.is_empty() || text.len() > KEY_BYTES_MAX {
            return Err(refused(format!("a key of {} bytes; 1 to {KEY_BYTES_MAX} can be sent", text.len())));
        }
        // Not ended early: so it is one pass over many bytes at a time, and hardly any key is refused.
        if !text.bytes().fold(true, |is_fit, byte| is_fit & byte.is_ascii_graphic()) {
            return Err(refused("a key with a byte that is not printable ASCII"));
        }
        Ok(Self(text))
    }

    pub(crate) fn as_bytes(self) -> &'a [u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for WireKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key of {} bytes", self.0.len())
    }
}

/// One thing to be done by the server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command<'a> {
    /// Reads an item. With `vivify`, a missing one is made for so many seconds, empty, and the reader is told that it
    /// has won; the classic dialect cannot do that and just reads.
    Fetch { key: WireKey<'a>, with_value: bool, vivify: Option<u32> },
    /// Writes an item; its value is the two parts, one after the other.
    Store { key: WireKey<'a>, mode: Mode, kind: u32, seconds: u32, value: [&'a [u8]; 2] },
    /// Gives the item a new CAS number and leaves all else, if it has this number now (classic: whatever it has).
    Bump { key: WireKey<'a>, cas: u64 },
    /// Removes the item, with `cas` only if it has that number.
    Remove { key: WireKey<'a>, cas: Option<u64> },
    /// Adds to a number. A missing one is made as `initial` (classic: is told to be missing).
    Count { key: WireKey<'a>, delta: i64, initial: u64, seconds: u32 },
    /// Whether it knows meta commands.
    Hello,
    /// Shows name and password to a server that wants them.
    Login { user: &'a str, password: &'a str },
    /// Its counters, or its settings.
    Stats { settings: bool },
}

/// When a [`Command::Store`] stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Always.
    Set,
    /// If there is no item.
    Add,
    /// If the item has this CAS number.
    Swap(u64),
}

/// What the server said to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Found(Found),
    Missing,
    /// Carried out. The new CAS number, where the dialect tells.
    Done {
        cas: Option<u64>,
    },
    /// There is such an item already, or none to append to.
    NotStored,
    /// The item has another CAS number.
    Changed,
    /// The number after adding.
    Counted(u64),
    Hello {
        knows_meta: bool,
    },
    /// The login was wrong, or is wanted.
    Denied,
    Stats(Vec<(String, String)>),
    /// It does not take this item, and has removed what stood there before.
    Refused(&'static str),
}

/// An item as it stands on the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// What its writer put beside the value: memcached's client flags.
    pub(crate) kind: u32,
    pub(crate) cas: u64,
    pub(crate) value: bytes::Bytes,
    /// This reader is the one to fill it.
    pub(crate) is_won: bool,
    /// Somebody else was told to fill it.
    pub(crate) is_taken: bool,
    /// It was marked as outdated.
    pub(crate) is_stale: bool,
}

/// What the server sent is not an answer to what was asked. Says nothing of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// How a time to live is written for a server whose clock shows `server_now` (seconds since 1970), if that is known.
///
/// More than 30 days are sent as a date by the server's own clock, so that ours need not be right. Dates are 32 bits
/// wide in memcached; where it is not known what the server takes for now, 30 days are the most.
pub(crate) fn expiry(seconds: u32, server_now: Option<i64>) -> i64 {
    if seconds <= RELATIVE_SECONDS_MAX {
        return i64::from(seconds);
    }
    match server_now {
        Some(now) => now.saturating_add(i64::from(seconds)).min(i64::from(i32::MAX)),
        None => i64::from(RELATIVE_SECONDS_MAX),
    }
}

/// Appends `commands` to `out`. Their opaque numbers count up from `opaque`.
pub(crate) fn encode(
    dialect: Dialect,
    commands: &[Command<'_>],
    opaque: u32,
    server_now: Option<i64>,
    out: &mut Vec<u8>,
) {
    let mut opaque = opaque;
    for command in commands {
        let mut writer = Writer { out, server_now };
        match command {
            Command::Hello => writer.text("mn\r\n"),
            Command::Stats { settings: false } => writer.text("stats\r\n"),
            Command::Stats { settings: true } => writer.text("stats settings\r\n"),
            Command::Login { user, password } => {
                // A server that wants no login takes this for an item: it ends at once by its expiry of -1.
                writer.text("set ~login 0 -1 ");
                writer.number(user.len() + password.len() + 1);
                writer.text("\r\n");
                writer.text(user);
                writer.text(" ");
                writer.text(password);
                writer.text("\r\n");
            }
            _ if dialect == Dialect::Meta => meta::encode(command, opaque, &mut writer),
            _ => classic::encode(command, &mut writer),
        }
        opaque = opaque.wrapping_add(1);
    }
}

/// Bytes of commands, piece by piece.
struct Writer<'o> {
    out: &'o mut Vec<u8>,
    server_now: Option<i64>,
}

impl Writer<'_> {
    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn number(&mut self, number: impl itoa::Integer) {
        self.text(itoa::Buffer::new().format(number));
    }

    fn flag(&mut self, flag: &str, number: impl itoa::Integer) {
        self.text(flag);
        self.number(number);
    }

    fn expiry(&self, seconds: u32) -> i64 {
        expiry(seconds, self.server_now)
    }

    /// The line's end, and the value's bytes.
    fn value(&mut self, parts: &[&[u8]]) {
        self.text("\r\n");
        for part in parts {
            self.bytes(part);
        }
        self.text("\r\n");
    }
}

#[cfg(test)]
mod tests;
