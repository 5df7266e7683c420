use proptest::prelude::*;

use super::withstand::reader_withstands;
use super::*;

/// Bytes that would do harm if they were taken for commands or answers.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        Just(b"\r\nflush_all\r\n".to_vec()),
        Just(b"END\r\nVALUE k 0 1\r\nx\r\nEND\r\n".to_vec()),
        Just(b"EN\r\nVA 1 f0 c1 kk O1\r\n".to_vec()),
    ]
}

/// What a command is made of, to be borrowed from.
#[derive(Debug, Clone)]
struct Parts {
    which: u8,
    key: String,
    head: Vec<u8>,
    tail: Vec<u8>,
    cas: u64,
    delta: i64,
    seconds: u32,
}

fn parts() -> impl Strategy<Value = Vec<Parts>> {
    let one = (0..8_u8, "[!-~]{1,250}", value(), value(), any::<u64>(), any::<i64>(), any::<u32>()).prop_map(
        |(which, key, head, tail, cas, delta, seconds)| Parts { which, key, head, tail, cas, delta, seconds },
    );
    prop::collection::vec(one, 1..8)
}

fn commands(parts: &[Parts]) -> Vec<Command<'_>> {
    parts.iter().map(command).collect()
}

fn command(parts: &Parts) -> Command<'_> {
    let Parts { which, key, head, tail, cas, delta, seconds } = parts;
    let key = WireKey::new(key).unwrap();
    let (seconds, cas, delta) = (*seconds, *cas, *delta);
    let store = |mode| Command::Store { key, mode, kind: seconds, seconds, value: [head, tail] };
    match which {
        0 => Command::Fetch { key, with_value: true, vivify: None },
        1 => Command::Fetch { key, with_value: true, vivify: Some(seconds) },
        2 => store(Mode::Set),
        3 => store(Mode::Add),
        4 => store(Mode::Swap(cas)),
        5 => Command::Bump { key, cas },
        6 => Command::Remove { key, cas: (delta > 0).then_some(cas) },
        _ => Command::Count { key, delta, initial: cas, seconds },
    }
}

/// How a server reads: line by line, a value after those that announce one. Words of each line.
fn as_a_server_reads(mut sent: &[u8]) -> Vec<(Vec<String>, Option<Vec<u8>>)> {
    let mut lines = Vec::new();
    while !sent.is_empty() {
        let end = sent.windows(2).position(|bytes| bytes == b"\r\n").expect("a line has an end");
        let words: Vec<_> =
            std::str::from_utf8(&sent[..end]).unwrap().split(' ').map(str::to_owned).collect();
        sent = &sent[end + 2..];
        let length = match words[0].as_str() {
            "ms" => Some(&words[2]),
            "set" | "add" | "cas" | "append" => Some(&words[4]),
            _ => None,
        };
        let value = length.map(|length| {
            let (value, rest) = sent.split_at(length.parse().unwrap());
            sent = rest.strip_prefix(b"\r\n").expect("a value has an end");
            value.to_vec()
        });
        lines.push((words, value));
    }
    lines
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(data in prop::collection::vec(any::<u8>(), 0..200)) {
        reader_withstands(&data);
    }

    #[test]
    fn no_likely_bytes_break_the_reader(pieces in prop::collection::vec(prop_oneof![
        Just("VA 3 f1 c2 kp:s:k O1\r\n"), Just("VA 3 f1 c2 kp:s:k O1 W\r\n"), Just("abc\r\n"), Just("EN\r\n"),
        Just("HD f1 c2 kp:s:k O4\r\n"), Just("HD kp:s:k O2\r\n"), Just("EX kp:s:k O2\r\n"), Just("NF O5\r\n"),
        Just("VA 1 kp:s:k O3\r\n7\r\n"), Just("MN\r\n"), Just("VALUE p:s:k 1 3 2\r\n"), Just("END\r\n"),
        Just("STORED\r\n"), Just("12 \r\n"), Just("TOUCHED\r\n"), Just("STAT a b\r\n"), Just("ERROR\r\n"),
        Just("SERVER_ERROR object too large for cache\r\n"), Just("VA 99999999 f1\r\n"), Just("\r\n"), Just(" "),
    ], 0..12)) {
        reader_withstands(pieces.concat().as_bytes());
    }

    /// Whatever keys and values are: the server sees the commands that were meant, with those keys and values.
    #[test]
    fn server_reads_what_was_meant(parts in parts(), opaque: u32) {
        let commands = commands(&parts);
        for dialect in [Dialect::Meta, Dialect::Classic] {
            let mut sent = Vec::new();
            encode(dialect, &commands, opaque, Some(1_800_000_000), &mut sent);
            let mut read = as_a_server_reads(&sent).into_iter();
            for (command, parts) in commands.iter().zip(&parts) {
                let (words, value) = read.next().expect("a line for each command");
                prop_assert_eq!(&words[1], &parts.key);
                match command {
                    Command::Store { .. } => prop_assert_eq!(value, Some([&parts.head[..], &parts.tail].concat())),
                    Command::Bump { .. } => prop_assert_eq!(value, Some(Vec::new())),
                    Command::Count { .. } if dialect == Dialect::Classic => {
                        let (touch, _) = read.next().expect("its time is renewed");
                        prop_assert_eq!(&touch[0], "touch");
                        prop_assert_eq!(&touch[1], &parts.key);
                    }
                    _ => {}
                }
            }
            prop_assert!(read.next().is_none(), "a line that nobody meant");
        }
    }

    #[test]
    fn key_is_sent_if_and_only_if_memcached_takes_it(text in prop_oneof!["\\PC{0,300}", "[!-~]{0,300}", "[ -~\r\n\0]{0,20}"]) {
        let fits = (1..=250).contains(&text.len()) && text.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
        match WireKey::new(&text) {
            Ok(key) => prop_assert!(fits && key.as_bytes() == text.as_bytes()),
            Err(error) => {
                let is_refusal = matches!(error, Error::Refused { .. });
                prop_assert!(!fits && is_refusal);
                prop_assert!(text.len() < 4 || !error.to_string().contains(&text));
            }
        }
    }
}

