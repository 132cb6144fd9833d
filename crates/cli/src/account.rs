//! `bastide account` and `bastide logout`: who is signed in to Azure, and nobody any more. It leaves out signing in.

use bastide::{Caller, Environment};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::arguments::Global;
use crate::exit::{Exit, Failure};
use crate::report::Reporter;
use crate::setup;
use crate::setup::Attendance;
use crate::signals::Signals;

/// Signs in as the other commands would, and says who that is.
pub(crate) fn run(global: &Global, reporter: &Reporter) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    setup::block_on(runtime, global, async {
        let signals = Signals::listen(reporter).map_err(Failure::system("signals cannot be received"))?;
        let stop = signals.stop();
        let caller = async {
            let client = setup::signing_in(global, Attendance::Person, reporter).await?;
            Ok::<_, Failure>(client.caller().await?)
        };
        tokio::select! {
            caller = caller => say(&caller?, reporter),
            () = stop.cancelled() => return Ok(signals.received().map_or(Exit::Done, Exit::Signal)),
        }
        Ok(Exit::Done)
    })
}

fn say(caller: &Caller, reporter: &Reporter) {
    let Caller { identity, source, expires_on } = caller;
    let whole_seconds = OffsetDateTime::from(*expires_on).replace_nanosecond(0);
    let expires = whole_seconds.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default();
    reporter.event(
        "account",
        json!({
            "user": identity.user, "name": identity.name, "tenant": identity.tenant,
            "object_id": identity.object_id, "client_id": identity.client_id,
            "source": source, "expires_on": expires,
        }),
    );
    let unknown = "unknown".to_owned();
    reporter.data(&format!("user     {}", identity.label()));
    reporter.data(&format!("tenant   {}", identity.tenant.as_ref().unwrap_or(&unknown)));
    reporter.data(&format!("source   {source}"));
    reporter.data(&format!("expires  {expires}"));
}

/// Removes everything that is kept.
pub(crate) fn log_out(global: &Global, reporter: &Reporter) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    setup::block_on(runtime, global, async {
        let users = setup::store(global, &Environment::of_process()).clear().await?;
        reporter.event("signed_out", json!({"users": users}));
        reporter.say(&match users.as_slice() {
            [] => "Nobody was signed in; kept tokens are gone".to_owned(),
            users => format!("Signed out: {}", users.join(", ")),
        });
        Ok(Exit::Done)
    })
}
