//! The certificate authority of the emulator and its TLS configuration. The authority is kept in
//! the state folder, so that who trusted it once trusts it after a restart; the server certificate
//! is made anew at each start. The authority can vouch for loopback names only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::state::{self, State};
use crate::surroundings::CLIENT_CERTIFICATE;

/// File of the authority's certificate in the state folder.
pub(crate) const CA_FILE: &str = "ca.pem";

/// The TLS configuration of a server that answers to `names` and the loopback addresses.
pub(crate) fn server_config(state: &State, names: &[String]) -> Result<rustls::ServerConfig, Error> {
    let authority_key = KeyPair::from_pem(&state.kept("ca.key", || Ok(new_key()?.serialize_pem()))?)?;
    let authority = authority_params();
    // The certificate on disk and these parameters name the same issuer and the same key.
    state.kept(CA_FILE, || Ok(authority.self_signed(&authority_key).map_err(broken)?.pem()))?;
    let issuer = Issuer::from_params(&authority, &authority_key);

    let key = KeyPair::generate()?;
    let certificate = server_params(names)?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificate and private key that the first service principal can sign in with, PEM, kept in the
/// state folder. RSA, since Entra ID takes no other.
pub(crate) fn client_certificate(state: &State) -> Result<String, state::Error> {
    state.kept(CLIENT_CERTIFICATE, || {
        let key =
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).map_err(broken)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "bastide-emulator client");
        let now = OffsetDateTime::now_utc();
        params.not_before = now - CLOCK_SLACK;
        params.not_after = now + AUTHORITY_LIFE;
        let certificate = params.self_signed(&key).map_err(broken)?;
        Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
    })
}

/// What is wrong with certificates or keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The state folder.
    #[error(transparent)]
    State(#[from] state::Error),
    /// A key or certificate in it can't be used.
    #[error("using the certificate authority of the state folder")]
    Authority(#[from] rcgen::Error),
    /// TLS refuses them.
    #[error("configuring TLS")]
    Tls(#[from] rustls::Error),
}

/// Life of the authority: ten years, so that nobody has to trust it twice.
const AUTHORITY_LIFE: Duration = Duration::days(3650);
/// Life of the server certificate. Above 397 days some clients refuse it (CA/Browser Forum, ballot SC31).
const SERVER_LIFE: Duration = Duration::days(397);
/// Certificates are valid from a day ago, for clocks that disagree.
const CLOCK_SLACK: Duration = Duration::days(1);

fn new_key() -> Result<KeyPair, state::Error> {
    KeyPair::generate().map_err(broken)
}

/// Making a key or certificate only fails when the system has no random numbers.
fn broken(source: rcgen::Error) -> state::Error {
    state::Error::File { path: CA_FILE.into(), source: std::io::Error::other(source) }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "bastide");
    params.distinguished_name.push(DnType::CommonName, "bastide-emulator authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Trusting this authority must not let it vouch for anything beyond this machine.
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".into()),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(IpAddr::V4(Ipv4Addr::LOCALHOST), 8)),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(IpAddr::V6(Ipv6Addr::LOCALHOST), 128)),
        ],
        excluded_subtrees: Vec::new(),
    });
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SLACK;
    params.not_after = now + AUTHORITY_LIFE;
    params
}

fn server_params(names: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut all = ["localhost", "*.bastion.localhost", "*.vault.localhost"].map(str::to_owned).to_vec();
    all.extend(names.iter().filter(|name| *name != "localhost").cloned());
    let mut params = CertificateParams::new(all)?;
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SLACK;
    params.not_after = now + SERVER_LIFE;
    Ok(params)
}
