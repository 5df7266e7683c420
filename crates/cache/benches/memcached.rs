//! What a call of memcached costs over loopback, on a server of its own: one key, a hundred keys, and the same sent by hand
//! over a bare socket, for comparison.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a bench says what it expects")]

#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../tests/support/memcached.rs"]
mod server;

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use recache_cache::provider::{Entry, Item};
use recache_cache::{KeyPrefix, Provider};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const KEYS: usize = 100;
const KEEP_FOR: Duration = Duration::from_mins(10);

fn memcached(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = server::Server::start(&[]);
    let provider = runtime.block_on(server::connected(server.provider()));
    let space = KeyPrefix::new("p").space("s");
    let keys: Vec<_> = (0..KEYS).map(|number| space.key([number.to_string()])).collect();
    let item = Item::from(Bytes::from(vec![b'v'; 100]));
    let entries: Vec<_> =
        keys.iter().map(|key| Entry { key: key.clone(), item: item.clone(), keep_for: KEEP_FOR }).collect();
    runtime.block_on(provider.set_many(entries.clone())).unwrap();

    let mut group = criterion.benchmark_group("memcached");
    let mut bare = runtime.block_on(tokio::net::TcpStream::connect(server.address())).unwrap();
    bare.set_nodelay(true).unwrap();
    group.bench_function("bare socket: mg", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let mut bytes = [0; 1_024];
                bare.write_all(b"mg p:s:7 v f c k O1\r\n").await.unwrap();
                black_box(bare.read(&mut bytes).await.unwrap())
            })
        });
    });
    group.bench_function("get", |bencher| {
        bencher.iter(|| runtime.block_on(provider.get(&keys[7])).unwrap().unwrap());
    });
    group.bench_function("set", |bencher| {
        bencher.iter(|| runtime.block_on(provider.set(&keys[7], item.clone(), KEEP_FOR)).unwrap());
    });
    group.throughput(Throughput::Elements(100));
    group.bench_function("get_many of 100", |bencher| {
        bencher.iter(|| runtime.block_on(provider.get_many(&keys)).unwrap());
    });
    group.bench_function("set_many of 100", |bencher| {
        bencher.iter(|| runtime.block_on(provider.set_many(entries.clone())).unwrap());
    });
    group.finish();
}

criterion_group!(benches, memcached);
criterion_main!(benches);
