//! The list of cases, and what it expands to: one named test for each, and one that prints the table of them.

/// `conformance!(module_name, factory)`, where `factory` is an `async |prefix: String| -> World`.
///
/// `conformance!(table_only module_name, setup, factory)` makes one test of all, for a backend that takes long to start:
/// `factory` gets what `setup` came to, too.
macro_rules! conformance {
    ($provider:ident, $factory:expr) => {
        $crate::conformance::conformance! { @cases [each $provider, $factory] }
    };
    (table_only $provider:ident, $setup:expr, $factory:expr) => {
        $crate::conformance::conformance! { @cases [table $provider, $setup, $factory] }
    };
    (@cases $how:tt) => {
        $crate::conformance::conformance! { @list $how
            missing_key_is_absent,
            provider_that_retains_nothing_gives_nothing,
            stored_bytes_come_back_unchanged,
            set_replaces_the_entry,
            entry_ends_with_its_keep_for,
            replaced_entry_lives_by_its_own_keep_for,
            very_long_keep_for_is_accepted,
            delete_removes_one_key,
            delete_removes_many_keys,
            deleting_a_missing_key_succeeds,
            longest_key_is_accepted,
            keys_that_look_alike_are_apart,
            get_many_answers_in_order_with_gaps,
            get_many_sees_the_end_of_keep_for,
            set_many_stores_all,
            empty_batches_succeed,
            clearing_a_space_leaves_other_spaces,
            clearing_a_prefix_leaves_other_prefixes,
            entry_set_after_clear_stays,
            dropped_calls_leave_the_provider_usable,
            peek_never_differs_from_get,
            forgetting_drops_no_more_than_the_copies_in_this_process,
            copy_that_was_forgotten_since_its_mark_is_not_kept,
            shared_reach_sees_what_another_process_wrote,
            it_is_healthy,
            accessors_and_capabilities_agree,

            replace_stores_only_over_what_was_seen,
            replaced_value_lives_by_its_own_keep_for,
            of_many_replacements_of_one_value_one_succeeds,

            lease_is_granted_to_one_of_many_at_once,
            lease_holder_stores_and_the_lease_ends,
            taker_is_given_what_was_stored_meanwhile,
            set_voids_a_lease,
            set_many_voids_leases,
            delete_voids_a_lease,
            clear_voids_a_lease,
            replace_leaves_nothing_old_behind_a_lease,
            write_beside_one_that_is_given_up_leaves_nothing_old,
            lease_ends_with_its_time,
            lease_of_another_holder_survives_a_late_fill_and_release,
            released_lease_lets_the_next_in,
            leases_of_different_keys_are_apart,
            filled_value_lives_by_its_keep_for,
            waiter_is_woken_when_a_lease_ends,

            epoch_record_is_made_once,
            unchanged_epoch_record_is_not_given_again,
            raise_reaches_its_slots_and_no_other,
            raises_at_once_are_all_counted,
            every_slot_can_be_raised,
            clear_leaves_the_epoch_record,
            epoch_records_of_prefixes_are_apart,

            adds_at_once_are_all_counted,
            added_number_can_be_read_and_ends_with_its_keep_for,
            compare_and_swap_swaps_only_what_is_expected,
            swaps_at_once_lose_nothing,

            listener_hears_a_gap_first_and_then_everything_in_order,
            every_listener_of_a_channel_hears_and_no_other,
            listener_that_is_too_slow_is_told_of_a_gap,
        }
    };
    (@list [table $provider:ident, $setup:expr, $factory:expr] $($case:ident,)*) => {
        mod $provider {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn table() {
                let shared = std::sync::Arc::new($setup.await);
                let factory = $factory;
                let mut cells = Vec::new();
                $(
                    let world = factory(std::sync::Arc::clone(&shared), $crate::conformance::prefix()).await;
                    cells.push((stringify!($case), tokio::spawn(async move {
                        $crate::conformance::$case(&world).await;
                        world.cell()
                    })));
                )*
                $crate::conformance::print_table(stringify!($provider), cells).await;
            }

            #[allow(unused_imports, reason = "what the factory needs")]
            use super::*;
        }
    };
    (@list [each $provider:ident, $factory:expr] $($case:ident,)*) => {
        mod $provider {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let factory = $factory;
                    let world = factory($crate::conformance::prefix()).await;
                    $crate::conformance::$case(&world).await;
                }
            )*

            /// Runs all of it once more, to print what passes and what is declared unsupported.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn table() {
                let factory = $factory;
                let mut cells = Vec::new();
                $(
                    let world = factory($crate::conformance::prefix()).await;
                    cells.push((stringify!($case), tokio::spawn(async move {
                        $crate::conformance::$case(&world).await;
                        world.cell()
                    })));
                )*
                $crate::conformance::print_table(stringify!($provider), cells).await;
            }

            #[allow(unused_imports, reason = "what the factory needs")]
            use super::*;
        }
    };
}
pub(crate) use conformance;
