//! What the data plane does not tell of a target that gives no connection: whether it runs, as ARM sees it; if it does,
//! the way that an earlier run has found to it may be the wrong one by now. It leaves out what follows from it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bastide_arm::{Arm, PowerState};
use bastide_core::ResourceId;
use bastide_relay::{VmState, Witness};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::places::Kept;

/// Asks ARM for the power state of one VM. A user who may not read the VM learns nothing from it, and loses nothing.
pub(crate) struct Power {
    arm: Arc<Arm>,
    /// None for an address.
    id: Option<ResourceId>,
    kept: Option<Kept>,
    /// The last answer and when it came. Locked while ARM is asked, so that many who ask at once cost one request.
    last: Mutex<Option<(Instant, Option<VmState>)>>,
}

impl Power {
    pub(crate) fn new(arm: Arc<Arm>, id: Option<ResourceId>, kept: Option<Kept>) -> Self {
        Self { arm, id, kept, last: Mutex::default() }
    }

    async fn ask(&self) -> Option<VmState> {
        let id = self.id.as_ref()?;
        match self.arm.virtual_machine(id).await {
            Ok(machine) => match machine.power {
                PowerState::Off(state) => Some(VmState { id: id.clone(), state }),
                PowerState::Running | PowerState::Unknown => None,
            },
            Err(error) => {
                tracing::debug!(%error, "the VM's power state is not known");
                None
            }
        }
    }
}

/// An answer holds for so long: a program that connects again and again must not use up the reads that ARM allows a
/// user (25 a second for each subscription, in buckets of 250:
/// learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling).
const HOLDS: Duration = Duration::from_secs(10);

#[async_trait]
impl Witness for Power {
    async fn vm_state(&self) -> Option<VmState> {
        let mut last = self.last.lock().await;
        if let Some((at, state)) = &*last
            && at.elapsed() < HOLDS
        {
            return state.clone();
        }
        let state = self.ask().await;
        if let (None, Some(kept)) = (&state, &self.kept) {
            kept.forget();
        }
        *last = Some((Instant::now(), state.clone()));
        state
    }
}
