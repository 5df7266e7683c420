//! Jobs that the store makes by itself, and the traces that they belong to.

use recache_model::ids::JobId;
use recache_model::trace::TraceContext;

/// Calls that a job is tied to, besides the one above it.
pub const LINKS_MAX: usize = 32;

/// The place of a job that the store made, for whoever tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// The job. Its attempts are below `place`.
    pub job: JobId,
    /// Where it stands itself.
    pub place: TraceContext,
    /// The call above it; `None`: it begins a trace.
    pub parent: Option<TraceContext>,
    /// Other calls that it follows from, of whatever traces.
    pub links: Vec<TraceContext>,
}

impl Traced {
    /// Below `parent`, or in a trace of its own where only others are traced. `None`: nobody traces what it follows from. What is no
    /// `traceparent` is passed over; of the others the first [`LINKS_MAX`] are told.
    pub fn of<'a>(
        job: JobId,
        parent: Option<&str>,
        others: impl IntoIterator<Item = &'a str>,
    ) -> Option<Self> {
        let parent: Option<TraceContext> = parent.and_then(|text| text.parse().ok());
        let mut links: Vec<TraceContext> = Vec::new();
        for place in others.into_iter().filter_map(|text| text.parse::<TraceContext>().ok()) {
            if links.len() < LINKS_MAX
                && place.is_sampled()
                && Some(place) != parent
                && !links.contains(&place)
            {
                links.push(place);
            }
        }
        // Whoever tells of it finds its place by the job alone.
        let (trace, (_, span)) = (job.uuid().as_u128(), job.uuid().as_u64_pair());
        let place = match parent {
            Some(parent) => parent.child(span),
            None if links.is_empty() => return None,
            None => TraceContext::begin(trace, span, true),
        };
        Some(Self { job, place, parent, links })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const OTHER: &str = "00-ffff651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const UNKEPT: &str = "00-ffff651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn job_goes_on_in_the_trace_above_it_and_is_tied_to_the_others() {
        let job = JobId::make();
        let traced = Traced::of(job, Some(ONE), [OTHER, ONE, OTHER, "nonsense", UNKEPT]).unwrap();
        assert_eq!((traced.parent, traced.place.trace_id()), (ONE.parse().ok(), ONE[3..35].to_owned()));
        assert_eq!(traced.links, [OTHER.parse().unwrap()]);
        assert_ne!(traced.place, traced.parent.unwrap());
        let alone = Traced::of(job, None, [OTHER]).unwrap();
        assert_eq!((alone.parent, alone.links.len()), (None, 1));
        assert_eq!(alone.place.trace_id(), format!("{:032x}", job.uuid().as_u128()));
        for (parent, others) in [(None, &[][..]), (None, &[UNKEPT, "x"]), (Some("x"), &[])] {
            assert_eq!(Traced::of(job, parent, others.iter().copied()), None, "{parent:?} {others:?}");
        }
        assert!(!Traced::of(job, Some(UNKEPT), [OTHER]).unwrap().place.is_sampled(), "as its caller decided");
        let many: Vec<String> = (1..=40).map(|span| format!("{}{span:016x}-01", &OTHER[..36])).collect();
        assert_eq!(Traced::of(job, None, many.iter().map(String::as_str)).unwrap().links.len(), LINKS_MAX);
    }
}
