//! Finds what an expression must not use. The compiler looks filters and tests up only when they are reached, perhaps
//! in production on a Sunday; here they are looked up when the template is checked.

/// The character, from 1, of the first bracket that is nested deeper than `nesting_max`.
pub(super) fn too_deep(source: &str, nesting_max: usize) -> Option<usize> {
    let mut nesting = 0_usize;
    for (at, token) in tokens(source) {
        match token {
            Token::Sign('(' | '[' | '{') => nesting += 1,
            Token::Sign(')' | ']' | '}') => nesting = nesting.saturating_sub(1),
            _ => {}
        }
        if nesting > nesting_max {
            return Some(at);
        }
    }
    None
}

/// Something that the language does not have; `at` is its character, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Misuse {
    Filter { name: String, at: usize },
    Test { name: String, at: usize },
    Call { at: usize },
}

impl Misuse {
    pub(super) fn character(&self) -> usize {
        match self {
            Self::Filter { at, .. } | Self::Test { at, .. } | Self::Call { at } => *at,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    /// A text or a number.
    Literal,
    Sign(char),
}

/// Words that are no names: a parenthesis after them groups, it does not call.
const KEYWORDS: [&str; 7] = ["and", "or", "not", "in", "is", "if", "else"];

/// The first misuse in `source`, which the compiler has accepted.
pub(super) fn misuse(source: &str, filters: &[&str], tests: &[&str]) -> Option<Misuse> {
    let tokens = tokens(source);
    for (index, (at, token)) in tokens.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| tokens.get(index)).map(|(_, token)| token);
        match token {
            Token::Sign('|') => match tokens.get(index + 1) {
                Some((at, Token::Name(name))) if !filters.contains(&name.as_str()) => {
                    return Some(Misuse::Filter { name: name.clone(), at: *at });
                }
                _ => {}
            },
            Token::Name(word) if word == "is" && before != Some(&Token::Sign('.')) => {
                let is_not = matches!(tokens.get(index + 1), Some((_, Token::Name(word))) if word == "not");
                match tokens.get(index + if is_not { 2 } else { 1 }) {
                    Some((at, Token::Name(name))) if !tests.contains(&name.as_str()) => {
                        return Some(Misuse::Test { name: name.clone(), at: *at });
                    }
                    _ => {}
                }
            }
            Token::Sign('(') if is_call(&tokens, index) => return Some(Misuse::Call { at: *at }),
            _ => {}
        }
    }
    None
}

/// Whether the parenthesis at `index` calls something that is neither a filter nor a test.
fn is_call(tokens: &[(usize, Token)], index: usize) -> bool {
    let token = |back: usize| index.checked_sub(back).and_then(|at| tokens.get(at)).map(|(_, token)| token);
    match token(1) {
        None => false,
        Some(Token::Name(word)) => match token(2) {
            // A filter with arguments.
            Some(Token::Sign('|')) => false,
            Some(Token::Sign('.')) => true,
            Some(Token::Name(before)) if before == "is" || before == "not" => {
                // A test with arguments, or `not (…)`.
                let is_test = before == "is" || matches!(token(3), Some(Token::Name(word)) if word == "is");
                !is_test && !KEYWORDS.contains(&word.as_str())
            }
            _ => !KEYWORDS.contains(&word.as_str()),
        },
        Some(Token::Literal) => true,
        Some(Token::Sign(sign)) => matches!(sign, ')' | ']' | '}'),
    }
}

fn tokens(source: &str) -> Vec<(usize, Token)> {
    let mut found = Vec::new();
    let mut characters = source.chars().enumerate().peekable();
    while let Some((index, character)) = characters.next() {
        let at = index + 1;
        if character == '"' || character == '\'' {
            while let Some((_, next)) = characters.next() {
                if next == '\\' {
                    characters.next();
                } else if next == character {
                    break;
                }
            }
            found.push((at, Token::Literal));
        } else if character.is_alphabetic() || character == '_' {
            let mut name = String::from(character);
            while let Some((_, next)) = characters.next_if(|(_, next)| next.is_alphanumeric() || *next == '_')
            {
                name.push(next);
            }
            found.push((at, Token::Name(name)));
        } else if character.is_ascii_digit() {
            while characters.next_if(|(_, next)| next.is_alphanumeric() || *next == '_').is_some() {}
            found.push((at, Token::Literal));
        } else if !character.is_whitespace() {
            found.push((at, Token::Sign(character)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Option<Misuse> {
        misuse(source, &["lower", "default"], &["defined", "in"])
    }

    #[test]
    fn what_the_language_has_is_no_misuse() {
        for source in [
            "input.a|lower == 'x|nope'",
            "input.a | default(1, true) > (2)",
            "input.a is defined and not (input.b is not defined)",
            "1 if (input.a) else (2)",
            "input.a is in([1, 2])",
            "input.a is not in([1, 2])",
            "input.a in ([1])",
            "not (input.a)",
            "input['f(x)|y'] == \"a \\\" is odd(\"",
            "(((1)))",
            "input.is",
            "[(1), (2)]",
            "{'a': (1)}",
        ] {
            assert_eq!(found(source), None, "{source}");
        }
    }

    #[test]
    fn nesting_is_counted_outside_of_texts() {
        assert_eq!(too_deep("a[b[(1)]]", 3), None);
        assert_eq!(too_deep("a[b[(1)]]", 2), Some(5));
        assert_eq!(too_deep("'(((' ~ \"[[[\" ~ (1)", 1), None);
        assert_eq!(too_deep("()[]{}()", 1), None);
    }

    #[test]
    fn strangers_are_found_at_their_place() {
        let call = |at| Some(Misuse::Call { at });
        assert_eq!(
            found("input.a|replace('a', 'b')"),
            Some(Misuse::Filter { name: "replace".into(), at: 9 })
        );
        assert_eq!(found("é is odd"), Some(Misuse::Test { name: "odd".into(), at: 6 }));
        assert_eq!(found("é is not odd"), Some(Misuse::Test { name: "odd".into(), at: 10 }));
        assert_eq!(found("range(3)"), call(6));
        assert_eq!(found("input.items()"), call(12));
        assert_eq!(found("input.lower ()"), call(13));
        assert_eq!(found("input['a']()"), call(11));
        assert_eq!(found("'a'(1)"), call(4));
        assert_eq!(found("not range(3)"), call(10));
        assert_eq!(found("(input)(1)"), call(8));
    }
}
