//! Totals gathered as far as reports need them: the reports are the same.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use recache_model::figures::{
    Active, BottlenecksRequest, By, ENGINE_HANDLER, Ended, Filter, Gathered, Kind, MINUTE_US, MinuteTotals,
    OTHER, PerformanceRequest, Series, Totals, bottlenecks, performance,
};
use recache_model::job::JobState;
use recache_model::time::Timestamp;

/// How many of a kind ended in a minute, under which names.
fn one() -> impl Strategy<Value = MinuteTotals> {
    let kind = prop_oneof![Just(Kind::Workflow), Just(Kind::Step), Just(Kind::Job)];
    (0..90_i64, kind, 0..4_u8, 0..3_u8, 1..20_u64).prop_map(|(minute, kind, name, queue, ran_s)| {
        let is_step = kind == Kind::Step;
        let mut totals = Totals::default();
        totals.add(&Ended {
            state: if ran_s % 3 == 0 { JobState::Failed } else { JobState::Completed },
            lasted: Duration::from_secs(ran_s + 1),
            ran: (kind != Kind::Workflow).then(|| Duration::from_secs(ran_s)),
            waited: (kind != Kind::Workflow).then(|| Duration::from_secs(1)),
            code: None,
        });
        let named = |is_named: bool, text: String| if is_named { text } else { String::new() };
        let handler = if name == 3 { ENGINE_HANDLER.to_owned() } else { format!("handler {name}") };
        let series = Series {
            kind,
            namespace: format!("space {}", name % 2),
            template: named(kind != Kind::Job, format!("template {name}")),
            step: named(is_step, format!("step {name}")),
            handler: named(kind != Kind::Workflow, handler),
            queue: named(kind != Kind::Workflow, format!("queue {queue}")),
        };
        MinuteTotals { minute, series, totals }
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    let some = |text: &'static str| prop_oneof![2 => Just(None), 1 => Just(Some(text.to_owned()))];
    (some("space 1"), some("template 1"), some("handler 1"), some("queue 1"))
        .prop_map(|(namespace, template, handler, queue)| Filter { namespace, template, handler, queue })
}

fn gathered(all: &[MinuteTotals], by: By, filter: &Filter, series_max: usize) -> Vec<MinuteTotals> {
    let mut gathered = Gathered::new(by, filter.clone(), series_max);
    for one in all {
        gathered.merge(one.minute, one.series.clone(), &one.totals);
    }
    gathered.into_minutes()
}

proptest! {
    #[test]
    fn reports_are_the_same_from_what_was_merged(all in vec(one(), 0..60), filter in filter(), hours in 1..3_u32) {
        let (start, end) = (Timestamp::default(), Timestamp::from_micros(90 * MINUTE_US + 17));
        let request = PerformanceRequest { hours, filter: filter.clone() };
        let merged = gathered(&all, By::Parts { start, end }, &filter, 10);
        prop_assert!(merged.len() <= 24 * 5, "{}", merged.len());
        prop_assert_eq!(
            performance(&request, start, end, &merged, Active::default()),
            performance(&request, start, end, &all, Active::default())
        );
        let request = BottlenecksRequest { min_executions: 1, filter: filter.clone(), ..BottlenecksRequest::default() };
        let merged = gathered(&all, By::Series, &filter, 100);
        prop_assert_eq!(bottlenecks(&request, &merged), bottlenecks(&request, &all));
    }

    #[test]
    fn no_more_series_are_kept_than_may_be_and_all_are_counted(all in vec(one(), 0..60), series_max in 0..6_usize) {
        for by in [By::Minute, By::Series] {
            let merged = gathered(&all, by, &Filter::default(), series_max);
            let mut by_minute: BTreeMap<i64, (usize, usize)> = BTreeMap::new();
            for one in &merged {
                let (known, others) = by_minute.entry(one.minute).or_default();
                *(if one.series.is_other() { others } else { known }) += 1;
            }
            for (known, others) in by_minute.values() {
                // One for each kind, and the engine's own apart.
                prop_assert!(*known <= series_max && *others <= 5, "{merged:?}");
            }
            let count = |all: &[MinuteTotals], is_counted: fn(&Series) -> bool| -> u64 {
                all.iter().filter(|one| is_counted(&one.series)).map(|one| one.totals.ended()).sum()
            };
            let counted: [fn(&Series) -> bool; 2] = [Series::is_of_handlers, |one| one.kind == Kind::Workflow];
            for is_counted in counted {
                prop_assert_eq!(count(&merged, is_counted), count(&all, is_counted));
            }
        }
    }
}

#[test]
fn nothing_is_recommended_of_those_that_are_not_told_apart() {
    let mut totals = Totals::default();
    for _ in 0..10 {
        totals.add(&Ended {
            state: JobState::Failed,
            lasted: Duration::from_secs(9),
            ran: Some(Duration::from_secs(1)),
            waited: Some(Duration::from_secs(8)),
            code: Some("no".to_owned()),
        });
    }
    totals.critical_us = 9;
    totals.paths_us = 10;
    let name = || "work".to_owned();
    let series = Series {
        kind: Kind::Step,
        namespace: name(),
        template: name(),
        step: name(),
        handler: name(),
        queue: name(),
    };
    let request = BottlenecksRequest::default();
    let found = |series_max| {
        let one = MinuteTotals { minute: 1, series: series.clone(), totals: totals.clone() };
        bottlenecks(&request, &gathered(&[one], By::Series, &Filter::default(), series_max))
    };
    assert_eq!(found(1).recommendations.len(), 3);
    let other = found(0);
    assert_eq!((other.slowest_by_run[0].handler.as_str(), other.executions), (OTHER, 10), "it is shown");
    assert_eq!(other.recommendations, []);
}
