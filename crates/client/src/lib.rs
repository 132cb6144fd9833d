//! A native client for Azure Bastion: from words ("this VM, port 5432") to a running tunnel. It prints nothing,
//! reads no arguments and never exits; those are the business of whoever calls it.
//!
//! The paved path needs a dozen names: [`Client::new`] from [`Settings`] ([`Settings::from_environment`]),
//! [`Client::find`] for the VM and the Bastion host that [`Words`] mean, which are [`Found`], and then
//!
//! * for a stream: [`Client::connector`], and as many a [`Connection`] of that [`Connector`] as are wanted;
//! * for a local port: [`Client::reach`], and a [`Tunnel`] of [`Forward`]s, each with an [`Endpoint`], within
//!   [`TunnelOptions`].
//!
//! What fails is an [`Error`] with a hint, and [`Client::doctor`] says which link of all that is broken. `examples/` has a
//! program for each of the two, and one for a sign-in of its own.

mod client;
mod connector;
pub mod doctor;
mod endpoint;
mod error;
mod first_word;
mod lead;
mod ledger;
mod local_socket;
mod meter;
mod peer;
mod places;
mod power;
mod sessions;
mod settings;
mod sys;
mod telling;
mod tunnel;

/// Sign-ins that third parties bring.
pub mod plugin {
    pub use bastide_auth::plugin::{
        Asker, Inquiry, InquiryKind, PluginFile, PluginIdentity, PluginSettings, SignIn, SignInRequest,
        Unfit, check_trust, examine,
    };
}

pub use bastide_arm::{ListedHost, ListedMachine, PowerState, Session, SessionEnd, Topology, Wanted};
#[cfg(unix)]
pub use bastide_auth::{Agent, Progress};
pub use bastide_auth::{
    Certificate, Credential, DeviceCode, EntraIdentity, Environment, Identity, Kept, Prompt, SignedIn, Store,
    UnknownCredential, VmSignIn, state_folder,
};
pub use bastide_core::{
    AccessToken, AuthError, Cloud, End, Fault, Freshness, Plan, Provider, RdpFile, RdpSignIn, Refusal,
    ResourceId, RetryPolicy, Secret, Target, TargetKind, TokenRequest, causes,
};
pub use bastide_net::{
    Keepalive as TcpKeepalive, Options as NetworkOptions, Origin, Page, PageStatus, ProxyRules, serve_pages,
};
pub use bastide_relay::{
    Account, Debt, Dues, Entry, Error as ConnectionError, Event, Halves, Keepalive, Ledger, Local, Moved,
    Observer, Options as RelayOptions, Relay,
};
pub use client::{
    Bastion, Caller, Client, CloudChoice, Found, Host, OwnProvider, PROOF_KEPT, Settings, Source, Words,
};
pub use connector::{Connection, Connector, Ongoing};
pub use endpoint::{Endpoint, ForwardSpec, Inherited, LocalSpec};
pub use error::Error;
pub use first_word::FirstWord;
pub use ledger::LeftBehind;
pub use local_socket::LocalSocket;
pub use meter::Meter;
pub use peer::PeerPolicy;
pub use places::KnownNames;
pub use sessions::{Crowding, Sessions};
pub use telling::{event_fields, json_line, now};
pub use tunnel::{Forward, Seats, StopCause, Stopped, Tunnel, TunnelOptions, serve_one};
