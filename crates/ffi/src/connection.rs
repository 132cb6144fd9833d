//! A connection with a descriptor of its own, and the way to where such connections go. It leaves out the descriptor's use.

use std::ffi::{CStr, CString};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bastide::{Connector, End, Meter, Ongoing};

use crate::client::{Client, Desk};
use crate::error::Failure;
use crate::handle::Thing;
use crate::options::Values;
use crate::{place, text};

/// What a connection handle stands for.
pub(crate) struct Connection {
    ongoing: Ongoing,
    desk: Arc<Desk>,
    reason: OnceLock<CString>,
}

impl Thing for Connection {
    const KIND: &'static str = "connection";
}

/// What each end of a pair of sockets holds until the other one takes it, as far as the system lets it (unix(7)): four
/// times of what a TLS connection brings at once, so that neither waits for the other. By default it is 208 KiB.
#[cfg(unix)]
const BUFFERED: usize = 1024 * 1024;

/// A port of a VM, found, to which connections can be opened.
pub(crate) struct Destination {
    connector: Arc<Connector>,
    desk: Arc<Desk>,
}

impl Drop for Destination {
    /// Nobody will open another connection with it. Those that are open go on, and then it is closed.
    fn drop(&mut self) {
        let (connector, desk) = (Arc::clone(&self.connector), Arc::clone(&self.desk));
        self.desk.spawn(async move {
            let leaked = tokio::select! {
                leaked = connector.finish() => leaked,
                () = desk.stop.cancelled() => connector.close(desk.grace()).await,
            };
            desk.note_leaks(leaked);
        });
    }
}

impl Connection {
    /// Opens one: the caller's end of a pair of sockets, and what is known of it.
    #[cfg(unix)]
    pub(crate) fn open(client: &Client, options: &Values) -> Result<(std::os::fd::OwnedFd, Self), Failure> {
        use std::os::unix::net::UnixStream;

        use rustix::net::sockopt::set_socket_send_buffer_size;

        let flags = client.refine(options)?;
        let (words, port) = (place::words(&flags)?, place::resource_port(&flags)?);
        let keepalive = client.keepalive().map(str::to_owned);
        let found = client.destination(&flags);
        // Whoever holds the way to it when the client ends has to be one whom its end waits for.
        let destination = Arc::downgrade(&found);
        let desk = Arc::clone(&client.desk);
        let opened = client.desk.wait(async move {
            let azure = desk.azure()?;
            let find = async || -> Result<Destination, Failure> {
                let mut found = azure.find(&words).await?;
                let options = place::relay_options(&flags, keepalive.as_deref(), port);
                let relay = azure.reach(&mut found, port, options, desk.observer()).await?;
                let connector = Connector::new(relay, place::tunnel_options(&flags)).counted_in(&desk.meter);
                Ok(Destination { connector: Arc::new(connector), desk: Arc::clone(&desk) })
            };
            let destination = found.get_or_try_init(find).await?;
            let pair = || -> std::io::Result<_> {
                let (theirs, ours) = UnixStream::pair()?;
                for end in [&theirs, &ours] {
                    set_socket_send_buffer_size(end, BUFFERED)?;
                }
                ours.set_nonblocking(true)?;
                Ok((theirs, bastide::LocalSocket::Unix(tokio::net::UnixStream::from_std(ours)?)))
            };
            let (theirs, ours) =
                pair().map_err(|error| Failure::system("no pair of sockets can be made", &error))?;
            let ongoing = destination.connector.carry("this process", ours).await?;
            Ok((theirs, Self { ongoing, desk, reason: OnceLock::new() }))
        });
        if opened.is_err() {
            client.forget(&destination);
        }
        let (theirs, connection) = opened?;
        Ok((theirs.into(), connection))
    }

    pub(crate) fn id(&self) -> u64 {
        self.ongoing.id()
    }

    pub(crate) fn meter(&self) -> &Meter {
        self.ongoing.meter()
    }

    /// Waits at most for `limit`, where there is one, until it has ended; whether it has.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> Result<bool, Failure> {
        let outcome = match self.ongoing.outcome() {
            Some(outcome) => Some(outcome),
            None if limit.is_some_and(|limit| limit.is_zero()) => None,
            None => {
                let ongoing = self.ongoing.clone();
                self.desk.wait(async move {
                    match limit {
                        Some(limit) => Ok(tokio::time::timeout(limit, ongoing.ended()).await.ok()),
                        None => Ok(Some(ongoing.ended().await)),
                    }
                })?
            }
        };
        match outcome {
            Some(outcome) => {
                self.note(&outcome?);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn note(&self, end: &End) {
        self.reason.get_or_init(|| text::owned(&end.to_string()));
    }

    /// How it has ended; none before it has.
    pub(crate) fn reason(&self) -> Option<&CStr> {
        if self.reason.get().is_none() {
            match self.ongoing.outcome()? {
                Ok(end) => self.note(&end),
                Err(error) => {
                    self.reason.get_or_init(|| text::owned(&bastide::causes(&error).join(": ")));
                }
            }
        }
        self.reason.get().map(CString::as_c_str)
    }
}
