//! `bastide exec`: a program of the user's with a tunnel that works for as long as the program runs. It leaves out the
//! tunnel (`tunnel`).

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bastide::Endpoint;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::arguments::{self, Global};
use crate::exit::{Exit, Failure};
use crate::program::{self, Unfit};
use crate::report::Reporter;
use crate::signals::Signals;
use crate::tunnel::Order;
use crate::{setup, sys};

/// Status of a program that is not there, and of one that can't be run (POSIX, env(1)).
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Opens the tunnel, runs the program, and returns its status.
pub(crate) fn run(global: &Global, exec: &arguments::Exec, reporter: &Reporter) -> Result<Exit, Failure> {
    let Some((program, words)) = exec.command.split_first() else {
        return Err(Failure::usage("no program is named", "write it and its arguments behind --"));
    };
    check(program)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    setup::block_on(runtime, global, serve(global, exec, (program, words), reporter))
}

async fn serve(
    global: &Global,
    exec: &arguments::Exec,
    (program, words): (&OsStr, &[OsString]),
    reporter: &Reporter,
) -> Result<Exit, Failure> {
    // From the beginning, so that no signal falls between the tunnel's time and the program's.
    let failed = || Failure::system("signals cannot be received");
    let mut for_program = sys::PassedSignals::new().map_err(failed())?;
    let signals = Signals::listen(reporter).map_err(failed())?;
    let order = Order {
        place: &exec.place,
        local: &exec.local,
        behaviour: &exec.behaviour,
        prefetch: 0,
        // The terminal is the program's.
        say: Reporter::detail,
    };
    let Some(address) = order.first_port()? else {
        return Err(Failure::usage("no port of the VM is named", "name it with --resource-port PORT"));
    };
    let Some(ready) = order.open(global, &signals.stop(), reporter).await? else {
        return Ok(signals.received().map_or(Exit::Done, Exit::Signal));
    };
    // What a signal means is the program's business now.
    drop(signals);
    for_program.add_others().map_err(failed())?;
    let address = ready.endpoints().find_map(tcp).unwrap_or(address);
    let stop = CancellationToken::new();
    let mut child = match start(program, words, address) {
        Ok(child) => child,
        Err(failure) => {
            stop.cancel();
            ready.serve(stop, reporter).await;
            return Err(failure);
        }
    };
    let mut tunnel = std::pin::pin!(ready.serve(stop.clone(), reporter));
    let exit = tokio::select! {
        exit = accompany(&mut child, &mut for_program) => {
            stop.cancel();
            // The program is gone: a signal is for us again, and means that nobody waits for the tunnel's end.
            tokio::select! {
                _ = &mut tunnel => {}
                signal = for_program.next() => return Ok(Exit::Signal(signal)),
            }
            exit?
        }
        cause = &mut tunnel => {
            let id = child.id();
            let ending = program::end(&mut child, TERMINATE);
            pass_on(id, &mut for_program, ending).await?;
            setup::limit_reached(cause, reporter).unwrap_or(Exit::Signal(TERMINATE))
        }
    };
    Ok(exit)
}

/// SIGTERM, by which timeout(1) ends a program, too.
const TERMINATE: u8 = 15;

/// Waits for the program.
async fn accompany(child: &mut Child, signals: &mut sys::PassedSignals) -> Result<Exit, Failure> {
    let id = child.id();
    program::exit_of(pass_on(id, signals, child.wait()).await)
}

/// Waits for the end of a child, and until then passes signals on to it.
async fn pass_on<T>(id: Option<u32>, signals: &mut sys::PassedSignals, end: impl Future<Output = T>) -> T {
    let mut end = std::pin::pin!(end);
    loop {
        tokio::select! {
            biased;
            ended = &mut end => return ended,
            signal = signals.next() => {
                if let Some(id) = id {
                    sys::pass_signal(id, signal);
                }
            }
        }
    }
}

