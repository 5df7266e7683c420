//! Reports against brute force over random histories.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use recache_model::figures::{
    Active, BottlenecksRequest, Ended, Kind, MINUTE_US, MinuteTotals, PerformanceRequest, Series, Totals,
    bottlenecks, performance,
};
use recache_model::job::JobState;
use recache_model::time::Timestamp;

/// One that ended: in which minute of the window, what, how, and for how long it ran and waited.
#[derive(Debug, Clone)]
struct One {
    minute: i64,
    kind: Kind,
    name: u8,
    state: JobState,
    /// 0: it never began.
    ran_ms: u64,
    waited_ms: u64,
}

impl One {
    fn is_step(&self) -> bool {
        self.kind != Kind::Workflow && self.name != ENGINE
    }

    fn is_run(&self) -> bool {
        self.is_step() && self.ran_ms > 0
    }
}

/// The name of what the engine does itself.
const ENGINE: u8 = 3;

fn one() -> impl Strategy<Value = One> {
    let kind = prop_oneof![Just(Kind::Workflow), Just(Kind::Step), Just(Kind::Job)];
    let state = prop_oneof![
        4 => Just(JobState::Completed),
        2 => Just(JobState::Failed),
        1 => Just(JobState::Cancelled),
        1 => Just(JobState::Skipped),
    ];
    let ran_ms = prop_oneof![4 => 1..100_000_u64, 1 => Just(0)];
    (0..60_i64, kind, 0..=ENGINE, state, ran_ms, 1..100_000_u64).prop_map(
        |(minute, kind, name, state, ran_ms, waited_ms)| One { minute, kind, name, state, ran_ms, waited_ms },
    )
}

fn ended(one: &One) -> Ended {
    let duration = Duration::from_millis;
    let is_run = one.kind != Kind::Workflow && one.ran_ms > 0;
    Ended {
        state: one.state,
        lasted: duration(one.ran_ms + one.waited_ms),
        ran: is_run.then(|| duration(one.ran_ms)),
        waited: is_run.then(|| duration(one.waited_ms)),
        code: (one.state == JobState::Failed).then(|| format!("code {}", one.name)),
    }
}

fn series(one: &One) -> Series {
    let name = one.name.to_string();
    Series {
        kind: one.kind,
        namespace: "default".to_owned(),
        template: if one.kind == Kind::Job { String::new() } else { "t".to_owned() },
        step: if one.kind == Kind::Step { name.clone() } else { String::new() },
        handler: match (one.kind, one.name) {
            (Kind::Workflow, _) => String::new(),
            (_, ENGINE) => "recache.flow".to_owned(),
            _ => format!("handler {name}"),
        },
        queue: if one.kind == Kind::Workflow { String::new() } else { "q".to_owned() },
    }
}

fn minutes(all: &[One]) -> Vec<MinuteTotals> {
    let mut totals: BTreeMap<(i64, Series), Totals> = BTreeMap::new();
    for one in all {
        totals.entry((one.minute, series(one))).or_default().add(&ended(one));
    }
    totals.into_iter().map(|((minute, series), totals)| MinuteTotals { minute, series, totals }).collect()
}

fn count(all: &[One], is_counted: impl Fn(&One) -> bool) -> u64 {
    u64::try_from(all.iter().filter(|one| is_counted(one)).count()).unwrap()
}

fn mean_ms(values: impl Iterator<Item = u64>) -> Option<Duration> {
    let values: Vec<u64> = values.collect();
    let count = u64::try_from(values.len()).unwrap();
    (values.iter().sum::<u64>() * 1_000).checked_div(count).map(Duration::from_micros)
}

