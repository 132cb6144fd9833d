//! `bastide up`: all tunnels of a file in one process, connected on first use, read anew on SIGHUP. It leaves out the file
//! (`configuration::tunnels`) and what a tunnel is.

mod fleet;
mod health;
mod status;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bastide::{Environment, Fault};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

use crate::arguments::{self, Global, Output, Words};
use crate::configuration::tunnels::{self, Tunnels};
use crate::exit::{Exit, Failure};
use crate::report::Reporter;
use crate::signals::Signals;
use crate::sys::systemd;
use crate::{setup, sys};
use fleet::{Changes, Fleet};
use health::Statuses;

/// How often the table may be drawn: often enough for a rate that people read, rarely enough for a slow line.
const DRAW_EVERY: Duration = Duration::from_millis(500);

/// Opens the tunnels and serves until a signal.
pub(crate) fn run(global: &Global, up: &arguments::Up, reporter: &Reporter) -> Result<Exit, Failure> {
    let path = file(up)?;
    let read = || tunnels::read(&path, &arguments::definition());
    let tunnels = read()?;
    let words = Words::of_process();
    if up.check {
        Fleet::new(words.globals()?, &global.dues, reporter).check(&tunnels.words)?;
        reporter.event("checked", json!({"file": path, "tunnels": tunnels.words.len()}));
        reporter.say(&format!("{} means something: {} tunnels", path.display(), tunnels.words.len()));
        return Ok(Exit::Done);
    }
    sys::raise_descriptor_limit();
    let is_live = global.output == Output::Text
        && !global.quiet
        && global.verbose == 0
        && sys::terminal_size().is_some();
    let reporter = if is_live { reporter.without_progress() } else { reporter.clone() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    setup::block_on(runtime, global, async {
        let fleet = Fleet::new(words.globals()?, &global.dues, &reporter);
        let screen = if is_live { Screen::Live } else { Screen::Lines };
        serve(fleet, tunnels, &read, up, screen, &reporter).await
    })
}

/// The file that is named, or the one that is found.
fn file(up: &arguments::Up) -> Result<PathBuf, Failure> {
    if let Some(file) = &up.file {
        return Ok(file.clone());
    }
    let here = PathBuf::from("bastide.toml");
    let own = sys::configuration_folder(&Environment::of_process()).map(|folder| folder.join("up.toml"));
    [Some(here), own].into_iter().flatten().find(|path| path.exists()).ok_or_else(|| {
        Failure::usage(
            "there is no file of tunnels",
            "name one, or write bastide.toml here or up.toml in ~/.config/bastide; see `bastide up --help`",
        )
    })
}

/// How a person is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Screen {
    /// A table that is drawn again and again.
    Live,
    /// A line for each change.
    Lines,
}

