//! One connection: sign-in, and what each channel is asked to do.
//!
//! `russh` calls the [`Handler`] from the connection's one task, so nothing here waits for a client, a
//! process or a disk; what waits has a task of its own, owned by the connection's [`TaskTracker`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use russh::keys::Certificate;
use russh::server::VerifiedPublicKey;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Pty, Sig};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::forward::{self, Forward};
use super::inbox::Inbox;
use super::process::{self, Control};
use super::sftp;
use super::sign_in::SignIn;
use super::sys::{self, Size};

/// What all connections to one server have in common.
pub(super) struct Site {
    pub(super) sign_in: SignIn,
    pub(super) home: PathBuf,
    pub(super) username: String,
    pub(super) hostname: String,
}

/// What a connection and its owner share.
#[derive(Clone, Default)]
pub(super) struct Life {
    /// Cancelled by the connection when the client has signed in.
    pub(super) signed_in: CancellationToken,
    /// Cancelled by the owner when the connection has ended; the tasks end then.
    pub(super) ended: CancellationToken,
    /// All tasks of the connection.
    pub(super) tasks: TaskTracker,
}

/// The state of one connection.
pub(super) struct Connection {
    site: Arc<Site>,
    life: Life,
    inbox: Inbox,
    sessions: HashMap<ChannelId, SessionChannel>,
    forwards: HashMap<Forward, DropGuard>,
    /// Who has signed in.
    account: String,
}

enum SessionChannel {
    /// No program yet.
    Preparing(Preparation),
    Running(mpsc::Sender<Control>),
}

struct Preparation {
    outbound: ChannelWriteHalf<Msg>,
    environment: Vec<(String, String)>,
    terminal: Option<(String, Size)>,
}

impl Connection {
    pub(super) fn new(site: Arc<Site>, life: Life) -> Self {
        let inbox = Inbox::new(life.ended.clone());
        let account = site.username.clone();
        Self { site, life, inbox, sessions: HashMap::new(), forwards: HashMap::new(), account }
    }

    /// A session channel that waits for its program, taken out of the map.
    fn prepared(&mut self, id: ChannelId) -> Option<Preparation> {
        match self.sessions.remove(&id)? {
            SessionChannel::Preparing(preparation) => Some(preparation),
            running @ SessionChannel::Running(_) => {
                self.sessions.insert(id, running);
                None
            }
        }
    }

    /// Starts `command` on the channel, which may have one program in its life (RFC 4254 §6.5).
    fn start(
        &mut self,
        id: ChannelId,
        mut command: Command,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let started = self.prepared(id).and_then(|preparation| {
            let size = self.dress(&mut command, &preparation);
            match sys::spawn(command, size) {
                Ok(process) => Some((process, self.inbox.claim(id)?, preparation.outbound)),
                Err(error) => {
                    debug!(%error, "a program could not be started");
                    None
                }
            }
        });
        let Some((process, inbound, outbound)) = started else { return session.channel_failure(id) };
        session.channel_success(id)?;
        let (controls, controlled) = process::controls();
        self.sessions.insert(id, SessionChannel::Running(controls));
        let (inbox, handle) = (self.inbox.clone(), session.handle());
        self.life.tasks.spawn(async move {
            process::serve(process, inbound, outbound, handle, controlled).await;
            inbox.close(id);
        });
        Ok(())
    }

