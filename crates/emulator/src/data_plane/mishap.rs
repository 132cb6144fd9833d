//! Faults of one WebSocket: what is in store for it, and what happens when it is due. Which faults
//! are ordered is `faults`; a tunnel without one is `tunnel.rs` alone.

use std::future::pending;
use std::num::NonZeroUsize;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frames::{Rare, Style, write_truncated};
use super::tunnel::{Client, GOODBYE_TIME, Pump, READ_BYTES};
use crate::azure::Azure;
use crate::faults::{At, Direction, Ending, Fault, Form, Then};
use crate::services::Wire;
use crate::transcript::{End, Tunnel};

/// What is in store for a tunnel. Chosen before its 101 is sent, so that an order that comes after it is
/// for the next one.
#[derive(Debug)]
pub(crate) struct Fate {
    pub(super) doom: Option<Doom>,
    pub(super) pings: Pings,
    pub(super) style: Style,
    /// Is cancelled when orders come that may concern this tunnel.
    pub(super) news: CancellationToken,
}

/// A mishap and when it is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doom {
    pub(super) at: At,
    pub(super) mishap: Mishap,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Mishap {
    Page { piece: Option<NonZeroUsize>, then: Then },
    Ending(Ending),
    Silence(Direction),
}

/// What becomes of the client's pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pings {
    Answered,
    Ignored,
    Reset,
}

impl Fate {
    /// What the orders have for a tunnel that is about to open.
    pub(crate) fn of_new_tunnel(azure: &Azure) -> Fate {
        let news = azure.faults.replaced();
        let doom = azure.strike(|fault| Doom::of(fault).filter(|doom| doom.at != At::Now));
        let pings = azure.strike(|fault| match fault {
            Fault::PingIgnored => Some(Pings::Ignored),
            Fault::PingReset => Some(Pings::Reset),
            _ => None,
        });
        Fate {
            doom: doom.map(|(doom, _)| doom),
            pings: pings.map_or(Pings::Answered, |(pings, _)| pings),
            style: style(azure),
            news,
        }
    }

    /// Asks for orders that concern tunnels that are open.
    pub(super) fn ask_again(&mut self, azure: &Azure) {
        self.news = azure.faults.replaced();
        let doom = azure.strike(|fault| Doom::of(fault).filter(|doom| doom.at == At::Now));
        self.doom = doom.map(|(doom, _)| doom).or(self.doom);
    }

    /// The mishap, if it is due.
    pub(super) fn due(&self, sums: &Tunnel) -> Option<Mishap> {
        let doom = self.doom.as_ref()?;
        let due = match doom.at {
            At::Upgrade | At::Now => true,
            At::Vm(bytes) => sums.received >= bytes,
            At::Client(bytes) => sums.sent >= bytes,
        };
        due.then_some(doom.mishap)
    }

    /// How many bytes of the VM may be taken at once, so that a mishap is due at its very byte.
    pub(super) fn room(&self, sums: &Tunnel) -> usize {
        let most = READ_BYTES.max(self.style.frame_bytes);
        match self.doom {
            Some(Doom { at: At::Vm(bytes), .. }) => {
                usize::try_from(bytes.saturating_sub(sums.received)).unwrap_or(most).min(most)
            }
            _ => most,
        }
    }
}

impl Doom {
    fn of(fault: &Fault) -> Option<Doom> {
        match *fault {
            Fault::RawPage { piece, then } => {
                Some(Doom { at: At::Upgrade, mishap: Mishap::Page { piece, then } })
            }
            Fault::Ending { how, at } => Some(Doom { at, mishap: Mishap::Ending(how) }),
            Fault::Silence { at, direction } => Some(Doom { at, mishap: Mishap::Silence(direction) }),
            _ => None,
        }
    }
}

/// All orders for frames together.
fn style(azure: &Azure) -> Style {
    let mut style = Style { frame_bytes: azure.settings.frame_bytes, rare: None };
    let forms = azure.strike_all(|fault| match fault {
        Fault::Frames { form } => Some(*form),
        _ => None,
    });
    for form in forms {
        let rare = style.rare.get_or_insert_with(Rare::default);
        match form {
            Form::Text => rare.text = true,
            Form::Fragmented => rare.fragmented = true,
            Form::Empty => rare.empty = true,
            Form::Pings => rare.pings = true,
            Form::Large(bytes) => style.frame_bytes = bytes.get().min(MAX_LARGE),
        }
    }
    style
}

/// Largest frame on order, in bytes: far above what anybody has seen, and what a tunnel can hold.
const MAX_LARGE: usize = 16 * 1024 * 1024;

