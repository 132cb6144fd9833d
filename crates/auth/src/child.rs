//! A program that is asked for a token: its output within bounds, and nothing left running when nobody waits for it
//! any more. It leaves out how long it may take and what its output means.

use std::io;
use std::process::{Output, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::sys;

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("it printed more than {OUTPUT_LIMIT} bytes")]
    Endless,
    #[error("it cannot be started: {0}")]
    Unstartable(io::Error),
}

/// Far above any answer: a token is a few KiB.
const OUTPUT_LIMIT: u64 = 1024 * 1024;

/// Runs `command` to its end and collects what it prints. It can't ask: nobody would see the question.
///
/// Cancel safe: dropping the future ends the program, and on Unix those that it started.
pub(crate) async fn output(mut command: Command) -> Result<Output, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, guard) = sys::spawn(command).map_err(Failure::Unstartable)?;
    let (stdout, stderr) =
        futures_util::future::try_join(bounded(child.stdout.take()), bounded(child.stderr.take())).await?;
    let status = child.wait().await.map_err(Failure::Unstartable)?;
    guard.disarm();
    Ok(Output { status, stdout, stderr })
}

async fn bounded(pipe: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(OUTPUT_LIMIT + 1).read_to_end(&mut bytes).await.map_err(Failure::Unstartable)?;
    }
    if bytes.len() as u64 > OUTPUT_LIMIT { Err(Failure::Endless) } else { Ok(bytes) }
}
