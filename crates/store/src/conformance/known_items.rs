//! Cases: what a build knows of items that exist, page by page.

use super::Subject;
use super::views::{begin, build, defined, item, publication, publish, put, touch};
use crate::records::Revoked;
use crate::{KNOWN_PAGE_ROWS, KnownPlace};

const ITEMS: u32 = 2 * KNOWN_PAGE_ROWS + 3;

fn key(number: u32) -> String {
    // Letters whose order differs from language to language.
    format!("{}-{number:04}", if number.is_multiple_of(2) { "B" } else { "a" })
}

/// In the order of the bytes, whatever the database's language.
fn ordered() -> Vec<String> {
    let mut keys: Vec<String> = (0..ITEMS).map(key).collect();
    keys.sort_unstable();
    keys
}

/// Whatever the language of the database says about letters.
pub async fn live_items_are_told_page_by_page_in_the_order_of_their_bytes(subject: &Subject) {
    let session = defined(subject).await;
    let (job, start) = build(subject, session).await;
    put(subject, &job, (0..ITEMS).map(|number| item(&key(number), "1", "x")).collect()).await;
    publish(subject, &job, publication(start.version)).await;
    touch(subject).await;
    let (job, _) = begin(subject, session).await;
    let known = subject.store.known_items();
    let small = known.build_open(job.token, ITEMS).await.expect("answered").expect("good");
    assert_eq!((small.is_large, small.live.len()), (false, usize::try_from(ITEMS).unwrap_or(0)));
    let large = known.build_open(job.token, ITEMS - 1).await.expect("answered").expect("good");
    assert_eq!((large.is_large, large.live.len(), large.staged.len()), (true, 0, 0));
    let pages = known.known_pages(job.token).await.expect("answered").expect("good");
    let page = usize::try_from(KNOWN_PAGE_ROWS).unwrap_or(1);
    let keys = ordered();
    assert_eq!(pages.live.count, u64::from(ITEMS));
    assert_eq!(pages.live.starts, [0, page, 2 * page].map(|place| keys[place].clone()));
    assert_eq!(pages.staged.starts.len(), 0);
    let read = |from: &str, until: Option<&str>| {
        known.known_read(job.token, KnownPlace::Live, from.to_owned(), until.map(str::to_owned))
    };
    let first = read(&keys[0], Some(&keys[page])).await.expect("answered").expect("good");
    assert_eq!(first.iter().map(|mark| mark.item.as_str()).collect::<Vec<_>>(), keys[..page]);
    assert_eq!(first[0].fingerprint.as_deref(), Some("1"));
    let last = read(&keys[2 * page], None).await.expect("answered").expect("good");
    assert_eq!(last.len(), keys.len() - 2 * page);
    // What this build puts is told as put, or as new.
    put(subject, &job, vec![item(&keys[1], "2", "y"), item("zzz", "1", "x")]).await;
    let marked = known.known_put(job.token, keys[0].clone(), Some(keys[3].clone())).await;
    let marked = marked.expect("answered").expect("good");
    assert_eq!(marked, [(keys[0].clone(), false), (keys[1].clone(), true), (keys[2].clone(), false)]);
    assert_eq!(known.known_new(job.token).await.expect("answered"), Ok(1));
    touch(subject).await;
    let late = known.known_read(job.token, KnownPlace::Live, String::new(), None).await.expect("answered");
    assert_eq!(late, Err(Revoked::Superseded));
    // To the build that follows they are staged, until it puts or takes them over.
    let (job, _) = begin(subject, session).await;
    let pages = known.known_pages(job.token).await.expect("answered").expect("good");
    assert_eq!((pages.staged.count, pages.staged.starts.as_slice()), (2, &[keys[1].clone()][..]));
    put(subject, &job, vec![item("zzz", "1", "x")]).await;
    let staged = known.known_read(job.token, KnownPlace::Staged, keys[1].clone(), None).await;
    let staged = staged.expect("answered").expect("good");
    assert_eq!(staged.iter().map(|mark| mark.item.as_str()).collect::<Vec<_>>(), [keys[1].as_str()]);
}
