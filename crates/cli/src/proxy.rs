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
    setup::block_on(runtime, carry(global, proxy, reporter))
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
    let exit = match (&account.outcome, signals.received().map(Exit::Signal).or(limit)) {
        (_, Some(stop)) => stop,
        (Err(error), None) => Exit::Failed(error.fault()),
        (Ok(End::Broken(_) | End::Dead | End::Malformed(_) | End::ProxyRefused { .. }), None) => {
            Exit::Failed(Fault::Network)
        }
        // What comes behind such a close is not the VM's own end: bytes may be missing.
        (Ok(end @ End::Closed { .. }), None) if !end.is_ordinary() => Exit::Failed(Fault::Service),
        // The far side's end is the ordinary end of a session.
        (Ok(_), None) => Exit::Done,
    };
    relay.report(1, account);
    reporter.event("stopped", json!({"leaked": stopped.leaked}));
    Ok(exit)
}
