//! What ties spans of several processes into one trace: W3C Trace Context, level 1 (<https://www.w3.org/TR/trace-context/>).

use std::fmt;
use std::str::FromStr;

/// A place in a trace: the header `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    is_sampled: bool,
}

/// The text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a traceparent is `00-`, 32 hexadecimal digits, `-`, 16 of them, `-`, and 2 of them, no id all zero")]
pub struct InvalidTraceContext;

impl TraceContext {
    /// The beginning of a trace. What is zero becomes one: zero is no id.
    pub fn begin(trace: u128, span: u64, is_sampled: bool) -> Self {
        Self { trace: trace.max(1), span: span.max(1), is_sampled }
    }

    /// A span below this one.
    pub fn child(self, span: u64) -> Self {
        Self { span: span.max(1), ..self }
    }

    /// The trace, 32 hexadecimal digits.
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The span, 16 hexadecimal digits.
    pub fn span_id(self) -> String {
        format!("{:016x}", self.span)
    }

    /// Whether it is to be kept.
    pub fn is_sampled(self) -> bool {
        self.is_sampled
    }
}

/// Whether a trace is kept, of which so many in a thousand are. The same everywhere, as it follows from the id alone.
pub fn is_kept(trace: u128, per_mille: u32) -> bool {
    u32::try_from(trace % 1_000).is_ok_and(|place| place < per_mille)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceContext;

    /// Later versions may have more behind these parts; `ff` is no version.
    fn from_str(text: &str) -> Result<Self, InvalidTraceContext> {
        let is_hex = |part: &str, len: usize| {
            part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = text.split('-');
        let mut part = |len| parts.next().filter(|part| is_hex(part, len)).ok_or(InvalidTraceContext);
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return Err(InvalidTraceContext);
        }
        let trace = u128::from_str_radix(trace, 16).map_err(|_| InvalidTraceContext)?;
        let span = u64::from_str_radix(span, 16).map_err(|_| InvalidTraceContext)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| InvalidTraceContext)?;
        if trace == 0 || span == 0 {
            return Err(InvalidTraceContext);
        }
        Ok(Self { trace, span, is_sampled: flags & 1 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_reads_what_it_writes() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read: TraceContext = text.parse().unwrap();
        assert_eq!(read.to_string(), text);
        assert_eq!((read.trace_id().as_str(), read.span_id().as_str()), (&text[3..35], &text[36..52]));
        assert_eq!(read.child(0xff).to_string(), "00-0af7651916cd43dd8448eb211c80319c-00000000000000ff-01");
        let later: TraceContext = format!("cc{}-what-comes", &text[2..]).parse().unwrap();
        assert_eq!(later, read);
        let dropped: TraceContext = format!("{}0", &text[..54]).parse().unwrap();
        assert!(read.is_sampled() && !dropped.is_sampled());
        assert_eq!(TraceContext::begin(0, 0, true).to_string(), format!("00-{:032x}-{:016x}-01", 1, 1));
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for bad in [
            "",
            &good[..54],
            &good.to_uppercase(),
            &format!("{good}-x"),
            &format!("ff{}", &good[2..]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(InvalidTraceContext), "{bad}");
        }
    }

    #[test]
    fn part_of_the_traces_is_kept() {
        let kept = |per_mille| (0..10_000).filter(|trace| is_kept(*trace, per_mille)).count();
        assert_eq!((kept(0), kept(10), kept(1_000)), (0, 100, 10_000));
    }
}
