//! The command line as clap reads it (cli.md, "Commands", "Flags", "Global flags"). It leaves out what the words
//! mean and what is done with them.

mod carry;
mod host;
mod list;
mod place;
mod rdp;
mod ssh;
mod up;
mod wrong;

use std::ffi::OsString;
use std::path::PathBuf;

use bastide::{Credential, Dues, Environment};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::configuration::{self, Configuration};
use crate::exit::Failure;

pub(crate) use carry::{Exec, LocalSide, Proxy, Tunnel};
pub(crate) use host::{Doctor, Sessions, SessionsTask};
pub(crate) use list::{List, Listing};
pub(crate) use place::{Behaviour, Keepalive, Place};
pub(crate) use rdp::{Desktop, DesktopAuthType, Rdp};
pub(crate) use ssh::{AuthType, HostKeyCheck, SignIn, Ssh, SshCert, SshConfig, Transfer};
pub(crate) use up::Up;

/// A native client for Azure Bastion.
#[derive(Debug, Parser)]
#[command(
    name = "bastide",
    version,
    infer_long_args = true,
    args_override_self = true,
    disable_help_subcommand = true,
    after_help = "Everything that works after `az network bastion` works after `bastide`."
)]
pub(crate) struct Arguments {
    /// Optional for clap alone, whose complaint about a missing one would list the hidden ones too.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) global: Global,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sign in to a VM with your own OpenSSH client
    #[command(after_help = SSH_EXAMPLES)]
    Ssh(Ssh),
    /// Copy files with your own scp
    #[command(after_help = SCP_EXAMPLES)]
    Scp(Transfer),
    /// Copy files in a dialogue with your own sftp
    #[command(after_help = SFTP_EXAMPLES)]
    Sftp(Transfer),
    /// Bring folders to the same state with your own rsync
    #[command(after_help = RSYNC_EXAMPLES)]
    Rsync(Transfer),
    /// Open a local port that leads to a port of a VM
    #[command(after_help = TUNNEL_EXAMPLES)]
    Tunnel(Tunnel),
    /// See a VM's desktop with your own RDP client
    #[command(after_help = RDP_EXAMPLES)]
    Rdp(Rdp),
    /// The Bastion hosts and VMs that you can reach
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// Open all tunnels of a file, connected on first use
    #[command(after_help = UP_EXAMPLES)]
    Up(Up),
    /// Run a program with a tunnel that works for as long as it runs
    #[command(after_help = EXEC_EXAMPLES)]
    Exec(Exec),
    /// Sign in to Azure in a browser, on this machine or another, with a code
    #[command(after_help = LOGIN_EXAMPLES)]
    Login(Login),
    /// Sign out: forget every sign-in and token that is kept
    Logout,
    /// Who is signed in to Azure, by which way, and until when
    Account,
    /// Carry one connection on standard input and output, for OpenSSH's ProxyCommand
    #[command(after_help = PROXY_EXAMPLES)]
    Proxy(Proxy),
    /// Find the link between here and a VM that is broken, and say what mends it
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(Doctor),
    /// Show the sessions of a Bastion host, or end some
    #[command(after_help = SESSIONS_EXAMPLES)]
    Sessions(Sessions),
    /// Show the configured plugins, or whether a file can be one
    #[command(after_help = PLUGIN_EXAMPLES)]
    Plugin {
        /// What to do; `list` where left out.
        #[command(subcommand)]
        task: Option<PluginTask>,
    },
    /// Show what holds for this machine or a VM, and where each value comes from
    #[command(after_help = CONFIG_EXAMPLES)]
    Config {
        /// What to do.
        #[command(subcommand)]
        task: ConfigTask,
    },
    /// Write an Entra ID certificate for SSH, and its key, into files
    #[command(after_help = SSH_CERT_EXAMPLES)]
    SshCert(SshCert),
    /// Print or write what lets plain ssh, scp, rsync, git, Ansible and editors reach VMs
    #[command(after_help = SSH_CONFIG_EXAMPLES)]
    SshConfig(SshConfig),
    /// Print what lets a shell complete commands, flags and names
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print a page for man(1), or write all of them
    #[command(after_help = MAN_EXAMPLES)]
    Man(Man),
    /// Pass a connection to the session's socket on to OpenSSH
    #[cfg(unix)]
    #[command(name = "hand-over", hide = true)]
    HandOver {
        /// The session's private socket.
        socket: PathBuf,
        /// The one host that it is for, as OpenSSH calls it.
        #[arg(long, requires = "host")]
        only: Option<String>,
        /// The host that OpenSSH wants.
        host: Option<String>,
    },
}

