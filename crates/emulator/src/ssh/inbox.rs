//! The channels of one connection, as far as what comes in on them goes: data, its end, the close.
//!
//! Filled by the connection's task, read by the tasks that serve the channels. What goes out is `russh`'s
//! `ChannelWriteHalf`, whose writers wait for the client's window.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::ChannelId;
use tokio_util::sync::CancellationToken;

use super::backlog::{BacklogReader, BacklogWriter, backlog};

/// Shared by the connection and its tasks.
#[derive(Clone)]
pub(super) struct Inbox {
    channels: Arc<Mutex<HashMap<ChannelId, Slot>>>,
    ended: CancellationToken,
}

/// What a channel's task holds of the inbox.
pub(super) struct Inbound {
    /// What the client sends, until it sends its end of file or closes.
    pub(super) data: BacklogReader,
    /// Cancelled when the client has closed the channel, or the connection has ended.
    pub(super) closed: CancellationToken,
    /// Cancelled when the connection has ended.
    pub(super) ended: CancellationToken,
}

impl Inbox {
    /// An empty inbox; `ended` is the end of the whole connection.
    pub(super) fn new(ended: CancellationToken) -> Self {
        Self { channels: Arc::default(), ended }
    }

    /// The number of channels that are open.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Makes room for a channel that was opened. Nothing when that has been done.
    pub(super) fn open(&self, id: ChannelId) {
        self.slot(&mut self.lock(), id, |_| ());
    }

    /// Hands out what comes in on a channel, once; opens it if need be.
    pub(super) fn claim(&self, id: ChannelId) -> Option<Inbound> {
        let mut channels = self.lock();
        self.slot(&mut channels, id, |slot| {
            let data = slot.reader.take()?;
            Some(Inbound { data, closed: slot.closed.clone(), ended: self.ended.clone() })
        })
    }

    /// Data from the client.
    ///
    /// # Errors
    /// As [`BacklogWriter::push`].
    pub(super) fn deliver(&self, id: ChannelId, data: &[u8]) -> io::Result<()> {
        match self.lock().get(&id).and_then(|slot| slot.writer.as_ref()) {
            Some(writer) => writer.push(data),
            None => Ok(()),
        }
    }

    /// The client's end of file.
    pub(super) fn finish(&self, id: ChannelId) {
        if let Some(slot) = self.lock().get_mut(&id) {
            slot.writer = None;
        }
    }

    /// The end of a channel, told by the client or by the channel's own task.
    pub(super) fn close(&self, id: ChannelId) {
        if let Some(slot) = self.lock().remove(&id) {
            slot.closed.cancel();
        }
    }

    fn slot<T>(
        &self,
        channels: &mut HashMap<ChannelId, Slot>,
        id: ChannelId,
        with: impl FnOnce(&mut Slot) -> T,
    ) -> T {
        match channels.entry(id) {
            Entry::Occupied(mut slot) => with(slot.get_mut()),
            Entry::Vacant(vacant) => {
                let (writer, reader) = backlog();
                let closed = self.ended.child_token();
                with(vacant.insert(Slot { writer: Some(writer), reader: Some(reader), closed }))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, Slot>> {
        // Every change of the map is one call: it is valid even after a panic.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Slot {
    writer: Option<BacklogWriter>,
    reader: Option<BacklogReader>,
    closed: CancellationToken,
}