    /// Folder and environment of a program, as sshd sets them (sshd(8), "login process").
    fn dress(&self, command: &mut Command, preparation: &Preparation) -> Option<Size> {
        let site = &self.site;
        let kept: Vec<_> =
            command.as_std().get_envs().map(|(n, v)| (n.to_owned(), v.map(ToOwned::to_owned))).collect();
        command.env_clear().envs(kept.into_iter().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(&site.home).env("HOME", &site.home);
        command.env("USER", &self.account).env("LOGNAME", &self.account);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()));
        command.envs(preparation.environment.iter().map(|(name, value)| (name, value)));
        let (term, size) = preparation.terminal.as_ref()?;
        command.env("TERM", term);
        Some(*size)
    }

    fn control(&mut self, id: ChannelId, control: Control) {
        if let Some(SessionChannel::Running(controls)) = self.sessions.get(&id) {
            // A process that has ended needs no control, and one that is flooded loses some.
            _ = controls.try_send(control);
        }
    }

    /// Refuses a channel beyond [`MAX_CHANNELS`], or makes room for it.
    fn admit(&self, id: ChannelId) -> Result<(), ChannelOpenFailure> {
        if self.inbox.len() >= MAX_CHANNELS {
            return Err(ChannelOpenFailure::ResourceShortage);
        }
        self.inbox.open(id);
        Ok(())
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(verdict(self.site.sign_in.password(user, password.as_bytes())))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let Some(mut response) = response else {
            let prompts = Cow::Owned(vec![("Password: ".into(), false)]);
            return Ok(Auth::Partial { name: "".into(), instructions: "".into(), prompts });
        };
        let password = response.next().unwrap_or_default();
        Ok(verdict(self.site.sign_in.password(user, &password)))
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(verdict(self.site.sign_in.offer(user, offer.public_key, offer.algorithm).await))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(verdict(self.site.sign_in.public_key(user, key.public_key).await))
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, russh::Error> {
        let accepted = self.site.sign_in.certificate(user, certificate);
        if accepted {
            self.account = user.to_owned();
        }
        Ok(verdict(accepted))
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), russh::Error> {
        self.life.signed_in.cancel();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        let id = channel.id();
        if let Err(refusal) = self.admit(id) {
            reply.reject(refusal).await;
            return Ok(());
        }
        // The other half is dropped: data comes by `data`, which never waits, instead.
        let (_, outbound) = channel.split();
        let preparation = Preparation { outbound, environment: Vec::new(), terminal: None };
        self.sessions.insert(id, SessionChannel::Preparing(preparation));
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        let (id, addresses) = (channel.id(), forward::loopback(host));
        let (Ok(port), false) = (u16::try_from(port), addresses.is_empty()) else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        if let Err(refusal) = self.admit(id) {
            reply.reject(refusal).await;
            return Ok(());
        }
        let (_, outbound) = channel.split();
        let (inbox, ended) = (self.inbox.clone(), self.life.ended.clone());
        self.life.tasks.spawn(async move {
            let connected = tokio::select! {
                () = ended.cancelled() => return,
                connected = forward::connect(&addresses, port) => connected,
            };
            match (connected, inbox.claim(id)) {
                (Ok(stream), Some(inbound)) => {
                    reply.accept().await;
                    forward::join(stream, inbound, outbound).await;
                }
                _ => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
            inbox.close(id);
        });
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _max_packet_size: u32,
        _window_size: u32,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.inbox.open(id);
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        let Err(error) = self.inbox.deliver(id, data) else { return Ok(()) };
        debug!(%error, "a channel's backlog failed");
        self.sessions.remove(&id);
        self.inbox.close(id);
        session.close(id)
    }

    async fn channel_eof(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), russh::Error> {
        self.inbox.finish(id);
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), russh::Error> {
        self.sessions.remove(&id);
        self.inbox.close(id);
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        // Debian's sshd_config: `AcceptEnv LANG LC_*`.
        let accepted = name == "LANG" || name.starts_with("LC_");
        match self.sessions.get_mut(&id) {
            Some(SessionChannel::Preparing(preparation))
                if accepted && preparation.environment.len() < MAX_VARIABLES =>
            {
                preparation.environment.push((name.into(), value.into()));
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _pixel_width: u32,
        _pixel_height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.sessions.get_mut(&id) {
            Some(SessionChannel::Preparing(preparation)) => {
                preparation.terminal = Some((term.into(), size(columns, rows)));
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        _pixel_width: u32,
        _pixel_height: u32,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.control(id, Control::Resize(size(columns, rows)));
        Ok(())
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.control(id, Control::Signal(signal));
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match str::from_utf8(command) {
            Ok(command) => self.start(id, sys::command(command), session),
            Err(_) => session.channel_failure(id),
        }
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        let shell = sys::shell(&self.account, &self.site.hostname);
        self.start(id, shell, session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let home = if name == "sftp" {
            sftp::open_home(&self.site.home)
        } else {
            Err(io::ErrorKind::Unsupported.into())
        };
        let Ok(home) = home else { return session.channel_failure(id) };
        let Some(preparation) = self.prepared(id) else { return session.channel_failure(id) };
        let Some(inbound) = self.inbox.claim(id) else { return session.channel_failure(id) };
        session.channel_success(id)?;
        let inbox = self.inbox.clone();
        self.life.tasks.spawn(async move {
            sftp::serve(Arc::new(home), inbound, preparation.outbound).await;
            inbox.close(id);
        });
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, russh::Error> {
        let (Some(host), Ok(wanted)) = (forward::listen_address(address), u16::try_from(*port)) else {
            return Ok(false);
        };
        if self.forwards.len() >= MAX_FORWARDS {
            return Ok(false);
        }
        // Binding an address of the machine itself asks nobody.
        let Ok(listener) = tokio::net::TcpListener::bind((host, wanted)).await else { return Ok(false) };
        let Ok(bound) = listener.local_addr() else { return Ok(false) };
        *port = bound.port().into();
        let forward = Forward { address: address.into(), port: bound.port() };
        let cancelled = self.life.ended.child_token();
        self.forwards.insert(forward.clone(), cancelled.clone().drop_guard());
        let (handle, inbox, tasks) = (session.handle(), self.inbox.clone(), self.life.tasks.clone());
        self.life.tasks.spawn(forward::listen(listener, forward, handle, inbox, tasks, cancelled));
        Ok(true)
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, russh::Error> {
        let Ok(port) = u16::try_from(port) else { return Ok(false) };
        match self.forwards.entry(Forward { address: address.into(), port }) {
            Entry::Occupied(forward) => {
                drop(forward.remove());
                Ok(true)
            }
            Entry::Vacant(_) => Ok(false),
        }
    }
}

fn verdict(accepted: bool) -> Auth {
    if accepted { Auth::Accept } else { Auth::reject() }
}

fn size(columns: u32, rows: u32) -> Size {
    let limited = |length| u16::try_from(length).unwrap_or(u16::MAX);
    Size { columns: limited(columns), rows: limited(rows) }
}

/// Channels open at a time on one connection. Our choice: issue 2 has 20 sessions at once, a browser
/// behind `ssh -D` a few dozen connections; sshd's `MaxSessions` of 10 would be in their way.
pub(super) const MAX_CHANNELS: usize = 256;

/// Ports that one connection may have forwarded to it. Our choice.
const MAX_FORWARDS: usize = 16;

/// Variables that one session may set. Our choice: POSIX has fewer than twenty of that kind.
const MAX_VARIABLES: usize = 32;

/// For a server that was started without a `PATH`: the one of sshd (`_PATH_STDPATH`).
const DEFAULT_PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin";
