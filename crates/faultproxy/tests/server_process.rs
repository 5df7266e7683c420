//! Real servers, killed, frozen and started again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use recache_faultproxy::{Error, ServerProcess};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// Says something over a connection of its own, and answers the first line of what comes back.
async fn ask(server: &ServerProcess, question: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(question.as_bytes()).await.unwrap();
    first_line(&mut stream).await
}

async fn first_line(stream: &mut TcpStream) -> String {
    let mut line = String::new();
    while !line.ends_with("\r\n") {
        line.push(char::from(timeout(SOON, stream.read_u8()).await.unwrap().unwrap()));
    }
    line.trim_end().to_owned()
}

/// Not when only its exit status is left, which nobody may ever take.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with(['Z', 'X']))
}

#[tokio::test]
async fn redis_keeps_port_and_data_over_kill_9() {
    let persistent = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut redis = ServerProcess::redis().args(persistent).start().await.unwrap();
    let (address, pid) = (redis.address(), redis.pid().unwrap());
    assert_eq!(ask(&redis, "SET a 1\r\n").await, "+OK");
    redis.kill();
    assert!(!is_running(pid) && redis.pid().is_none());
    assert!(TcpStream::connect(address).await.is_err());
    redis.start().await.unwrap();
    assert_eq!(redis.address(), address);
    assert_ne!(redis.pid(), Some(pid));
    assert_eq!(ask(&redis, "GET a\r\n").await, "$1");
}

#[tokio::test]
async fn frozen_redis_answers_after_the_thaw() {
    let redis = ServerProcess::redis().start().await.unwrap();
    redis.freeze().await.unwrap();
    let mut stream = TcpStream::connect(redis.address()).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    assert!(timeout(Duration::from_millis(60), stream.read_u8()).await.is_err());
    redis.thaw().unwrap();
    assert_eq!(first_line(&mut stream).await, "+PONG");
}

#[tokio::test]
async fn memcached_ends_in_order_and_comes_back_empty() {
    let mut memcached = ServerProcess::memcached().start().await.unwrap();
    assert_eq!(ask(&memcached, "set a 0 0 1\r\nx\r\n").await, "STORED");
    assert!(memcached.terminate().await.unwrap().is_some());
    memcached.start().await.unwrap();
    assert_eq!(ask(&memcached, "get a\r\n").await, "END");
}

#[tokio::test]
async fn prepared_server_is_refused_until_it_starts() {
    let mut redis = ServerProcess::redis().prepare().unwrap();
    assert!(TcpStream::connect(redis.address()).await.is_err());
    redis.start().await.unwrap();
    assert_eq!(ask(&redis, "PING\r\n").await, "+PONG");
}

#[tokio::test]
async fn dropped_server_is_gone_with_its_data_also_after_a_panic() {
    let redis = ServerProcess::redis().start().await.unwrap();
    let (pid, data) = (redis.pid().unwrap(), redis.data().to_owned());
    redis.freeze().await.unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _redis = redis;
        panic!("as a failing test does");
    }));
    assert!(panicked.is_err());
    assert!(!is_running(pid) && !data.exists());
}

#[tokio::test]
async fn missing_or_broken_program_is_said_with_a_remedy() {
    let missing = ServerProcess::generic("no-such-server").remedy("build it").start().await.unwrap_err();
    assert_eq!(missing.to_string(), "`no-such-server` is not on the PATH; build it");
    let broken = ServerProcess::redis().args(["--no-such-option", "1"]).start().await.unwrap_err();
    let Error::NotReady { fate, log, .. } = broken else { panic!("{broken}") };
    assert!(fate.contains("ended at once") && log.contains("no-such-option"), "{fate} {log}");
}

/// Set in a child of this test: start a server, say where it is, and wait to be killed.
const HOLD_VARIABLE: &str = "RECACHE_FAULTPROXY_TEST_HOLD";

#[tokio::test]
async fn killed_test_process_leaves_no_server_behind() {
    if std::env::var_os(HOLD_VARIABLE).is_some() {
        let redis = ServerProcess::redis().start().await.unwrap();
        println!("\nholding {} {}", redis.pid().unwrap(), redis.data().display());
        return std::future::pending().await;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_test_process_leaves_no_server_behind", "--nocapture"])
        .env(HOLD_VARIABLE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let held = lines.find_map(|line| line.strip_prefix("holding ").map(str::to_owned)).unwrap();
    let (pid, data) = held.split_once(' ').unwrap();
    let pid = pid.parse().unwrap();
    assert!(is_running(pid) && Path::new(data).exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = async {
        while is_running(pid) || Path::new(data).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, gone).await.expect("nobody ended the server");
}