const SSH_EXAMPLES: &str = "\
Examples:
  bastide ssh web-01
  bastide ssh -n BASTION -g GROUP --target-resource-id ID --auth-type ssh-key --username me --ssh-key ~/.ssh/id_ed25519
  bastide ssh -n BASTION -g GROUP --target-ip-address 10.0.0.4 --username me -- -L 8080:localhost:80
  bastide ssh -n BASTION -g GROUP --target-resource-id ID --auth-type AAD
  bastide ssh -n BASTION -g GROUP --target-resource-id ID -- uptime
  pass show vm | bastide ssh -n BASTION -g GROUP --target-resource-id ID --username me --password-stdin -- uptime";

const SCP_EXAMPLES: &str = "\
Examples:
  bastide scp web-01 --username me -- -r ./site vm:/var/www
  bastide scp web-01 --auth-type AAD -- vm:/var/log/syslog .
Options of scp go behind --, too; `me@vm:` is another user of the VM.";

const SFTP_EXAMPLES: &str = "\
Examples:
  bastide sftp web-01 --username me
  bastide sftp web-01 --username me -- -b commands vm";

const RSYNC_EXAMPLES: &str = "\
Examples:
  bastide rsync web-01 --username me -- -a --delete ./site/ vm:/var/www/
  bastide rsync web-01 --auth-type AAD -- -av vm:/etc/nginx .";

const SSH_CERT_EXAMPLES: &str = "\
`bastide ssh --auth-type AAD` needs no files: its key never leaves memory. For other programs:
  bastide ssh-cert --write ~/.ssh/entra
  scp -i ~/.ssh/entra/id_rsa -o CertificateFile=~/.ssh/entra/id_rsa-cert.pub …";

const SSH_CONFIG_EXAMPLES: &str = "\
Examples:
  bastide ssh-config web-01 db-01 --username me --ssh-key ~/.ssh/id_ed25519 --write
  ssh web-01; scp notes db-01:; git clone web-01:repository
  bastide ssh-config web-01 --auth-type AAD --write
  bastide ssh-config --write                   # make all blocks anew
  bastide ssh-config --remove db-01
With --auth-type AAD, key and certificate are files below ~/.ssh/bastide that only you can read:
plain ssh has no other way. Each ssh renews them by itself when less than a fifth of their hour is
left.";

const TUNNEL_EXAMPLES: &str = "\
Examples:
  bastide tunnel db-01 --resource-port 5432 --port 5432
  bastide tunnel -n BASTION -g GROUP --target-resource-id ID -L 8022:22 -L ./db.sock:5432
  bastide tunnel -n BASTION -g GROUP --target-resource-id ID --resource-port 22 --port 0 -o json";

const LIST_EXAMPLES: &str = "\
Examples:
  bastide list
  bastide list vms -o json
