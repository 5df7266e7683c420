//! TLS to the servers, on rustls with one named provider of cryptography: the client's own TLS takes whatever the process
//! has installed, and panics where that is none.

use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Trusts the authorities in `ca_file` (PEM), or those that browsers trust when none is named. Read anew for every
/// connection, so that a file that was replaced needs no restart.
pub(super) async fn connector(ca_file: Option<&str>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let pem = tokio::fs::read(path)
                .await
                .map_err(|error| format!("cannot read ca_file: {}", error.kind()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|_| "ca_file is not PEM".to_owned())?;
                roots.add(certificate).map_err(|_| "ca_file holds what is no certificate".to_owned())?;
            }
            if roots.is_empty() {
                return Err("ca_file holds no certificate".to_owned());
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| "no TLS version is supported".to_owned())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned()).map_err(|_| "the host's name cannot be verified".to_owned())
}

/// What rustls says of a certificate, without what it says of names.
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => "the server's certificate is not trusted".to_owned(),
        Some(_) => "no agreement".to_owned(),
        None => error.kind().to_string(),
    }
}