/// Sends what is still due to the client, then lets the mishap happen. Returns when the client or the
/// emulator is done with the connection. Not cancel safe.
pub(super) async fn strike(
    mishap: Mishap,
    pump: &mut Pump<'_>,
    mut client: Client,
    machine: Option<Box<dyn Wire>>,
) {
    let sending = async {
        client.write_all_buf(&mut pump.to_client).await?;
        client.flush().await
    };
    // A client that does not read is left to its fault all the same.
    let _ = timeout(GOODBYE_TIME, sending).await;
    match mishap {
        Mishap::Silence(direction) => {
            let stop = pump.azure.stop.clone();
            let stopped = stop.run_until_cancelled(silence(pump, client, machine, direction)).await.is_none();
            pump.end.get_or_insert(if stopped { End::Stopped } else { End::Lost });
        }
        Mishap::Page { piece, then } => {
            pump.end.get_or_insert(End::Fault);
            page(pump, client, piece, then).await;
        }
        Mishap::Ending(Ending::Close(code)) if code != NO_CLOSE_FRAME => pump.close_with(client, code).await,
        Mishap::Ending(ending) => {
            pump.end.get_or_insert(End::Fault);
            end(pump, client, ending).await;
        }
    }
}

/// RFC 6455 section 7.4.1: 1006 stands for a connection that ended without a Close frame.
const NO_CLOSE_FRAME: u16 = 1006;

/// An answer to a request that Tomcat never understood, where frames should be (protocol.md §4).
const PAGE: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html;charset=utf-8\r\nContent-Language: en\r\nContent-Length: 155\r\nDate: Sun, 22 Nov 2026 15:53:11 GMT\r\nConnection: close\r\n\r\n<!doctype html><html lang=\"en\"><head><title>HTTP Status 400 \u{2013} Bad Request</title></head><body><h1>HTTP Status 400 \u{2013} Bad Request</h1><hr/></body></html>";

/// A plaintext alert, internal_error (RFC 8446 section 6), which nobody can send under TLS.
const GARBAGE: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x50];

async fn page(pump: &Pump<'_>, mut client: Client, piece: Option<NonZeroUsize>, then: Then) {
    for part in PAGE.as_bytes().chunks(piece.map_or(PAGE.len(), NonZeroUsize::get)) {
        // Each part leaves as a TLS record of its own.
        if client.write_all(part).await.is_err() || client.flush().await.is_err() {
            return;
        }
    }
    match then {
        Then::Close => end(pump, client, Ending::CloseNotify).await,
        Then::Stay => {
            let _ = pump.azure.stop.run_until_cancelled(drain(&mut client)).await;
        }
    }
}

async fn end(pump: &Pump<'_>, mut client: Client, ending: Ending) {
    let ended = match ending {
        Ending::Reset => {
            client.get_ref().0.get_ref().reset().order();
            return;
        }
        Ending::Fin => client.get_mut().0.shutdown().await,
        Ending::Garbage => {
            let socket = client.get_mut().0;
            match socket.write_all(&GARBAGE).await {
                Ok(()) => socket.shutdown().await,
                failed => failed,
            }
        }
        Ending::Truncated => {
            let mut frame = BytesMut::new();
            write_truncated(&mut frame);
            match client.write_all(&frame).await {
                Ok(()) => client.shutdown().await,
                failed => failed,
            }
        }
        Ending::Close(_) | Ending::CloseNotify => client.shutdown().await,
    };
    if ended.is_ok() {
        // Dropped with bytes unread, the socket would send a reset that overtakes what was just sent.
        let drained = timeout(GOODBYE_TIME, drain(&mut client));
        let _ = pump.azure.stop.run_until_cancelled(drained).await;
    }
}

/// Until the client is gone.
async fn silence(pump: &mut Pump<'_>, client: Client, machine: Option<Box<dyn Wire>>, direction: Direction) {
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let Some(machine) = machine.filter(|_| direction != Direction::Both) else {
        return drain(&mut client_read).await;
    };
    let (mut machine_read, mut machine_write) = tokio::io::split(machine);
    if direction == Direction::ToClient {
        let to_vm = async {
            loop {
                // What the VM does not take is lost, and so are pongs.
                let _ = machine_write.write_all_buf(&mut pump.to_machine).await;
                pump.to_machine.clear();
                pump.to_client.clear();
                pump.wire.reserve(READ_BYTES);
                match client_read.read_buf(&mut pump.wire).await {
                    Ok(count) if count > 0 => pump.take_frames(),
                    _ => return,
                }
            }
        };
        return until(to_vm, drain(&mut machine_read)).await;
    }
    let to_client = async {
        let mut scratch = vec![0; READ_BYTES];
        loop {
            let count = machine_read.read(&mut scratch).await.unwrap_or(0);
            pump.take_from_machine(scratch.get(..count).unwrap_or_default());
            let written = client_write.write_all_buf(&mut pump.to_client).await;
            if count == 0 || written.is_err() || client_write.flush().await.is_err() {
                return;
            }
        }
    };
    until(drain(&mut client_read), to_client).await;
}

/// Runs both, until the first is done.
async fn until(first: impl Future<Output = ()>, second: impl Future<Output = ()>) {
    let second = async {
        second.await;
        pending::<()>().await;
    };
    tokio::select! {
        () = first => {}
        () = second => {}
    }
}

/// Reads and forgets, to the end.
async fn drain<R: AsyncRead + Unpin>(from: &mut R) {
    let mut forgotten = vec![0; READ_BYTES];
    while from.read(&mut forgotten).await.is_ok_and(|count| count > 0) {}
}

#[cfg(test)]
mod tests {
    use super::PAGE;

    #[test]
    fn the_page_says_how_long_it_is() {
        let (head, body) = PAGE.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
