//! Every limit of the server, with its default.

use std::time::Duration;

/// How the server behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Connections at once; one more is told to come back. Default 4,096.
    pub connections_max: usize,
    /// Requests that are being worked on at once; one more waits for [`Settings::admission_wait`] and is then refused. Waiting
    /// for a job to end does not count. Default 256.
    pub requests_max: usize,
    /// For how long a request waits for its turn before it is refused. Default 20 ms.
    pub admission_wait: Duration,
    /// Requests that wait for something to happen at once. Default 1,024.
    pub waits_max: usize,
    /// For how long a request may wait for something to happen. Default 30 s.
    pub wait_max: Duration,
    /// Streams of events at once. Fewer than connections, so that other requests find one. Default 2,048: a thousand and as many again.
    pub streams_max: usize,
    /// Streams of events of one caller at once, where callers are known. Default 1,024: half of all, so that one caller leaves room.
    pub streams_per_caller_max: usize,
    /// A stream whose client takes nothing for this long is ended. Default 10 s.
    pub stream_stall_max: Duration,
    /// A stream says at least this often that it lives. Default 15 s.
    pub stream_keep_alive: Duration,
    /// Of a thousand traces that begin here so many are kept; 0: requests are not traced. Default 0.
    pub traces_per_mille: u32,
    /// Requests a second of one caller, on average; twice as many in a burst. Default 20,000.
    pub requests_per_second_max: u32,
    /// How long a request may take once its body is there, waits not counted. Default 30 s.
    pub request_max: Duration,
    /// How long a request's headers may take to come. Default 10 s.
    pub headers_wait_max: Duration,
    /// How long a request's body may take to come. Default 30 s.
    pub body_wait_max: Duration,
    /// For how long a client may take less than 64 KiB of its answer, while more is to be taken; then its connection ends. Default 30 s.
    pub answer_wait_max: Duration,
    /// Bytes of all headers. Default 32 KiB.
    pub header_bytes_max: usize,
    /// Number of headers. Default 64.
    pub headers_max: usize,
    /// Bytes of a body. Default 8 MiB.
    pub body_bytes_max: usize,
    /// How deep values may be nested in a JSON body. Default 64.
    pub json_depth_max: usize,
    /// How long connections may go on after the server was told to stop. Default 30 s.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            requests_max: 256,
            admission_wait: Duration::from_millis(20),
            waits_max: 1_024,
            wait_max: Duration::from_secs(30),
            streams_max: 2_048,
            streams_per_caller_max: 1_024,
            stream_stall_max: Duration::from_secs(10),
            stream_keep_alive: Duration::from_secs(15),
            traces_per_mille: 0,
            requests_per_second_max: 20_000,
            request_max: Duration::from_secs(30),
            headers_wait_max: Duration::from_secs(10),
            body_wait_max: Duration::from_secs(30),
            answer_wait_max: Duration::from_secs(30),
            header_bytes_max: 32 * 1024,
            headers_max: 64,
            body_bytes_max: 8 * 1024 * 1024,
            json_depth_max: 64,
            drain: Duration::from_secs(30),
        }
    }
}
