//! Campaigns that every backend goes through.

use std::sync::atomic::Ordering;
use std::time::Duration;

use recache_cache::{Condition, LEASE_FOR_DEFAULT, Policy};
use recache_faultproxy::{Chance, Counts, Cut, Ending, Flip, Lane, Plan, Proxy, Random};
use tokio::time::{Instant, sleep, timeout};

use super::figures::Phase;
use super::{Backend, Campaign, fault_for, is_long};

const OUTAGE: Duration = Duration::from_millis(1_000);

/// Writes that are held back, and how long each is watched for once it can arrive.
const LATE_WRITES: u32 = 12;
/// A fast machine has carried most of them out before they can be held back: so many must be, or as many more are tried as this.
const HELD_MIN: u32 = 2;
const LATE_WRITES_MAX: u32 = 200;
const LATE_WRITES_WATCHED: Duration = Duration::from_millis(100);

/// Calls that are given up: in the short form all together, in the long one each second.
const GIVEN_UP: u64 = 2_000;

/// The server is killed, and comes back with nothing.
pub(crate) async fn killed(backend: Backend) {
    let mut campaign = Campaign::begin(&format!("{backend:?}: killed"), backend).await;
    campaign.server.kill();
    campaign.suffer(fault_for(OUTAGE)).await;
    campaign.server.start().await.unwrap();
    campaign.caching_again().await;
    campaign.end().await.assert_latency();
}

/// The server stands still, then the network does: both ways, one way, and one way with what was said lost.
pub(crate) async fn stalled(backend: Backend) {
    let mut campaign = Campaign::begin(&format!("{backend:?}: stalled"), backend).await;
    campaign.server.freeze().await.unwrap();
    campaign.suffer(fault_for(OUTAGE) / 2).await;
    campaign.server.thaw().unwrap();
    campaign.caching_again().await;
    for plan in [
        Plan::stalled(),
        Plan::default().to_server(Lane::default().held()),
        Plan::default().to_client(Lane::default().held()),
        Plan::default().to_client(Lane::default().swallowed()),
    ] {
        campaign.plan(&plan).await;
        campaign.suffer(fault_for(OUTAGE) / 4).await;
        campaign.heal().await;
        campaign.caching_again().await;
    }
    let seen = campaign.end().await;
    seen.assert_latency();
    for proxy in seen.proxies() {
        assert!(proxy.counts().held_bytes > 0 && proxy.counts().swallowed_bytes > 0);
    }
}

/// One node is cut off from the server, the other is not.
pub(crate) async fn partitioned(backend: Backend) {
    let mut campaign = Campaign::begin(&format!("{backend:?}: one node cut off"), backend).await;
    // Leases that the node holds when it is cut off are waited for, as those of one that was killed.
    campaign.longest_max += LEASE_FOR_DEFAULT;
    sleep(Duration::from_millis(100)).await;
    campaign.proxies[0].set(Plan::partitioned()).await;
    campaign.suffer(fault_for(OUTAGE)).await;
    campaign.heal().await;
    campaign.caching_again().await;
    let seen = campaign.end().await;
    assert!(seen.proxies()[0].counts().held_bytes > 0);
}

/// Writes of a node are held back in the network at every moment of their way, the other node invalidates their keys and is
/// told that it is done, and then they arrive: nobody ever sees them.
#[expect(clippy::print_stdout, reason = "figures are for people")]
pub(crate) async fn late_writes_are_refused(backend: Backend) {
    let mut campaign = Campaign::prepare(&format!("{backend:?}: late writes"), backend.server(), backend);
    campaign.server.start().await.unwrap();
    campaign.caching_again().await;
    let [writer, other] = [0, 1].map(|node: usize| campaign.caches[node].clone());
    let policy = Policy::new(Duration::from_mins(10));
    let mut random = Random::new(campaign.proxies[0].seed());
    let (mut held, mut confirmed) = (0_u32, 0_u32);
    let mut number = 0;
    while number < LATE_WRITES || (held < HELD_MIN && number < LATE_WRITES_MAX) {
        number += 1;
        let key = writer.keys().space("late").key([format!("{number}")]);
        let set = async { writer.set(&key, number, &policy).await.is_confirmed() };
        let cut = async {
            sleep(Duration::from_micros(random.below(2_000))).await;
            campaign.proxies[0].set(Plan::default().to_server(Lane::default().held())).await;
        };
        let (was_confirmed, ()) = tokio::join!(set, cut);
        confirmed += u32::from(was_confirmed);
        held += u32::from(!was_confirmed);
        while !other.invalidate(&key).await.is_confirmed() {
            sleep(Duration::from_millis(10)).await;
        }
        campaign.heal().await;
        let began = Instant::now();
        while began.elapsed() < LATE_WRITES_WATCHED {
            assert_eq!(other.get::<u32>(&key).await, None, "write {number} came late and is served");
            assert_eq!(writer.get::<u32>(&key).await, None, "write {number} came late and is served");
            sleep(Duration::from_millis(2)).await;
        }
        // Until its breaker lets it write again.
        campaign.caching_again().await;
    }
    println!("{backend:?}: {held} writes were held back, {confirmed} were through before");
    assert!(held > 0, "nothing was held back");
}

