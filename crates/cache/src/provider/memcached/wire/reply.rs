//! One reply at the front of what has been received, of either dialect.

use super::Malformed;

/// No line of a server is longer. A key has 250 bytes, and the numbers beside it a few dozen.
const LINE_BYTES_MAX: usize = 2_048;

/// No number of so many digits is too large.
const DIGITS_SURE: usize = 19;

/// A reply, borrowed from the bytes that were received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply<'b> {
    /// `VA`, `VALUE`
    Value { tags: Tags<'b>, value: &'b [u8] },
    /// `HD`, `STORED`, `DELETED`, `TOUCHED`
    Done(Tags<'b>),
    /// `EN`, `NF`, `NOT_FOUND`
    Missing(Tags<'b>),
    /// `NS`, `NOT_STORED`
    NotStored(Tags<'b>),
    /// `EX`, `EXISTS`
    Exists(Tags<'b>),
    /// What `incr` and `decr` answer.
    Number(u64),
    /// `END`
    End,
    /// `MN`
    Nothing,
    /// `STAT`
    Stat { name: &'b [u8], value: &'b [u8] },
    /// `ERROR`: it does not know the command.
    Unknown,
    /// `CLIENT_ERROR`
    ClientError,
    /// `SERVER_ERROR`, when the item does not fit; the connection is as good as before.
    TooLarge,
    /// `SERVER_ERROR`, when there is no room for the item.
    OutOfMemory,
    /// Any other `SERVER_ERROR`
    ServerError,
}

/// What a reply says about an item.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tags<'b> {
    pub(crate) key: Option<&'b [u8]>,
    pub(crate) opaque: Option<u64>,
    pub(crate) kind: Option<u32>,
    pub(crate) cas: Option<u64>,
    pub(crate) is_won: bool,
    pub(crate) is_taken: bool,
    pub(crate) is_stale: bool,
}

/// What stands at the front.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'b> {
    /// A reply, and how many bytes it took.
    Whole(Reply<'b>, usize),
    /// Nothing whole yet; it will take at least so many bytes in all.
    NeedsMore(usize),
}

/// Reads one reply from the front of `received`. A value above `value_bytes_max` is not waited for.
pub(crate) fn parse(received: &[u8], value_bytes_max: usize) -> Result<Parsed<'_>, Malformed> {
    let window = received.get(..LINE_BYTES_MAX).unwrap_or(received);
    let Some(end) = memchr::memchr(b'\n', window) else {
        if window.len() == LINE_BYTES_MAX {
            return Err(Malformed("a line without an end"));
        }
        return Ok(Parsed::NeedsMore(received.len() + 1));
    };
    let line = received.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.ok_or(Malformed("a line that ends in a bare line feed"))?;
    let after_line = end + 1;
    let mut words = Words(Some(line));
    let word = words.next().unwrap_or_default();
    let reply = match word {
        b"VA" => {
            let length = words.next().and_then(number).ok_or(Malformed("a value without its length"))?;
            let tags = meta_tags(words)?;
            return value(received, after_line, length, tags, value_bytes_max);
        }
        b"VALUE" => {
            let mut tags = Tags { key: words.next().filter(|key| !key.is_empty()), ..Tags::default() };
            tags.kind = Some(words.next().and_then(small).ok_or(Malformed("a value without its flags"))?);
            let length = words.next().and_then(number).ok_or(Malformed("a value without its length"))?;
            if let Some(cas) = words.next() {
                tags.cas = Some(number(cas).ok_or(Malformed("a CAS number that is none"))?);
            }
            return value(received, after_line, length, tags, value_bytes_max);
        }
        b"HD" => Reply::Done(meta_tags(words)?),
        b"EN" | b"NF" => Reply::Missing(meta_tags(words)?),
        b"NS" => Reply::NotStored(meta_tags(words)?),
        b"EX" => Reply::Exists(meta_tags(words)?),
        b"MN" => Reply::Nothing,
        b"STORED" | b"DELETED" | b"TOUCHED" => Reply::Done(Tags::default()),
        b"NOT_FOUND" => Reply::Missing(Tags::default()),
        b"NOT_STORED" => Reply::NotStored(Tags::default()),
        b"EXISTS" => Reply::Exists(Tags::default()),
        b"END" => Reply::End,
        b"STAT" => {
            let name = words.next().unwrap_or_default();
            Reply::Stat { name, value: words.next().unwrap_or_default() }
        }
        b"ERROR" => Reply::Unknown,
        b"CLIENT_ERROR" => Reply::ClientError,
        b"SERVER_ERROR" if line.ends_with(b"object too large for cache") => Reply::TooLarge,
        b"SERVER_ERROR" if line.starts_with(b"SERVER_ERROR out of memory") => Reply::OutOfMemory,
        b"SERVER_ERROR" => Reply::ServerError,
        // `decr` pads its result with blanks.
        _ => number(line.trim_ascii_end()).map(Reply::Number).ok_or(Malformed("a line that is no reply"))?,
    };
    Ok(Parsed::Whole(reply, after_line))
}

fn value<'b>(
    received: &'b [u8],
    start: usize,
    length: u64,
    tags: Tags<'b>,
    value_bytes_max: usize,
) -> Result<Parsed<'b>, Malformed> {
    let length = usize::try_from(length).ok().filter(|length| *length <= value_bytes_max);
    let length = length.ok_or(Malformed("a value larger than the server's own limit"))?;
    let total = start + length + 2;
    let Some(rest) = received.get(start..total) else {
        return Ok(Parsed::NeedsMore(total));
    };
    let value = rest.strip_suffix(b"\r\n").ok_or(Malformed("a value that does not end where it should"))?;
    Ok(Parsed::Whole(Reply::Value { tags, value }, total))
}

/// The parts of a line between its blanks.
struct Words<'b>(Option<&'b [u8]>);

impl<'b> Iterator for Words<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let line = self.0?;
        let Some(end) = memchr::memchr(b' ', line) else { return self.0.take() };
        self.0 = line.get(end + 1..);
        line.get(..end)
    }
}

fn meta_tags<'b>(words: impl Iterator<Item = &'b [u8]>) -> Result<Tags<'b>, Malformed> {
    let mut tags = Tags::default();
    for word in words {
        let Some((flag, token)) = word.split_first() else { continue };
        match flag {
            b'k' => tags.key = Some(token),
            b'O' => tags.opaque = Some(number(token).ok_or(Malformed("an opaque number that is none"))?),
            b'f' => tags.kind = Some(small(token).ok_or(Malformed("flags that are no number"))?),
            b'c' => tags.cas = Some(number(token).ok_or(Malformed("a CAS number that is none"))?),
            b'W' => tags.is_won = true,
            b'Z' => tags.is_taken = true,
            b'X' => tags.is_stale = true,
            // Not asked for; newer servers may tell more.
            _ => {}
        }
    }
    Ok(tags)
}

/// Digits and nothing else, and at least one.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (sure, rest) = text.split_at(text.len().min(DIGITS_SURE));
    let number = sure.iter().fold(0_u64, |number, byte| number * 10 + u64::from(byte - b'0'));
    rest.iter().try_fold(number, |number, byte| number.checked_mul(10)?.checked_add(u64::from(byte - b'0')))
}

fn small(text: &[u8]) -> Option<u32> {
    u32::try_from(number(text)?).ok()
}
