//! A password for OpenSSH from somewhere else than the terminal (`SSH_ASKPASS` of ssh(1)): OpenSSH starts a program,
//! which asks us over a private socket, so that the password is in no argument, variable or file. It leaves out
//! where the password comes from.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bastide::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::exit::{Exit, Failure};
use crate::sign_in::Answers;

/// One password.
#[derive(Debug)]
pub(crate) struct Askpass {
    listener: UnixListener,
    program: PathBuf,
    /// Until it was given for the last time.
    password: Mutex<Option<Secret>>,
    answers: Answers,
}

/// The name under which OpenSSH starts this program; the socket is beside it.
const PROGRAM: &str = "bastide-askpass";
const SOCKET: &str = "password";

/// As much of a question as is read, in bytes; OpenSSH's are shorter.
const MAX_QUESTION: u64 = 1024;

/// A password's length in bytes: OpenSSH's own bound (`read_passphrase` of readpass.c).
const MAX_PASSWORD: usize = 1023;

impl Askpass {
    /// Listens in a folder that nobody else can enter.
    ///
    /// # Errors
    /// Those of the socket and of the link.
    pub(crate) fn open(folder: &Path, password: Secret, answers: Answers) -> io::Result<Self> {
        let listener = UnixListener::bind(folder.join(SOCKET))?;
        let program = folder.join(PROGRAM);
        std::os::unix::fs::symlink(std::env::current_exe()?, &program)?;
        Ok(Self { listener, program, password: Mutex::new(Some(password)), answers })
    }

    /// What OpenSSH has to find in its environment. `force`: with a terminal, too.
    pub(crate) fn environment(&self) -> [(&'static str, &OsStr); 2] {
        [("SSH_ASKPASS", self.program.as_os_str()), ("SSH_ASKPASS_REQUIRE", "force".as_ref())]
    }

    /// Answers questions for a password, as many as it was told to; to any other question nothing. Serves until it is
    /// dropped.
    pub(crate) async fn run(&self) {
        loop {
            let answered = match self.listener.accept().await {
                Ok((stream, _)) => self.answer(stream).await,
                Err(error) => Err(error),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "the question for a password broke off");
            }
        }
    }

    async fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        // The folder's mode keeps others out already; root comes in anywhere.
        if stream.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        let mut question = Vec::new();
        (&mut stream).take(MAX_QUESTION).read_to_end(&mut question).await?;
        // Whether a host key is right, or a key's passphrase, is another question.
        if !String::from_utf8_lossy(&question).to_lowercase().contains("password") {
            return Ok(());
        }
        let password = {
            let mut kept = self.password.lock().unwrap_or_else(PoisonError::into_inner);
            match self.answers {
                Answers::Once => kept.take(),
                Answers::ForEachConnection => kept.clone(),
            }
        };
        match password {
            Some(password) => stream.write_all(password.expose().as_bytes()).await,
            None => Ok(()),
        }
    }
}

/// Whether OpenSSH has started us to ask for a password, and the question.
pub(crate) fn question() -> Option<(PathBuf, String)> {
    let mut words = std::env::args_os();
    let program = PathBuf::from(words.next()?);
    if program.file_name()? != PROGRAM {
        return None;
    }
    Some((program.with_file_name(SOCKET), words.next()?.to_string_lossy().into_owned()))
}

/// Passes the question on, and the answer to OpenSSH.
pub(crate) fn ask(socket: &Path, question: &str) -> Result<Exit, Failure> {
    let exchange = || {
        let mut stream = BlockingStream::connect(socket)?;
        stream.write_all(question.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(Secret::new(answer))
    };
    let answer = exchange().map_err(Failure::system("the password is not there any more"))?;
    if answer.expose().is_empty() {
        // OpenSSH takes it for a cancelled question.
        return Ok(Exit::Child(1));
    }
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", answer.expose()).map_err(Failure::system("OpenSSH does not take the password"))?;
    Ok(Exit::Done)
}

/// The first line of standard input, and not one byte more: what follows is the session's.
pub(crate) fn from_stdin() -> Result<Secret, Failure> {
    let mut stdin =
        crate::sys::unbuffered_stdin().map_err(Failure::system("standard input cannot be read"))?;
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(MAX_PASSWORD + 1));
    let mut byte = [0];
    loop {
        match stdin.read(&mut byte) {
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) if bytes.len() < MAX_PASSWORD => bytes.extend(byte),
            Ok(_) => {
                return Err(Failure::usage(
                    format!("the password on standard input is longer than {MAX_PASSWORD} bytes"),
                    "it has to be the first line",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::system("standard input cannot be read")(error)),
        }
    }
    match std::str::from_utf8(&bytes).map(|text| text.trim_end_matches('\r')) {
        Ok("") => Err(Failure::usage(
            "there is no password on standard input",
            "--password-stdin reads it from the first line",
        )),
        Ok(text) => Ok(Secret::new(text)),
        Err(_) => Err(Failure::usage(
            "the password on standard input is no text",
            "--password-stdin reads it as UTF-8 from the first line",
        )),
    }
}