async fn serve(
    mut fleet: Fleet,
    tunnels: Tunnels,
    read: &dyn Fn() -> Result<Tunnels, Failure>,
    up: &arguments::Up,
    screen: Screen,
    reporter: &Reporter,
) -> Result<Exit, Failure> {
    let mut hang_ups = sys::HangUps::new().map_err(Failure::system("signals cannot be received"))?;
    let signals = Signals::but_hang_up(reporter).map_err(Failure::system("signals cannot be received"))?;
    let stop = signals.stop();
    let statuses: Statuses = Arc::new(RwLock::default());
    let mut health = std::pin::pin!(match up.health.or(tunnels.health) {
        Some(address) => {
            let listener = open_health(address, up, reporter).await?;
            let statuses = Arc::clone(&statuses);
            Some(bastide::serve_pages(listener, move |path| health::page(path, &statuses)))
        }
        None => None,
    });
    let mut inherited = systemd::sockets(Environment::of_process().get("LISTEN_FDNAMES"));
    fleet.apply(tunnels.words, &mut inherited).await?;
    for name in inherited.keys() {
        reporter.warn(&format!("systemd hands over a socket for '{name}', and there is no such tunnel"));
    }
    let publish =
        |fleet: &Fleet| *statuses.write().unwrap_or_else(PoisonError::into_inner) = fleet.statuses();
    publish(&fleet);
    systemd::ready();
    systemd::status("listening");
    reporter.progress("Ctrl + C to close");
    let mut ticks = interval(DRAW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watchdog = systemd::watchdog().map(interval);
    let exit = loop {
        tokio::select! {
            () = stop.cancelled() => break signals.received().map_or(Exit::Done, Exit::Signal),
            () = hang_ups.next() => {
                if screen == Screen::Live && sys::terminal_size().is_none() {
                    // It was not somebody who wants the file read, but the terminal that is gone.
                    break Exit::Signal(sys::HANG_UP);
                }
                systemd::reloading();
                {
                    let mut reloading = std::pin::pin!(reload(&mut fleet, read, reporter));
                    loop {
                        tokio::select! {
                            () = &mut reloading => break,
                            () = stop.cancelled() => break,
                            () = next(watchdog.as_mut()) => systemd::alive(),
                            () = answer(health.as_mut().as_pin_mut()) => {}
                        }
                    }
                }
                publish(&fleet);
                systemd::ready();
            }
            ended = fleet.ended() => {
                if ended.is_none() {
                    break Exit::Failed(Fault::Timeout);
                }
            }
            _ = ticks.tick(), if screen == Screen::Live => {
                let size = sys::terminal_size().unwrap_or((80, 24));
                reporter.footer(status::draw(&fleet.statuses(), Instant::now(), size));
            }
            () = next(watchdog.as_mut()) => systemd::alive(),
            () = answer(health.as_mut().as_pin_mut()) => {}
        }
    };
    reporter.footer(String::new());
    systemd::stopping();
    let leaked = fleet.close().await;
    crate::tunnel::report_stopped(leaked, reporter);
    Ok(exit)
}

async fn next(ticks: Option<&mut tokio::time::Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

async fn answer(health: Option<std::pin::Pin<&mut impl Future<Output = ()>>>) {
    match health {
        Some(health) => health.await,
        None => std::future::pending().await,
    }
}

async fn open_health(
    address: std::net::SocketAddr,
    up: &arguments::Up,
    reporter: &Reporter,
) -> Result<TcpListener, Failure> {
    if !address.ip().is_loopback() {
        if !up.allow_other_users {
            return Err(Failure::usage(
                format!("health on {address} can be reached from other machines"),
                "everybody there would see the names of the tunnels: if that is meant, say --allow-other-users",
            ));
        }
        reporter.warn(&format!("health on {address} can be reached from other machines"));
    }
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::usage(format!("health cannot listen on {address}: {error}"), "take another port for it")
    })?;
    let address = listener.local_addr().map_err(Failure::system("the address of health is unknown"))?;
    reporter.event("health", json!({"address": address.to_string()}));
    reporter.progress(&format!("health and metrics on http://{address}"));
    Ok(listener)
}

/// A file that means nothing changes nothing.
async fn reload(fleet: &mut Fleet, read: &dyn Fn() -> Result<Tunnels, Failure>, reporter: &Reporter) {
    let applied = match read() {
        Ok(tunnels) => fleet.apply(tunnels.words, &mut Default::default()).await,
        Err(failure) => Err(failure),
    };
    match applied {
        Ok(changes) => tell(&changes, reporter),
        Err(failure) => {
            reporter.failure(&failure);
            reporter.warn("everything stays as it was");
        }
    }
}

fn tell(changes: &Changes, reporter: &Reporter) {
    let Changes { added, changed, removed, failed } = changes;
    let fields = json!({"added": added, "changed": changed, "removed": removed, "failed": failed});
    reporter.event("reloaded", fields);
    let part =
        |word: &str, names: &[String]| (!names.is_empty()).then(|| format!("{word} {}", names.join(", ")));
    let parts = [
        part("added", added),
        part("changed", changed),
        part("removed", removed),
        part("could not open", failed),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let words = if parts.is_empty() { "nothing has changed".to_owned() } else { parts.join("; ") };
    reporter.say(&format!("Read the file anew: {words}"));
}
