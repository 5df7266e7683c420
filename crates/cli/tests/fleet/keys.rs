//! What a node that died had begun for a request with a key.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::load::{Caller, TEMPLATE};
use crate::nodes::Fleet;
use crate::world::until;

#[tokio::test(flavor = "multi_thread")]
async fn crash_of_a_node_in_the_middle_of_a_request_keeps_its_key_for_seconds_only() {
    let Some(mut fleet) = Fleet::start().await else { return };
    let (first, second) = (fleet.nodes[0].address(), fleet.nodes[1].address());
    let template =
        TEMPLATE.replace("{ callable: echo }", "{ callable: sleep, initialization: { seconds: 600 } }");
    let put = reqwest::Client::new().put(format!("http://{first}/v1/templates"));
    let put = put.header("content-type", "application/yaml").body(template).send().await.unwrap();
    assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    // It is stored, and answered when it has ended: the request is under way when its node dies.
    let body = json!({ "template": "pair" });
    let asking = reqwest::Client::new().post(format!("http://{first}/v1/workflows"));
    let asking = asking.header("idempotency-key", "once").header("prefer", "wait=30").json(&body);
    let asking = tokio::spawn(asking.send());
    let url = format!("http://{second}/v1/workflows");
    let stored = until("it is stored", async || {
        let text = reqwest::get(&url).await.ok()?.text().await.ok()?;
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        list["workflows"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    fleet.nodes[0].kill();
    let died = Instant::now();
    assert!(asking.await.unwrap().is_err(), "it was not answered");
    let mut caller = Caller::new(vec![second], 0);
    let answer = caller.until_answered("/v1/workflows", "once", &body, &AtomicU64::new(0)).await.unwrap();
    let took = died.elapsed();
    println!("from the death of a node to the answer of another one: {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(answer.to_string().contains(&stored), "{stored}: {answer}");
    let list = reqwest::get(&url).await.unwrap().text().await.unwrap();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["workflows"].as_array().unwrap().len(), 1, "{list}");
}
