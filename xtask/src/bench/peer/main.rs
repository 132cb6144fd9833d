//! `bench-peer`: both ends of a measurement. `far` is what lies behind every client that is measured: services
//! over plain TLS, and the same services behind an Azure of canned answers. `copy` is the plain TLS copy, the
//! limit that `bastide` is held against. `ping` asks the far end
//! directly, which is what every client adds to. What is measured, and how, is `cargo xtask bench`.

mod azure;
mod copy;
mod far;
mod frames;
mod ping;

use std::net::TcpListener;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["far", folder] => far::run(folder.as_ref()),
        ["copy", api, authority, target] => {
            let api = match *api {
                "buffered" => copy::Api::Buffered,
                "unbuffered" => copy::Api::Unbuffered,
                _ => bail!("no such interface of rustls: {api}"),
            };
            copy::run(api, authority.as_ref(), target.parse().context("the target is no address")?)
        }
        ["ping", authority, target, count] => ping::run(
            authority.as_ref(),
            target.parse().context("the target is no address")?,
            count.parse().context("the count is no number")?,
        ),
        _ => bail!(
            "usage: bench-peer ping CA-FILE ADDRESS COUNT | bench-peer far FOLDER | bench-peer copy buffered|unbuffered CA-FILE ADDRESS"
        ),
    }
}

/// A listener on a port of the system's choice.
fn listen() -> Result<(TcpListener, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
    let port = listener.local_addr().context("cannot tell the port")?.port();
    Ok((listener, port))
}
