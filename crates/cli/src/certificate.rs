//! `bastide ssh-cert`: an Entra certificate and its key as files, for programs that cannot ask an agent. It leaves
//! out signing in with them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bastide::{AuthError, Certificate, Client, Fault, Host, Secret};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::timeout;

use crate::arguments::{Global, SshCert};
use crate::exit::{Exit, Failure};
use crate::files::{self, Mode};
use crate::report::Reporter;
use crate::setup::{self, Attendance};
use crate::signals::Signals;
use crate::sys;

/// Asks for the certificate and writes the three files; with `--if-needed` only where there is need.
pub(crate) fn run(global: &Global, ssh_cert: &SshCert, reporter: &Reporter) -> Result<Exit, Failure> {
    let folder = Folder::new(&ssh_cert.write);
    // Most calls of OpenSSH's end here: no runtime, no network, no other process waited for.
    if ssh_cert.if_needed && folder.read().is_some_and(|kept| kept.is_fresh()) {
        return Ok(Exit::Done);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    setup::block_on(runtime, global, async {
        let signals = Signals::listen(reporter).map_err(Failure::system("signals cannot be received"))?;
        let writing = async {
            match ssh_cert.if_needed {
                true => refresh(global, &folder, reporter).await,
                false => write(global, &folder, reporter).await,
            }
        };
        tokio::select! {
            written = writing => written,
            () = signals.stop().cancelled_owned() => {
                Ok(signals.received().map_or(Exit::Failed(Fault::Ours), Exit::Signal))
            }
        }
    })
}

async fn write(global: &Global, folder: &Folder, reporter: &Reporter) -> Result<Exit, Failure> {
    let client = setup::signing_in(global, Attendance::Person, reporter).await?;
    let certificate = {
        let _alone = folder.lock().await?;
        folder.renew(&client, None, Renewal::NewKey).await?
    };
    let (shown, valid_until) = (folder.path.display(), time(certificate.valid_until()));
    reporter.say(&format!(
        "Signed in as {}: id_rsa and id_rsa-cert.pub in {shown}, good until {valid_until}",
        certificate.user()
    ));
    reporter.event(
        "certificate",
        json!({"user": certificate.user(), "folder": folder.path, "valid_until": valid_until}),
    );
    Ok(Exit::Done)
}

/// For OpenSSH, which waits for it, and shows what is said on standard error: nobody is asked anything.
async fn refresh(global: &Global, folder: &Folder, reporter: &Reporter) -> Result<Exit, Failure> {
    let renewing = async {
        let _alone = folder.lock().await?;
        // Another ssh may have had the same thought, and was faster.
        if folder.read().is_some_and(|kept| kept.is_fresh()) {
            return Ok(());
        }
        let client = setup::signing_in(global, Attendance::Nobody, reporter).await?;
        folder.renew(&client, None, Renewal::KeyInUse).await.map(drop)
    };
    let late = |_| AuthError::TimedOut { provider: "Entra ID".into(), after: REFRESH_WITHIN }.into();
    match timeout(REFRESH_WITHIN, renewing).await.map_err(late).flatten() {
        Ok(()) => Ok(Exit::Done),
        // It is good for this session.
        Err(failure) if folder.read().is_some_and(|kept| kept.is_valid()) => {
            reporter.warn(&format!(
                "the certificate in '{}' could not be renewed: {failure}",
                folder.path.display()
            ));
            Ok(Exit::Done)
        }
        Err(failure) => Err(failure),
    }
}

/// As long as a server waits for a sign-in (`LoginGraceTime` of sshd_config(5)): nobody waits longer for an ssh that says
/// nothing.
const REFRESH_WITHIN: Duration = Duration::from_secs(120);

/// The files of one identity: `id_rsa`, `id_rsa.pub` and `id_rsa-cert.pub`.
pub(crate) struct Folder {
    path: PathBuf,
}

/// Which key a new certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// A new one.
    NewKey,
    /// The one that is there for as long as its certificate is good: whoever has read one of the files already finds
    /// that the others still belong to it.
    KeyInUse,
}

/// What is in the files.
pub(crate) struct Kept {
    key: Secret,
    pub(crate) certificate: Certificate,
}

impl Kept {
    fn is_valid(&self) -> bool {
        let now = SystemTime::now();
        self.certificate.valid_from() <= now && now < self.certificate.valid_until()
    }

    /// Whether a fifth of its life is left, which is twelve minutes of the usual hour: more than any sign-in takes.
    pub(crate) fn is_fresh(&self) -> bool {
        let (from, until) = (self.certificate.valid_from(), self.certificate.valid_until());
        let life = until.duration_since(from).unwrap_or_default();
        let left = until.duration_since(SystemTime::now()).unwrap_or_default();
        self.is_valid() && left >= life / 5
    }
}

const KEY: &str = "id_rsa";
const PUBLIC: &str = "id_rsa.pub";
const CERTIFICATE: &str = "id_rsa-cert.pub";

impl Folder {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// A key and a certificate that belong to each other; none where there are no such files.
    pub(crate) fn read(&self) -> Option<Kept> {
        let key = Secret::new(std::fs::read_to_string(self.path.join(KEY)).ok()?);
        let line = std::fs::read_to_string(self.path.join(CERTIFICATE)).ok()?;
        Some(Kept { certificate: Certificate::of_files(&line, &key)?, key })
    }

    /// Makes the folder, and keeps others from writing into it until the lock is dropped. Cancel safe.
    pub(crate) async fn lock(&self) -> Result<File, Failure> {
        let failed = |what| Failure::system(format!("the folder '{}' cannot be {what}", self.path.display()));
        sys::make_private_folder(&self.path).map_err(failed("made"))?;
        files::lock(&self.path, REFRESH_WITHIN).await.map_err(failed("locked"))
    }

    /// Asks for a certificate and writes what is new. The caller holds the lock.
    pub(crate) async fn renew(
        &self,
        client: &Client,
        host: Option<&Host>,
        renewal: Renewal,
    ) -> Result<Certificate, Failure> {
        self.check_ours()?;
        let in_use = self.read().filter(|kept| renewal == Renewal::KeyInUse && kept.is_valid());
        let identity = match &in_use {
            Some(kept) => client.entra_identity_with_key(host, &kept.key)?,
            None => client.entra_identity(host).await?,
        };
        let certificate = identity.certificate().await?;
        if in_use.is_none() {
            // Between these, nothing that is there belongs together, and so it is nothing to `read`.
            self.put(PUBLIC, &format!("{}\n", identity.public_line()))?;
            self.put(KEY, identity.private_pem()?.expose())?;
        }
        self.put(CERTIFICATE, &format!("{}\n", certificate.line()))?;
        Ok(certificate)
    }

    /// A key of the user's own may have the same name.
    fn check_ours(&self) -> Result<(), Failure> {
        let path = self.path.join(KEY);
        match std::fs::read(&path) {
            Ok(bytes) if !bytes.starts_with(b"-----BEGIN PRIVATE KEY-----") => Err(Failure::usage(
                format!("'{}' is not a key of bastide's, and stays", path.display()),
                "name another folder",
            )),
            _ => Ok(()),
        }
    }

    fn put(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.path.join(name);
        let failed = Failure::system(format!("'{}' cannot be written", path.display()));
        files::replace(&path, text.as_bytes(), Mode::Private).map_err(failed)
    }
}

fn time(instant: SystemTime) -> String {
    OffsetDateTime::from(instant).format(&Rfc3339).unwrap_or_default()
}
