//! How work went, what is slow, what fails, and where figures come from.

use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_are_those_of_the_rows() {
    let world = World::sqlite().await;
    // The program's clock is the machine's: what ended long ago is in no window.
    let found = world.run(&["analytics", "performance", "-o", "json"]).json();
    assert_eq!((&found["completed_tasks"], &found["completion_rate"]), (&0.into(), &().into()));
    assert_eq!((&found["active_tasks"], &found["total_tasks"]), (&2.into(), &2.into()));
    for field in [
        "failed_tasks",
        "error_rate",
        "average_task_duration_seconds",
        "average_step_duration_seconds",
        "tasks_per_hour",
        "steps_per_hour",
        "system_health_score",
        "analysis_period_start",
        "calculated_at",
    ] {
        assert!(found.get(field).is_some(), "{field}");
    }
    let text = world.run(&["analytics", "performance"]).expect(0);
    assert!(text.contains("2 ended or active, 2 active"), "{text}");
    let told = world.run(&["analytics", "bottlenecks"]);
    assert_eq!((told.code, told.out.as_str()), (0, ""));
    assert!(told.err.contains("nothing ended in the window"), "{}", told.err);
    let found = world.run(&["analytics", "explain", "total_tasks", "-o", "json"]).json();
    assert_eq!((&found["value"], &found["exact_value"]), (&2.0.into(), &2.0.into()));
    assert!(found["formula"].as_str().is_some_and(|formula| formula.contains("active_tasks")));
    let text = world.run(&["analytics", "explain", "completion_rate"]).expect(0);
    assert!(text.contains("completed_tasks / (completed_tasks + failed_tasks"), "{text}");
    for (figure, formula, inputs) in [
        (
            "average_step_duration_seconds",
            "sum of",
            &["sum of finished_at - started_at", "steps that began"][..],
        ),
        ("system_health_score", "sum of weight * score", &["tasks_succeed good", "steps_wait_little weight"]),
    ] {
        let text = world.run(&["analytics", "explain", figure]).expect(0);
        for told in [formula].iter().chain(inputs) {
            assert!(text.contains(told), "{told}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_asked_is_refused_with_the_reason() {
    let world = World::sqlite().await;
    let before = world.rows().await;
    let performance = |hours: &str| world.run(&["analytics", "performance", "--hours", hours]);
    performance("0").refused(2, &["`hours` is 0; it must be from 1 to 744"]);
    performance("4294967295").refused(2, &["`hours` is 4294967295"]);
    for hours in ["-1", "1000000000000000000", "day", "1; DROP TABLE jobs"] {
        performance(hours).refused(2, &["--hours"]);
    }
    let bottlenecks = |more: &[&str]| world.run(&[&["analytics", "bottlenecks"], more].concat());
    bottlenecks(&["--limit", "-1"]).refused(2, &["--limit"]);
    bottlenecks(&["--limit", "0", "--min-executions", "1000000000000000000"])
        .refused(2, &["`limit` is 0", "`min_executions` is 1000000000000000000"]);
    bottlenecks(&["--namespace", ""]).refused(2, &["`namespace` must have 1 to 256 bytes"]);
    // Text of SQL is a name like any other.
    bottlenecks(&["--queue", "'; DROP TABLE jobs; --"]).expect(0);
    world.run(&["analytics", "explain", "tasks"]).refused(2, &["completion_rate"]);
    assert_eq!(world.rows().await, before);
}
