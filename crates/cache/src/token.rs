//! The word of a writer, by which he reads what he wrote.

use std::fmt;
use std::str::FromStr;

/// What a change left behind. Handed along (in a cookie, a header), it lets the next call of the same user, on whatever
/// node, see no answer from before the change: [`Cache::after`](crate::Cache::after).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub(crate) instance: u64,
    pub(crate) sequence: u64,
    pub(crate) incarnation: u64,
    pub(crate) version: u64,
    pub(crate) is_confirmed: bool,
}

impl Token {
    /// Whether the backend that all processes share has taken note of the change. If not, it is remembered here and
    /// sent as soon as that can be reached; until then other processes may still serve what was there before.
    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }
}

/// Four numbers and a flag in hexadecimal, safe in URLs, headers and cookies.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instance, sequence, incarnation, version, is_confirmed } = self;
        write!(f, "{instance:x}.{sequence:x}.{incarnation:x}.{version:x}.{}", u8::from(*is_confirmed))
    }
}

/// The text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token: five hexadecimal numbers with dots between are expected")]
pub struct ParseTokenError;

impl FromStr for Token {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.split('.').map(|number| match number.len() {
            1..=16 if number.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                u64::from_str_radix(number, 16).map_err(|_| ParseTokenError)
            }
            _ => Err(ParseTokenError),
        });
        let mut next = || numbers.next().unwrap_or(Err(ParseTokenError));
        let (instance, sequence, incarnation, version) = (next()?, next()?, next()?, next()?);
        let is_confirmed = match next()? {
            0 => false,
            1 => true,
            _ => return Err(ParseTokenError),
        };
        match numbers.next() {
            Some(_) => Err(ParseTokenError),
            None => Ok(Self { instance, sequence, incarnation, version, is_confirmed }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip(instance: u64, sequence: u64, incarnation: u64, version: u64, is_confirmed: bool) {
            let token = Token { instance, sequence, incarnation, version, is_confirmed };
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }

        #[test]
        fn any_text_is_refused_or_a_token(text in ".{0,90}") {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert_eq!(token.to_string().parse(), Ok(token));
            }
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "1",
            "1.2.3.4",
            "1.2.3.4.2",
            "1.2.3.4.1.1",
            "g.2.3.4.1",
            "+1.2.3.4.1",
            "11111111111111111.2.3.4.1",
        ] {
            assert_eq!(text.parse::<Token>(), Err(ParseTokenError), "{text}");
        }
    }
}
