//! The binary `bastide`: parses, calls the library, prints, exits. No rule of the protocol is here.

mod account;
mod arguments;
mod asking;
#[cfg(unix)]
mod askpass;
mod certificate;
mod config;
mod configuration;
mod doctor;
mod exec;
mod exit;
mod files;
#[cfg(unix)]
mod hand_over;
mod list;
mod login;
mod manual;
mod openssh;
mod plugin;
mod program;
mod proxy;
mod rdp;
mod report;
mod sessions;
mod setup;
mod sign_in;
mod signals;
mod speaker;
mod ssh;
mod ssh_config;
mod stable_hash;
mod sys;
mod table;
mod transfer;
mod tunnel;
mod up;

use arguments::{Command, Global, Words};
use bastide::Environment;
use exit::{Exit, Failure};
use report::Reporter;
use speaker::Stream;
use transfer::Tool;

fn main() -> std::process::ExitCode {
    #[cfg(unix)]
    if let Some((socket, question)) = askpass::question() {
        return askpass::ask(&socket, &question).unwrap_or(Exit::Child(1)).into();
    }
    manual::complete();
    let words = Words::of_process();
    let (name, global) = match words.typed() {
        Ok(typed) => typed,
        // How to say things was not understood either.
        Err(failure) => {
            let json_to = words.want_json().then(|| json_of(&words.command_meant()));
            return report::without_reporter(&failure, json_to).into();
        }
    };
    let reporter = Reporter::new(&global).with_json_to(json_of(&name));
    report::own_faults();
    let result = words
        .configured(&Environment::of_process())
        .and_then(|(command, global)| run(command, &global, &reporter));
    let exit = result.unwrap_or_else(|failure| {
        reporter.failure(&failure);
        failure.exit()
    });
    sys::settle_stdout();
    let exit = match reporter.close() {
        Err(failure) => match (exit, report::without_reporter(&failure, None)) {
            (Exit::Done, unheard) => unheard,
            (exit, _) => exit,
        },
        Ok(()) => exit,
    };
    exit.into()
}

/// Where a command's events go: standard output may belong to a connection, or to a program that is started.
fn json_of(command: &str) -> Stream {
    match command {
        "exec" | "proxy" | "rsync" | "scp" | "sftp" | "ssh" => Stream::Stderr,
        _ => Stream::Stdout,
    }
}

fn run(command: Command, global: &Global, reporter: &Reporter) -> Result<Exit, Failure> {
    match command {
        Command::Tunnel(tunnel) => tunnel::run(global, tunnel, reporter),
        Command::List(list) => list::run(global, &list, reporter),
        Command::Rdp(rdp) => rdp::run(global, &rdp, reporter),
        Command::Exec(exec) => exec::run(global, &exec, reporter),
        Command::Ssh(ssh) => ssh::run(global, &ssh, reporter),
        Command::Scp(transfer) => ssh::copy(global, Tool::Scp, &transfer, reporter),
        Command::Sftp(transfer) => ssh::copy(global, Tool::Sftp, &transfer, reporter),
        Command::Rsync(transfer) => ssh::copy(global, Tool::Rsync, &transfer, reporter),
        Command::Up(up) => up::run(global, &up, reporter),
        Command::Login(login) => login::run(global, &login, reporter),
        Command::Logout => account::log_out(global, reporter),
        Command::Account => account::run(global, reporter),
        Command::Proxy(proxy) => proxy::run(global, proxy, reporter),
        Command::Doctor(doctor) => doctor::run(global, &doctor, reporter),
        Command::Sessions(sessions) => sessions::run(global, &sessions, reporter),
        Command::Config { task } => config::run(global, &task, reporter),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man(man) => manual::man(&man),
        Command::Plugin { task } => plugin::run(global, task.as_ref(), reporter),
        Command::SshConfig(wanted) => ssh_config::run(global, &wanted, reporter),
        Command::SshCert(ssh_cert) => certificate::run(global, &ssh_cert, reporter),
        #[cfg(unix)]
        Command::HandOver { socket, only, host } => hand_over::run(&socket, only.as_deref(), host.as_deref()),
    }
}
