//! Every fault, seen from a client of an echo server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use recache_faultproxy::{Accept, Chance, Cut, Ending, Flip, Lane, Plan, Proxy};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// What must come comes within this, also on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// What must not come is waited for this long.
const A_WHILE: Duration = Duration::from_millis(60);

/// An echo server, a proxy in front of it.
struct Bench {
    proxy: Proxy,
}

impl Bench {
    async fn new() -> Self {
        Self { proxy: Proxy::start_with_seed(echo().await, 42).unwrap() }
    }

    async fn with(plan: Plan) -> Self {
        let bench = Self::new().await;
        bench.proxy.set(plan).await;
        bench
    }

    async fn connect(&self) -> TcpStream {
        timeout(SOON, TcpStream::connect(self.proxy.address())).await.unwrap().unwrap()
    }

    /// A connection over which something has passed, so that it surely lives in the proxy.
    async fn live(&self) -> TcpStream {
        let mut client = self.connect().await;
        assert_eq!(exchange(&mut client, b"hello").await.unwrap(), b"hello");
        client
    }
}

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// Sends, and reads as much.
async fn exchange(client: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    client.write_all(bytes).await?;
    let mut heard = vec![0; bytes.len()];
    timeout(SOON, client.read_exact(&mut heard)).await.expect("an answer in time")?;
    Ok(heard)
}

/// Everything until the end of the connection, and how it ended.
async fn rest(client: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, Option<ErrorKind>) {
    let mut heard = Vec::new();
    let end = timeout(SOON, client.read_to_end(&mut heard)).await.expect("an end in time");
    (heard, end.err().map(|error| error.kind()))
}

async fn hears_nothing(client: &mut TcpStream) -> bool {
    timeout(A_WHILE, client.read_u8()).await.is_err()
}

#[tokio::test]
async fn without_faults_everything_passes_and_the_end_too() {
    let bench = Bench::new().await;
    let mut client = bench.live().await;
    let large = vec![7; 3 << 20];
    let (mut from, mut to) = client.split();
    let mut heard = vec![0; large.len()];
    let (sent, received) = tokio::join!(to.write_all(&large), from.read_exact(&mut heard));
    sent.unwrap();
    received.unwrap();
    assert!(heard == large);
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, (vec![], None));
    let counts = bench.proxy.counts();
    assert_eq!((counts.connections, counts.cuts, counts.flipped_bits), (1, 0, 0));
    assert_eq!(counts.bytes_to_server, 5 + (3 << 20));
    assert_eq!(counts.bytes_to_client, counts.bytes_to_server);
}

