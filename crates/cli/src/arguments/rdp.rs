//! `rdp`, with the flags of `az network bastion rdp`. It leaves out which of them fit together (`crate::rdp`).

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Behaviour, Place};

#[derive(Debug, Args)]
pub(crate) struct Rdp {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) desktop: Desktop,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
    /// For the RDP client
    #[arg(last = true, value_name = "CLIENT-ARGS", help_heading = "Arguments", conflicts_with = "save")]
    pub(crate) client_args: Vec<OsString>,
}

/// Which desktop, and which way leads there.
#[derive(Debug, Args)]
#[command(next_help_heading = "RDP")]
pub(crate) struct Desktop {
    /// The VM's RDP port
    #[arg(long, value_name = "PORT", default_value_t = 3389, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) resource_port: u16,
    /// The tunnel's local port; any free one where 0, and the same one for the same VM where left out
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// How to sign in to the VM: password or AAD
    #[arg(long, value_name = "TYPE", ignore_case = true, value_enum, hide_possible_values = true)]
    pub(crate) auth_type: Option<DesktopAuthType>,
    /// The user on the VM
    #[arg(long, value_name = "USER")]
    pub(crate) username: Option<String>,
    /// Whether to go through a tunnel of ours and not through the Bastion host's RDP gateway; left out: through the
    /// gateway on Windows and with Entra ID, through a tunnel otherwise
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = boolean)]
    pub(crate) disable_gateway: Option<bool>,
    /// Whether to sign in with Entra ID, as --auth-type AAD does
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = boolean)]
    pub(crate) enable_mfa: Option<bool>,
    /// Edit the RDP file before it is used
    #[arg(long)]
    pub(crate) configure: bool,
    /// Write the RDP file here and start no client; one for a tunnel works as long as this command runs
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DesktopAuthType {
    Password,
    Aad,
}

/// A value as the Azure CLI takes it: in any case, and in several words.
fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "0" => Ok(false),
        _ => Err("it has to be true or false; what is not meant for this flag belongs before it".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        rdp: Rdp,
    }

    #[test]
    fn flags_read_as_those_of_the_azure_cli() {
        let read = |line: &str| {
            let Line { rdp } =
                Line::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
            Ok::<_, String>((rdp.desktop.disable_gateway, rdp.desktop.enable_mfa, rdp.desktop.auth_type))
        };
        assert_eq!(read("rdp web"), Ok((None, None, None)));
        let line = "rdp web --disable-gateway --auth-type aAd --enable-mfa";
        assert_eq!(read(line), Ok((Some(true), Some(true), Some(DesktopAuthType::Aad))));
        assert_eq!(
            read("rdp --enable-mfa False --disable-gateway True web"),
            Ok((Some(true), Some(false), None))
        );
        assert!(read("rdp --disable-gateway web").unwrap_err().contains("belongs before it"));
        assert!(read("rdp web --auth-type ssh-key").is_err());
        assert!(read("rdp web --save f -- /f").is_err());
    }
}
