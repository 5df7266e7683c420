//! Redis fails in every way, under load. What is promised stands in `campaign/mod.rs`, the faults that are not Redis' own in
//! `campaign/scripts.rs`.

use std::time::Duration;

use recache_cache::{Coherence, LEASE_FOR_DEFAULT, Policy, Usage};
use recache_faultproxy::{Random, ServerProcess};
use tokio::time::{Instant, sleep};

use super::campaign::figures::Phase;
use super::campaign::raw::{Raw, Reply};
use super::campaign::{Backend, Campaign, all, closed_again_max, fault_for, scripts};
use super::campaigns;

/// How long Redis stays in each of its states.
const STATE: Duration = Duration::from_millis(250);

campaigns! {
    outages => [
        scripts::killed(Backend::Redis),
        scripts::away_at_the_start(Backend::Redis),
        killed_and_back_with_its_data(),
        back_from_an_old_snapshot(),
    ];
    networks => [
        scripts::stalled(Backend::Redis),
        scripts::partitioned(Backend::Redis),
        scripts::late_writes_are_refused(Backend::Redis),
        scripts::flapping(Backend::Redis),
        scripts::mangled(Backend::Redis),
        scripts::flipped(Backend::Redis),
    ];
    behind_copies => [
        scripts::killed(Backend::TieredRedis),
        scripts::stalled(Backend::TieredRedis),
        scripts::partitioned(Backend::TieredRedis),
        scripts::flapping(Backend::TieredRedis),
    ];
    callers_and_states => [
        scripts::given_up(Backend::Redis),
        in_every_state(),
        busy_with_a_script(),
        entered_while_it_refuses_writes(),
        entries_are_spoiled(),
    ];
}

/// Everything that was stored before is there again, and the server says LOADING for a while.
async fn killed_and_back_with_its_data() {
    let kept = ["--appendonly", "yes", "--appendfsync", "always", "--key-load-delay", "2000"];
    let recipe = ServerProcess::redis().args(kept);
    let mut campaign = Campaign::begin_with("Redis: killed, data kept", recipe, Backend::Redis).await;
    for _ in 0..2 {
        campaign.server.kill();
        campaign.suffer(fault_for(STATE * 4)).await;
        campaign.server.start().await.unwrap();
        campaign.caching_again().await;
    }
    campaign.end().await;
}

/// What was deleted since the snapshot was taken is there again, and the epochs are those of then.
async fn back_from_an_old_snapshot() {
    let mut campaign = Campaign::begin("Redis: back from an old snapshot", Backend::Redis).await;
    // The leases of then are there again too, and nobody holds them: callers wait for their end.
    campaign.longest_max += LEASE_FOR_DEFAULT;
    for _ in 0..2 {
        let mut raw = Raw::open(&campaign.server).await;
        assert_eq!(raw.say("SAVE").await, Reply::Text("OK".to_owned()));
        sleep(STATE).await;
        campaign.server.kill();
        campaign.suffer(fault_for(STATE)).await;
        campaign.server.start().await.unwrap();
        campaign.caching_again().await;
    }
    campaign.end().await;
}

/// A server that answers, and not what it should.
async fn in_every_state() {
    let recipe = ServerProcess::redis().args(["--enable-protected-configs", "yes"]);
    let mut campaign = Campaign::begin_with("Redis: in every state", recipe, Backend::Redis).await;
    // Where its snapshot should go there is a folder: saving fails, and then it refuses writes.
    std::fs::create_dir(campaign.server.data().join("blocked.rdb")).unwrap();
    let states: &[(&str, &[&str], &[&str])] = &[
        ("OOM", &["CONFIG SET maxmemory 1"], &["CONFIG SET maxmemory 0"]),
        ("READONLY", &["REPLICAOF 127.0.0.1 1"], &["REPLICAOF NO ONE"]),
        (
            "MISCONF",
            &["CONFIG SET save 3600_1", "CONFIG SET dbfilename blocked.rdb", "SAVE"],
            &["CONFIG SET dbfilename dump.rdb", "SAVE"],
        ),
        (
            "NOAUTH",
            &["CONFIG SET requirepass secret", "CLIENT KILL TYPE normal"],
            &["CONFIG SET requirepass "],
        ),
        ("killed clients", &["CLIENT KILL TYPE normal"], &["CLIENT KILL TYPE normal"]),
        ("killed listeners", &["CLIENT KILL TYPE pubsub"], &["CLIENT KILL TYPE pubsub"]),
        ("emptied", &["FLUSHALL"], &["FLUSHALL"]),
        ("paused", &["CLIENT PAUSE 300 ALL"], &[]),
        ("writes paused", &["CLIENT PAUSE 300 WRITE"], &[]),
    ];
    for (state, begin, end) in states {
        let mut raw = Raw::open(&campaign.server).await;
        for words in *begin {
            let reply = raw.say(words).await;
            let may_fail = *words == "SAVE";
            assert!(may_fail || !matches!(reply, Reply::Error(_)), "{state}: {words}: {reply:?}");
        }
        campaign.suffer(fault_for(STATE)).await;
        for words in *end {
            let reply = raw.say(words).await;
            assert!(!matches!(reply, Reply::Error(_)), "{state}: {words}: {reply:?}");
        }
        let began = Instant::now();
        campaign.caching_again().await;
        campaign.remark(format!("{state}: caching again after {:?}", began.elapsed()));
    }
    campaign.end().await;
}

