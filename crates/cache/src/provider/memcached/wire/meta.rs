//! The meta dialect: how commands are written, and what their answers mean. Each command has exactly one answer.

use super::reply::{Reply, Tags};
use super::{Answer, Command, Found, Malformed, Mode, Writer};

pub(super) fn encode(command: &Command<'_>, opaque: u32, writer: &mut Writer<'_>) {
    match *command {
        Command::Fetch { key, with_value, vivify } => {
            writer.text("mg ");
            writer.bytes(key.as_bytes());
            writer.text(if with_value { " v f c k" } else { " f c k" });
            if let Some(seconds) = vivify {
                let expiry = writer.expiry(seconds);
                writer.flag(" N", expiry);
            }
            writer.flag(" O", opaque);
            writer.text("\r\n");
        }
        Command::Store { key, mode, kind, seconds, value } => {
            writer.text("ms ");
            writer.bytes(key.as_bytes());
            writer.flag(" ", value.iter().map(|part| part.len()).sum::<usize>());
            let expiry = writer.expiry(seconds);
            writer.flag(" T", expiry);
            writer.flag(" F", kind);
            match mode {
                Mode::Set => {}
                Mode::Add => writer.text(" ME"),
                Mode::Swap(cas) => writer.flag(" C", cas),
            }
            writer.flag(" c k O", opaque);
            writer.value(&value);
        }
        // To append nothing makes the server copy the item: same value, same end, new CAS number.
        Command::Bump { key, cas } => {
            writer.text("ms ");
            writer.bytes(key.as_bytes());
            writer.flag(" 0 MA C", cas);
            writer.flag(" c k O", opaque);
            writer.value(&[]);
        }
        Command::Remove { key, cas } => {
            writer.text("md ");
            writer.bytes(key.as_bytes());
            if let Some(cas) = cas {
                writer.flag(" C", cas);
            }
            writer.flag(" k O", opaque);
            writer.text("\r\n");
        }
        Command::Count { key, delta, initial, seconds } => {
            let expiry = writer.expiry(seconds);
            writer.text("ma ");
            writer.bytes(key.as_bytes());
            writer.flag(" N", expiry);
            writer.flag(" J", initial);
            writer.flag(" D", delta.unsigned_abs());
            writer.text(if delta < 0 { " MD" } else { " MI" });
            writer.flag(" T", expiry);
            writer.flag(" v k O", opaque);
            writer.text("\r\n");
        }
        Command::Hello | Command::Login { .. } | Command::Stats { .. } => {}
    }
}

pub(super) fn decode(command: &Command<'_>, opaque: u32, reply: &Reply<'_>) -> Result<Answer, Malformed> {
    let (key, is_read) = match *command {
        Command::Fetch { key, .. } | Command::Count { key, .. } => (key, true),
        Command::Store { key, .. } | Command::Bump { key, .. } | Command::Remove { key, .. } => (key, false),
        Command::Hello | Command::Login { .. } | Command::Stats { .. } => {
            return Err(Malformed("an answer to a command that has no key"));
        }
    };
    let check = |tags: &Tags<'_>, is_whole: bool| match (tags.opaque, tags.key) {
        (Some(number), _) if number != u64::from(opaque) => Err(Malformed("an answer to another command")),
        (_, Some(told)) if told != key.as_bytes() => Err(Malformed("an answer about another key")),
        // Not every version repeats these where there is nothing to tell; a value without them is not taken.
        (Some(_), Some(_)) => Ok(()),
        _ if is_whole => Err(Malformed("an answer that does not say to what")),
        _ => Ok(()),
    };
    match (reply, command) {
        (Reply::Value { tags, value }, Command::Fetch { with_value: true, .. }) => {
            check(tags, true)?;
            Ok(Answer::Found(found(tags, value)?))
        }
        (Reply::Value { tags, value }, Command::Count { .. }) => {
            check(tags, true)?;
            let text = value.trim_ascii();
            super::reply::number(text).map(Answer::Counted).ok_or(Malformed("a number that is none"))
        }
        (Reply::Done(tags), Command::Fetch { with_value: false, .. }) => {
            check(tags, true)?;
            Ok(Answer::Found(found(tags, &[])?))
        }
        (Reply::Done(tags), _) if !is_read => {
            check(tags, false)?;
            Ok(Answer::Done { cas: tags.cas })
        }
        (Reply::Missing(tags), _) => {
            check(tags, false)?;
            Ok(Answer::Missing)
        }
        (Reply::NotStored(tags), Command::Store { .. } | Command::Bump { .. }) => {
            check(tags, false)?;
            Ok(Answer::NotStored)
        }
        (Reply::Exists(tags), _) if !is_read => {
            check(tags, false)?;
            Ok(Answer::Changed)
        }
        _ => Err(Malformed("an answer that does not fit its command")),
    }
}

fn found(tags: &Tags<'_>, value: &[u8]) -> Result<Found, Malformed> {
    Ok(Found {
        kind: tags.kind.ok_or(Malformed("an item without its flags"))?,
        cas: tags.cas.ok_or(Malformed("an item without its CAS number"))?,
        value: bytes::Bytes::copy_from_slice(value),
        is_won: tags.is_won,
        is_taken: tags.is_taken,
        is_stale: tags.is_stale,
    })
}
