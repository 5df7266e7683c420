//! One suite for every driver: ordinary functions over a [`Subject`], one list of cases
//! ([`crate::conformance_suite`]), one factory per driver.
//!
//! Time is moved, never waited for: the subject's clock stands still between [`Subject::advance`] calls.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "a case says what it expects, and says loudly what it cannot run"
)]

pub mod access;
pub mod attempts;
pub mod batches;
pub mod build_workflows;
pub mod bulk_jobs;
pub mod cache_epochs;
pub mod chains;
pub mod event_drafts;
pub mod event_stream;
pub mod events;
pub mod figures;
pub mod handler_offers;
pub mod held_items;
pub mod jobs;
pub mod known_items;
pub mod letters;
pub mod lifecycles;
pub mod lists;
pub mod maintenance;
pub mod queues;
pub mod remote_workers;
pub mod schedules;
pub mod sessions;
pub mod submits;
pub mod testing;
pub mod traces;
pub mod tracked;
pub mod view_control;
pub mod view_patterns;
pub mod views;
pub mod workflows;

use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::SessionId;
use recache_model::time::{Clock as _, ManualClock, Timestamp};

use crate::records::{ClaimRequest, ClaimedJob, NewJob, Outcome, Settled, Settlement};
use crate::{OpenOptions, Store, open};

pub use testing::{TestDatabase, empty_postgres_database, postgres_database, sqlite_database};

/// A store under test, and the clock that it goes by.
#[derive(Debug)]
pub struct Subject {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What it takes for the present.
    pub clock: ManualClock,
    database: TestDatabase,
}

impl Subject {
    /// Opens a fresh store in `database`.
    pub async fn new(database: TestDatabase) -> Self {
        let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
        let store = open(&Self::options(&database, &clock)).await.expect("a fresh database opens");
        Self { store, clock, database }
    }

    fn options(database: &TestDatabase, clock: &ManualClock) -> OpenOptions {
        OpenOptions { clock: Some(Arc::new(clock.clone())), ..OpenOptions::new(database.url()) }
    }

    /// A second store over the same database, as another process would have it; `None` for one in memory.
    pub async fn second(&self) -> Arc<dyn Store> {
        open(&Self::options(&self.database, &self.clock)).await.expect("a second connection opens")
    }

    /// A second store over the same database, whose clock is behind by `by`.
    pub async fn second_behind(&self, by: Duration) -> Arc<dyn Store> {
        let clock = ManualClock::at(self.clock.now().minus(by));
        open(&Self::options(&self.database, &clock)).await.expect("a second connection opens")
    }

    /// Changes the tables behind the store's back, as somebody's hand would.
    pub async fn tamper(&self, sql: &'static str) {
        self.database.tamper(sql).await;
    }

    /// Moves time.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Opens a session with a lease of ten seconds.
    pub async fn session(&self) -> SessionId {
        let session = SessionId::make();
        self.store.session_open(session, "test", Duration::from_secs(10)).await.expect("a session opens");
        session
    }

    /// Claims up to `rows_max` jobs of queue `default` and handlers `work` and `build`, for a session that beats.
    pub async fn claim(&self, session: SessionId, rows_max: usize) -> Vec<ClaimedJob> {
        let lease = Duration::from_secs(10);
        self.store.session_beat(session, lease, Vec::new()).await.expect("a beat is answered");
        self.claim_without_beat(session, rows_max).await
    }

    /// Claims likewise, but for a session that may have been silent.
    pub async fn claim_without_beat(&self, session: SessionId, rows_max: usize) -> Vec<ClaimedJob> {
        let request = ClaimRequest {
            session,
            queues: vec!["default".to_owned()],
            handlers: vec!["work".to_owned(), "build".to_owned()],
            rows_max,
        };
        self.store.jobs_dispatch(Vec::new(), Some(request)).await.expect("a claim is answered").claimed
    }

    /// Claims the one job that is there.
    pub async fn claim_one(&self, session: SessionId) -> ClaimedJob {
        let mut claimed = self.claim(session, 2).await;
        assert_eq!(claimed.len(), 1, "exactly one job is claimable");
        claimed.remove(0)
    }

