//! A local port that leads to a port of a VM, for one connection; what happens to it is printed as lines of JSON.
//!
//!     cargo run --example tunnel -- VM PORT

use std::error::Error;
use std::sync::Arc;

use bastide::{
    Client, Endpoint, Environment, Event, Forward, RelayOptions, Settings, Tunnel, TunnelOptions, Words,
    event_fields, json_line,
};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [machine, port] = words.as_slice() else { return Err("which VM, and which of its ports?".into()) };

    let client = Client::new(Settings::from_environment(Environment::of_process())?).await?;
    let mut found = client.find(&Words::parse(machine, None, None)?).await?;

    let stop = CancellationToken::new();
    let over = stop.clone();
    let observer = move |event: Event| {
        if let Some((name, fields)) = event_fields(&event) {
            println!("{}", json_line(name, fields));
        }
        if matches!(event, Event::Closed { .. }) {
            over.cancel();
        }
    };
    let options = RelayOptions::default();
    let relay = client.reach(&mut found, port.parse()?, options, Arc::new(observer)).await?;
    let forward = Forward::open(&Endpoint::loopback(0), relay).await?;
    println!("{}", forward.endpoint());
    let stopped = Tunnel::new(vec![forward], TunnelOptions::default()).run(stop).await;
    if stopped.leaked > 0 { Err("a session could not be given back".into()) } else { Ok(()) }
}
