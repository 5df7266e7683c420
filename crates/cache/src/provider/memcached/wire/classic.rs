//! The classic dialect, for servers before 1.6. A read has two answers, the item and `END`, and so has counting: the new
//! number, and that its time was renewed.

use super::reply::Reply;
use super::{Answer, Command, Found, Malformed, Mode, Writer};

pub(super) fn encode(command: &Command<'_>, writer: &mut Writer<'_>) {
    match *command {
        Command::Fetch { key, .. } => {
            writer.text("gets ");
            writer.bytes(key.as_bytes());
            writer.text("\r\n");
        }
        Command::Store { key, mode, kind, seconds, value } => {
            writer.text(match mode {
                Mode::Set => "set ",
                Mode::Add => "add ",
                Mode::Swap(_) => "cas ",
            });
            writer.bytes(key.as_bytes());
            writer.flag(" ", kind);
            let expiry = writer.expiry(seconds);
            writer.flag(" ", expiry);
            writer.flag(" ", value.iter().map(|part| part.len()).sum::<usize>());
            if let Mode::Swap(cas) = mode {
                writer.flag(" ", cas);
            }
            writer.value(&value);
        }
        Command::Bump { key, .. } => {
            writer.text("append ");
            writer.bytes(key.as_bytes());
            writer.text(" 0 0 0");
            writer.value(&[]);
        }
        Command::Remove { key, cas: None } => {
            writer.text("delete ");
            writer.bytes(key.as_bytes());
            writer.text("\r\n");
        }
        // There is no conditional delete; an item that ends in the past comes to the same.
        Command::Remove { key, cas: Some(cas) } => {
            writer.text("cas ");
            writer.bytes(key.as_bytes());
            writer.flag(" 0 -1 0 ", cas);
            writer.value(&[]);
        }
        Command::Count { key, delta, seconds, .. } => {
            writer.text(if delta < 0 { "decr " } else { "incr " });
            writer.bytes(key.as_bytes());
            writer.flag(" ", delta.unsigned_abs());
            writer.text("\r\ntouch ");
            writer.bytes(key.as_bytes());
            let expiry = writer.expiry(seconds);
            writer.flag(" ", expiry);
            writer.text("\r\n");
        }
        Command::Hello | Command::Login { .. } | Command::Stats { .. } => {}
    }
}

/// `so_far` is what came before of the same command. `Ok(Err(…))` when more must come.
pub(super) fn decode(
    command: &Command<'_>,
    so_far: Option<Answer>,
    reply: &Reply<'_>,
) -> Result<Result<Answer, Answer>, Malformed> {
    let misfit = Err(Malformed("an answer that does not fit its command"));
    match (*command, reply, so_far) {
        (Command::Fetch { key, .. }, Reply::Value { tags, value }, None) => {
            if tags.key != Some(key.as_bytes()) {
                return Err(Malformed("an answer about another key"));
            }
            let (Some(kind), Some(cas)) = (tags.kind, tags.cas) else {
                return Err(Malformed("an item without its CAS number"));
            };
            let value = bytes::Bytes::copy_from_slice(value);
            Ok(Err(Answer::Found(Found { kind, cas, value, ..Found::default() })))
        }
        (Command::Fetch { .. }, Reply::End, so_far) => Ok(Ok(so_far.unwrap_or(Answer::Missing))),
        (Command::Count { .. }, Reply::Number(number), None) => Ok(Err(Answer::Counted(*number))),
        (Command::Count { .. }, Reply::Missing(_), None) => Ok(Err(Answer::Missing)),
        // The second answer: whether its time was renewed. If it was removed in between, that is as good as after.
        (Command::Count { .. }, Reply::Done(_) | Reply::Missing(_), Some(answer)) => Ok(Ok(answer)),
        (Command::Store { .. } | Command::Bump { .. } | Command::Remove { .. }, reply, None) => match reply {
            Reply::Done(_) => Ok(Ok(Answer::Done { cas: None })),
            Reply::Missing(_) => Ok(Ok(Answer::Missing)),
            Reply::NotStored(_) => Ok(Ok(Answer::NotStored)),
            Reply::Exists(_) => Ok(Ok(Answer::Changed)),
            _ => misfit,
        },
        _ => misfit,
    }
}
