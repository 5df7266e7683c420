//! What cannot be asked is refused with every reason.

use recache_model::figures::{BottlenecksRequest, Filter, Kind, PerformanceRequest, Series};

fn series(kind: Kind) -> Series {
    let text = |text: &str| text.to_owned();
    let is_workflow = kind == Kind::Workflow;
    Series {
        kind,
        namespace: text("shop"),
        template: text(if kind == Kind::Job { "" } else { "order" }),
        step: text(if kind == Kind::Step { "bill" } else { "" }),
        handler: text(if is_workflow { "" } else { "work" }),
        queue: text(if is_workflow { "" } else { "mail" }),
    }
}

#[test]
fn numbers_out_of_range_are_refused_together() {
    let request =
        BottlenecksRequest { hours: 0, limit: 0, min_executions: 0, ..BottlenecksRequest::default() };
    let told: Vec<String> = request.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "`hours` is 0; it must be from 1 to 744",
            "`limit` is 0; it must be from 1 to 100",
            "`min_executions` is 0; it must be from 1 to 1000000"
        ]
    );
    let request = BottlenecksRequest {
        hours: u32::MAX,
        limit: u32::MAX,
        min_executions: 1_000_000_000_000_000_000,
        ..BottlenecksRequest::default()
    };
    assert_eq!(request.problems().len(), 3);
    assert_eq!(PerformanceRequest { hours: 745, ..PerformanceRequest::default() }.problems().len(), 1);
    assert_eq!(BottlenecksRequest::default().problems(), []);
    assert_eq!(PerformanceRequest::default().problems(), []);
}

#[test]
fn names_that_cannot_be_are_refused() {
    for name in [String::new(), "x".repeat(257), "a\0b".to_owned()] {
        let filter = Filter { queue: Some(name), ..Filter::default() };
        let problems = PerformanceRequest { filter, ..PerformanceRequest::default() }.problems();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].parameter, "queue");
    }
}

#[test]
fn filter_takes_what_matches_in_all_it_names() {
    let some = |text: &str| Some(text.to_owned());
    let [workflow, step, job] = [Kind::Workflow, Kind::Step, Kind::Job].map(series);
    let takes = |filter: &Filter| [&workflow, &step, &job].map(|series| filter.takes(series));
    assert_eq!(takes(&Filter::default()), [true, true, true]);
    assert_eq!(takes(&Filter { template: some("order"), ..Filter::default() }), [true, true, false]);
    assert_eq!(takes(&Filter { handler: some("work"), ..Filter::default() }), [false, true, true]);
    assert_eq!(
        takes(&Filter { queue: some("mail"), namespace: some("other"), ..Filter::default() }),
        [false; 3]
    );
}