proptest! {
    #[test]
    fn performance_is_what_counting_by_hand_gives(all in vec(one(), 0..60), old in 0..9_u64, submitted in 0..9_u64) {
        let active = old + submitted;
        let request = PerformanceRequest { hours: 1, ..PerformanceRequest::default() };
        let (start, end) = (Timestamp::from_micros(0), Timestamp::from_micros(60 * MINUTE_US));
        let found = performance(&request, start, end, &minutes(&all), Active { tasks: active, submitted });
        let is_task = |one: &One| one.kind != Kind::Step;
        let is_run = One::is_run;
        let ended = count(&all, is_task);
        let done = |one: &One| matches!(one.state, JobState::Completed | JobState::Skipped);
        prop_assert_eq!(found.total_tasks, ended + active);
        prop_assert_eq!((found.active_tasks, found.active_tasks_submitted), (active, submitted));
        prop_assert_eq!(found.completed_tasks, count(&all, |one| is_task(one) && done(one)));
        prop_assert_eq!(found.failed_tasks, count(&all, |one| is_task(one) && one.state == JobState::Failed));
        prop_assert_eq!(found.completion_rate.is_none(), ended == 0);
        if let (Some(completion), Some(error)) = (found.completion_rate, found.error_rate) {
            let cancelled = count(&all, |one| is_task(one) && one.state == JobState::Cancelled);
            let share = f64::from(u32::try_from(cancelled).unwrap()) / f64::from(u32::try_from(ended).unwrap());
            prop_assert!((completion + error + share - 1.0).abs() < 1e-9);
        }
        prop_assert_eq!(
            found.task_duration.mean,
            mean_ms(all.iter().filter(|one| is_task(one)).map(|one| one.ran_ms + one.waited_ms))
        );
        prop_assert_eq!(found.step_duration.mean, mean_ms(all.iter().filter(|one| is_run(one)).map(|one| one.ran_ms)));
        prop_assert_eq!(found.queue_wait.mean, mean_ms(all.iter().filter(|one| is_run(one)).map(|one| one.waited_ms)));
        prop_assert!((found.tasks_per_hour - f64::from(u32::try_from(ended + submitted).unwrap())).abs() < 1e-9);
        prop_assert!((found.steps_per_hour - f64::from(u32::try_from(count(&all, is_run)).unwrap())).abs() < 1e-9);
        prop_assert!((found.tasks_ended_per_hour - f64::from(u32::try_from(ended).unwrap())).abs() < 1e-9);
        prop_assert_eq!(found.trend.iter().map(|bucket| bucket.steps).sum::<u64>(), count(&all, is_run));
        prop_assert_eq!(found.trend.iter().map(|bucket| bucket.completed).sum::<u64>(), found.completed_tasks);
        prop_assert!(found.health_score.is_none_or(|score| (0.0..=1.0).contains(&score)));
        prop_assert_eq!(found.health_score.is_none(), all.iter().all(|one| {
            let decides = one.state != JobState::Cancelled && (is_task(one) || one.is_step());
            !decides && !one.is_run()
        }));
    }

    #[test]
    fn bottlenecks_are_ordered_and_complete(all in vec(one(), 0..80), min_executions in 1..6_u64, limit in 1..4_u32) {
        let request = BottlenecksRequest { hours: 1, limit, min_executions, ..BottlenecksRequest::default() };
        let found = bottlenecks(&request, &minutes(&all));
        prop_assert_eq!(found.executions, count(&all, One::is_run));
        let mut expected: Vec<(Duration, Series)> = Vec::new();
        let mut seen: Vec<Series> = all.iter().filter(|one| one.is_run()).map(series).collect();
        seen.sort();
        seen.dedup();
        for one in seen {
            let of: Vec<&One> = all.iter().filter(|other| other.is_run() && series(other) == one).collect();
            if u64::try_from(of.len()).unwrap() >= min_executions {
                expected.push((mean_ms(of.iter().map(|one| one.ran_ms)).unwrap(), one));
            }
        }
        expected.sort_by_key(|(mean, _)| std::cmp::Reverse(*mean));
        expected.truncate(usize::try_from(limit).unwrap());
        let told: Vec<Duration> = found.slowest_by_run.iter().map(|step| step.run.mean.unwrap()).collect();
        prop_assert_eq!(told, expected.iter().map(|(mean, _)| *mean).collect::<Vec<_>>());
        for spot in &found.error_hot_spots {
            let failures = count(&all, |one| {
                one.state == JobState::Failed && one.is_step() && format!("handler {}", one.name) == spot.handler
            });
            prop_assert_eq!(spot.failures, failures, "each handler fails with one code here");
        }
        prop_assert!(found.slowest_by_critical_share.is_empty(), "no path was looked at");
        let ran = |of: &dyn Fn(&One) -> bool| -> u64 {
            all.iter().filter(|one| one.is_run() && of(one)).map(|one| one.ran_ms).sum()
        };
        let mut busiest: Vec<u64> = (0..=u8::MAX)
            .map(|name| (ran(&|one| one.name == name), count(&all, |one| one.is_run() && one.name == name)))
            .filter(|(ran_ms, ended)| *ran_ms > 0 && *ended >= min_executions)
            .map(|(ran_ms, _)| ran_ms)
            .collect();
        busiest.sort_unstable_by(|one, other| other.cmp(one));
        busiest.truncate(usize::try_from(limit).unwrap());
        let told: Vec<Duration> = found.resource_use.iter().map(|one| one.busy).collect();
        prop_assert_eq!(told, busiest.into_iter().map(Duration::from_millis).collect::<Vec<_>>());
        prop_assert!(found.resource_use.iter().map(|one| one.share).sum::<f64>() <= 1.0 + 1e-9);
    }
}

#[test]
fn nothing_is_recommended_without_evidence() {
    let request = BottlenecksRequest { min_executions: 1, ..BottlenecksRequest::default() };
    assert_eq!(bottlenecks(&request, &[]).recommendations, []);
    let step =
        |ran_ms, waited_ms, state| One { minute: 1, kind: Kind::Step, name: 0, state, ran_ms, waited_ms };
    let good = vec![step(100, 1, JobState::Completed); 10];
    assert_eq!(bottlenecks(&request, &minutes(&good)).recommendations, []);
    let hardly = vec![step(1, 3, JobState::Completed); 10];
    assert_eq!(bottlenecks(&request, &minutes(&hardly)).recommendations, [], "3 ms are no wait");
    let just_below = vec![step(100, 999, JobState::Completed); 10];
    assert_eq!(bottlenecks(&request, &minutes(&just_below)).recommendations, []);
    let mut bad = vec![step(100, 1_000, JobState::Completed); 9];
    bad.push(step(100, 1_000, JobState::Failed));
    let mut bad = minutes(&bad);
    bad[0].totals.critical_us = 900;
    bad[0].totals.paths_us = 1_000;
    let told = bottlenecks(&request, &bad).recommendations;
    let kinds: Vec<&str> = told.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds, ["add_workers", "shorten_step", "fix_error"]);
    assert_eq!(
        told[0].evidence,
        "over 10 executions it waited 1.000s on average, longer than the 100.000ms that it ran"
    );
    assert_eq!(told[1].evidence, "it makes 90 % of its workflows' critical paths");
    assert_eq!(told[2].evidence, "1 of its executions, 10.0 %, failed for good with `code 0`");
}
