//! What must hold for whatever bytes a server sends. Run on random bytes by a property test and by a fuzzer.

use super::reply::{Parsed, parse};
use super::{Answer, Command, Decoder, Dialect, Mode, WireKey};

const VALUE_BYTES_MAX: usize = 4_096;

/// Panics when `data`, taken for a server's answers, breaks a promise: the reader never takes more than there is, never
/// sees something else when more arrives, gives one answer for each command, and no item but for a line that names the
/// key that was asked for.
#[cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzzer reaches it"))]
pub fn reader_withstands(data: &[u8]) {
    let mut rest = data;
    while let Ok(Parsed::Whole(reply, taken)) = parse(rest, VALUE_BYTES_MAX) {
        assert!(taken > 0 && taken <= rest.len());
        assert_eq!(
            parse(&rest[..taken], VALUE_BYTES_MAX),
            Ok(Parsed::Whole(reply, taken)),
            "nothing after it matters"
        );
        for cut in [0, taken / 2, taken - 1] {
            let early = parse(&rest[..cut], VALUE_BYTES_MAX);
            assert!(
                matches!(early, Ok(Parsed::NeedsMore(needed)) if needed > cut && needed <= taken),
                "{early:?}"
            );
        }
        rest = &rest[taken..];
    }
    let Ok(key) = WireKey::new("p:s:k") else { return };
    let commands = [
        Command::Fetch { key, with_value: true, vivify: Some(2) },
        Command::Store { key, mode: Mode::Swap(3), kind: 1, seconds: 1, value: [b"v", b""] },
        Command::Count { key, delta: 1, initial: 0, seconds: 1 },
        Command::Fetch { key, with_value: false, vivify: None },
        Command::Remove { key, cas: None },
        Command::Stats { settings: true },
    ];
    for dialect in [Dialect::Meta, Dialect::Classic] {
        let whole = decode(dialect, &commands, data, data.len().max(1));
        let drops = decode(dialect, &commands, data, 1);
        assert_eq!(whole, drops, "how the bytes arrive does not matter");
        let Some(answers) = whole else { continue };
        assert_eq!(answers.len(), commands.len());
        let names_key = data.windows(key.as_bytes().len()).any(|bytes| bytes == key.as_bytes());
        let has_item = answers.iter().any(|answer| matches!(answer, Answer::Found(_)));
        assert!(!has_item || names_key, "an item that nobody asked for");
    }
}

/// The answers, when they are whole, with the bytes arriving `step` at a time.
fn decode(dialect: Dialect, commands: &[Command<'_>], data: &[u8], step: usize) -> Option<Vec<Answer>> {
    let mut decoder = Decoder::new(dialect, commands, 1, VALUE_BYTES_MAX);
    let (mut start, mut end) = (0, 0);
    while !decoder.is_complete() {
        let (taken, needed) = decoder.feed(&data[start..end]).ok()?;
        assert!(taken <= end - start);
        start += taken;
        assert!(decoder.is_complete() || needed > end - start, "it asks for what it has");
        if !decoder.is_complete() && end == data.len() {
            return None;
        }
        end = (end + step).min(data.len());
    }
    Some(decoder.into_answers())
}
