//! "Did you mean".

/// What one template's suggestions may cost together: one for each name looked at, and one for each cell of an
/// edit-distance table. Ten thousand unknown names
/// against ten thousand known ones must not take minutes; whoever has so many problems can do without the rest
/// of the hints.
const COST_MAX: usize = 4_000_000;

/// Finds the known name that was probably meant.
#[derive(Debug)]
pub(super) struct Suggester {
    cost_left: usize,
}

impl Default for Suggester {
    fn default() -> Self {
        Self { cost_left: COST_MAX }
    }
}

impl Suggester {
    /// A sentence naming the nearest of `known` to `written`, if any is near enough.
    pub(super) fn did_you_mean<'k>(
        &mut self,
        written: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) -> Option<String> {
        let distance_max = written.len().div_ceil(3).min(4);
        let mut best: Option<(usize, &str)> = None;
        for candidate in known {
            let is_comparable = candidate.len().abs_diff(written.len()) <= distance_max;
            let cells = if is_comparable { candidate.len().saturating_mul(written.len()) } else { 0 };
            self.cost_left = self.cost_left.saturating_sub(cells.saturating_add(1));
            if self.cost_left == 0 {
                return None;
            }
            if !is_comparable {
                continue;
            }
            let distance = strsim::osa_distance(&candidate.to_lowercase(), &written.to_lowercase());
            if distance <= distance_max && best.is_none_or(|(nearest, _)| distance < nearest) {
                best = Some((distance, candidate));
            }
        }
        best.map(|(_, name)| format!("did you mean `{name}`?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_meant_whatever_its_case() {
        let mut suggester = Suggester::default();
        let known = ["max_attempts", "max_backoff_ms", "backoff", "Name"];
        let mut suggest = |written| suggester.did_you_mean(written, known);
        assert_eq!(suggest("max_atempts").as_deref(), Some("did you mean `max_attempts`?"));
        assert_eq!(suggest("bakcoff").as_deref(), Some("did you mean `backoff`?"));
        assert_eq!(suggest("NAME").as_deref(), Some("did you mean `Name`?"));
        assert_eq!(suggest("colour"), None);
        assert_eq!(suggest(""), None);
    }

    #[test]
    fn suggestions_stop_when_their_cost_is_spent() {
        let mut suggester = Suggester::default();
        let long = "x".repeat(5_000);
        assert_eq!(suggester.did_you_mean(&long, [long.as_str()]), None, "25 million cells are too many");
        assert_eq!(suggester.did_you_mean("nam", ["name"]), None, "nothing is left");

        let mut suggester = Suggester::default();
        let strangers = std::iter::repeat_n("something much longer", COST_MAX);
        assert_eq!(suggester.did_you_mean("nam", strangers), None);
        assert_eq!(suggester.did_you_mean("nam", ["name"]), None, "looking costs too");
    }
}
