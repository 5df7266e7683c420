//! From bytes to answers: one for each command, in their order, and not a byte more.

use super::reply::{Parsed, Reply, parse};
use super::{Answer, Command, Dialect, Malformed, classic, meta};

/// No server tells more counters or settings.
const STATS_MAX: usize = 4_096;

const NO_NUMBER: Answer = Answer::Refused("what stands under the key is no number");

/// Collects the answers to one pipeline of commands.
#[derive(Debug)]
pub(crate) struct Decoder<'c> {
    dialect: Dialect,
    commands: &'c [Command<'c>],
    opaque: u32,
    value_bytes_max: usize,
    answers: Vec<Answer>,
    so_far: Option<Answer>,
}

impl<'c> Decoder<'c> {
    /// For what [`encode`](super::encode) made of the same arguments.
    pub(crate) fn new(
        dialect: Dialect,
        commands: &'c [Command<'c>],
        opaque: u32,
        value_bytes_max: usize,
    ) -> Self {
        let answers = Vec::with_capacity(commands.len());
        Self { dialect, commands, opaque, value_bytes_max, answers, so_far: None }
    }

    /// Whether every command has its answer.
    pub(crate) fn is_complete(&self) -> bool {
        self.answers.len() == self.commands.len()
    }

    /// Takes what it can from the front of `received`, and says how many bytes that were and how many are needed in all
    /// after them, 0 when it is complete. After an error nothing of this connection can be trusted.
    pub(crate) fn feed(&mut self, received: &[u8]) -> Result<(usize, usize), Malformed> {
        let mut taken = 0;
        while !self.is_complete() {
            match parse(received.get(taken..).unwrap_or_default(), self.value_bytes_max)? {
                Parsed::NeedsMore(bytes) => return Ok((taken, bytes)),
                Parsed::Whole(reply, bytes) => {
                    self.reply(&reply)?;
                    taken += bytes;
                }
            }
        }
        Ok((taken, 0))
    }

    /// As many answers as there were commands, once it is complete.
    pub(crate) fn into_answers(self) -> Vec<Answer> {
        self.answers
    }

    fn reply(&mut self, reply: &Reply<'_>) -> Result<(), Malformed> {
        let place = self.answers.len();
        let Some(command) = self.commands.get(place) else {
            return Err(Malformed("an answer too many"));
        };
        let so_far = self.so_far.take();
        let answer = match (command, reply) {
            (Command::Hello, Reply::Nothing) => Answer::Hello { knows_meta: true },
            (Command::Hello, Reply::Unknown) => Answer::Hello { knows_meta: false },
            (Command::Hello | Command::Login { .. }, Reply::ClientError) => Answer::Denied,
            (Command::Login { .. }, Reply::Done(_)) => Answer::Done { cas: None },
            (Command::Stats { .. }, _) => match self.stat(so_far, reply)? {
                Some(answer) => answer,
                None => return Ok(()),
            },
            (Command::Store { .. } | Command::Bump { .. }, Reply::TooLarge) => {
                Answer::Refused("the item is too large for this server")
            }
            (Command::Store { .. } | Command::Bump { .. } | Command::Count { .. }, Reply::OutOfMemory) => {
                Answer::Refused("the server has no room for an item of this size")
            }
            // Its time is renewed by a command of its own, whose answer is still to come.
            (Command::Count { .. }, Reply::ClientError) if self.dialect == Dialect::Classic => {
                self.so_far = Some(NO_NUMBER);
                return Ok(());
            }
            (Command::Count { .. }, Reply::ClientError) => NO_NUMBER,
            (_, Reply::Unknown) => return Err(Malformed("it does not know a command that it should know")),
            (_, Reply::ClientError) => return Err(Malformed("it did not understand a command")),
            (_, Reply::ServerError) => return Err(Malformed("it has an error of its own")),
            _ => match self.dialect {
                Dialect::Meta => {
                    let opaque = self.opaque.wrapping_add(u32::try_from(place).unwrap_or(u32::MAX));
                    meta::decode(command, opaque, reply)?
                }
                Dialect::Classic => match classic::decode(command, so_far, reply)? {
                    Ok(answer) => answer,
                    Err(so_far) => {
                        self.so_far = Some(so_far);
                        return Ok(());
                    }
                },
            },
        };
        self.answers.push(answer);
        Ok(())
    }

    /// Stats come one by one until `END`.
    fn stat(&mut self, so_far: Option<Answer>, reply: &Reply<'_>) -> Result<Option<Answer>, Malformed> {
        let mut stats = match so_far {
            Some(Answer::Stats(stats)) => stats,
            _ => Vec::new(),
        };
        match reply {
            Reply::End => Ok(Some(Answer::Stats(stats))),
            Reply::Stat { name, value } if stats.len() < STATS_MAX => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                stats.push((text(name), text(value)));
                self.so_far = Some(Answer::Stats(stats));
                Ok(None)
            }
            _ => Err(Malformed("an answer that does not fit its command")),
        }
    }
}