What is listed is completed by the shell from then on: see `bastide completions --help`.";
const UP_EXAMPLES: &str = "\
In bastide.toml, with the flags of `bastide tunnel`:
  [defaults]
  name = \"hub\"
  [tunnels.db]
  target = \"db-01\"
  resource-port = 5432
  port = 5432
  [tunnels.web]
  target = \"10.0.0.4\"
  forward = [\"8080:80\", \"./api.sock:8000\"]
Then:
  bastide up
  bastide up --check
SIGHUP has the file read anew: what is the same in it keeps its connections.";

const RDP_EXAMPLES: &str = "\
Examples:
  bastide rdp win-01 --username me
  bastide rdp win-01 -- /size:1920x1080 +clipboard
  bastide rdp win-01 --save win-01.rdp
  bastide rdp win-01 --auth-type AAD --save win-01.rdp
The client is the first of xfreerdp3, xfreerdp, sdl-freerdp3, sdl-freerdp and remmina, or mstsc
on Windows; it asks for the password. FreeRDP keeps the VM's first certificate, and takes no other
one for it. The status is 0 after a session, and 255 when FreeRDP says that it failed.";

const EXEC_EXAMPLES: &str = "\
Examples:
  bastide exec db-01 --resource-port 5432 -- psql -h {host} -p {port} -U me shop
  bastide exec web-01 --resource-port 80 -- sh -c 'curl http://$BASTIDE_HOST:$BASTIDE_PORT/'
The status is the program's; 127 when there is no such program, 126 when it cannot be run, 124
when --timeout or --idle-timeout has ended it. {{port}} stands for a {port} that is meant as such.";

const LOGIN_EXAMPLES: &str = "\
Examples:
  bastide login
  bastide login --tenant example.org
The sign-in is kept in the system's keyring, or in a file that only you can read; `bastide logout` removes it.";

const PROXY_EXAMPLES: &str = "\
In ~/.ssh/config:
  Host web-01
      HostKeyAlias web-01.bastion
      ProxyCommand bastide proxy %n --resource-port %p";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  bastide doctor web-01
  bastide doctor -n BASTION -g GROUP --target-resource-id ID --resource-port 5432 -o json
It opens one session and gives it back; nothing is changed. The report is safe to pass on.";

const SESSIONS_EXAMPLES: &str = "\
Examples:
  bastide sessions -n BASTION -g GROUP
  bastide sessions list web-01
  bastide sessions close -n BASTION -g GROUP ID";

const PLUGIN_EXAMPLES: &str = "\
In ~/.config/bastide/config.toml:
  [plugins.vault]
  path = \"/usr/lib/bastide/libbastide_keyvault.so\"
  config = { vault = \"https://example.vault.azure.net\", key = \"ssh\" }
Then:
  bastide ssh -n BASTION -g GROUP --target-resource-id ID --username me --auth-type plugin:vault";

const CONFIG_EXAMPLES: &str = "\
In ~/.config/bastide/config.toml, with the flags' own names:
  profile = \"work\"                  # the one that holds without --profile
  [defaults]
  retries = 2
  [profiles.work]
  name = \"hub\"
  resource-group = \"network\"
  [hosts.web]                       # bastide ssh web
  target = \"web-01\"
  username = \"me\"
Flags win over [hosts], those over the environment, that over [profiles], those over [defaults].";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  echo 'source <(bastide completions bash)' >> ~/.bashrc
  echo 'source <(bastide completions zsh)' >> ~/.zshrc
  bastide completions fish > ~/.config/fish/completions/bastide.fish
  bastide completions powershell | Out-String | Invoke-Expression";

const MAN_EXAMPLES: &str = "\
Examples:
  bastide man ssh | man -l -
  bastide man --write ~/.local/share/man/man1";

const NETWORK: &str = "Network";
const OUTPUT: &str = "Output";

/// Flags that every command has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Azure")]
pub(crate) struct Global {
    /// AzureCloud, AzureUSGovernment, AzureChinaCloud, or the https:// address of a resource manager
    #[arg(long, global = true, env = "BASTIDE_CLOUD", default_value = "AzureCloud", hide_env_values = true)]
    pub(crate) cloud: String,
    /// Tenant to sign in to; the Bastion host's own where left out
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) tenant: Option<String>,
    /// How to sign in to Azure: auto, device-code, managed-identity, workload-identity, client-secret,
    /// client-certificate, azure-cli, exec or plugin:NAME
    #[arg(long, global = true, default_value_t = Credential::Auto, value_name = "KIND")]
    pub(crate) credential: Credential,
    /// Client id of the application that signs in; for managed-identity also a resource id, or object:ID
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// For --credential exec: a line for the shell that prints {"access_token", "expires_on"}
    #[arg(
        long,
        global = true,
        value_name = "COMMAND",
        env = "BASTIDE_EXEC_CREDENTIAL",
        hide_env_values = true
    )]
    pub(crate) exec_command: Option<String>,
    /// Neither use nor keep sign-ins, tokens and places of VMs of other runs
    #[arg(long, global = true)]
    pub(crate) no_cache: bool,
    /// The configuration file; config.toml in ~/.config/bastide where left out
    #[arg(long, global = true, value_name = "FILE", env = "BASTIDE_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// The part [profiles.NAME] of the configuration file that holds
    #[arg(long, global = true, value_name = "NAME", env = "BASTIDE_PROFILE", hide_env_values = true)]
    pub(crate) profile: Option<String>,
    /// What the configuration file says.
    #[arg(skip)]
    pub(crate) configuration: Configuration,
    /// What the command owes the service when it ends.
    #[arg(skip)]
    pub(crate) dues: Dues,
    /// PEM file with certificates to trust besides the system's
    #[arg(long, global = true, value_name = "FILE", help_heading = NETWORK)]
    pub(crate) ca_bundle: Vec<PathBuf>,
    /// HTTP proxy, as http://[user:password@]host:port; HTTPS_PROXY and NO_PROXY where left out
    #[arg(long, global = true, value_name = "URL", help_heading = NETWORK)]
    pub(crate) proxy: Option<String>,
    /// What standard output carries
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text, help_heading = OUTPUT)]
    pub(crate) output: Output,
    /// Say more; twice or three times, for searching faults
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = OUTPUT)]
    pub(crate) verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = OUTPUT)]
    pub(crate) quiet: bool,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, help_heading = OUTPUT)]
    pub(crate) color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

