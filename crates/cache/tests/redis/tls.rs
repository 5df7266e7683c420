//! TLS: whoever is not trusted is not spoken to.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use recache_cache::config::RedisConfig;
use recache_cache::provider::{Redis, RedisSettings};
use recache_cache::{KeyPrefix, Provider};
use tempfile::TempDir;

use crate::redis_server::{RedisServer, free_port};
use crate::{config, key, put, read, until, until_healthy};

fn openssl(folder: &Path, arguments: &[&str]) {
    let done =
        Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl is needed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// An authority, and a certificate of it for `name`.
fn certificates(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let authority = ["req", "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt"];
    openssl(folder.path(), &[&authority[..], &new_key[..]].concat());
    let names = format!("subjectAltName={name}");
    let request = ["req", "-x509", "-CA", "ca.crt", "-CAkey", "ca.key", "-subj", "/CN=server"];
    let out = [
        "-addext",
        &names,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        "server.key",
        "-out",
        "server.crt",
    ];
    openssl(folder.path(), &[&request[..], &new_key[..], &out[..]].concat());
    folder
}

async fn server(certificates: &TempDir) -> (RedisServer, u16) {
    let (port, at) = (free_port(), |name: &str| certificates.path().join(name).display().to_string());
    let options = [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", at("server.crt")),
        ("--tls-key-file", at("server.key")),
        ("--tls-ca-cert-file", at("ca.crt")),
        ("--tls-auth-clients", "no".to_owned()),
    ];
    let options: Vec<_> = options.iter().flat_map(|(name, value)| [*name, value]).collect();
    (RedisServer::start_with(&options).await, port)
}

fn encrypted(port: u16, ca_file: Option<&Path>) -> Arc<Redis> {
    let ca_file = ca_file.map(|path| path.display().to_string());
    let url = format!("rediss://127.0.0.1:{port}");
    let config = RedisConfig { ca_file, connection_timeout_seconds: 1, ..config(&url) };
    Arc::new(Redis::new(&RedisSettings::from_config(&config).unwrap(), KeyPrefix::new("p")))
}

async fn until_it_says(redis: &Redis, reason: &str) {
    until(reason, async || redis.health().await.unwrap_err().to_string().contains(reason)).await;
}

#[tokio::test]
async fn a_server_whose_authority_is_named_is_spoken_to() {
    let certificates = certificates("IP:127.0.0.1");
    let (_server, port) = server(&certificates).await;
    let redis = encrypted(port, Some(&certificates.path().join("ca.crt")));
    until_healthy(&*redis).await;
    put(&*redis, &key("k"), &vec![b'x'; 1 << 20]).await.unwrap();
    assert_eq!(read(&*redis, &key("k")).await.unwrap().len(), 1 << 20);
    let mut listener = redis.messages().unwrap().subscribe("c");
    listener.recv().await.unwrap();
}

#[tokio::test]
async fn a_server_of_an_unknown_authority_is_not() {
    let certificates = certificates("IP:127.0.0.1");
    let (_server, port) = server(&certificates).await;
    until_it_says(&encrypted(port, None), "the server's certificate is not trusted").await;
}

#[tokio::test]
async fn a_server_with_another_name_is_not() {
    let certificates = certificates("DNS:elsewhere.example");
    let (_server, port) = server(&certificates).await;
    let redis = encrypted(port, Some(&certificates.path().join("ca.crt")));
    until_it_says(&redis, "the server's certificate is not trusted").await;
}

#[tokio::test]
async fn a_server_without_tls_is_not() {
    let certificates = certificates("IP:127.0.0.1");
    let (server, _) = server(&certificates).await;
    let redis = encrypted(server.port(), Some(&certificates.path().join("ca.crt")));
    // Redis waits for the end of what it takes for a command.
    until_it_says(&redis, "no connection within 1s").await;
}

#[tokio::test]
async fn a_ca_file_that_cannot_be_used_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let certificates = certificates("IP:127.0.0.1");
    let (_server, port) = server(&certificates).await;
    let redis = encrypted(port, Some(&path));
    until_it_says(&redis, "cannot read ca_file").await;
    std::fs::write(&path, "nothing").unwrap();
    until_it_says(&redis, "ca_file holds no certificate").await;
    std::fs::copy(certificates.path().join("ca.crt"), &path).unwrap();
    until_healthy(&*redis).await;
}
