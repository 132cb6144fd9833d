//! The file that tells an RDP client where to connect (protocol.md §6): the service's, whose way leads through its
//! gateway, and our own, whose way leads through a tunnel. It leaves out how the service is asked, which follows from a
//! [`crate::Plan`], and the programs that read it.

use crate::{Secret, service_message};

/// How somebody signs in to Windows over the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RdpSignIn {
    /// By name and password, for which the RDP client asks.
    Password,
    /// By Entra ID, with whatever it demands (`enablerdsaad`).
    Entra,
}

/// A `.rdp` file. Secret, because the gateway's lets its reader in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdpFile(Secret);

/// A 200 answer that holds no `.rdp` file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Bastion service answered without an RDP file{}", self.said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())]
pub struct RdpFileError {
    said: Option<String>,
}

impl RdpFile {
    /// For a tunnel's port on this machine.
    pub fn of_tunnel(port: u16) -> Self {
        Self(Secret::new(format!(
            "full address:s:localhost:{port}\r\nalternate full address:s:localhost:{port}\r\nuse multimon:i:0\r\n"
        )))
    }

    /// Reads what the service answered, in UTF-8 or as Windows writes it, in UTF-16.
    ///
    /// # Errors
    /// [`RdpFileError`] when it names no address, with what it says instead.
    pub fn parse(body: &[u8]) -> Result<Self, RdpFileError> {
        let text = match body {
            [0xff, 0xfe, rest @ ..] => {
                let units = rest
                    .chunks_exact(2)
                    .map(|pair| pair.iter().rev().fold(0, |unit, byte| unit << 8 | u16::from(*byte)));
                String::from_utf16_lossy(&units.collect::<Vec<_>>())
            }
            [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
            _ => String::from_utf8_lossy(body).into_owned(),
        };
        match text.lines().any(|line| value(line, ADDRESS).is_some_and(|address| !address.is_empty())) {
            true => Ok(Self(text.into())),
            false => Err(RdpFileError { said: service_message(text.as_bytes()) }),
        }
    }

    /// The same for this user, whatever it said before.
    #[must_use]
    pub fn with_user(&self, user: &str) -> Self {
        let mut text = String::new();
        for line in self.0.expose().lines().filter(|line| value(line, USER).is_none()) {
            text.push_str(line);
            text.push_str("\r\n");
        }
        // A line break in a name would begin a line of its own.
        let user: String = user.chars().filter(|c| !c.is_control()).collect();
        Self(Secret::new(format!("{text}{USER}{user}\r\n")))
    }

    /// What is in it, for the one place that writes it.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

const ADDRESS: &str = "full address:s:";
const USER: &str = "username:s:";

/// The value of a line with this name; names are in any case.
fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_tunnels_file_is_that_of_the_protocol() {
        let file = RdpFile::of_tunnel(50_022);
        let expected = "full address:s:localhost:50022\r\nalternate full address:s:localhost:50022\r\nuse multimon:i:0\r\n";
        assert_eq!(file.expose(), expected);
        let for_ada = format!("{expected}username:s:CORP\\ada\r\n");
        assert_eq!(file.with_user("CORP\\ada").expose(), for_ada);
        assert_eq!(file.with_user("eve").with_user("CORP\\ada\r\n").expose(), for_ada);
    }

    #[test]
    fn the_services_file_is_taken_as_it_is() {
        let text = "full address:s:10.0.0.4\r\ngatewayhostname:s:bst-1.bastion.azure.com\r\nUserName:s:x\r\n";
        let wide = |text: &str| {
            let units = text.encode_utf16().flat_map(u16::to_le_bytes);
            [0xff, 0xfe].into_iter().chain(units).collect::<Vec<u8>>()
        };
        let marked = format!("\u{feff}{text}").into_bytes();
        for body in [text.as_bytes().to_vec(), marked, wide(text)] {
            let file = RdpFile::parse(&body).unwrap();
            assert_eq!(file.expose(), text);
            assert!(file.with_user("ada").expose().ends_with("azure.com\r\nusername:s:ada\r\n"));
        }
        assert!(!format!("{:?}", RdpFile::parse(text.as_bytes())).contains("10.0.0.4"));
    }

    #[test]
    fn what_is_no_such_file_is_told() {
        let check = |body: &str, expected: &str| {
            let told = RdpFile::parse(body.as_bytes()).unwrap_err().to_string();
            assert_eq!(told, format!("the Bastion service answered without an RDP file{expected}"));
        };
        check("", "");
        check("full address:s:", ": full address:s:");
        check("<html><body><h1>Sign in</h1></body></html>", ": Sign in");
        check(r#"{"message":"not here"}"#, ": not here");
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = RdpFile::parse(&body).map(|file| file.with_user("ada"));
        }
    }
}