impl Shell {
    /// As clap's completion engine calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Shell::Bash => "bash",
            Shell::Elvish => "elvish",
            Shell::Fish => "fish",
            Shell::Powershell => "powershell",
            Shell::Zsh => "zsh",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The command; the page of `bastide` itself where left out
    pub(crate) command: Option<String>,
    /// Write all pages into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub(crate) write: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Do not offer to open a browser
    #[arg(long)]
    pub(crate) no_browser: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigTask {
    /// Every flag that has a value, the value, and where it comes from
    Show {
        /// The VM, or a name of [hosts].
        target: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginTask {
    /// The plugins of the configuration, and whether they can be loaded
    List,
    /// Every reason why a file would not be loaded; loads it if there is none
    Check {
        /// The library.
        file: PathBuf,
    },
}

/// What may be said. `-h` shows what a command is about, `--help` everything.
pub(crate) fn definition() -> clap::Command {
    const FURTHER: &[&str] = &["Azure", "Connections", NETWORK, OUTPUT];
    let shorter = |arg: clap::Arg| {
        let further = arg.get_help_heading().is_some_and(|heading| FURTHER.contains(&heading));
        arg.hide_short_help(further)
    };
    Arguments::command().mut_args(shorter).mut_subcommands(|command| command.mut_args(shorter))
}

/// The words of the process's command line.
pub(crate) struct Words(Vec<OsString>);

impl Words {
    /// The process's own.
    pub(crate) fn of_process() -> Self {
        Self(without_az_prefix(std::env::args_os()))
    }

    /// Words that begin with the program's name.
    pub(crate) fn new(words: Vec<OsString>) -> Self {
        Self(words)
    }

    /// The flags of the command, and the variables in place of flags, that say what holds beyond this run, in one form.
    ///
    /// # Errors
    /// Usage.
    pub(crate) fn flags_that_stay(&self) -> Result<Vec<String>, Failure> {
        let (definition, matches) = self.definition_and_matches()?;
        let Some((name, matches)) = matches.subcommand() else { return Ok(Vec::new()) };
        // Built for the matches, it has the global flags, too.
        let known = definition.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments);
        let known = known.filter(|arg| arg.get_long().is_none_or(|long| !NOT_KEPT.contains(&long)));
        given(known, matches, &[ValueSource::CommandLine, ValueSource::EnvVariable])
    }

    /// The flags among them that every command has, but for those of output, in one form.
    ///
    /// # Errors
    /// Usage.
    pub(crate) fn globals(&self) -> Result<Vec<String>, Failure> {
        let (definition, matches) = self.definition_and_matches()?;
        let known = definition.get_arguments().filter(|arg| arg.get_help_heading() != Some(OUTPUT));
        given(known, &matches, &[ValueSource::CommandLine])
    }

    /// What they say by themselves: the command's name, and the flags that every command has. Prints help or version and
    /// exits where that is asked for.
    ///
    /// # Errors
    /// Usage.
    pub(crate) fn typed(&self) -> Result<(String, Global), Failure> {
        let (_, matches) = self.definition_and_matches()?;
        let (_, global) = self.read(&matches)?;
        Ok((matches.subcommand_name().unwrap_or_default().to_owned(), global))
    }

    /// What may be said, and what is, before anybody has made sense of it.
    ///
    /// # Errors
    /// Usage.
    pub(crate) fn definition_and_matches(&self) -> Result<(clap::Command, ArgMatches), Failure> {
        let mut definition = definition();
        let matches = definition.try_get_matches_from_mut(&self.0).map_err(|error| self.wrong(&error))?;
        Ok((definition, matches))
    }

    /// The command that words name which cannot be read: the first that could be one.
    pub(crate) fn command_meant(&self) -> String {
        let definition = definition();
        let words = self.0.iter().skip(1).filter_map(|word| word.to_str());
        let found = words.filter_map(|word| definition.find_subcommand(word)).next();
        found.map(|command| command.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether words that cannot be read ask for JSON.
    pub(crate) fn want_json(&self) -> bool {
        let words: Vec<&str> = self.0.iter().filter_map(|word| word.to_str()).collect();
        let ours = words.split(|word| *word == "--").next().unwrap_or_default();
        ours.iter().any(|word| matches!(*word, "-ojson" | "-o=json" | "--output=json"))
            || ours.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]))
    }

    /// What they say together with the user's configuration file.
    ///
    /// # Errors
    /// Usage, for a file that means nothing.
    pub(crate) fn configured(&self, environment: &Environment) -> Result<(Command, Global), Failure> {
        let (_, typed) = self.definition_and_matches()?;
        let definition = definition();
        let file = typed.get_one::<PathBuf>("config").map(PathBuf::as_path);
        let configuration = configuration::read(file, environment, &definition)?;
        let target = typed.subcommand().and_then(|(_, matches)| target(matches));
        let profile = typed.get_one::<String>("profile").map(String::as_str);
        let effective = configuration.flags.for_target(target, profile)?;
        let is_set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
        let definition = effective.apply(definition, &is_set);
        let matches = definition.try_get_matches_from(&self.0).map_err(|error| self.wrong(&error))?;
        let (command, global) = self.read(&matches)?;
        Ok((command, Global { configuration, ..global }))
    }

    fn read(&self, matches: &ArgMatches) -> Result<(Command, Global), Failure> {
        let Arguments { command, global } =
            Arguments::from_arg_matches(matches).map_err(|error| self.wrong(&error))?;
        let Some(command) = command else {
            return Err(Failure::usage("no command is named", "see `bastide --help`"));
        };
        Ok((command, global))
    }

    fn wrong(&self, error: &clap::Error) -> Failure {
        wrong::use_of(error, &self.0).unwrap_or_else(|| error.exit())
    }
}

/// Flags that say what to do this time, or how to say it.
const NOT_KEPT: &[&str] = &["color", "output", "quiet", "verbose", "write", "help", "version"];

/// Flags whose value is a path.
const FILES: &[&str] = &["ca-bundle", "config", "ssh-key"];

/// Long flags with their values, as far as these come from there. Paths are made absolute: they may be read in another
/// folder.
fn given<'a>(
    known: impl Iterator<Item = &'a clap::Arg>,
    matches: &ArgMatches,
    sources: &[ValueSource],
) -> Result<Vec<String>, Failure> {
    let mut flags = Vec::new();
    for (arg, flag) in known.filter_map(|arg| Some((arg, arg.get_long()?))) {
        let id = arg.get_id().as_str();
        let is_given = matches.ids().any(|given| given.as_str() == id)
            && matches.value_source(id).is_some_and(|source| sources.contains(&source));
        if !is_given {
            continue;
        }
        if !arg.get_action().takes_values() {
            flags.push(format!("--{flag}"));
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            let Some(text) = value.to_str() else {
                return Err(Failure::usage(
                    format!("the value of --{flag} is no text"),
                    "rename the file that it names",
                ));
            };
            let is_relative = FILES.contains(&flag) && !text.starts_with('~');
            let file = is_relative.then(|| std::path::absolute(text).ok()).flatten();
            flags.push(format!("--{flag}={}", file.map_or(text.into(), |file| file.display().to_string())));
        }
    }
    Ok(flags)
}

