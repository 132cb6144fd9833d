//! A connection to a port of a VM as a stream: prints the first line that an SSH server says.
//!
//!     cargo run --example stream -- VM

use std::error::Error;
use std::time::Duration;

use bastide::{Client, Environment, Settings, Words};
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A name or a resource id; the Bastion host that reaches it is found, too.
    let machine = std::env::args().nth(1).ok_or("which VM?")?;

    let client = Client::new(Settings::from_environment(Environment::of_process())?).await?;
    let mut found = client.find(&Words::parse(&machine, None, None)?).await?;

    let connector = client.connector(&mut found, 22).await?;
    let mut stream = BufReader::new(connector.connect().await?);
    let mut banner = String::new();
    stream.read_line(&mut banner).await?;
    print!("{banner}");
    drop(stream);

    // Until the session is given back, which dropping the stream has begun.
    connector.close(Duration::from_secs(10)).await;
    Ok(())
}
