//! What an unquoted scalar means: the YAML 1.2 core schema, narrowed to what JSON can say.
//!
//! Where following the schema would change what its author wrote without a word (a leading zero, a number too
//! large for 64 bits), the scalar is refused instead.

use serde_json::Number;

use super::tree::Content;

/// What `text`, written without quotes, means; or why it means nothing.
pub(super) fn resolve(text: &str) -> Result<Content, &'static str> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Content::Null),
        "true" | "True" | "TRUE" => return Ok(Content::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Content::Bool(false)),
        _ => {}
    }
    match number(text)? {
        Some(number) => Ok(Content::Number(number)),
        None => Ok(Content::Text(text.to_owned())),
    }
}

/// The number that `text` is, or none if it is something else.
pub(super) fn number(text: &str) -> Result<Option<Number>, &'static str> {
    if let Some(digits) = text.strip_prefix("0x")
        && is_all(digits, |byte| byte.is_ascii_hexdigit())
    {
        return u64::from_str_radix(digits, 16).map(|value| Some(value.into())).map_err(|_| TOO_LARGE);
    }
    if let Some(digits) = text.strip_prefix("0o")
        && is_all(digits, |byte| matches!(byte, b'0'..=b'7'))
    {
        return u64::from_str_radix(digits, 8).map(|value| Some(value.into())).map_err(|_| TOO_LARGE);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err("infinity and not-a-number cannot be written in JSON");
    }
    let Some(is_integer) = decimal(unsigned) else { return Ok(None) };
    let leading_zero = unsigned.len() > 1
        && unsigned.starts_with('0')
        && unsigned.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    if leading_zero {
        return Err("a number with leading zeros means different things to different readers of YAML");
    }
    if is_integer {
        let signed = text.parse::<i64>().map(Number::from);
        return signed.or_else(|_| text.parse::<u64>().map(Number::from)).map(Some).map_err(|_| TOO_LARGE);
    }
    let value: f64 = text.parse().map_err(|_| TOO_LARGE)?;
    // Minus zero equals zero but is written otherwise; one of the two has to go for digests to agree.
    let value = if value == 0.0 { 0.0 } else { value };
    Number::from_f64(value).map(Some).ok_or(TOO_LARGE)
}

const TOO_LARGE: &str = "the number does not fit in 64 bits";

/// Whether `text` is a decimal number: `Some(true)` for an integer, `Some(false)` with fraction or exponent.
fn decimal(text: &str) -> Option<bool> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if !is_all(digits, |byte| byte.is_ascii_digit()) {
            return None;
        }
    }
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            let any = !(whole.is_empty() && fraction.is_empty());
            (any && digits(whole) && digits(fraction)).then_some(false)
        }
        None => is_all(mantissa, |byte| byte.is_ascii_digit()).then_some(exponent.is_none()),
    }
}

fn is_all(text: &str, wanted: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number_text(text: &str) -> Option<String> {
        number(text).unwrap().map(|number| number.to_string())
    }

    #[test]
    fn numbers_of_the_core_schema_are_numbers() {
        for (written, meant) in [
            ("0", "0"),
            ("-0", "0"),
            ("+12", "12"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("18446744073709551615", "18446744073709551615"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("0.5", "0.5"),
            (".5", "0.5"),
            ("1.", "1.0"),
            ("-0.0", "0.0"),
            ("1e3", "1000.0"),
            ("2.5E-1", "0.25"),
        ] {
            assert_eq!(number_text(written).as_deref(), Some(meant), "{written}");
        }
    }

    #[test]
    fn what_only_looks_like_a_number_is_text() {
        for text in
            ["1.2.3", "1_000", "-", "+", ".", "e5", "1e", "1e+", "0x", "0xg", "0o8", "5m", "--1", "1-"]
        {
            assert_eq!(number_text(text), None, "{text}");
            assert!(matches!(resolve(text), Ok(Content::Text(kept)) if kept == text), "{text}");
        }
    }

    #[test]
    fn numbers_that_would_change_their_meaning_are_refused() {
        for text in ["007", "-01", "01.5", "18446744073709551616", "1e999", "-.inf", ".nan"] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_of_older_yaml_stay_text() {
        for text in ["yes", "no", "on", "off", "NO", "y", "nULL", "tRUE"] {
            assert!(matches!(resolve(text), Ok(Content::Text(_))), "{text}");
        }
    }
}
