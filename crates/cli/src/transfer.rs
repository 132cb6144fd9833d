//! The words for scp(1), sftp(1) and rsync(1): in them `vm:`, or the VM's name, stands for the VM. It leaves out the way
//! there (`openssh`) and running them (`ssh`).

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::exit::Failure;
use crate::sys;

/// A program that copies files by OpenSSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Scp,
    Sftp,
    Rsync,
}

impl Tool {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tool::Scp => "scp",
            Tool::Sftp => "sftp",
            Tool::Rsync => "rsync",
        }
    }
}

/// By what the user may call the VM.
pub(crate) struct Names<'a> {
    /// The name that OpenSSH gets.
    pub(crate) host: &'a str,
    /// The word of the command line.
    pub(crate) typed: Option<&'a str>,
}

/// What always stands for the VM.
const VM: &str = "vm";

impl Names<'_> {
    /// `NAME`, or `USER@NAME`, as OpenSSH is to see it.
    fn translated(&self, text: &str) -> Option<String> {
        let (user, name) = text.rsplit_once('@').map_or((None, text), |(user, name)| (Some(user), name));
        let known = [Some(VM), Some(self.host), self.typed];
        if !known.into_iter().flatten().any(|known| known.eq_ignore_ascii_case(name)) {
            return None;
        }
        Some(user.map_or_else(|| self.host.to_owned(), |user| format!("{user}@{}", self.host)))
    }

    /// The same with a path behind it. As scp sees it: what has a `/` before its first `:` is a file of this machine.
    fn translated_path(&self, word: &OsStr) -> Option<OsString> {
        let bytes = word.as_encoded_bytes();
        let end = bytes.iter().position(|byte| matches!(byte, b':' | b'/'))?;
        let (place, path) = sys::split(word, end).filter(|_| bytes.get(end) == Some(&b':'))?;
        let mut translated = OsString::from(self.translated(place.to_str()?)?);
        translated.push(path);
        Some(translated)
    }
}

/// All words for the tool: `options` are those of ssh (`-o NAME=VALUE`), `ssh` is its path.
///
/// # Errors
/// Usage, when none of the words leads to the VM, or one leads around us.
pub(crate) fn words(
    tool: Tool,
    args: &[OsString],
    names: &Names<'_>,
    options: Vec<OsString>,
    ssh: &Path,
) -> Result<Vec<OsString>, Failure> {
    let mut given: Vec<OsString> = Vec::with_capacity(args.len());
    let mut is_named = false;
    for word in args {
        let translated = names.translated_path(word);
        is_named |= translated.is_some();
        given.push(translated.unwrap_or_else(|| word.clone()));
    }
    if tool == Tool::Sftp && !is_named {
        // sftp's last word is the host, which goes without saying here.
        let host = given.last().and_then(|word| names.translated(word.to_str()?));
        match (host, given.last_mut()) {
            (Some(host), Some(last)) => *last = host.into(),
            _ => given.push(names.host.into()),
        }
        is_named = true;
    }
    if !is_named {
        let tool = tool.name();
        return Err(Failure::usage(
            format!("none of the words for {tool} names the VM"),
            format!("write `vm:PATH` for a path on the VM, as in `bastide {tool} … -- FILE vm:`"),
        ));
    }
    if tool != Tool::Rsync {
        return Ok(options.into_iter().chain(given).collect());
    }
    if args.iter().any(|word| is_remote_shell(&word.to_string_lossy())) {
        return Err(Failure::usage(
            "rsync's -e has no place here: the way to the VM is the Bastion host",
            "`bastide ssh-config --write` puts the VM into ~/.ssh/config; then `rsync -e 'ssh …' FILE NAME:` works",
        ));
    }
    let shell: Vec<OsString> = std::iter::once(ssh.into()).chain(options).collect();
    Ok(["-e".into(), rsync_line(&shell)].into_iter().chain(given).collect())
}

/// Whether it is rsync's `-e`, alone or among other letters.
fn is_remote_shell(word: &str) -> bool {
    if let Some(long) = word.strip_prefix("--") {
        return long == "rsh" || long.starts_with("rsh=");
    }
    let Some(letters) = word.strip_prefix('-') else { return false };
    // Behind these comes a value, which may hold any letter (rsync(1)).
    letters.split(['B', 'f', 'M', 'T', '@']).next().is_some_and(|flags| flags.contains('e'))
}

/// A command for rsync's `-e`: it splits at spaces, and takes a doubled quote in quotes for one (rsync(1)).
fn rsync_line(command: &[OsString]) -> OsString {
    let words = command.iter().map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "''")));
    words.collect::<Vec<_>>().join(" ").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(tool: Tool, line: &str) -> Result<String, Failure> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let names = Names { host: "web-01", typed: Some("web") };
        let words = words(tool, &args, &names, vec!["-o".into(), "A='b'".into()], Path::new("/bin/ssh"))?;
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn the_vm_is_found_among_the_words() {
        let check = |tool, line: &str, expected: &str| assert_eq!(given(tool, line).unwrap(), expected);
        check(Tool::Scp, "a vm:", "-o A='b' a web-01:");
        check(Tool::Scp, "-r me@VM:x:y ./vm:z", "-o A='b' -r me@web-01:x:y ./vm:z");
        check(Tool::Scp, "-3 web:a Web-01:b", "-o A='b' -3 web-01:a web-01:b");
        check(Tool::Scp, "a@b@vm:x other:y", "-o A='b' a@b@web-01:x other:y");
        check(Tool::Sftp, "", "-o A='b' web-01");
        check(Tool::Sftp, "-b vm", "-o A='b' -b web-01");
        check(Tool::Sftp, "-b - me@web", "-o A='b' -b - me@web-01");
        check(Tool::Sftp, "-b -", "-o A='b' -b - web-01");
        check(Tool::Sftp, "vm:a b", "-o A='b' web-01:a b");
        check(Tool::Rsync, "-a vm::mod /x", "-e '/bin/ssh' '-o' 'A=''b''' -a web-01::mod /x");
    }

    #[test]
    fn words_that_lead_elsewhere_are_refused() {
        for (tool, line) in [
            (Tool::Scp, "a b"),
            (Tool::Scp, ""),
            (Tool::Rsync, "-a other:x y"),
            (Tool::Rsync, "-ave ssh vm:x y"),
            (Tool::Rsync, "--rsh=ssh vm:x y"),
        ] {
            assert!(given(tool, line).is_err(), "{line}");
        }
        for line in ["-a --exclude=e vm:x y", "-afe vm:x y", "-aT e vm:x y"] {
            assert!(given(Tool::Rsync, line).is_ok(), "{line}");
        }
    }
}