/// Connections are reset ten times a second, first one, then any of them; then the server comes and goes.
pub(crate) async fn flapping(backend: Backend) {
    let mut campaign = Campaign::begin(&format!("{backend:?}: flapping"), backend).await;
    campaign.figures().enter(Phase::Later);
    let lasts = fault_for(OUTAGE) / 2;
    let mut random = Random::new(campaign.proxies[0].seed());
    let one = reset_for(&mut campaign, lasts, |proxy| {
        let live = proxy.connections();
        let chosen = random.below(u64::try_from(live.len()).unwrap().max(1));
        if let Some(connection) = live.get(usize::try_from(chosen).unwrap()) {
            proxy.end(*connection, Ending::Reset);
        }
    })
    .await;
    for Resets { reset, opened } in one {
        // When the first connection to a Redis is lost, the others are given up with it. Some may be on their way when the count
        // begins, and when it ends.
        assert!(opened <= 3 * reset + 4, "{opened} connections were opened for {reset} that were reset");
        assert!(!is_long() || opened <= 10 * lasts.as_secs(), "{opened} connections in {lasts:?}");
    }
    reset_for(&mut campaign, lasts, |proxy| {
        proxy.end_some(Chance::percent(30), Ending::Reset);
    })
    .await;
    campaign.caching_again().await;
    for _ in 0..3 {
        campaign.server.kill();
        campaign.suffer(Duration::from_millis(150)).await;
        campaign.server.start().await.unwrap();
        campaign.suffer(Duration::from_millis(150)).await;
    }
    campaign.caching_again().await;
    let seen = campaign.end().await;
    for proxy in seen.proxies() {
        assert!(proxy.counts().ended > 0);
    }
}

/// How many connections of a node were reset, and how many it opened meanwhile.
struct Resets {
    reset: u64,
    opened: u64,
}

/// Resets connections of each node every 100 ms, under load.
async fn reset_for(campaign: &mut Campaign, lasts: Duration, mut reset: impl FnMut(&Proxy)) -> Vec<Resets> {
    let before: Vec<_> = campaign.proxies.iter().map(Proxy::counts).collect();
    let began = Instant::now();
    while began.elapsed() < lasts {
        campaign.proxies.iter().for_each(&mut reset);
        sleep(Duration::from_millis(100)).await;
    }
    let counted = |(proxy, before): (&Proxy, Counts)| Resets {
        reset: proxy.counts().ended - before.ended,
        opened: proxy.counts().connections - before.connections,
    };
    let nodes: Vec<Resets> = campaign.proxies.iter().zip(before).map(counted).collect();
    let a_second = |count: u64| f64::from(u32::try_from(count).unwrap()) / began.elapsed().as_secs_f64();
    let rates: Vec<_> = nodes.iter().map(|node| (a_second(node.reset), a_second(node.opened))).collect();
    campaign.remark(format!("connections reset and opened a second, by node: {rates:.1?}"));
    nodes
}

/// The server is not there when the nodes start.
pub(crate) async fn away_at_the_start(backend: Backend) {
    let began = Instant::now();
    let mut campaign =
        Campaign::prepare(&format!("{backend:?}: away at the start"), backend.server(), backend);
    let started = began.elapsed();
    campaign.start_load();
    campaign.suffer(fault_for(OUTAGE)).await;
    for cache in &campaign.caches {
        let health = cache.health().await;
        assert_eq!(health.condition, Condition::Degraded, "{health:?}");
        assert!(!health.is_healthy);
    }
    campaign.server.start().await.unwrap();
    campaign.caching_again().await;
    campaign.remark(format!("server, proxies and caches made in {started:?}"));
    let seen = campaign.end().await;
    seen.assert_latency();
    assert!(started < Duration::from_secs(1), "start-up waited: {started:?}");
}