/// Who connects to a server that takes no writes at the moment cannot see whether it keeps epochs. Then nothing is confirmed,
/// and strict usages are not served: what the others have raised cannot be known.
async fn entered_while_it_refuses_writes() {
    let mut campaign =
        Campaign::prepare("Redis: entered while it refuses writes", Backend::Redis.server(), Backend::Redis);
    campaign.server.start().await.unwrap();
    campaign.caching_again().await;
    let strict = Usage::user("strict", Coherence::Strict);
    let [one, other] = [0, 1].map(|node: usize| campaign.caches[node].for_usage(&strict));
    let (key, policy) = (one.keys().space("strict").key(["k"]), Policy::new(Duration::from_mins(10)));
    // Until it is stored: on a busy machine a call may take too long.
    while other.get::<u64>(&key).await.as_deref() != Some(&1) {
        one.set(&key, 1_u64, &policy).await;
    }
    let mut raw = Raw::open(&campaign.server).await;
    raw.say("REPLICAOF 127.0.0.1 1").await;
    raw.say("CLIENT KILL TYPE normal").await;
    // Time for the nodes to come in again, and to look around.
    sleep(STATE * 2).await;
    let token = one.invalidate_space(&key.space()).await;
    let seen = other.get::<u64>(&key).await;
    assert!(!token.is_confirmed(), "nobody could be told");
    raw.say("REPLICAOF NO ONE").await;
    campaign.caching_again().await;
    let (began, mut confirmed) = (Instant::now(), false);
    while !confirmed && began.elapsed() < closed_again_max() {
        confirmed = one.invalidate_space(&key.space()).await.is_confirmed();
        sleep(Duration::from_millis(20)).await;
    }
    assert!(confirmed, "the epochs are not found again");
    assert_eq!(other.get::<u64>(&key).await, None, "seen while it could not be told: {seen:?}");
}

/// A script that does not end: the server answers BUSY to everybody.
async fn busy_with_a_script() {
    let recipe = ServerProcess::redis().args(["--busy-reply-threshold", "20"]);
    let mut campaign = Campaign::begin_with("Redis: busy with a script", recipe, Backend::Redis).await;
    let mut script = Raw::open(&campaign.server).await;
    let running = tokio::spawn(async move { script.redis(&[b"EVAL", b"while true do end", b"0"]).await });
    campaign.suffer(fault_for(STATE * 3)).await;
    let mut raw = Raw::open(&campaign.server).await;
    assert_eq!(raw.say("SCRIPT KILL").await, Reply::Text("OK".to_owned()));
    assert!(matches!(running.await.unwrap(), Reply::Error(_)));
    campaign.caching_again().await;
    campaign.end().await.assert_latency();
}

/// Somebody writes nonsense over what the server holds, epochs and all.
async fn entries_are_spoiled() {
    let mut campaign = Campaign::begin("Redis: entries spoiled", Backend::Redis).await;
    campaign.figures().enter(Phase::Later);
    let mut random = Random::new(campaign.proxies[0].seed());
    let mut raw = Raw::open(&campaign.server).await;
    let (began, lasts) = (Instant::now(), fault_for(STATE * 6));
    let mut spoiled = 0_u64;
    let mut others = b"nothing".to_vec();
    while began.elapsed() < lasts {
        for key in raw.redis_keys().await {
            // Not leases: who writes over one holds it, until its time is over.
            if random.below(4) > 0 || key.ends_with(b"~lease") {
                continue;
            }
            let Some(value) = raw.redis_get(&key).await.filter(|value| !value.is_empty()) else {
                raw.redis(&[b"SET", &key, b"was a record"]).await;
                continue;
            };
            let bytes = scripts::spoiled(&value, &others, &mut random);
            raw.redis(&[b"SET", &key, &bytes, b"KEEPTTL"]).await;
            spoiled += 1;
            others = value;
        }
        sleep(Duration::from_millis(10)).await;
    }
    campaign.remark(format!("{spoiled} entries spoiled"));
    campaign.caching_again().await;
    let seen = campaign.end().await;
    assert!(spoiled > 20);
    assert!(seen.decode_errors() > 0, "nobody noticed");
}
