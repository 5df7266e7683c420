//! The exit codes of every command. Scripts rely on them: a code never changes its meaning.

use std::process::ExitCode;

/// What the process answers to whoever started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// 0: done.
    Ok,
    /// 1: failed, and none of the codes below says it better.
    Failed,
    /// 2: the command line was wrong; nothing was done.
    Usage,
    /// 3: what was named does not exist.
    NotFound,
    /// 4: not signed in, or not allowed.
    Denied,
    /// 5: conflict, or a precondition that no longer holds.
    Conflict,
    /// 6: a server or database could not be reached; trying again later may help.
    Unavailable,
    /// 7: the command worked, the job that it waited for did not.
    JobFailed,
    /// 124: the time given for waiting ran out.
    TimedOut,
    /// 130: interrupted from the keyboard.
    Interrupted,
}

impl ExitStatus {
    /// The number that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Denied => 4,
            Self::Conflict => 5,
            Self::Unavailable => 6,
            Self::JobFailed => 7,
            Self::TimedOut => 124,
            Self::Interrupted => 130,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

#[cfg(test)]
mod tests {
    use super::ExitStatus;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes = [
            (ExitStatus::Ok, 0),
            (ExitStatus::Failed, 1),
            (ExitStatus::Usage, 2),
            (ExitStatus::NotFound, 3),
            (ExitStatus::Denied, 4),
            (ExitStatus::Conflict, 5),
            (ExitStatus::Unavailable, 6),
            (ExitStatus::JobFailed, 7),
            (ExitStatus::TimedOut, 124),
            (ExitStatus::Interrupted, 130),
        ];
        for (status, code) in codes {
            assert_eq!(status.code(), code, "{status:?}");
        }
    }
}
