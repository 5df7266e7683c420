//! Messages: in order for who keeps up, and a gap is told to who may have missed something.

use std::time::Duration;

use bytes::Bytes;
use recache_cache::provider::{Message, Messages};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::world::{PATIENCE, World};

/// More than any listener's queue holds.
const FLOOD: usize = 20_000;

fn channel(world: &World, name: &str) -> String {
    format!("{}:{name}", world.prefix_text())
}

async fn next(listener: &mut Receiver<Message>) -> Message {
    timeout(PATIENCE, listener.recv()).await.expect("no message came").expect("the listener was ended")
}

/// Listens, and has heard that listening has begun.
async fn listen(messages: &dyn Messages, channel: &str) -> Receiver<Message> {
    let mut listener = messages.subscribe(channel);
    assert_eq!(next(&mut listener).await, Message::Gap, "the first thing that is heard");
    listener
}

fn payload(number: usize) -> Bytes {
    Bytes::from(number.to_string())
}

pub(crate) async fn listener_hears_a_gap_first_and_then_everything_in_order(world: &World) {
    let Some(messages) = world.messages() else { return };
    let channel = channel(world, "c");
    let mut listener = listen(world.peer().messages().unwrap(), &channel).await;
    for number in 0..200 {
        messages.publish(&channel, payload(number)).await.unwrap();
    }
    for number in 0..200 {
        assert_eq!(next(&mut listener).await, Message::Payload(payload(number)));
    }
    let every_byte: Vec<u8> = (0..=255).collect();
    messages.publish(&channel, every_byte.clone().into()).await.unwrap();
    assert_eq!(next(&mut listener).await, Message::Payload(every_byte.into()));
}

pub(crate) async fn every_listener_of_a_channel_hears_and_no_other(world: &World) {
    let Some(messages) = world.messages() else { return };
    let (one, two) = (channel(world, "one"), channel(world, "two"));
    let mut mine = listen(messages, &one).await;
    let mut also_mine = listen(messages, &one).await;
    let mut theirs = listen(world.peer().messages().unwrap(), &one).await;
    let mut other = listen(messages, &two).await;
    messages.publish(&one, payload(1)).await.unwrap();
    for listener in [&mut mine, &mut also_mine, &mut theirs] {
        assert_eq!(next(listener).await, Message::Payload(payload(1)), "the sender hears itself too");
    }
    drop(also_mine);
    messages.publish(&one, payload(2)).await.unwrap();
    messages.publish(&two, payload(3)).await.unwrap();
    assert_eq!(next(&mut other).await, Message::Payload(payload(3)));
    assert_eq!(next(&mut mine).await, Message::Payload(payload(2)));
}

pub(crate) async fn listener_that_is_too_slow_is_told_of_a_gap(world: &World) {
    let Some(messages) = world.messages() else { return };
    let (slow, quick) = (channel(world, "slow"), channel(world, "quick"));
    let mut sleeper = listen(messages, &slow).await;
    let mut listener = listen(messages, &quick).await;
    for number in 0..FLOOD {
        messages.publish(&slow, payload(number)).await.unwrap();
    }
    messages.publish(&quick, payload(1)).await.unwrap();
    assert_eq!(next(&mut listener).await, Message::Payload(payload(1)), "one who sleeps holds up nobody");
    let mut payloads = 0;
    let mut has_gap = false;
    while let Ok(Some(message)) = timeout(Duration::from_millis(500), sleeper.recv()).await {
        match message {
            Message::Gap => has_gap = true,
            Message::Payload(_) => payloads += 1,
        }
    }
    assert!(payloads < FLOOD, "its queue is bounded");
    assert!(has_gap, "{payloads} of {FLOOD} came and nobody said that some are missing");
    messages.publish(&slow, payload(FLOOD)).await.unwrap();
    assert_eq!(next(&mut sleeper).await, Message::Payload(payload(FLOOD)), "it hears again");
}
