use std::sync::Arc;

use recache_engine::Engine;
use recache_server::{App, Auth, Settings, Tls, bind, serve};
use recache_store::{OpenOptions, open};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Made for this test, by `openssl req -x509`; the key protects nothing.
const CERTIFICATE: &[u8] = include_bytes!("tls/certificate.pem");
const KEY: &[u8] = include_bytes!("tls/key.pem");

#[tokio::test(flavor = "multi_thread")]
async fn server_with_a_certificate_speaks_tls_and_nothing_else() {
    let store = open(&OpenOptions::new("sqlite::memory:")).await.unwrap();
    let engine = Engine::builder(store).start().await.unwrap();
    let app = App::new(engine.clone(), Settings::default(), Auth::default());
    let listener = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Tls::new(CERTIFICATE, KEY).unwrap();
    let serving = tokio::spawn(serve(listener, app.clone(), Some(tls)));

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream
        .write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "plain text is not answered");
    app.stop().cancel();
    serving.await.unwrap().unwrap();
    engine.shut_down().await;
}

#[test]
fn certificates_and_keys_that_cannot_be_are_refused_without_repeating_them() {
    for (certificate, key) in
        [(b"hunter2".as_slice(), KEY), (CERTIFICATE, b"hunter2".as_slice()), (KEY, CERTIFICATE)]
    {
        let said = Tls::new(certificate, key).unwrap_err();
        assert!(!said.contains("hunter2") && !said.is_empty(), "{said}");
    }
}
