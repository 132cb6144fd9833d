//! `bastide proxy`: one connection on standard input and output. It leaves out carrying.

use bastide::{End, Fault, Halves, serve_one};
use serde_json::json;

use crate::arguments::{self, Global};
use crate::exit::{Exit, Failure};
use crate::report::Reporter;
use crate::setup::FirstWord;
use crate::signals::Signals;
use crate::{setup, sys};

/// Carries the connection until either side ends it, a signal, or a time limit.
pub(crate) fn run(global: &Global, proxy: arguments::Proxy, reporter: &Reporter) -> Result<Exit, Failure> {
    // One connection: a second thread would only cost wake-ups.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    setup::block_on(runtime, global, carry(global, proxy, reporter))
}

async fn carry(global: &Global, arguments: arguments::Proxy, reporter: &Reporter) -> Result<Exit, Failure> {
    let signals = Signals::listen(reporter).map_err(Failure::system("signals cannot be received"))?;
    let stop = signals.stop();
    let behaviour = &arguments.behaviour;
    let opening = async {
        let mut found = setup::find(global, &arguments.place, behaviour, reporter).await?;
        let options = setup::relay_options(behaviour, FirstWord::on(arguments.resource_port));
        setup::relay(&mut found, arguments.resource_port, options, reporter).await
    };
    let relay = tokio::select! {
        relay = opening => relay?,
        () = stop.cancelled() => return Ok(signals.received().map_or(Exit::Done, Exit::Signal)),
    };
    let local = Halves {
        reader: sys::stdin().map_err(Failure::system("standard input cannot be read"))?,
        writer: sys::stdout().map_err(Failure::system("standard output cannot be written"))?,
    };
    let (account, stopped) = serve_one(&relay, "stdio", local, &setup::tunnel_options(behaviour), stop).await;
    let limit = setup::limit_reached(stopped.cause, reporter);
    let ended = match (&account.outcome, signals.received().map(Exit::Signal).or(limit)) {
        (_, Some(stop)) => Ok(stop),
        (Err(error), None) => Ok(Exit::Failed(error.fault())),
        (Ok(end), None) => match fault_of(end) {
            Some(fault) => Err(Failure::Cut { end: end.clone(), fault }),
            // The far side's end is the ordinary end of a session.
            None => Ok(Exit::Done),
        },
    };
    relay.report(1, account);
    reporter.event("stopped", json!({"leaked": stopped.leaked}));
    ended
}

/// Whose fault an end is, behind which bytes may be missing.
fn fault_of(end: &End) -> Option<Fault> {
    match end {
        End::LocalFailed(_) => Some(Fault::Ours),
        End::Broken(_) | End::Dead | End::Malformed(_) | End::ProxyRefused { .. } => Some(Fault::Network),
        // What comes behind such a close is not the VM's own end.
        End::Closed { .. } if !end.is_ordinary() => Some(Fault::Service),
        _ => None,
    }
}
