//! A diagnosis: which link between here and a port of a VM is broken. It leaves out how that is found.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use bastide::doctor::{Diagnosis, Patient};

use crate::client::Client;
use crate::error::Failure;
use crate::handle::Thing;
use crate::options::Values;
use crate::{place, text};

/// What a report handle stands for.
pub(crate) struct Report {
    code: i32,
    json: CString,
}

impl Thing for Report {
    const KIND: &'static str = "report";
}

impl Report {
    /// Walks the chain to the port that the options name.
    pub(crate) fn examine(client: &Client, options: &Values) -> Result<Self, Failure> {
        let flags = client.refine(options)?;
        let (words, port) = (place::words(&flags)?, place::resource_port(&flags)?);
        let relay = place::relay_options(&flags, client.keepalive(), port);
        let desk = Arc::clone(&client.desk);
        // Not cut off by the end of the client: it has a session to give back.
        let diagnosis = client.desk.wait_to_the_end(async move {
            let patient = Patient { words, port, relay };
            let stop = desk.stop.child_token();
            let diagnosis = desk.azure()?.doctor(&patient, &mut |_| (), stop).await;
            if desk.stop.is_cancelled() { Err(Failure::closed()) } else { Ok(diagnosis) }
        })?;
        Self::new(&diagnosis)
    }

    fn new(diagnosis: &Diagnosis) -> Result<Self, Failure> {
        let json = serde_json::to_string(diagnosis)
            .map_err(|error| Failure::ours(format!("the report cannot be written: {error}")))?;
        let code = diagnosis.fault().map_or(0, |fault| fault.code().into());
        Ok(Self { code, json: text::owned(&json) })
    }

    pub(crate) fn code(&self) -> i32 {
        self.code
    }

    pub(crate) fn json(&self) -> &CStr {
        &self.json
    }
}
