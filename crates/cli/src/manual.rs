//! `bastide completions` and `bastide man`: what shells and man(1) want, from the definitions of the command line. It
//! leaves out those.

use std::io;
use std::path::{Path, PathBuf};

use bastide::{Environment, KnownNames};
use clap::{Arg, Command};
use clap_complete::CompletionCandidate;
use clap_complete::engine::ArgValueCandidates;
use clap_complete::env::{CompleteEnv, Shells};
use clap_mangen::Man;

use crate::arguments::{self, Man as Arguments, Shell};
use crate::configuration::{self, Configuration};
use crate::exit::{Exit, Failure};
use crate::{report, sys};

/// By which the scripts of [`completions()`] ask for candidates.
const VARIABLE: &str = "BASTIDE_COMPLETE";

/// Answers a shell that completes a line, and ends the process then.
pub(crate) fn complete() {
    CompleteEnv::with_factory(with_names).var(VARIABLE).complete();
}

/// The definitions, and who knows what may stand where.
fn with_names() -> Command {
    let named = |arg: Arg| match arg.get_id().as_str() {
        "target" => arg.add(ArgValueCandidates::new(targets)),
        "name" => arg.add(ArgValueCandidates::new(bastions)),
        "resource_group" => arg.add(ArgValueCandidates::new(groups)),
        "profile" => arg.add(ArgValueCandidates::new(profiles)),
        _ => arg,
    };
    arguments::definition().mut_args(named).mut_subcommands(|command| command.mut_args(named))
}

/// Prints the lines that let a shell ask this program.
pub(crate) fn completions(shell: Shell) -> Result<Exit, Failure> {
    let shells = Shells::builtins();
    let script = shells.completer(shell.name()).map(|shell| {
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, "bastide", "bastide", "bastide", &mut script).map(|()| script)
    });
    let script = script.unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::Unsupported)));
    report::print(&script.map_err(Failure::system("the script cannot be made"))?)
}

/// Prints the page of a command, or writes all of them.
pub(crate) fn man(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut definition = arguments::definition().disable_help_subcommand(true);
    definition.build();
    if let Some(folder) = &arguments.write {
        write_pages(definition, folder)
            .map_err(Failure::system(format!("the pages cannot be written to '{}'", folder.display())))?;
        return Ok(Exit::Done);
    }
    let page = match &arguments.command {
        None => definition,
        Some(name) => {
            let Some(command) = definition.find_subcommand(name) else {
                return Err(Failure::usage(format!("there is no command '{name}'"), "see `bastide --help`"));
            };
            command.clone().display_name(format!("bastide-{}", command.get_name()))
        }
    };
    let mut text = Vec::new();
    Man::new(page).render(&mut text).map_err(Failure::system("the page cannot be made"))?;
    report::print(&text)
}

/// `bastide.1`, and one for each command that people may know of.
fn write_pages(definition: Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let shown = definition.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let pages = shown.map(|command| {
        let name = format!("bastide-{}", command.get_name());
        command.display_name(name)
    });
    let pages: Vec<_> = pages.collect();
    for page in pages.into_iter().chain([definition]) {
        let name = page.get_display_name().unwrap_or_else(|| page.get_name()).to_owned();
        let mut text = Vec::new();
        Man::new(page).render(&mut text)?;
        std::fs::write(folder.join(format!("{name}.1")), text)?;
    }
    Ok(())
}

/// What may stand for a VM: names of the configuration, and those that Azure has told before.
fn targets() -> Vec<CompletionCandidate> {
    let configuration = configuration();
    let known = known_names().machines;
    candidates(configuration.flags.hosts().chain(known.iter().map(String::as_str)))
}

/// Bastion hosts that Azure has told before.
fn bastions() -> Vec<CompletionCandidate> {
    candidates(known_names().bastions.iter().map(String::as_str))
}

/// Their groups.
fn groups() -> Vec<CompletionCandidate> {
    candidates(known_names().groups.iter().map(String::as_str))
}

/// Nobody is asked: a shell waits for it.
fn known_names() -> KnownNames {
    sys::places_folder().map(|folder| KnownNames::read(&folder)).unwrap_or_default()
}

/// The profiles of the configuration.
fn profiles() -> Vec<CompletionCandidate> {
    candidates(configuration().flags.profiles())
}

fn candidates<'a>(names: impl Iterator<Item = &'a str>) -> Vec<CompletionCandidate> {
    names.map(CompletionCandidate::new).collect()
}

/// The user's own file. One that means nothing has nothing to offer, and says so to whoever runs a command.
fn configuration() -> Configuration {
    let environment = Environment::of_process();
    let named = environment.get("BASTIDE_CONFIG").map(PathBuf::from);
    configuration::read(named.as_deref(), &environment, &arguments::definition()).unwrap_or_default()
}
