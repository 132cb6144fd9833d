//! A native client for Azure Bastion: from words ("this VM, port 5432") to a running tunnel. It prints nothing,
//! reads no arguments and never exits; those are the business of whoever calls it.
//!
//! The paved path is [`Client::new`] from [`Settings`], [`Client::find`] for the VM and the Bastion host that [`Words`]
//! mean, [`Host::plan`] for a target and a port, [`Client::relay`] for the connections, and a [`Tunnel`] of [`Forward`]s, or [`Relay::carry`] for a stream
//! that is there already. [`Client::doctor`] says which link of all that is broken.

mod client;
pub mod doctor;
mod endpoint;
mod error;
mod lead;
mod ledger;
mod local_socket;
mod meter;
mod peer;
mod places;
mod power;
mod sessions;
mod sys;
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
    VmSignIn,
};
pub use bastide_core::{
    AuthError, Cloud, End, Fault, Plan, Refusal, ResourceId, RetryPolicy, Secret, Target, TargetKind,
};
pub use bastide_net::{Keepalive as TcpKeepalive, Options as NetworkOptions, Origin, ProxyRules};
pub use bastide_relay::{
    Account, Debt, Entry, Error as ConnectionError, Event, Halves, Keepalive, Ledger, Local, Moved, Observer,
    Options as RelayOptions, Relay,
};
pub use client::{Bastion, Caller, Client, CloudChoice, Found, Host, Settings, Source, Words};
pub use endpoint::{Endpoint, ForwardSpec, Inherited, LocalSpec};
pub use error::Error;
pub use ledger::LeftBehind;
pub use meter::Meter;
pub use peer::PeerPolicy;
pub use places::KnownNames;
pub use sessions::{Crowding, Sessions};
pub use tunnel::{Forward, Seats, StopCause, Stopped, Tunnel, TunnelOptions, serve_one};
