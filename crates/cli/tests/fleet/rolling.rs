//! One node after the other is told to end, and started again.

use std::time::Duration;

use crate::check::check;
use crate::faults::prepare;
use crate::load::Load;
use crate::nodes::Fleet;
use crate::rounds;

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restart_under_load_is_seen_by_no_client_and_costs_no_attempt() {
    let Some(mut fleet) = Fleet::start().await else { return };
    let Some(workers) = prepare(&fleet).await else { return };
    let load = Load::start(&fleet.addresses());
    for place in (0..fleet.nodes.len()).cycle().take(fleet.nodes.len() * usize::try_from(rounds()).unwrap()) {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let status = fleet.nodes[place].terminate().await.unwrap().expect("it ends when it is told to");
        assert!(status.success(), "it ends well: {status}");
        fleet.nodes[place].start().await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let seen = load.end().await;
    let taken_away = check(fleet.nodes[0].address(), &seen, &fleet.complaints()).await;
    assert!(taken_away.is_empty(), "what a node had was ended or handed back: {taken_away:?}");
    for worker in workers {
        worker.signal("TERM");
        assert_eq!(worker.ended().await, Some(0));
    }
}
