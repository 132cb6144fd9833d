//! Bad weather: faults of the emulator, switched on and off by a seeded schedule. A gale, which a new connection has
//! to survive without its user noticing, and a storm, which may cut one off.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bastide_emulator::Emulator;
use bastide_emulator::faults::{At, Body, Direction, Ending, Fault, Flaw, Form, Order, Then};
use bastide_emulator::transcript::Kind;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// When there were storms.
#[derive(Debug, Default)]
pub(crate) struct Chronicle(Mutex<Vec<(Instant, Option<Instant>)>>);

impl Chronicle {
    /// Whether a connection that lived from `start` until now may have been cut off. A fault strikes a connection when
    /// it is opened, and may hit it long after.
    pub(crate) fn excuses(&self, start: Instant) -> bool {
        self.lock().iter().any(|(_, end)| end.is_none_or(|end| end >= start))
    }

    fn begins(&self) {
        self.lock().push((Instant::now(), None));
    }

    fn ends(&self) {
        if let Some((_, end)) = self.lock().last_mut() {
            end.get_or_insert_with(Instant::now);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Option<Instant>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fair and bad weather in turn until dropped.
pub(crate) async fn change(emulator: &Emulator, chronicle: &Chronicle, seed: u64) {
    let mut dice = StdRng::seed_from_u64(seed);
    loop {
        tokio::time::sleep(dice.random_range(FAIR)).await;
        let weather = Weather::random(&mut dice);
        if weather.is_storm {
            chronicle.begins();
        }
        emulator.set_faults(weather.orders);
        tokio::time::sleep(dice.random_range(BAD)).await;
        clear(emulator, chronicle);
    }
}

/// Fair weather from now on.
pub(crate) fn clear(emulator: &Emulator, chronicle: &Chronicle) {
    emulator.set_faults(Vec::<Order>::new());
    chronicle.ends();
}

/// Longer than the pause before a client's fourth attempt, so that no connection meets its five in two gales.
const FAIR: std::ops::Range<Duration> = Duration::from_secs(4)..Duration::from_secs(8);
/// Shorter than any wait of the client, so that what is held is let go before that.
const BAD: std::ops::Range<Duration> = Duration::from_secs(2)..Duration::from_secs(7);
/// Strikes of a gale: one less than the attempts that a client makes after its first.
const GUSTS: u32 = 3;
/// Strikes of a gale on releases: one less than the attempts at a release.
const GUSTS_ON_RELEASES: u32 = 2;
/// Connections that a storm hits.
const STRIKES: u32 = 20;
/// Connections that a storm silences: each holds its place for the fifty seconds that a client needs to notice.
const SILENCED: u32 = 3;

struct Weather {
    orders: Vec<Order>,
    is_storm: bool,
}

impl Weather {
    fn random(dice: &mut StdRng) -> Weather {
        let orders = match dice.random_range(0..20) {
            0 => vec![status(Kind::Mint, 503, Body::Json, Some("1")).times(GUSTS)],
            1 => vec![status(Kind::Mint, 500, Body::Html, None).times(GUSTS)],
            2 => vec![status(Kind::Mint, 429, Body::Empty, Some("1")).times(GUSTS)],
            3 => vec![Fault::Reset { on: Kind::Mint.into() }.times(GUSTS)],
            4 => vec![Fault::Half { on: Kind::Mint.into() }.times(GUSTS)],
            5 => vec![
                Fault::MissingField { on: Kind::Mint.into(), field: "websocketToken".into() }.times(GUSTS),
            ],
            6 => vec![Fault::Hold { on: Kind::Mint.into() }.into()],
            7 => vec![Fault::ExpiredTokens.into()],
            8 => vec![status(Kind::Upgrade, 502, Body::Html, None).times(GUSTS)],
            9 => vec![Fault::Reset { on: Kind::Upgrade.into() }.times(GUSTS)],
            10 => {
                let flaw = *pick(dice, &[Flaw::NoHeaders, Flaw::KeepAlive, Flaw::WrongAccept]);
                let order = Order::from(Fault::Handshake { flaw });
                let times = (flaw == Flaw::WrongAccept).then_some(GUSTS);
                vec![Order { times, ..order }]
            }
            11 => {
                let then = *pick(dice, &[Then::Close, Then::Stay]);
                let piece = NonZeroUsize::new(dice.random_range(0..20));
                vec![Fault::RawPage { piece, then }.times(GUSTS)]
            }
            12 => vec![Fault::Ending { how: ending(dice), at: At::Upgrade }.times(GUSTS)],
            13 => vec![
                status(Kind::Release, 503, Body::Json, None).times(GUSTS_ON_RELEASES - 1),
                Fault::Reset { on: Kind::Release.into() }.times(1),
            ],
            14 => vec![Fault::Hold { on: Kind::Release.into() }.into()],
            15 => [Form::Text, Form::Fragmented, Form::Empty, Form::Pings]
                .into_iter()
                .chain(NonZeroUsize::new(dice.random_range(1..200_000)).map(Form::Large))
                .filter(|_| dice.random_bool(0.5))
                .map(|form| Fault::Frames { form }.into())
                .collect(),
            16 => return Weather::storm(Fault::Ending { how: ending(dice), at: later(dice) }.times(STRIKES)),
            17 => return Weather::storm(Fault::Ending { how: ending(dice), at: later(dice) }.times(STRIKES)),
            18 => return Weather::storm(Fault::Ending { how: ending(dice), at: At::Now }.into()),
            _ => {
                let direction = *pick(dice, &[Direction::Both, Direction::ToClient, Direction::ToVm]);
                return Weather::storm(Fault::Silence { at: later(dice), direction }.times(SILENCED));
            }
        };
        Weather { orders, is_storm: false }
    }

    fn storm(order: Order) -> Weather {
        Weather { orders: vec![order], is_storm: true }
    }
}

fn status(on: Kind, status: u16, body: Body, retry_after: Option<&str>) -> Fault {
    let message = "the service is ill".into();
    Fault::Status { on: on.into(), status, body, message, retry_after: retry_after.map(str::to_owned) }
}

/// An end that no VM makes. Not [`Ending::Truncated`]: its half frame holds bytes that no VM has said.
fn ending(dice: &mut StdRng) -> Ending {
    let codes = [1001, 1006, 1011, 1012, 1013].map(Ending::Close);
    let ends = [Ending::CloseNotify, Ending::Fin, Ending::Reset, Ending::Garbage];
    *pick(dice, &[&codes[..], &ends].concat())
}

/// After the first byte, in one direction or the other; each size is as likely as one twice as large.
fn later(dice: &mut StdRng) -> At {
    let bytes = 1 << dice.random_range(0..23);
    let bytes = dice.random_range(bytes..2 * bytes);
    if dice.random_bool(0.7) { At::Vm(bytes) } else { At::Client(bytes) }
}

fn pick<'a, T>(dice: &mut StdRng, from: &'a [T]) -> &'a T {
    from.choose(dice).expect("a list that is not empty")
}
