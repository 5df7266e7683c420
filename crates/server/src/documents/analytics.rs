//! From figures to their documents.

use recache_api as api;
use recache_engine::figures::FoundBottlenecks;
use recache_model::figures::{BottlenecksRequest, Distribution, Performance, PerformanceRequest, SlowStep};

use super::records::instant;

/// How work went.
pub fn performance(request: &PerformanceRequest, found: &Performance) -> api::PerformanceReport {
    let spread = |of| spread(of);
    api::PerformanceReport {
        schema: api::PerformanceReport::SCHEMA.to_owned(),
        hours: request.hours,
        analysis_period_start: instant(found.start),
        calculated_at: instant(found.end),
        total_tasks: found.total_tasks,
        active_tasks: found.active_tasks,
        active_tasks_submitted: found.active_tasks_submitted,
        completed_tasks: found.completed_tasks,
        failed_tasks: found.failed_tasks,
        cancelled_tasks: found.cancelled_tasks,
        superseded_tasks: found.superseded_tasks,
        completion_rate: found.completion_rate,
        completion_rate_of_total: found.completion_rate_of_total,
        error_rate: found.error_rate,
        average_task_duration_seconds: spread(&found.task_duration).mean,
        average_step_duration_seconds: spread(&found.step_duration).mean,
        tasks_per_hour: found.tasks_per_hour,
        tasks_ended_per_hour: found.tasks_ended_per_hour,
        steps_per_hour: found.steps_per_hour,
        system_health_score: found.health_score,
        health_parts: found
            .health_parts
            .iter()
            .map(|part| api::HealthScorePart {
                name: part.name.clone(),
                score: part.score,
                weight: part.weight,
                good: part.good,
                whole: part.whole,
            })
            .collect(),
        task_duration_seconds: spread(&found.task_duration),
        step_duration_seconds: spread(&found.step_duration),
        queue_wait_seconds: spread(&found.queue_wait),
        trend: found
            .trend
            .iter()
            .map(|bucket| api::TrendBucket {
                start: instant(bucket.start),
                completed_tasks: bucket.completed,
                failed_tasks: bucket.failed,
                steps: bucket.steps,
            })
            .collect(),
    }
}

/// What is slow and what fails.
pub fn bottlenecks(request: &BottlenecksRequest, found: &FoundBottlenecks) -> api::BottleneckReport {
    let steps = |steps: &[SlowStep]| steps.iter().map(slow_step).collect();
    let list = &found.bottlenecks;
    api::BottleneckReport {
        schema: api::BottleneckReport::SCHEMA.to_owned(),
        hours: request.hours,
        analysis_period_start: instant(found.start),
        calculated_at: instant(found.end),
        limit: request.limit,
        min_executions: request.min_executions,
        executions: list.executions,
        slowest_steps_by_run: steps(&list.slowest_by_run),
        slowest_steps_by_wait: steps(&list.slowest_by_wait),
        slowest_steps_by_critical_share: steps(&list.slowest_by_critical_share),
        slowest_workflows: list
            .slowest_workflows
            .iter()
            .map(|one| api::SlowWorkflowEntry {
                namespace: one.namespace.clone(),
                template: one.template.clone(),
                executions: one.executions,
                error_rate: one.error_rate,
                duration_seconds: spread(&one.duration),
            })
            .collect(),
        error_hot_spots: list
            .error_hot_spots
            .iter()
            .map(|spot| api::ErrorHotSpot {
                namespace: spot.namespace.clone(),
                handler: spot.handler.clone(),
                code: spot.code.clone(),
                failures: spot.failures,
                share: spot.share,
            })
            .collect(),
        resource_use: list
            .resource_use
            .iter()
            .map(|one| api::ResourceUseEntry {
                namespace: one.namespace.clone(),
                handler: one.handler.clone(),
                executions: one.executions,
                busy_seconds: one.busy.as_secs_f64(),
                share: one.share,
                // A window is a minute long or longer.
                running_mean: one.busy.as_secs_f64() / found.end.since(found.start).as_secs_f64().max(1.0),
            })
            .collect(),
        recommendations: list
            .recommendations
            .iter()
            .map(|one| api::RecommendationEntry {
                kind: one.kind.clone(),
                subject: one.subject.clone(),
                evidence: one.evidence.clone(),
            })
            .collect(),
    }
}

fn slow_step(step: &SlowStep) -> api::SlowStepEntry {
    let named = |name: &String| (!name.is_empty()).then(|| name.clone());
    api::SlowStepEntry {
        namespace: step.namespace.clone(),
        template: named(&step.template),
        step: named(&step.step),
        handler: step.handler.clone(),
        executions: step.executions,
        error_rate: step.error_rate,
        run_seconds: spread(&step.run),
        wait_seconds: spread(&step.wait),
        critical_share: step.critical_share,
    }
}

pub(super) fn spread(of: &Distribution) -> api::DurationSpread {
    let seconds = |duration: Option<std::time::Duration>| duration.map(|duration| duration.as_secs_f64());
    api::DurationSpread {
        count: of.count,
        sum: of.sum.as_secs_f64(),
        mean: seconds(of.mean),
        p50: seconds(of.p50),
        p90: seconds(of.p90),
        p99: seconds(of.p99),
    }
}
