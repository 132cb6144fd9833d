//! `bastide sessions`: what is open on a Bastion host, what crashes of this user's processes have left behind, and ending
//! either. It leaves out how both are found.

use bastide::{Client, Error, LeftBehind, Session, json_line};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::arguments::{self, Global, Output, SessionsTask};
use crate::exit::{Exit, Failure};
use crate::report::{self, Reporter};
use crate::signals::Signals;
use crate::table::table;
use crate::{setup, sys};

/// Lists sessions, or ends some.
pub(crate) fn run(
    global: &Global,
    arguments: &arguments::Sessions,
    reporter: &Reporter,
) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    setup::block_on(runtime, global, async {
        let signals = Signals::listen(reporter).map_err(Failure::system("signals cannot be received"))?;
        let stop = signals.stop();
        let task = async {
            match &arguments.task {
                None | Some(SessionsTask::List { .. }) => list(global, arguments, reporter).await,
                Some(SessionsTask::Close { ids }) => close(global, arguments, ids, reporter).await,
            }
        };
        tokio::select! {
            exit = task => exit,
            () = stop.cancelled() => Ok(signals.received().map_or(Exit::Done, Exit::Signal)),
        }
    })
}

async fn list(
    global: &Global,
    arguments: &arguments::Sessions,
    reporter: &Reporter,
) -> Result<Exit, Failure> {
    let (client, host) = setup::host(global, &arguments.place(), reporter).await?;
    let asking = client.sessions(&host);
    let sessions = reporter.while_waiting("Waiting for the list of sessions …", asking).await?;
    let left = client.left_behind();
    let text = match global.output {
        Output::Json => {
            let lines = sessions.list.iter().map(session_json).chain(left.iter().map(left_json));
            lines.map(|fields| json_line("session", fields) + "\n").collect()
        }
        Output::Text => {
            let rows = sessions.list.iter().map(session_row).chain(left.iter().map(left_row));
            table(["ID", "PROTOCOL", "SINCE", "TARGET", "USER"], rows, sys::stdout_columns())
        }
    };
    if text.is_empty() {
        reporter.say("No sessions are open");
    }
    report::print(text.as_bytes())?;
    if let Some(crowding) = sessions.crowding() {
        reporter.event(
            "crowding",
            json!({
                "message": crowding.to_string(), "hint": crowding.hint(), "units_needed": crowding.units_needed,
            }),
        );
        reporter.warn(&crowding.to_string());
        reporter.hint(&crowding.hint());
    }
    Ok(Exit::Done)
}

fn session_json(session: &Session) -> Value {
    json!({
        "id": session.id, "protocol": session.protocol, "target": session.target_resource_id,
        "address": session.target_ip_address, "user": session.user_name, "since": session.start_time,
        "left_behind": false,
    })
}

fn left_json(left: &LeftBehind) -> Value {
    json!({"id": left.id, "host": left.host, "since": when(left), "left_behind": true})
}

fn session_row(session: &Session) -> Vec<String> {
    let target = [&session.target_host_name, &session.target_ip_address, &session.target_resource_id];
    let target = target.into_iter().flatten().find(|text| !text.is_empty());
    let columns = [
        Some(&session.id),
        session.protocol.as_ref(),
        session.start_time.as_ref(),
        target,
        session.user_name.as_ref(),
    ];
    columns.into_iter().map(|column| column.cloned().unwrap_or_default()).collect()
}

fn left_row(left: &LeftBehind) -> Vec<String> {
    let target = format!("{} (left behind by a crash)", left.host);
    vec![left.id.clone(), String::new(), when(left), target, String::new()]
}

fn when(left: &LeftBehind) -> String {
    let whole_seconds = OffsetDateTime::from(left.minted).replace_nanosecond(0);
    whole_seconds.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

async fn close(
    global: &Global,
    arguments: &arguments::Sessions,
    ids: &[String],
    reporter: &Reporter,
) -> Result<Exit, Failure> {
    // Those that a crash left behind are known by their ids, whichever host they belong to.
    let client = setup::signing_in(global, setup::Attendance::Person, reporter).await?;
    let left: Vec<String> = client.left_behind().into_iter().map(|left| left.id).collect();
    let (left, others): (Vec<String>, Vec<String>) = ids.iter().cloned().partition(|id| left.contains(id));
    give_back(&client, &left, reporter).await?;
    if others.is_empty() {
        return Ok(Exit::Done);
    }
    let (client, host) = setup::host(global, &arguments.place(), reporter).await?;
    let ends = client.end_sessions(&host, &others).await?;
    let mut failed = None;
    for id in &others {
        let end = ends.iter().find(|end| end.id.eq_ignore_ascii_case(id));
        // A service that says nothing has had nothing to complain about.
        let state = end.map_or("Disconnected", |end| end.state.as_str());
        if state.eq_ignore_ascii_case("disconnected") {
            closed(id, "disconnected", reporter);
            continue;
        }
        let message = end.and_then(|end| end.message.clone());
        failed = failed.or(Some(Error::NotEnded { id: id.clone(), state: state.to_owned(), message }));
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(Exit::Done),
    }
}

async fn give_back(client: &Client, ids: &[String], reporter: &Reporter) -> Result<(), Failure> {
    for id in ids {
        // Somebody else may have been quicker, which is as good.
        client.give_back(id).await?;
        closed(id, "given back", reporter);
    }
    Ok(())
}

fn closed(id: &str, state: &str, reporter: &Reporter) {
    reporter.event("session_closed", json!({"id": id, "state": state}));
    reporter.say(&format!("Session {id} is {state}"));
}
