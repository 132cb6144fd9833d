//! Everything that can be set about the way out, each value with its source. The bounds that nobody
//! needs to set are constants beside the code that they bound.

use std::path::PathBuf;
use std::time::Duration;

use crate::ProxyRules;

/// How to get out. Read once, by [`Network::new`](crate::Network::new).
#[derive(Clone, Debug)]
pub struct Options {
    /// PEM files whose certificates are trusted in addition to the system's (`--ca-bundle`,
    /// `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`; the caller reads the environment). Default: none.
    pub ca_bundles: Vec<PathBuf>,
    /// Which proxy stands between us and an origin. Default: [`ProxyRules::none`].
    pub proxy: ProxyRules,
    /// From nothing to a connection that can carry a request: name, TCP, proxy and TLS together.
    /// Default: 15 s, the limit of Microsoft's own CI client (Azure/agentbaker, bastionssh.go).
    pub dial_timeout: Duration,
    /// One whole exchange: from the call to the last byte of the answer, a new connection included;
    /// and from the sent upgrade to its answer. Default: 30 s, what three other clients take for a
    /// set-up (azlin, azure-go-cli, Azure/agentbaker).
    pub answer_timeout: Duration,
    /// TCP keepalive on every connection; `None` switches it off (`--keepalive off`). Default: on.
    pub keepalive: Option<Keepalive>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            ca_bundles: Vec::new(),
            proxy: ProxyRules::none(),
            dial_timeout: Duration::from_secs(15),
            answer_timeout: Duration::from_secs(30),
            keepalive: Some(Keepalive::default()),
        }
    }
}

/// When the operating system asks whether the other end is still there (tcp(7), `TCP_KEEPIDLE`,
/// `TCP_KEEPINTVL`, `TCP_KEEPCNT`). Windows before 10 version 1709 ignores the number of probes.
///
/// The default finds a dead peer after one minute: the 30 s of silence that protocol.md §4 allows
/// before a ping, then three probes 10 s apart, where Linux by itself would wait for two hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe. Default: 30 s.
    pub idle: Duration,
    /// Between two probes. Default: 10 s.
    pub interval: Duration,
    /// Unanswered probes until the connection counts as dead. Default: 3.
    pub probes: u32,
}

impl Default for Keepalive {
    fn default() -> Keepalive {
        Keepalive { idle: Duration::from_secs(30), interval: Duration::from_secs(10), probes: 3 }
    }
}
