//! `~/.ssh/bastide.config`, which is ours alone, and the one line by which `~/.ssh/config` includes it. It leaves out what
//! the blocks say (`block`).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;
use serde_json::json;

use super::block::Block;
use crate::exit::Failure;
use crate::files::{self, Mode};
use crate::sys;

/// The user's folder of OpenSSH's files.
pub(super) struct SshFolder(PathBuf);

/// Whoever else has the lock only reads and writes two files.
const LOCK_WITHIN: Duration = Duration::from_secs(10);

const OWN_FILE: &str = "bastide.config";
const USERS_FILE: &str = "config";

impl SshFolder {
    /// Below `HOME`.
    pub(super) fn of_user() -> Result<Self, Failure> {
        match std::env::home_dir().filter(|home| home.is_absolute()) {
            Some(home) => Ok(Self(home.join(".ssh"))),
            None => Err(Failure::usage("there is no home folder with OpenSSH's files", "set HOME")),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The file of the blocks.
    pub(super) fn own_file(&self) -> PathBuf {
        self.0.join(OWN_FILE)
    }

    /// Makes the folder where it is not there, and keeps other runs of ours from changing its files until the lock is
    /// dropped.
    pub(super) async fn lock(&self) -> Result<File, Failure> {
        let failed = |what| Failure::system(format!("the folder '{}' cannot be {what}", self.0.display()));
        sys::make_private_folder(&self.0).map_err(failed("made"))?;
        files::lock(&self.0, LOCK_WITHIN).await.map_err(failed("locked"))
    }

    /// The blocks that are there.
    ///
    /// # Errors
    /// Usage, when somebody else has changed the file.
    pub(super) fn blocks(&self) -> Result<Vec<Block>, Failure> {
        let path = self.own_file();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(Failure::system(format!("'{}' cannot be read", path.display()))(error));
            }
        };
        parse(&text).ok_or_else(|| {
            Failure::usage(
                format!("'{}' is not as bastide has written it, and stays so", path.display()),
                "move what was changed to ~/.ssh/config, above the line that includes it, and remove the file",
            )
        })
    }

    /// Writes the blocks, and lets OpenSSH find them. The caller holds the lock.
    pub(super) fn write(&self, blocks: &[Block]) -> Result<(), Failure> {
        let own = self.own_file();
        files::replace(&own, render(blocks).as_bytes(), Mode::Private)
            .map_err(Failure::system(format!("'{}' cannot be written", own.display())))?;
        let users = self.0.join(USERS_FILE);
        let failed = |error: io::Error| {
            Failure::usage(
                format!("'{}' cannot be changed: {error}", users.display()),
                format!("write `{}` at its top yourself", include_line(&own)),
            )
        };
        let before = match std::fs::read(&users) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        match with_include(&before, &self.0, &own) {
            Some(after) => files::replace(&users, &after, Mode::Kept).map_err(failed),
            None => Ok(()),
        }
    }
}

/// How the file begins. The sum of what follows is on the line after it.
const HEAD: &str = "\
# Written by `bastide ssh-config --write`, which replaces its blocks; --remove NAME removes one. Settings of your own
# belong in ~/.ssh/config, above the line that includes this file: a file that was changed, bastide leaves alone.
";
const SUM: &str = "# sha256 ";
const BLOCK: &str = "# bastide ";

fn render(blocks: &[Block]) -> String {
    let mut body = String::new();
    for block in blocks {
        let Block { name, vm, words, text } = block;
        body.push_str(&format!("\n{BLOCK}{}\n{text}", json!({"name": name, "vm": vm, "words": words})));
    }
    format!("{HEAD}{SUM}{}\n{body}", sum(&body))
}

fn parse(text: &str) -> Option<Vec<Block>> {
    let (line, body) = text.strip_prefix(HEAD)?.strip_prefix(SUM)?.split_once('\n')?;
    if line != sum(body) {
        return None;
    }
    let mut blocks: Vec<Block> = Vec::new();
    for line in body.split_inclusive('\n') {
        if let Some(json) = line.strip_prefix(BLOCK) {
            let value: serde_json::Value = serde_json::from_str(json).ok()?;
            let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
            let words = value.get("words")?.as_array()?.iter();
            blocks.push(Block {
                name: text("name")?,
                vm: text("vm")?,
                words: words.map(|word| Some(word.as_str()?.to_owned())).collect::<Option<_>>()?,
                text: String::new(),
            });
        } else if let Some(block) = blocks.last_mut() {
            block.text.push_str(line);
        }
    }
    for block in &mut blocks {
        // The empty line before the next one.
        block.text.truncate(block.text.trim_end().len());
        block.text.push('\n');
    }
    Some(blocks)
}

