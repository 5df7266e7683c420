//! Nodes that die and nodes that stand still.

use std::time::Duration;

use crate::check::{check, hand_overs};
use crate::load::{Load, TEMPLATE};
use crate::nodes::{Fleet, LEASE, SWEEP, cache_is_active};
use crate::rounds;
use crate::world::{Process, until, worker};

/// What the machine may add: other programs want both cores, and the processes that look are among those that are tried.
const SLACK: Duration = Duration::from_millis(1_500);

/// The template, and two workers that know all nodes. `None` where Python is missing.
pub(crate) async fn prepare(fleet: &Fleet) -> Option<Vec<Process>> {
    let first = fleet.nodes[0].address();
    let put = reqwest::Client::new().put(format!("http://{first}/v1/templates"));
    let put = put.header("content-type", "application/yaml").body(TEMPLATE).send().await.unwrap();
    assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    let workers = vec![worker("worker.py", &fleet.addresses())?, worker("worker.py", &fleet.addresses())?];
    for node in &fleet.nodes {
        cache_is_active(node.address()).await;
    }
    let url = format!("http://{first}/v1/workers");
    until("both workers are there", async || {
        let listed: serde_json::Value = reqwest::get(&url).await.ok()?.json().await.ok()?;
        let remote = listed["workers"].as_array()?.iter().filter(|worker| worker["is_remote"] == true);
        (remote.count() >= 2).then_some(())
    })
    .await;
    Some(workers)
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_of_each_node_in_turn_loses_and_doubles_nothing() {
    let Some(mut fleet) = Fleet::start().await else { return };
    let Some(_workers) = prepare(&fleet).await else { return };
    let load = Load::start(&fleet.addresses());
    let mut faults = Vec::new();
    for place in (0..fleet.nodes.len()).cycle().take(fleet.nodes.len() * usize::try_from(rounds()).unwrap()) {
        tokio::time::sleep(Duration::from_millis(800)).await;
        faults.push(jiff::Timestamp::now());
        fleet.nodes[place].kill();
        tokio::time::sleep(LEASE + SWEEP).await;
        fleet.nodes[place].start().await.unwrap();
    }
    let seen = load.end().await;
    let taken_away = check(fleet.nodes[0].address(), &seen, &fleet.complaints()).await;
    judge("kill -9", &hand_overs(&faults, &taken_away));
}

/// A node that wakes has lost what it ran, and changes nothing that others did meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_nodes_lose_and_double_nothing_and_their_jobs_go_on_elsewhere() {
    let Some(fleet) = Fleet::start().await else { return };
    let Some(_workers) = prepare(&fleet).await else { return };
    let load = Load::start(&fleet.addresses());
    let mut faults = Vec::new();
    for place in (0..fleet.nodes.len()).cycle().take(fleet.nodes.len() * usize::try_from(rounds()).unwrap()) {
        tokio::time::sleep(Duration::from_millis(800)).await;
        faults.push(jiff::Timestamp::now());
        fleet.nodes[place].freeze().await.unwrap();
        tokio::time::sleep(LEASE + SWEEP * 3).await;
        fleet.nodes[place].thaw().unwrap();
    }
    let seen = load.end().await;
    let taken_away = check(fleet.nodes[0].address(), &seen, &fleet.complaints()).await;
    judge("SIGSTOP", &hand_overs(&faults, &taken_away));
}

/// They are taken away when the lease has passed; when they run again depends on who is free.
fn judge(fault: &str, hand_overs: &[(Duration, Duration)]) {
    assert!(!hand_overs.is_empty(), "nothing ran where the fault was");
    let taken_away = hand_overs.iter().map(|(taken_away, _)| *taken_away).max().unwrap();
    let run_again = hand_overs.iter().map(|(_, runs_again)| *runs_again).max().unwrap();
    let count = hand_overs.len();
    println!(
        "{fault}: {count} attempts taken away after {taken_away:?} at most, running again after {run_again:?} at most"
    );
    assert!(taken_away <= LEASE + SLACK, "{hand_overs:?}");
}