/// The one VM that the command is about.
fn target(matches: &ArgMatches) -> Option<&str> {
    matches.try_get_one::<String>("target").ok().flatten().map(String::as_str)
}

/// `bastide network bastion ssh …` is `bastide ssh …` (cli.md).
fn without_az_prefix(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<_> = arguments.collect();
    if arguments.get(1).is_some_and(|word| word == "network")
        && arguments.get(2).is_some_and(|word| word == "bastion")
    {
        arguments.drain(1..3);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = line.split_whitespace().map(OsString::from);
        Arguments::try_parse_from(without_az_prefix(words))
    }

    #[test]
    fn the_definitions_hold() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_seed_page_reads() {
        for line in [
            "bastide ssh --name b --resource-group g --target-resource-id /s --auth-type ssh-key --username u --ssh-key f",
            "bastide ssh --name b --resource-group g --target-resource-id /s --auth-type AAD",
            "bastide ssh --name b --resource-group g --target-resource-id /s --auth-type password --username u",
            "bastide ssh --name b --resource-group g --target-ip-addres 10.0.0.4 --auth-type ssh-key --username u --ssh-key f",
            "bastide tunnel --name b --resource-group g --target-resource-id /s --resource-port 22 --port 50022",
            "bastide tunnel --name b --resource-group g --target-ip-address 10.0.0.4 --resource-port 22 --port 50022",
            "bastide network bastion ssh -n b -g g --target-resource-id /s --auth-type Ssh-Key -- -L 1:a:2 ls",
            "bastide proxy /s -n b -g g --resource-port 22",
            "bastide exec /s -n b -g g --resource-port 22 -- ls -l {port}",
            "bastide scp /s -n b -g g --username u --password-stdin -- -r a vm:b",
            "bastide sftp web-01",
            "bastide network bastion rdp -n b -g g --target-resource-id /s --enable-mfa True --disable-gateway false",
            "bastide ssh-config web-01 db-01 --username u --write",
            "bastide ssh-config --write",
            "bastide ssh-config --remove web-01 --remove db-01",
            "bastide login --tenant t --no-browser",
            "bastide account -o json --credential Managed-Identity --client-id object:o --no-cache",
            "bastide logout",
            "bastide doctor /s -n b -g g --resource-port 5432 --credential azure-cli -o json",
            "bastide sessions -n b -g g",
            "bastide sessions list -n b -g g -o json",
            "bastide sessions list web-01",
            "bastide sessions close one --target-resource-id /s",
            "bastide sessions -n b close one two -g g --subscription s",
            "bastide plugin list --config f",
            "bastide plugin check /f -o json",
            "bastide ssh /s --auth-type plugin:vault --credential plugin:other",
            "bastide list",
            "bastide list vms -o json",
            "bastide ssh web-01 -g g --subscription s",
            "bastide proxy /s -n a -n b -g g --timeout 1 --timeout 2 -o json -o text",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn wrong_use_is_seen() {
        for line in [
            "bastide fly",
            "bastide tunnel -n b -g g --target-resource-id /s --resource-port 0",
            "bastide tunnel -n b -g g --target-resource-id /s --resource-port 22 --port 70000",
            "bastide tunnel -n b -g g --target-resource-id /s --target-ip-address 1.2.3.4 --resource-port 22",
            "bastide ssh /s --target-resource-id /s",
            "bastide ssh /s --auth-type fingerprint",
            "bastide ssh /s --auth-type plugin:",
            "bastide sessions close -n b",
            "bastide sessions open",
            "bastide doctor /s --resource-port 0",
            "bastide list hosts",
            "bastide exec /s -n b -g g --resource-port 22",
            "bastide exec /s -n b -g g --resource-port 22 --",
            "bastide ssh /s --timeout 0",
            "bastide ssh /s -v -q",
            "bastide ssh /s --target 1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