fn key(text: &str) -> WireKey<'_> {
    WireKey::new(text).unwrap()
}

fn answers(dialect: Dialect, commands: &[Command<'_>], received: &str) -> Result<Vec<Answer>, Malformed> {
    let mut decoder = Decoder::new(dialect, commands, 7, 1_000);
    let (taken, _) = decoder.feed(received.as_bytes())?;
    assert!(decoder.is_complete() && taken == received.len());
    Ok(decoder.into_answers())
}

#[test]
fn value_of_another_key_or_command_is_no_answer() {
    let fetch = [Command::Fetch { key: key("k"), with_value: true, vivify: None }];
    assert!(matches!(
        answers(Dialect::Meta, &fetch, "VA 1 f0 c1 kk O7\r\nv\r\n").unwrap()[..],
        [Answer::Found(_)]
    ));
    for wrong in [
        "VA 1 f0 c1 kj O7\r\nv\r\n",
        "VA 1 f0 c1 kk O6\r\nv\r\n",
        "VA 1 f0 c1 kk\r\nv\r\n",
        "VA 1 f0 c1 O7\r\nv\r\n",
        "VA 1 f0 kk O7\r\nv\r\n",
        "EN O6\r\n",
        "EN kj O7\r\n",
        "HD f0 c1 kk O7\r\n",
        "NS kk O7\r\n",
        "VALUE k 0 1 1\r\nv\r\n",
    ] {
        assert!(answers(Dialect::Meta, &fetch, wrong).is_err(), "{wrong}");
    }
    for wrong in [
        "VALUE j 0 1 1\r\nv\r\n",
        "VALUE k 0 1\r\nv\r\n",
        "STORED\r\n",
        "VALUE k 0 1 1\r\nv\r\nVALUE k 0 1 1\r\nv\r\n",
    ] {
        assert!(answers(Dialect::Classic, &fetch, wrong).is_err(), "{wrong}");
    }
}

#[test]
fn answers_come_in_the_order_of_their_commands() {
    let (a, b) = (key("a"), key("b"));
    let fetch = |key| Command::Fetch { key, with_value: true, vivify: None };
    let commands = [fetch(a), fetch(b), Command::Remove { key: a, cas: None }];
    let received = "EN ka O7\r\nVA 2 f5 c9 kb O8 Z\r\nxy\r\nNF ka O9\r\n";
    let found = Found { kind: 5, cas: 9, value: "xy".into(), is_taken: true, ..Found::default() };
    let expected = vec![Answer::Missing, Answer::Found(found), Answer::Missing];
    assert_eq!(answers(Dialect::Meta, &commands, received).unwrap(), expected);
    let received = "END\r\nVALUE b 5 2 9\r\nxy\r\nEND\r\nNOT_FOUND\r\n";
    let found = Found { kind: 5, cas: 9, value: "xy".into(), ..Found::default() };
    let expected = vec![Answer::Missing, Answer::Found(found), Answer::Missing];
    assert_eq!(answers(Dialect::Classic, &commands, received).unwrap(), expected);
}

#[test]
fn refusal_of_one_item_leaves_the_other_answers() {
    let store = Command::Store { key: key("a"), mode: Mode::Set, kind: 1, seconds: 1, value: [b"v", b""] };
    for (dialect, done) in [(Dialect::Meta, "HD O8 ka\r\n"), (Dialect::Classic, "STORED\r\n")] {
        let received = format!("SERVER_ERROR object too large for cache\r\n{done}");
        let answers = answers(dialect, &[store, store], &received).unwrap();
        assert!(matches!(answers[..], [Answer::Refused(_), Answer::Done { .. }]));
    }
    for fatal in ["ERROR\r\n", "CLIENT_ERROR bad data chunk\r\n", "SERVER_ERROR oops\r\n", "hello\r\n", "\n"]
    {
        assert!(answers(Dialect::Meta, &[store], fatal).is_err(), "{fatal}");
    }
}

#[test]
fn value_beyond_the_limit_and_endless_line_are_not_waited_for() {
    let fetch = [Command::Fetch { key: key("k"), with_value: true, vivify: None }];
    assert!(answers(Dialect::Meta, &fetch, "VA 1001 f0 c1 kk O7\r\n").is_err());
    assert!(answers(Dialect::Meta, &fetch, "VA 99999999999999999999 f0 c1 kk O7\r\n").is_err());
    assert!(answers(Dialect::Meta, &fetch, &"x".repeat(3_000)).is_err());
}

#[test]
fn more_than_thirty_days_are_a_date_by_the_servers_clock() {
    let month = RELATIVE_SECONDS_MAX;
    assert_eq!(expiry(month, Some(1_000)), i64::from(month));
    assert_eq!(expiry(month + 1, Some(1_800_000_000)), 1_800_000_001 + i64::from(month));
    assert_eq!(expiry(month + 1, None), i64::from(month), "better too early than in 1970");
    assert_eq!(expiry(u32::MAX, Some(1_800_000_000)), i64::from(i32::MAX), "memcached's dates end in 2038");
    assert_eq!(expiry(u32::MAX, Some(i64::MAX)), i64::from(i32::MAX));
}