    /// Settles one attempt.
    pub async fn settle(&self, job: &ClaimedJob, outcome: Outcome) -> Settled {
        let settlement = Settlement::of(job, outcome);
        self.store.jobs_dispatch(vec![settlement], None).await.expect("a settlement is answered").settled[0]
    }

    /// Checks what holds at every moment: history is dense, starts in the submitted state and ends in the present one, every
    /// step in it is in the table of transitions, a workflow's counts are those of its steps and a batch's those of its members.
    pub async fn assert_sound(&self) {
        let jobs = self
            .store
            .jobs_list(crate::JobFilter { rows_max: 10_000, ..crate::JobFilter::default() })
            .await
            .expect("jobs are listed")
            .jobs;
        let mut workflows = std::collections::HashMap::new();
        for job in jobs {
            let history = self.store.job_history(job.id).await.expect("history is read");
            let seqs: Vec<i64> = history.iter().map(|row| row.seq).collect();
            assert_eq!(seqs, (1..=job.transitions).collect::<Vec<_>>(), "history of {} is dense", job.id);
            for pair in history.windows(2) {
                assert_eq!(pair[0].to, pair[1].from, "history of {} has no gap", job.id);
            }
            for row in &history {
                let legal = recache_model::job::JobState::TRANSITIONS
                    .iter()
                    .any(|(from, _, to)| *from == row.from && *to == row.to);
                assert!(legal, "{} went from {} to {}", job.id, row.from, row.to);
            }
            if let Some(last) = history.last() {
                assert_eq!(last.to, job.state, "history of {} ends where it stands", job.id);
            }
            if let Some(workflow) = job.workflow {
                workflows
                    .entry(workflow)
                    .or_insert_with(recache_model::workflow::StepCounts::default)
                    .add(job.kind.counted(job.state), 1);
            }
        }
        let compared =
            self.store.batches().batches_compare(None, 10_000).await.expect("batches are compared");
        assert!(compared.differences.is_empty(), "counts of batches: {:?}", compared.differences);
        for (workflow, counts) in workflows {
            let record = self.store.workflow_get(workflow).await.expect("the workflow is there");
            assert_eq!(record.counts, counts, "counts of {workflow}");
            assert_eq!(record.state, counts.state(), "state of {workflow}");
            assert_ne!(
                (counts.blocked > 0, counts.active, counts.failed, counts.cancelled),
                (true, 0, 0, 0),
                "{workflow} waits for nothing"
            );
        }
    }
}

/// A job for handler `work`.
pub fn work() -> NewJob {
    NewJob::new("work", "{\"n\":1}")
}

