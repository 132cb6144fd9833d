//! What clap says of a command line that it can't read, in the form of every other error (cli.md, "Output"). It leaves out
//! finding the mistake.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::exit::Failure;

/// The error in our words; none where it is help or a version that was asked for.
pub(super) fn use_of(error: &clap::Error, words: &[OsString]) -> Option<Failure> {
    let named = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) if !texts.is_empty() => Some(texts.join(", ")),
        _ => None,
    };
    let message = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return None,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "no command is named".to_owned()
        }
        ErrorKind::UnknownArgument => match named(ContextKind::InvalidArg) {
            Some(flag) if flag.starts_with('-') => format!("there is no flag '{flag}' here"),
            Some(word) => format!("the word '{word}' has no place here"),
            None => first_line(error),
        },
        ErrorKind::InvalidSubcommand => match named(ContextKind::InvalidSubcommand) {
            Some(command) => format!("there is no command '{command}'"),
            None => first_line(error),
        },
        ErrorKind::MissingRequiredArgument => match named(ContextKind::InvalidArg) {
            Some(flags) => format!("{flags} is missing"),
            None => first_line(error),
        },
        _ => first_line(error),
    };
    let meant = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue]
        .into_iter()
        .find_map(named)
        .map(|meant| format!("is '{meant}' meant?"));
    let possible = || named(ContextKind::ValidValue).map(|values| format!("it may be one of {values}"));
    Some(Failure::usage(message, meant.or_else(possible).unwrap_or_else(|| help(words))))
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Where the command's flags are listed.
fn help(words: &[OsString]) -> String {
    let command = words.iter().skip(1).map(|word| word.to_string_lossy()).find(|word| !word.starts_with('-'));
    let known = super::definition();
    match command.filter(|command| known.find_subcommand(command.as_ref()).is_some()) {
        Some(command) => format!("see `bastide {command} --help`"),
        None => "see `bastide --help`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_the_form_of_errors() {
        let check = |line: &str, message: &str, hint: &str| {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let error = super::super::definition().try_get_matches_from(&words).unwrap_err();
            let failure = use_of(&error, &words).unwrap();
            assert_eq!(
                (failure.to_string().as_str(), failure.hint().as_deref()),
                (message, Some(hint)),
                "{line}"
            );
        };
        check(
            "bastide tunnel --resource-prot 22",
            "there is no flag '--resource-prot' here",
            "is '--resource-port' meant?",
        );
        check("bastide ssh a b", "the word 'b' has no place here", "see `bastide ssh --help`");
        check("bastide tunel", "there is no command 'tunel'", "is 'tunnel' meant?");
        check("bastide fly", "there is no command 'fly'", "see `bastide --help`");
        check(
            "bastide ssh --keepalive sometimes",
            "invalid value 'sometimes' for '--keepalive <KEEPALIVE>'",
            "it may be one of ping, tcp, off",
        );
        check(
            "bastide ssh --resource-port 0",
            "invalid value '0' for '--resource-port <PORT>': 0 is not in 1..=65535",
            "see `bastide ssh --help`",
        );
        check("bastide ssh-cert", "--write <DIR> is missing", "see `bastide ssh-cert --help`");
        let words = [OsString::from("bastide"), "--help".into()];
        let help = super::super::definition().try_get_matches_from(&words).unwrap_err();
        assert!(use_of(&help, &words).is_none());
    }
}
