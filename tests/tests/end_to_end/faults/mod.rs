//! Every fault of the emulator against the real program: struck once, it may cost the user time and nothing else; when
//! it stays, the end is bounded, named and hinted at. What a fault asks of the client is `duty`, how that is checked
//! is `checks`; here is what runs them, and what needs more than one fault.

mod checks;
mod duty;
mod more;

use std::collections::BTreeSet;
use std::sync::Mutex;

use bastide_emulator::faults::Order;

use checks::check;
use duty::{ORDERS, Stage, parse, stage};

/// The emulator's own list of names, as its parser tells them to who names none of them.
#[test]
fn every_fault_is_ordered() {
    let said = "sing".parse::<Order>().unwrap_err().to_string();
    let known: BTreeSet<&str> = said.split('`').skip(3).step_by(2).collect();
    let ordered: BTreeSet<&str> = ORDERS.iter().map(|order| parse(order).name()).collect();
    assert_eq!(known, ordered, "{said}");
}

#[test]
fn at_the_start() {
    all(Stage::Start);
}

#[test]
fn at_a_connection() {
    all(Stage::Connection);
}

#[test]
fn at_a_release() {
    all(Stage::Release);
}

/// Checks at once: what they do most is wait.
const AT_ONCE: usize = 8;

fn all(when: Stage) {
    let orders: Vec<&str> = ORDERS.iter().copied().filter(|order| stage(&parse(order)) == when).collect();
    let next = Mutex::new(orders.into_iter());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(order) = next.lock().unwrap().next() else { break };
                    // One that fails does not keep the others from being seen.
                    if std::panic::catch_unwind(|| check(order)).is_err() {
                        failed.lock().unwrap().push(order);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "see above: {failed:#?}");
}
