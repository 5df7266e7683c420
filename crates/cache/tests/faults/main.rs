//! The cache under faults: servers that are killed, frozen, cut off, full, emptied or spoiled, networks that hold, lose, cut and
//! change what passes, and callers who go away. `cargo xtask faults` runs the same for longer, with figures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]
#![cfg_attr(
    not(all(feature = "cache-redis", feature = "cache-memcached")),
    allow(dead_code, unused_imports, unused_macros, reason = "one backend needs only its part")
)]

mod campaign;
#[cfg(feature = "cache-memcached")]
mod memcached;
#[cfg(feature = "cache-redis")]
mod redis;

/// Makes tests of campaigns: the name of the test, and what runs in it; see [`campaign::all`].
macro_rules! campaigns {
    ($($test:ident => [$($campaign:expr),* $(,)?];)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                all(vec![$((stringify!($campaign), Box::pin($campaign))),*]).await;
            }
        )*
    };
}
pub(crate) use campaigns;

/// The register itself: it must turn red where nodes really do not hear of each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_share_nothing_are_found_out() {
    let campaign = campaign::Campaign::begin("nothing shared", campaign::Backend::Moka).await;
    let seen = campaign.over().await;
    assert!(seen.figures().broken_reads() > 0);
}