/// Expands the one list of cases into named tests. `$factory` is an `async fn() -> Option<TestDatabase>`.
#[macro_export]
macro_rules! conformance_suite {
    ($factory:path) => {
        $crate::conformance_cases! { $factory,
            jobs: [
                submitted_job_is_there_as_submitted,
                same_id_submitted_twice_is_one_job,
                submit_stores_all_or_none,
                claim_goes_by_priority_then_due_time_then_id,
                claim_takes_only_named_queues_and_handlers,
                claim_merges_queues_by_priority,
                delayed_job_is_not_claimed_before_it_is_due,
                no_job_is_given_to_two_claims,
                completed_job_keeps_its_output_and_history,
                failed_job_keeps_its_error,
                retried_job_comes_back_when_it_is_due,
                released_job_comes_back_at_once_and_does_not_count,
                repeated_settlement_gets_the_same_answer_and_no_new_row,
                settlement_with_a_foreign_token_is_refused,
                settlement_of_a_cancelled_job_is_refused,
                settlements_and_claim_share_one_call,
                cancelled_job_stays_cancelled,
                cancel_of_an_unknown_job_is_an_error,
                operator_retry_runs_a_failed_job_again,
                operator_retry_of_another_state_is_a_conflict,
                progress_needs_a_good_token_and_a_fraction,
                concurrent_claims_never_overlap,
                hints_follow_a_submit,
                text_of_any_kind_comes_back_unchanged,
            ],
            lists: [
                jobs_are_listed_newest_first_by_page,
                lists_hold_what_their_filter_says,
                page_that_passes_too_many_others_ends_early_and_is_gone_on_from,
            ],
            submits: [
                repeated_idempotency_key_finds_the_first_job,
                idempotency_key_with_another_body_is_a_conflict_and_stores_nothing,
                idempotency_key_is_forgotten_after_seven_days,
                concurrent_submits_of_one_idempotency_key_are_one_job,
                second_job_of_a_unique_key_is_refused_where_the_rule_says_so,
                second_job_of_a_unique_key_finds_the_first,
                queued_job_takes_over_what_its_replacement_says,
                unique_key_is_free_once_its_job_has_ended,
                unique_key_may_outlast_the_end_of_its_job,
                unique_key_holds_for_its_period,
                retry_into_a_taken_unique_key_is_a_conflict,
                concurrent_submits_of_one_unique_key_are_one_job,
                keys_that_cannot_be_are_refused,
                schema_version_is_that_of_the_last_migration,
            ],
            queues: [
                paused_queue_gives_nothing_until_it_is_resumed,
                pause_ends_by_itself_at_its_time,
                pause_needs_a_word_and_an_end_in_the_future,
                queue_gives_no_more_than_may_run_at_once,
                handler_gives_no_more_than_may_run_at_once,
                one_job_of_a_concurrency_key_runs_at_a_time,
                concurrency_key_may_be_allowed_more,
                backlog_of_one_key_does_not_hide_the_others,
                rate_holds_over_any_stretch_of_time,
                slot_of_a_dead_worker_is_free_again,
                concurrent_claims_keep_every_limit,
                concurrent_claims_run_one_job_of_a_key,
                limits_leave_other_work_in_order,
                queues_and_limits_are_listed,
                limit_that_cannot_be_is_refused,
            ],
            letters: [
                failed_job_leaves_a_letter_with_its_attempts,
                redriven_letters_put_their_jobs_back_to_the_queue,
                letter_whose_unique_key_is_taken_is_skipped,
                letter_is_investigated_noted_and_discarded,
                retry_of_the_job_closes_its_letter,
                resolved_job_is_settled_by_an_operator,
                resolved_step_counts_as_done,
            ],
            figures: [
                steps_of_ended_workflows_are_summed_up_by_name,
                newest_workflows_of_the_asked_version_come_first,
                folded_minutes_are_what_counting_finds,
                only_what_a_handler_ran_counts_as_run,
                steps_that_no_handler_ran_are_not_counted,
                longest_child_counts_for_the_step_that_was_split,
                folding_again_counts_nothing_twice_and_what_came_late_too,
                minutes_with_too_much_for_one_fold_are_folded_one_by_one,
                series_that_are_too_many_are_folded_as_one,
                minutes_of_a_window_are_merged_as_far_as_is_asked,
                only_the_leader_folds,
                active_work_is_counted_by_filter,
                old_minutes_are_removed,
                mark_of_a_workflow_follows_every_change_of_its_steps,
                ended_workflows_of_a_template_are_counted_up_to_a_limit,
            ],
            handler_offers: [
                offer_of_a_worker_goes_with_its_session,
                later_offer_takes_the_place_of_the_former,
                remote_workers_are_among_the_workers,
                views_and_schedules_are_counted_by_handler,
            ],
            lifecycles: [
                step_that_waits_too_long_for_others_fails_and_can_be_retried_behind_them,
                limit_that_only_tells_leaves_a_letter_and_the_step_goes_on,
                letter_of_a_limit_says_what_a_later_failure_says,
                step_that_waits_too_long_for_its_next_attempt_fails,
                running_step_that_is_at_work_too_long_is_taken_away_and_fails,
                attempt_without_a_checkpoint_is_made_again_and_one_that_keeps_some_stays,
                workflow_that_takes_too_long_fails_with_all_that_moves,
                split_step_that_takes_too_long_fails_by_its_runs,
                split_step_behind_a_failed_run_is_left_alone,
                limit_without_consequences_is_shown,
                limit_is_found_once_whoever_judges,
                steps_without_limits_are_never_looked_at,
            ],
            maintenance: [
                one_process_leads_at_a_time,
                work_of_a_former_leader_is_refused,
                sessions_are_counted_with_the_most_silent,
                ended_jobs_are_removed_when_their_time_is_over,
                job_of_a_removed_ones_id_begins_anew,
                failed_job_stays_while_its_letter_is_open,
                ended_workflow_is_removed_with_its_steps,
                counts_of_workflows_are_compared_with_their_steps,
                rate_that_nobody_uses_is_forgotten,
            ],
            schedules: [
                tick_that_is_due_makes_one_job,
                tick_begins_a_trace_where_that_is_wanted,
                no_tick_leads_to_two_jobs,
                overlap_is_as_the_policy_says,
                missed_ticks_are_caught_up_as_the_policy_says,
                paused_schedule_rests_until_it_is_resumed,
                schedule_is_run_at_once_when_asked,
                schedules_are_listed_changed_and_deleted,
                schedule_that_cannot_be_is_refused,
                old_ticks_are_forgotten,
            ],
            traces: [
                callback_goes_on_in_the_trace_of_its_batch_and_is_tied_to_its_members,
                build_belongs_to_the_traces_of_the_touches_that_it_answers,
                build_of_a_derived_view_goes_on_in_the_trace_of_the_one_above,
            ],
            tracked: [
                tracked_job_is_created_once,
                tracked_job_moves_forward_as_its_owner_reports,
                late_or_repeated_report_is_answered_with_what_stands,
                report_for_an_unknown_job_is_an_error_and_changes_nothing,
                concurrent_reports_end_a_job_once,
                silent_job_fails_and_says_why,
                jobs_are_not_given_up_for_an_outage_of_the_database,
                end_of_a_job_is_acknowledged_once,
                tracked_jobs_are_found_by_context,
                tracked_job_that_cannot_be_is_refused,
                no_worker_gets_a_tracked_job,
                ended_tracked_jobs_are_removed_when_their_time_is_over,
            ],
            batches: [
                batch_is_created_once,
                counts_follow_every_member,
                member_that_goes_on_is_pending,
                closed_batch_takes_no_more,
                batch_with_a_total_closes_itself,
                end_of_a_batch_calls_back_once,
                first_failure_calls_back_while_the_batch_goes_on,
                moments_of_a_batch_are_events_and_each_is_told_once,
                failed_members_are_listed_with_their_errors,
                end_of_an_inner_batch_counts_in_the_outer_one,
                cancelled_batch_calls_off_its_members,
                retried_batch_goes_on,
                batch_that_waits_for_somebody_is_found,
                concurrent_writers_are_counted_exactly,
                counts_of_batches_are_compared_with_their_members,
                ended_batch_is_removed_after_its_members,
                batch_that_cannot_be_is_refused,
            ],
            attempts: [
                checkpoint_reaches_the_next_attempt,
                checkpoint_reaches_a_job_with_a_concurrency_key,
                checkpoint_that_is_too_large_is_refused,
                log_keeps_the_newest_lines,
                snoozed_job_comes_back_later_with_its_attempts_unused,
                log_is_removed_with_its_job,
            ],
            access: [
                api_key_is_kept_used_and_revoked,
                api_key_is_good_until_it_expires,
                audit_tells_what_was_done_and_what_was_only_begun,
                request_with_a_key_is_carried_out_once,
                request_of_a_dead_process_is_carried_out_again_with_its_seed,
                request_that_is_held_again_stays_with_its_process,
                concurrent_requests_of_one_key_are_one,
                queued_job_is_moved_in_time_and_order,
            ],
            bulk_jobs: [
                jobs_of_a_filter_are_cancelled_in_batches,
                failed_jobs_of_a_filter_are_retried,
                ended_jobs_of_a_filter_are_deleted,
                change_that_makes_no_sense_is_refused,
            ],
            sessions: [
                beating_session_keeps_its_jobs,
                expired_lease_returns_job_to_queue,
                expired_lease_without_attempts_left_fails_the_job,
                outcome_of_an_outage_longer_than_the_lease_is_kept_if_nobody_took_over,
                beat_names_what_was_lost,
                closed_session_hands_its_jobs_back,
                swept_session_is_unknown_to_its_beat,
                sweep_tells_when_the_next_lease_ends,
                session_that_is_not_alive_claims_nothing,
                job_never_ends_before_it_began,
                two_processes_see_each_others_jobs,
                job_that_its_session_does_not_know_is_handed_back,
            ],
            remote_workers: [
                remote_worker_is_known_until_its_session_ends,
                session_gets_only_jobs_of_its_namespaces,
                job_that_its_worker_does_not_name_is_taken_away,
                jobs_are_found_by_session_and_by_token,
                attempt_that_is_ended_by_force_voids_its_token,
                numbered_lines_are_kept_once,
                sum_of_a_build_names_what_would_be_gone,
            ],
            workflows: [
                steps_run_in_the_order_of_their_dependencies,
                outputs_reach_the_steps_that_waited_for_them,
                failed_step_fails_the_workflow_and_retry_revives_it,
                workflow_goes_on_beside_a_failed_step,
                cancelled_workflow_stops_everything,
                same_template_version_with_other_content_is_refused,
                newest_template_goes_by_precedence_of_versions,
                templates_are_listed_by_name_and_newest_version,
                same_workflow_submitted_twice_is_one,
                diamond_settled_at_once_unblocks_its_end_once,
                step_is_announced_where_it_was_not_claimed_with_the_end_before,
            ],
            views: [
                touch_raises_the_version_and_waits_for_the_debounce,
                unknown_view_is_an_error_and_changes_nothing,
                touches_of_a_queued_build_make_no_second_one,
                touch_supersedes_the_running_build_at_once,
                late_items_and_publication_of_a_superseded_build_are_refused,
                published_generation_is_what_the_build_put,
                unchanged_items_cost_no_row_and_removed_ones_disappear,
                what_a_superseded_build_made_is_offered_to_its_successor,
                reused_items_are_published_and_forgotten_ones_are_not,
                readers_stay_on_their_generation_until_it_is_removed,
                history_of_generations_is_bounded_and_what_is_kept_can_be_taken_back,
                failed_build_leaves_the_live_version,
                lost_build_is_built_again,
                policy_finish_publishes_then_builds_again,
                touched_items_reach_the_build,
                many_touches_together_do_what_they_would_one_by_one,
                repeated_publication_gets_the_same_answer,
                two_live_builds_of_a_view_cannot_exist,
                cancelled_build_is_visible_and_the_view_recovers,
                redefined_view_keeps_its_versions,
                waiting_build_is_made_as_its_view_is_defined_now,
                generations_are_kept_as_long_as_their_view_says,
                build_of_a_silent_worker_is_left_alone_as_long_as_its_view_says,
                views_of_a_pattern_are_built_so_many_at_once,
                views_are_listed_by_page,
                items_are_listed_page_by_page_on_one_generation,
                touches_asked_for_from_sql_are_carried_out,
                request_that_makes_no_sense_keeps_no_other_waiting,
            ],
            view_control: [
                no_build_begins_while_a_view_is_paused,
                build_that_waits_is_called_off_by_a_pause_and_one_that_runs_is_not,
                older_generation_is_live_again_as_a_newer_version,
                what_was_restored_counts_as_touched_for_the_next_build,
                restoring_ends_the_build_that_runs,
                only_a_kept_generation_that_is_not_live_is_restored,
                generations_are_compared_item_by_item_and_page_by_page,
                builds_of_a_view_are_listed_newest_first,
                what_is_used_of_a_superseded_build_is_what_it_made_itself,
                deleted_view_is_gone_and_its_name_is_free,
                view_that_others_are_made_from_is_not_deleted,
                last_touch_says_who_and_why,
                view_without_a_proper_name_is_refused,
            ],
            view_patterns: [
                item_that_does_not_fit_is_refused_with_every_reason,
                schema_that_cannot_be_used_is_refused,
                pattern_covers_every_key_and_the_first_touch_makes_the_view,
                changed_pattern_changes_the_views_made_from_it,
                touch_by_pattern_touches_every_view_that_matches,
                key_with_a_star_is_a_pattern,
            ],
            build_workflows: [
                workflow_builds_and_what_its_steps_put_is_published_when_it_has_ended,
                steps_keep_take_over_and_drop_what_they_do_not_put,
                superseded_workflow_ends_as_a_whole_and_writes_nothing_any_more,
                workflow_of_an_earlier_attempt_has_no_say_in_the_next,
                an_item_is_one_steps_and_the_last_attempt_says_which,
                build_of_a_dead_engine_is_begun_again_by_another,
                build_that_is_called_off_takes_its_workflow_with_it,
                build_that_waits_follows_its_views_definition,
                what_no_workflow_can_build_is_refused,
            ],
            held_items: [
                values_are_not_in_the_store_and_their_digests_are,
                lost_value_touches_its_view_once_and_is_not_taken_over,
                staged_value_that_is_gone_is_staged_no_longer,
                where_values_are_kept_is_refused_or_followed,
            ],
            known_items: [
                live_items_are_told_page_by_page_in_the_order_of_their_bytes,
            ],
            chains: [
                publication_touches_the_views_below,
                removed_item_touches_the_views_below,
                circle_of_views_is_refused,
            ],
            events: [
                step_publishes_what_its_end_says,
                settlement_that_is_refused_publishes_nothing,
                step_of_a_dead_worker_publishes_too,
                payload_that_does_not_fit_is_kept_back,
                event_reaches_each_who_asked_for_it_once,
                state_changes_are_written_while_somebody_asks,
                delivery_of_a_dead_sender_is_made_again,
                failing_subscriber_rests_and_is_tried_with_one,
                dead_delivery_is_made_once_more_when_asked,
                events_and_deliveries_are_listed_page_by_page,
                subscriber_that_is_gone_stays_gone,
                what_is_for_a_paused_subscriber_waits,
                rotated_secret_signs_beside_the_former_for_a_time,
                old_events_and_deliveries_are_removed,
                subscriber_is_removed_with_its_deliveries,
                subscriber_that_cannot_be_is_refused,
            ],
            event_drafts: [
                draft_becomes_the_event_once_and_is_told_only_then,
                whoever_ends_a_step_writes_its_drafts,
                draft_of_a_dead_maker_is_made_by_another,
                made_payload_that_does_not_fit_is_kept_back,
                tries_are_counted_and_come_to_an_end,
                fast_event_is_told_where_it_is_made_and_not_kept,
                large_result_stays_with_its_job,
                what_waits_too_long_is_kept_back,
            ],
            event_stream: [
                events_are_read_on_from_any_place,
                events_handed_on_at_once_have_one_place_each,
                changes_are_written_for_whoever_listens_and_a_gap_is_told,
                removed_events_are_told_of,
                listener_that_cannot_be_is_refused,
            ],
            cache_epochs: [
                record_is_made_once,
                unchanged_record_is_not_given_again,
                reader_gets_what_was_raised_since_he_looked,
                raises_at_once_are_all_counted,
                records_of_prefixes_are_apart,
                record_that_went_back_becomes_another_incarnation,
                raise_is_heard_where_the_database_carries_hints,
                new_template_raises_in_its_own_transaction,
                what_is_no_slot_or_prefix_is_refused,
            ],
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($factory:path, $($module:ident: [$($case:ident),* $(,)?]),* $(,)?) => {
        $(mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(database) = $factory().await {
                    let subject = $crate::conformance::Subject::new(database).await;
                    $crate::conformance::$module::$case(&subject).await;
                    subject.assert_sound().await;
                    subject.store.close().await;
                }
            })*
        })*
    };
}
