//! `bastide ssh-cert`: an Entra certificate and its key as files, for programs that cannot ask an agent. It leaves
//! out signing in with them.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use bastide::Fault;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::arguments::{Global, SshCert};
use crate::exit::{Exit, Failure};
use crate::report::Reporter;
use crate::setup;
use crate::signals::Signals;
use crate::sys;

/// Asks for the certificate and writes the three files.
pub(crate) fn run(global: &Global, ssh_cert: &SshCert, reporter: &Reporter) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    setup::block_on(runtime, write(global, ssh_cert, reporter))
}

async fn write(global: &Global, ssh_cert: &SshCert, reporter: &Reporter) -> Result<Exit, Failure> {
    let signals = Signals::listen(reporter).map_err(Failure::system("signals cannot be received"))?;
    let asking = async {
        let client = setup::signing_in(global, reporter).await?;
        let identity = client.entra_identity(None).await?;
        let certificate = identity.certificate().await?;
        Ok::<_, Failure>((identity, certificate))
    };
    let (identity, certificate) = tokio::select! {
        asked = asking => asked?,
        () = signals.stop().cancelled_owned() => {
            return Ok(signals.received().map_or(Exit::Failed(Fault::Ours), Exit::Signal));
        }
    };
    let folder = &ssh_cert.write;
    let shown = folder.display();
    sys::make_private_folder(folder)
        .map_err(Failure::system(format!("the folder '{shown}' cannot be made")))?;
    let key = identity.private_pem()?;
    // The key last: without a certificate that fits, it is of no use.
    for (name, text) in [
        ("id_rsa.pub", format!("{}\n", identity.public_line()).as_str()),
        ("id_rsa-cert.pub", format!("{}\n", certificate.line()).as_str()),
        ("id_rsa", key.expose()),
    ] {
        replace(folder, name, text)
            .map_err(Failure::system(format!("'{shown}/{name}' cannot be written")))?;
    }
    let valid_until = time(certificate.valid_until());
    reporter.say(&format!(
        "Signed in as {}: id_rsa and id_rsa-cert.pub in {shown}, good until {valid_until}",
        certificate.user()
    ));
    reporter.event(
        "certificate",
        json!({"user": certificate.user(), "folder": folder, "valid_until": valid_until}),
    );
    Ok(Exit::Done)
}

/// A file of mode 0600 that is there whole or not at all.
fn replace(folder: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(folder.join(name))?;
    Ok(())
}

fn time(instant: SystemTime) -> String {
    OffsetDateTime::from(instant).format(&Rfc3339).unwrap_or_default()
}
