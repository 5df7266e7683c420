//! What an HTTP status means for a job.
//!
//! | Status | Kind | Why |
//! |---|---|---|
//! | 1xx, 2xx, 3xx | no error | the handler decides what it makes of them |
//! | 408 | retryable | the server gave up waiting for the request |
//! | 425 | retryable | the server does not want to risk a replay yet |
//! | 429 | retryable | too many requests; `Retry-After` is honoured in full |
//! | other 4xx | permanent | the request itself is wrong, and will be next time |
//! | 5xx | retryable | the server's own trouble; `Retry-After` (503 above all) is honoured in full |
//!
//! `Retry-After` is a number of seconds or a date (RFC 9110, section 10.2.3). It is a lower bound of the delay: the job's own backoff may
//! make it longer, and no cap makes it shorter.

use crate::job::ErrorKind;

/// The kind of failure that a status stands for; `None` where it is none.
pub fn error_kind(status: u16) -> Option<ErrorKind> {
    match status {
        408 | 425 | 429 | 500..=599 => Some(ErrorKind::Retryable),
        400..=499 => Some(ErrorKind::Permanent),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_the_kind_of_the_table() {
        for status in 100..=599 {
            let expected = if status < 400 {
                None
            } else if status >= 500 || [408, 425, 429].contains(&status) {
                Some(ErrorKind::Retryable)
            } else {
                Some(ErrorKind::Permanent)
            };
            assert_eq!(error_kind(status), expected, "{status}");
        }
    }
}
