//! The binary `bastide`: parses, calls the library, prints, exits. No rule of the protocol is here.

mod arguments;
mod exit;
#[cfg(unix)]
mod hand_over;
mod openssh;
mod proxy;
mod report;
mod setup;
mod signals;
mod speaker;
mod ssh;
mod sys;
mod tunnel;

use arguments::{Arguments, Command};
use exit::Exit;
use report::Reporter;

fn main() -> std::process::ExitCode {
    let (command, global) = Arguments::of_process();
    let reporter = Reporter::new(&global);
    report::own_faults();
    let result = match command {
        Command::Tunnel(tunnel) => tunnel::run(&global, tunnel, &reporter),
        Command::Ssh(ssh) => ssh::run(&global, ssh, &reporter),
        Command::Proxy(proxy) => proxy::run(&global, proxy, &reporter),
        #[cfg(unix)]
        Command::HandOver { socket } => hand_over::run(&socket),
    };
    let exit = result.unwrap_or_else(|failure| {
        reporter.failure(&failure);
        Exit::from(failure.fault())
    });
    reporter.close();
    exit.into()
}
