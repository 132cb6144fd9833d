//! TLS: whom we trust, which versions and ciphers we speak, and a verifier that remembers what it was
//! shown. There is no way to turn verification off.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use rustls_platform_verifier::Verifier;
use tokio_rustls::TlsConnector;

use crate::chain::{Chain, Distrust, Rejected};
use crate::error::{BundleFault, Step};
use crate::wire::{Layer, ReadAhead};
use crate::{Error, Origin};

/// TLS as a client, ready to be laid over any connection.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
}

impl Tls {
    /// Trusts the system's roots and those of `bundles`; speaks TLS 1.3 and 1.2, and HTTP/1.1 alone
    /// in ALPN, for an upgrade exists in no other version.
    pub(crate) fn new(bundles: &[PathBuf]) -> Result<Tls, Error> {
        let mut extra = Vec::new();
        for path in bundles {
            let read = read_bundle(path).map_err(|fault| Error::Bundle { path: path.clone(), fault })?;
            extra.extend(read);
        }
        // AWS-LC's order: AES-256-GCM, AES-128-GCM, then ChaCha20, which costs six times as much on
        // machines with AES instructions. Passed on explicitly: no process-wide default is touched.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let failed = |error: rustls::Error| Error::TrustStore(Arc::new(error));
        let inner = Verifier::new_with_extra_roots(extra, Arc::clone(&provider)).map_err(failed)?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(failed)?
            .dangerous() // Only in that it asks for a verifier of ours, which adds words to the platform's.
            .with_custom_certificate_verifier(Arc::new(Witness { inner }))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Lays TLS over a connection to `origin`. The caller sets the deadline.
    pub(crate) async fn secure(&self, layer: Layer, origin: &Origin) -> Result<Layer, Error> {
        let name = ServerName::try_from(origin.host().to_owned())
            .map_err(|_| Error::Address { given: origin.to_string() })?;
        let stream = self
            .connector
            .connect_with(name, ReadAhead::new(layer), |connection| {
                connection.set_buffer_limit(Some(WRITE_BUFFER));
            })
            .await
            .map_err(|error| Error::from_io(&origin.peer(), Step::Handshake, error))?;
        Ok(Layer::Tls(Box::new(stream)))
    }
}

/// The platform's verifier, whose refusals tell what was presented.
#[derive(Debug)]
struct Witness {
    inner: Verifier,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner.verify_server_cert(own, others, name, ocsp_response, now).map_err(|error| {
            let chain = Chain::read(std::iter::once(own).chain(others));
            let distrust = Distrust::new(&error, &chain, now);
            CertificateError::Other(OtherError(Arc::new(Rejected { distrust, chain }))).into()
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The certificates of a PEM file. Other blocks (keys) are passed over; so is, with a warning, a
/// certificate that cannot be a root, as long as another one can: OpenSSL does the same, and bundles
/// that were collected over years depend on it.
fn read_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, BundleFault> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| match error {
        pem::Error::Io(error) => BundleFault::Unreadable(Arc::new(error)),
        error => BundleFault::Malformed(error.to_string()),
    })?;
    let found = certificates.len();
    let mut scratch = RootCertStore::empty();
    let usable: Vec<_> =
        certificates.into_iter().filter(|certificate| scratch.add(certificate.clone()).is_ok()).collect();
    if found > usable.len() {
        let unusable = found - usable.len();
        tracing::warn!(path = %path.display(), unusable, found, "certificates of a CA bundle cannot be read");
    }
    match (found, usable.len()) {
        (0, _) => Err(BundleFault::Empty),
        (_, 0) => Err(BundleFault::Unusable(found)),
        _ => Ok(usable),
    }
}

/// Bytes that rustls takes before it has to send: four times its default (64 KiB), so that sixteen
/// frames of 4,096 bytes with their headers, and the next sixteen, each leave in one write.
const WRITE_BUFFER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_comes_before_chacha() {
        let suites = aws_lc_rs::default_provider().cipher_suites;
        let order: Vec<String> = suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
        let first_chacha = order.iter().position(|suite| suite.contains("CHACHA")).unwrap();
        assert!(order[..first_chacha].iter().all(|suite| suite.contains("AES")), "{order:?}");
        assert!(order[0].starts_with("TLS13_AES"), "{order:?}");
    }

    #[test]
    fn bundles_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let check = |content: &str, expected: &str| {
            let path = folder.path().join("bundle.pem");
            std::fs::write(&path, content).unwrap();
            let error = Tls::new(std::slice::from_ref(&path)).err().unwrap();
            assert!(error.is_configuration() && error.hint().is_some());
            assert_eq!(error.to_string(), format!("the CA bundle {} cannot be used", path.display()));
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.starts_with(expected), "{cause}");
        };
        check("", "it holds no certificate in PEM form");
        check("\u{30}\u{3}der", "it holds no certificate in PEM form");
        check("-----BEGIN CERTIFICATE-----\nAAAA\n", "it is not well-formed PEM");
        check("-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n", "it is not well-formed PEM");
        check(
            "-----BEGIN CERTIFICATE-----\nMAMBAf8=\n-----END CERTIFICATE-----\n",
            "none of its 1 certificates can be read as X.509",
        );

        let missing = folder.path().join("missing.pem");
        let error = Tls::new(&[missing]).err().unwrap();
        assert!(matches!(error, Error::Bundle { fault: BundleFault::Unreadable(_), .. }), "{error:?}");
    }
}
