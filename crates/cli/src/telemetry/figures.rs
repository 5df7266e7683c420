//! From OpenMetrics text, as `/metrics` has it, to metrics of OTLP: the same figures under the same names.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::document::{attribute, nanos};

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A sample: labels in the order in which they stand, and a value.
type Labels = Vec<(String, String)>;

/// Reads our own text; a line that is none of its kinds is passed over.
pub(super) fn of_text(text: &str, begun_at_us: i64, now_us: i64) -> Vec<Value> {
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    let mut samples: BTreeMap<String, Vec<(String, Labels, f64)>> = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { continue };
            let kind = match kind {
                "counter" => Kind::Counter,
                "gauge" => Kind::Gauge,
                "histogram" => Kind::Histogram,
                _ => continue,
            };
            name.clone_into(&mut family);
            kinds.insert(family.clone(), kind);
        } else if !line.starts_with('#')
            && let Some((name, labels, value)) = sample(line)
            && let Some(suffix) = name.strip_prefix(family.as_str())
        {
            samples.entry(family.clone()).or_default().push((suffix.to_owned(), labels, value));
        }
    }
    let (begun, now) = (nanos(begun_at_us), nanos(now_us));
    let metric = |(name, samples): (String, Vec<(String, Labels, f64)>)| {
        let kind = *kinds.get(&name)?;
        let point = |labels: &Labels, value: f64| json!({ "attributes": attributes(labels), "startTimeUnixNano": begun, "timeUnixNano": now, "asDouble": value });
        let points = || samples.iter().map(|(_, labels, value)| point(labels, *value)).collect::<Vec<_>>();
        Some(match kind {
            Kind::Counter => json!({ "name": name,
                "sum": { "aggregationTemporality": 2, "isMonotonic": true, "dataPoints": points() } }),
            Kind::Gauge => json!({ "name": name, "gauge": { "dataPoints": points() } }),
            Kind::Histogram => json!({ "name": name,
                "histogram": { "aggregationTemporality": 2, "dataPoints": histograms(&samples, &begun, &now) } }),
        })
    };
    samples.into_iter().filter_map(metric).collect()
}

fn attributes(labels: &Labels) -> Vec<Value> {
    labels.iter().map(|(name, value)| attribute(name, &Value::from(value.as_str()))).collect()
}

/// OpenMetrics counts up to each bound, OTLP between two.
fn histograms(samples: &[(String, Labels, f64)], begun: &str, now: &str) -> Vec<Value> {
    #[derive(Default)]
    struct One {
        bounds: Vec<f64>,
        counts: Vec<u64>,
        before: u64,
        sum: f64,
        count: u64,
    }
    let mut all: BTreeMap<Labels, One> = BTreeMap::new();
    for (suffix, labels, value) in samples {
        let mut labels = labels.clone();
        let bound = labels.iter().position(|(name, _)| name == "le").map(|place| labels.remove(place).1);
        let one = all.entry(labels).or_default();
        match (suffix.as_str(), bound) {
            ("_bucket", Some(bound)) => {
                let count = whole(*value);
                one.counts.push(count.saturating_sub(one.before));
                one.before = count;
                // The last one has no bound.
                one.bounds.extend(bound.parse::<f64>().ok().filter(|bound| bound.is_finite()));
            }
            ("_sum", _) => one.sum = *value,
            ("_count", _) => one.count = whole(*value),
            _ => {}
        }
    }
    let point = |(labels, one): (Labels, One)| {
        let counts: Vec<String> = one.counts.iter().map(u64::to_string).collect();
        json!({ "attributes": attributes(&labels), "startTimeUnixNano": begun, "timeUnixNano": now,
            "count": one.count.to_string(), "sum": one.sum, "bucketCounts": counts, "explicitBounds": one.bounds })
    };
    all.into_iter().map(point).collect()
}

/// A count that is written as a number with a point, perhaps.
fn whole(value: f64) -> u64 {
    format!("{:.0}", value.max(0.0)).parse().unwrap_or(0)
}

/// `name{a="b",c="d"} 1.5`
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let (name, rest) = match line.split_once('{') {
        Some((name, rest)) => (name, Some(rest)),
        None => (line.split_once(' ')?.0, None),
    };
    let mut labels = Vec::new();
    let value = match rest {
        None => line.split_once(' ')?.1,
        Some(mut rest) => loop {
            rest = rest.trim_start_matches(',');
            if let Some(value) = rest.strip_prefix('}') {
                break value;
            }
            let (label, after) = rest.split_once("=\"")?;
            let (text, after) = quoted(after)?;
            labels.push((label.to_owned(), text));
            rest = after;
        },
    };
    Some((name.to_owned(), labels, value.trim().split(' ').next()?.parse().ok()?))
}

/// Up to the quote that ends it, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut read = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((read, text.get(place + 1..)?)),
            '\\' => match characters.next()?.1 {
                'n' => read.push('\n'),
                other => read.push(other),
            },
            other => read.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_their_names_labels_and_values() {
        let text = "# HELP a_b Help.\n# TYPE a_b counter\na_b_total{c=\"d\",e=\"f\\\"g,}\"} 7\n\
                    # TYPE g gauge\ng -1.5\n# TYPE h_seconds histogram\n# UNIT h_seconds seconds\n\
                    h_seconds_sum{r=\"x\"} 1.25\nh_seconds_count{r=\"x\"} 4\nh_seconds_bucket{le=\"0.5\",r=\"x\"} 1\n\
                    h_seconds_bucket{le=\"1.0\",r=\"x\"} 3\nh_seconds_bucket{le=\"+Inf\",r=\"x\"} 4\n# EOF\n";
        let found = of_text(text, 1, 2);
        assert_eq!(found.len(), 3, "{found:#?}");
        let sum = &found[0]["sum"]["dataPoints"][0];
        assert_eq!((&found[0]["name"], &sum["asDouble"]), (&json!("a_b"), &json!(7.0)));
        assert_eq!(sum["attributes"][1]["value"]["stringValue"], "f\"g,}");
        assert_eq!((&sum["startTimeUnixNano"], &sum["timeUnixNano"]), (&json!("1000"), &json!("2000")));
        assert_eq!(found[1]["gauge"]["dataPoints"][0]["asDouble"], -1.5);
        let histogram = &found[2]["histogram"]["dataPoints"][0];
        assert_eq!(histogram["bucketCounts"], json!(["1", "2", "1"]));
        assert_eq!(histogram["explicitBounds"], json!([0.5, 1.0]));
        assert_eq!((&histogram["count"], &histogram["sum"]), (&json!("4"), &json!(1.25)));
        assert_eq!(histogram["attributes"].as_array().unwrap().len(), 1);
    }
}
