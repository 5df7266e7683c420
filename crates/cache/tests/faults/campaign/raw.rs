//! A connection to the server itself, past the cache: to put it into states, and to spoil what it holds.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

use recache_faultproxy::ServerProcess;

/// Says and hears lines.
pub(crate) struct Raw(BufStream<TcpStream>);

/// What Redis answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Text(String),
    Error(String),
    Bytes(Option<Vec<u8>>),
    List(Vec<Reply>),
}

impl Raw {
    pub(crate) async fn open(server: &ServerProcess) -> Self {
        Self(BufStream::new(TcpStream::connect(server.address()).await.unwrap()))
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    async fn block(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes).await.unwrap();
        bytes.truncate(length);
        bytes
    }

    /// One command of Redis.
    pub(crate) async fn redis(&mut self, arguments: &[&[u8]]) -> Reply {
        let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            bytes.extend(format!("${}\r\n", argument.len()).bytes());
            bytes.extend_from_slice(argument);
            bytes.extend(b"\r\n");
        }
        self.0.write_all(&bytes).await.unwrap();
        self.0.flush().await.unwrap();
        Box::pin(self.reply()).await
    }

    /// The same from words.
    pub(crate) async fn say(&mut self, words: &str) -> Reply {
        // A space within a word is written `_`.
        let words: Vec<String> = words.split(' ').map(|word| word.replace('_', " ")).collect();
        let arguments: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        self.redis(&arguments).await
    }

    async fn reply(&mut self) -> Reply {
        let line = self.line().await;
        let (kind, rest) = line.split_at(1);
        match kind {
            "-" => Reply::Error(rest.to_owned()),
            "$" => match rest.parse() {
                Ok(length) => Reply::Bytes(Some(self.block(length).await)),
                Err(_) => Reply::Bytes(None),
            },
            "*" => {
                let mut replies = Vec::new();
                for _ in 0..rest.parse().unwrap() {
                    replies.push(Box::pin(self.reply()).await);
                }
                Reply::List(replies)
            }
            _ => Reply::Text(rest.to_owned()),
        }
    }

    pub(crate) async fn redis_keys(&mut self) -> Vec<Vec<u8>> {
        let Reply::List(keys) = self.say("KEYS *").await else { panic!("KEYS answers a list") };
        let key = |reply| match reply {
            Reply::Bytes(Some(key)) => key,
            other => panic!("{other:?} is no key"),
        };
        keys.into_iter().map(key).collect()
    }

    /// What lies under a key, when it is text.
    pub(crate) async fn redis_get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        match self.redis(&[b"GET", key]).await {
            Reply::Bytes(bytes) => bytes,
            _ => None,
        }
    }

    pub(crate) async fn memcached_keys(&mut self) -> Vec<Vec<u8>> {
        self.0.write_all(b"lru_crawler metadump all\r\n").await.unwrap();
        self.0.flush().await.unwrap();
        let mut keys = Vec::new();
        loop {
            let line = self.line().await;
            match line.strip_prefix("key=") {
                Some(rest) => keys.push(unescaped(rest.split(' ').next().unwrap())),
                None if line == "END" => return keys,
                // Such as BUSY: whoever needs them asks again.
                None => return Vec::new(),
            }
        }
    }

    /// Value and flags.
    pub(crate) async fn memcached_get(&mut self, key: &[u8]) -> Option<(Vec<u8>, String)> {
        self.0.write_all(&[b"get ", key, b"\r\n"].concat()).await.unwrap();
        self.0.flush().await.unwrap();
        let line = self.line().await;
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, _, flags, length] = fields[..] else { return None };
        let (value, flags) = (self.block(length.parse().unwrap()).await, flags.to_owned());
        assert_eq!(self.line().await, "END");
        Some((value, flags))
    }

    pub(crate) async fn memcached_set(&mut self, key: &[u8], value: &[u8], flags: &str) {
        let head = format!(" {flags} 0 {}\r\n", value.len());
        self.0.write_all(&[b"set ", key, head.as_bytes(), value, b"\r\n"].concat()).await.unwrap();
        self.0.flush().await.unwrap();
        let answer = self.line().await;
        assert!(answer == "STORED" || answer.starts_with("SERVER_ERROR"), "{answer}");
    }

    /// One line, answered by one line.
    pub(crate) async fn memcached_say(&mut self, line: &str) -> String {
        self.0.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
        self.line().await
    }
}

/// `%41` is `A`.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex: Vec<u8> = rest.by_ref().take(2).collect();
            bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    bytes
}