/// Answers and questions are cut off early, while the breakers still let calls through; then they come in single bytes.
pub(crate) async fn mangled(backend: Backend) {
    let mut campaign = Campaign::begin(&format!("{backend:?}: mangled"), backend).await;
    let mut random = Random::new(campaign.proxies[0].seed());
    let (began, lasts) = (Instant::now(), fault_for(OUTAGE) / 3);
    while began.elapsed() < lasts {
        let [after, later] = [random.below(200), random.below(200)].map(Cut::after_bytes);
        let plan = Plan::default()
            .to_server(Lane::default().sliced(7).cut(after.by_reset()))
            .to_client(Lane::default().sliced(3).cut(later));
        campaign.plan(&plan).await;
        sleep(Duration::from_millis(50)).await;
    }
    campaign.plan(&Plan::default().both(&Lane::default().sliced(1))).await;
    campaign.suffer(fault_for(OUTAGE) / 3).await;
    campaign.heal().await;
    campaign.caching_again().await;
    let seen = campaign.end().await;
    assert!(seen.proxies().iter().map(|proxy| proxy.counts().cuts).sum::<u64>() > 0);
}

/// Bits are flipped. A flipped removal may remove something else and be confirmed all the same, so old values may be seen;
/// wrong ones never.
pub(crate) async fn flipped(backend: Backend) {
    let mut campaign = Campaign::begin(&format!("{backend:?}: bits flipped"), backend).await;
    let lane = Lane::default().flipped(Flip::Chance(Chance::per_million(2_000)));
    for plan in [Plan::default().to_client(lane.clone()), Plan::default().both(&lane)] {
        campaign.plan(&plan).await;
        campaign.suffer(fault_for(OUTAGE) / 2).await;
    }
    campaign.heal().await;
    campaign.caching_again().await;
    let seen = campaign.over().await;
    assert_eq!(seen.figures().wrong_reads(), 0);
    for proxy in seen.proxies() {
        assert!(proxy.counts().flipped_bits > 0);
    }
}

/// Calls are given up at random moments, over a network that is slow enough for that to fall anywhere in an exchange.
pub(crate) async fn given_up(backend: Backend) {
    let mut campaign = Campaign::begin(&format!("{backend:?}: calls given up"), backend).await;
    let slow = Lane::default().delayed(Duration::from_micros(300), Duration::from_micros(300));
    campaign.plan(&Plan::default().both(&slow)).await;
    campaign.stop_load().await;
    campaign.figures().enter(Phase::Later);
    let given_up = campaign.start_impatient_load();
    let wanted = GIVEN_UP * if is_long() { fault_for(OUTAGE).as_secs() } else { 1 };
    let count = || given_up.load(Ordering::Relaxed);
    let patience = Duration::from_secs(20) + fault_for(OUTAGE) * 4;
    let enough = async {
        while count() < wanted {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(patience, enough).await.unwrap_or_else(|_| panic!("only {} calls were given up", count()));
    campaign.heal().await;
    campaign.remark(format!("{} calls given up", count()));
    campaign.caching_again().await;
    campaign.end().await;
}

/// Bytes that are put in the place of what the server holds.
pub(crate) fn spoiled(value: &[u8], others: &[u8], random: &mut Random) -> Vec<u8> {
    /// An entry as the first format wrote it.
    const OLD_FORMAT: &[u8] = include_bytes!("../../fixtures/envelope_format_1.bin");
    let mut bytes = value.to_vec();
    let length = u64::try_from(value.len()).unwrap();
    let place = usize::try_from(random.below(length)).unwrap();
    match random.below(7) {
        0 => return others.to_vec(),
        1 => bytes.truncate(place),
        2 if !bytes.is_empty() => bytes[place] ^= 1 << random.below(8),
        3 => bytes.iter_mut().for_each(|byte| *byte = u8::try_from(random.below(256)).unwrap()),
        4 => return OLD_FORMAT.to_vec(),
        5 => bytes = [value, value].concat(),
        _ => bytes = vec![b'x'; 200_000],
    }
    bytes
}