fn sum(body: &str) -> String {
    digest::digest(&digest::SHA256, body.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// With the whole path: OpenSSH takes names without one, and `~`, from the user database, not from `HOME`.
fn include_line(own: &Path) -> String {
    format!("Include \"{}\"", own.display())
}

/// The user's file with our line before everything else, because behind a `Host` line it would hold for that host only;
/// none where it includes our file already. Every byte that was there stays.
fn with_include(before: &[u8], folder: &Path, own: &Path) -> Option<Vec<u8>> {
    let mut is_for_all = true;
    for line in before.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        let mut words = line.trim().splitn(2, |letter: char| letter.is_whitespace() || letter == '=');
        let (keyword, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let rest = rest.trim_matches(|letter: char| letter.is_whitespace() || letter == '=');
        match keyword.to_ascii_lowercase().as_str() {
            "host" => is_for_all = rest == "*",
            "match" => is_for_all = rest.eq_ignore_ascii_case("all"),
            "include" if is_for_all && paths(rest).any(|path| is_own(path, folder, own)) => return None,
            _ => {}
        }
    }
    let end = if before.split(|byte| *byte == b'\n').next().is_some_and(|line| line.ends_with(b"\r")) {
        "\r\n"
    } else {
        "\n"
    };
    Some([include_line(own).as_bytes(), end.as_bytes(), before].concat())
}

/// The words of a line, with and without quotes around them.
fn paths(rest: &str) -> impl Iterator<Item = &str> {
    rest.split('"').enumerate().flat_map(|(index, part)| {
        let quoted = (index % 2 == 1).then_some(part);
        let plain = (index % 2 == 0).then(|| part.split_whitespace()).into_iter().flatten();
        quoted.into_iter().chain(plain)
    })
}

fn is_own(path: &str, folder: &Path, own: &Path) -> bool {
    match path.strip_prefix("~/") {
        Some(below) => folder.parent().is_some_and(|home| home.join(below) == own),
        None => folder.join(path) == own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(name: &str, text: &str) -> Block {
        Block {
            name: name.to_owned(),
            vm: format!("{name}.vm"),
            words: vec!["--name".into(), "a \"b\"\n".into()],
            text: text.to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for blocks in [
            Vec::new(),
            vec![block("a", "Host a\n    User me\n")],
            vec![block("a", "Match all\n    User me\n\nHost a\n    Port 1\n"), block("b", "Host b\n")],
        ] {
            let text = render(&blocks);
            assert_eq!(parse(&text).as_ref(), Some(&blocks), "{text}");
            assert_eq!(parse(&text.replace("User me", "User you")).is_some(), !text.contains("User me"));
            assert_eq!(parse(&format!("{text}\n")), None);
            assert_eq!(parse(&format!("{text}Host c\n")), None);
        }
        assert_eq!(parse(""), None);
        assert_eq!(parse("Host mine\n"), None);
    }

    #[test]
    fn the_users_file_is_changed_once_and_at_its_top() {
        let (folder, own) = (Path::new("/people/a b/.ssh"), Path::new("/people/a b/.ssh/bastide.config"));
        let line = "Include \"/people/a b/.ssh/bastide.config\"";
        let added = |before: &[u8], end: &str| {
            let after = with_include(before, folder, own).unwrap();
            assert_eq!(after, [line.as_bytes(), end.as_bytes(), before].concat());
            assert_eq!(with_include(&after, folder, own), None);
        };
        added(b"", "\n");
        added(b"Host x\n  User y\n", "\n");
        added(b"Host x\r\n  User y\r\n", "\r\n");
        added(b"# \xff\xfe no text, no end", "\n");
        // There, but for one host.
        added(format!("Host x\n{line}\n").as_bytes(), "\n");
        added(b"Include /elsewhere/bastide.config\n# Include bastide.config\n", "\n");
        for there in [
            "include bastide.config",
            "  Include = \"bastide.config\"",
            "Include=~/.ssh/bastide.config",
            "User x\nInclude other \"/people/a b/.ssh/bastide.config\" # mine",
            "Host *\nInclude bastide.config",
            "Host x\nMatch all\n\tInclude\tbastide.config",
        ] {
            assert_eq!(with_include(there.as_bytes(), folder, own), None, "{there}");
        }
    }
}
