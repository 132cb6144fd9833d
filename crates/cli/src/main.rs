//! The binary `bastide`: parses, calls the library, prints, exits. No rule of the protocol is here.

mod account;
mod arguments;
mod asking;
#[cfg(unix)]
mod askpass;
mod certificate;
mod config;
mod configuration;
mod exit;
#[cfg(unix)]
mod hand_over;
mod list;
mod login;
mod manual;
mod openssh;
mod plugin;
mod proxy;
mod report;
mod setup;
mod sign_in;
mod signals;
mod speaker;
mod ssh;
mod sys;
mod table;
mod tunnel;

use arguments::{Command, Global, Words};
use bastide::Environment;
use exit::{Exit, Failure};
use report::Reporter;

fn main() -> std::process::ExitCode {
    #[cfg(unix)]
    if let Some((socket, question)) = askpass::question() {
        return askpass::ask(&socket, &question).unwrap_or(Exit::Child(1)).into();
    }
    manual::complete();
    let words = Words::of_process();
    let global = match words.typed() {
        Ok(global) => global,
        // How to say things was not understood either.
        Err(failure) => return report::wrong_use(&failure).into(),
    };
    let reporter = Reporter::new(&global);
    report::own_faults();
    let result = words
        .configured(&Environment::of_process())
        .and_then(|(command, global)| run(command, &global, &reporter));
    let exit = result.unwrap_or_else(|failure| {
        reporter.failure(&failure);
        Exit::from(failure.fault())
    });
    sys::settle_stdout();
    reporter.close();
    exit.into()
}

fn run(command: Command, global: &Global, reporter: &Reporter) -> Result<Exit, Failure> {
    match command {
        Command::Tunnel(tunnel) => tunnel::run(global, tunnel, reporter),
        Command::Ssh(ssh) => ssh::run(global, ssh, reporter),
        Command::List(list) => list::run(global, &list, reporter),
        Command::Login(login) => login::run(global, &login, reporter),
        Command::Logout => account::log_out(global, reporter),
        Command::Account => account::run(global, reporter),
        Command::Proxy(proxy) => proxy::run(global, proxy, reporter),
        Command::Config { task } => config::run(global, &task, reporter),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man(man) => manual::man(&man),
        Command::Plugin { task } => plugin::run(global, &task, reporter),
        Command::SshCert(ssh_cert) => certificate::run(global, &ssh_cert, reporter),
        #[cfg(unix)]
        Command::HandOver { socket } => hand_over::run(&socket),
    }
}