/// Refuses what could not be started, before anything is opened.
fn check(program: &OsStr) -> Result<(), Failure> {
    let shown = program.display();
    match program::find(program) {
        Ok(_) => Ok(()),
        Err(Unfit::Missing) if program.as_encoded_bytes().contains(&b'/') => Err(Failure::Command {
            message: format!("there is no program '{shown}'"),
            hint: "check its path".into(),
            status: NOT_FOUND,
        }),
        Err(Unfit::Missing) => Err(Failure::Command {
            message: format!("there is no '{shown}' in PATH"),
            hint: "install it, or name it by its path; for a line of the shell write -- sh -c 'LINE'".into(),
            status: NOT_FOUND,
        }),
        Err(Unfit::NotExecutable(path)) => Err(Failure::Command {
            message: format!("'{}' cannot be run", path.display()),
            hint: "it has to be a file that you may execute (chmod +x)".into(),
            status: NOT_EXECUTABLE,
        }),
    }
}

fn start(program: &OsStr, words: &[OsString], address: SocketAddr) -> Result<Child, Failure> {
    let (host, port) = (reachable(address.ip()).to_string(), address.port().to_string());
    let failed = |source: std::io::Error| {
        let status = if source.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
        Failure::Command {
            message: format!("'{}' cannot be started: {source}", program.display()),
            hint: "if it is a script, its first line has to name a program that is there".into(),
            status,
        }
    };
    let mut command = Command::new(program);
    command
        .args(words.iter().map(|word| filled(word, &host, &port)))
        .env("BASTIDE_HOST", &host)
        .env("BASTIDE_PORT", &port)
        .stdout(sys::stdout_for_child().map_err(Failure::system("standard output cannot be passed on"))?)
        .kill_on_drop(true);
    command.spawn().map_err(failed)
}

/// Where a program reaches a listener of this address.
fn reachable(bind: IpAddr) -> IpAddr {
    match bind {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

fn tcp(endpoint: &Endpoint) -> Option<SocketAddr> {
    match endpoint {
        Endpoint::Tcp(address) => Some(*address),
        Endpoint::Unix(_) => None,
    }
}

/// A word with `{host}` and `{port}` filled in. `{{host}}` and `{{port}}` stand for themselves with one pair of braces
/// less; all other braces are the program's own. What is no text has no placeholder.
fn filled(word: &OsStr, host: &str, port: &str) -> OsString {
    let Some(mut rest) = word.to_str() else { return word.to_owned() };
    let placeholders = [("{{host}}", "{host}"), ("{{port}}", "{port}"), ("{host}", host), ("{port}", port)];
    let mut text = String::new();
    while let Some(first) = rest.chars().next() {
        let found = placeholders.iter().find_map(|(name, value)| Some((rest.strip_prefix(name)?, value)));
        match found {
            Some((behind, value)) => {
                text.push_str(value);
                rest = behind;
            }
            None => {
                text.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_other_braces_kept() {
        let check = |word: &str, expected: &str| {
            assert_eq!(filled(OsStr::new(word), "127.0.0.1", "5432"), expected, "{word}");
        };
        check("postgres://{host}:{port}/db", "postgres://127.0.0.1:5432/db");
        check("{port}{port}", "54325432");
        check("{{port}} {{host}}", "{port} {host}");
        check(r#"{"port":{port}}"#, r#"{"port":5432}"#);
        check("{{port}", "{5432");
        check("{user} {} { {Port} ${port} é{host}é", "{user} {} { {Port} $5432 é127.0.0.1é");
        check("", "");
    }

    #[test]
    fn a_listener_everywhere_is_reached_here() {
        let check = |bind: &str, expected: &str| {
            assert_eq!(reachable(bind.parse().unwrap()).to_string(), expected);
        };
        check("0.0.0.0", "127.0.0.1");
        check("::", "::1");
        check("127.0.0.2", "127.0.0.2");
    }
}