#[tokio::test]
async fn refused_until_healed_on_the_same_port() {
    let bench = Bench::new().await;
    for _ in 0..3 {
        bench.proxy.set(Plan::default().accept(Accept::Refuse)).await;
        let refused = TcpStream::connect(bench.proxy.address()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        bench.proxy.heal().await;
        bench.live().await;
    }
}

#[tokio::test]
async fn ignored_connections_are_not_answered() {
    let bench = Bench::with(Plan::default().accept(Accept::Ignore)).await;
    let address = bench.proxy.address();
    assert!(timeout(A_WHILE, TcpStream::connect(address)).await.is_err());
    bench.proxy.heal().await;
    bench.live().await;
}

#[tokio::test]
async fn hanging_connections_go_on_when_healed() {
    let bench = Bench::with(Plan::default().accept(Accept::Hang)).await;
    let mut client = bench.connect().await;
    client.write_all(b"hello").await.unwrap();
    assert!(hears_nothing(&mut client).await);
    assert_eq!(bench.proxy.counts().hung, 1);
    assert_eq!(bench.proxy.counts().bytes_to_server, 0);
    bench.proxy.heal().await;
    let mut heard = [0; 5];
    timeout(SOON, client.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test]
async fn new_connections_are_reset_always_or_by_chance() {
    let bench = Bench::with(Plan::default().accept(Accept::Reset)).await;
    let mut client = bench.connect().await;
    assert_eq!(rest(&mut client).await.1, Some(ErrorKind::ConnectionReset));
    bench.proxy.set(Plan::default().turn_away(Chance::percent(50))).await;
    let mut served = 0;
    for _ in 0..40 {
        let mut client = bench.connect().await;
        served += u64::from(exchange(&mut client, b"x").await.is_ok());
    }
    assert!((5..=35).contains(&served), "{served}");
    assert_eq!(bench.proxy.counts().turned_away, 1 + 40 - served);
}

#[tokio::test]
async fn what_is_held_is_late_and_not_lost_in_both_directions() {
    let bench = Bench::new().await;
    let mut client = bench.live().await;
    for plan in [
        Plan::stalled(),
        Plan::default().to_server(Lane::default().held()),
        Plan::default().to_client(Lane::default().held()),
    ] {
        let before = bench.proxy.counts();
        bench.proxy.set(plan.clone()).await;
        client.write_all(b"held?").await.unwrap();
        assert!(hears_nothing(&mut client).await, "{plan:?}");
        let reached_server = bench.proxy.counts().bytes_to_server - before.bytes_to_server;
        assert_eq!(reached_server, if plan.to_server == Lane::default() { 5 } else { 0 });
        bench.proxy.heal().await;
        let mut heard = [0; 5];
        timeout(SOON, client.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(&heard, b"held?");
        assert_eq!(bench.proxy.counts().held_bytes - before.held_bytes, 5);
    }
}

#[tokio::test]
async fn what_is_swallowed_never_comes() {
    let bench = Bench::new().await;
    let mut client = bench.live().await;
    for (plan, to_server) in [
        (Plan::default().to_server(Lane::default().swallowed()), 0),
        (Plan::default().to_client(Lane::default().swallowed()), 4),
    ] {
        let before = bench.proxy.counts();
        bench.proxy.set(plan).await;
        client.write_all(b"lost").await.unwrap();
        assert!(hears_nothing(&mut client).await);
        bench.proxy.heal().await;
        assert_eq!(exchange(&mut client, b"here").await.unwrap(), b"here");
        let after = bench.proxy.counts();
        assert_eq!(after.swallowed_bytes - before.swallowed_bytes, 4);
        assert_eq!(after.bytes_to_server - before.bytes_to_server, to_server + 4);
    }
}

#[tokio::test]
async fn delay_and_rate_add_up() {
    let delay = Duration::from_millis(30);
    let lane = Lane::default().delayed(delay, Duration::from_millis(10)).limited(10_000);
    let bench = Bench::with(Plan::default().both(&lane)).await;
    let mut client = bench.connect().await;
    let began = Instant::now();
    // 1,000 bytes at 10,000 bytes a second: 100 ms; the way back overlaps.
    exchange(&mut client, &[7; 1_000]).await.unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(80 + 2 * 20), "{took:?}");
    assert_eq!(bench.proxy.counts().delayed_bytes, 2_000);
    assert!(bench.proxy.counts().slices >= 10);
}

#[tokio::test]
async fn slices_of_one_byte_make_up_the_whole() {
    let bench = Bench::with(Plan::default().both(&Lane::default().sliced(1))).await;
    let mut client = bench.connect().await;
    let text = vec![b'z'; 500];
    assert_eq!(exchange(&mut client, &text).await.unwrap(), text);
    assert_eq!(bench.proxy.counts().slices, 1_000);
}

#[tokio::test]
async fn answers_are_cut_in_order_or_by_reset() {
    for (cut, end) in [
        (Cut::after_bytes(3), None),
        (Cut::after_bytes(3).by_reset(), Some(ErrorKind::ConnectionReset)),
        (Cut::before("lo"), None),
        (Cut::after("el"), None),
    ] {
        let is_before = cut == Cut::before("lo");
        let bench = Bench::with(Plan::default().to_client(Lane::default().cut(cut))).await;
        let mut client = bench.connect().await;
        client.write_all(b"hello").await.unwrap();
        let expected = if is_before { b"hell".to_vec() } else { b"hel".to_vec() };
        assert_eq!(rest(&mut client).await, (expected, end));
        assert_eq!(bench.proxy.counts().cuts, 1);
    }
}

#[tokio::test]
async fn what_was_forwarded_before_a_cut_reaches_the_server() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start_with_seed(server.local_addr().unwrap(), 1).unwrap();
    let cut = Lane::default().cut(Cut::after("COMMIT;").by_reset());
    proxy.set(Plan::default().to_server(cut).to_client(Lane::default().held())).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let (at_server, _) = server.accept().await.unwrap();
    let (mut from_proxy, mut to_proxy) = at_server.into_split();
    // More than the proxy holds back: some of it is unread when the connection is cut.
    let saying = tokio::spawn(async move { to_proxy.write_all(&vec![7; 3 << 20]).await.map(|()| to_proxy) });
    while proxy.counts().held_bytes < 1 << 20 {
        tokio::task::yield_now().await;
    }
    client.write_all(b"COMMIT;SELECT").await.unwrap();
    assert_eq!(rest(&mut client).await.1, Some(ErrorKind::ConnectionReset));
    assert_eq!(rest(&mut from_proxy).await, (b"COMMIT;".to_vec(), None));
    saying.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_cut_that_fires_once_spares_the_next_connection() {
    let bench = Bench::with(Plan::default().to_server(Lane::default().cut(Cut::before("X").once()))).await;
    let (mut one, mut two) = (bench.connect().await, bench.connect().await);
    one.write_all(b"X").await.unwrap();
    assert_eq!(rest(&mut one).await, (vec![], None));
    assert_eq!(exchange(&mut two, b"X").await.unwrap(), b"X");
    assert_eq!(bench.proxy.counts().cuts, 1);
}

#[tokio::test]
async fn bits_are_flipped_and_counted() {
    let bench = Bench::new().await;
    let mut client = bench.live().await;
    bench.proxy.set(Plan::default().to_client(Lane::default().flipped(Flip::At(9)))).await;
    assert_eq!(exchange(&mut client, &[0, 0, 0]).await.unwrap(), [0, 2, 0]);
    let flip = Flip::Chance(Chance::percent(1));
    bench.proxy.set(Plan::default().to_client(Lane::default().flipped(flip))).await;
    let heard = exchange(&mut client, &[0; 10_000]).await.unwrap();
    let wrong: u32 = heard.iter().map(|byte| byte.count_ones()).sum();
    assert!((50..200).contains(&wrong), "{wrong}");
    assert_eq!(bench.proxy.counts().flipped_bits, u64::from(wrong) + 1);
}

#[tokio::test]
async fn the_test_ends_one_some_or_all_connections() {
    let bench = Bench::new().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(bench.live().await);
    }
    let first = bench.proxy.connections()[0];
    assert!(bench.proxy.end(first, Ending::Close));
    assert_eq!(rest(&mut clients.remove(0)).await, (vec![], None));
    let some = bench.proxy.end_some(Chance::percent(50), Ending::Reset);
    assert!((1..19).contains(&some), "{some}");
    let left = bench.proxy.end_all(Ending::Reset);
    assert_eq!(some + left, 19);
    for mut client in clients {
        assert_eq!(rest(&mut client).await.1, Some(ErrorKind::ConnectionReset));
    }
    assert_eq!(bench.proxy.counts().ended, 20);
    assert!(!bench.proxy.end(first, Ending::Close));
}

#[tokio::test]
async fn a_plan_of_its_own_touches_no_other_connection() {
    let bench = Bench::new().await;
    let (mut one, mut two) = (bench.live().await, bench.live().await);
    let first = bench.proxy.connections()[0];
    bench.proxy.set_for(first, Plan::stalled()).await;
    one.write_all(b"x").await.unwrap();
    assert!(hears_nothing(&mut one).await);
    assert_eq!(exchange(&mut two, b"y").await.unwrap(), b"y");
    bench.proxy.heal().await;
    assert_eq!(timeout(SOON, one.read_u8()).await.unwrap().unwrap(), b'x');
}

#[tokio::test]
async fn a_server_that_is_away_or_elsewhere() {
    let bench = Bench::new().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    bench.proxy.redirect(nobody).await;
    let mut client = bench.connect().await;
    assert_eq!(rest(&mut client).await.1, Some(ErrorKind::ConnectionReset));
    assert_eq!(bench.proxy.counts().unconnected, 1);
    bench.proxy.redirect(echo().await).await;
    bench.live().await;
}

#[tokio::test]
async fn one_seed_gives_one_run() {
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let proxy = Proxy::start_with_seed(echo().await, seed).unwrap();
        let flip = Flip::Chance(Chance::percent(5));
        proxy.set(Plan::default().to_client(Lane::default().sliced(10).flipped(flip))).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        runs.push(exchange(&mut client, &[0; 1_000]).await.unwrap());
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}
