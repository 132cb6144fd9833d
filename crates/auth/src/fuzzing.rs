//! Doors for the fuzz targets of `tests/fuzz`, there with `--cfg fuzzing` only: what reads the words, codes and tokens
//! of Entra ID, and what programs print. The targets say what has to hold.

use std::time::{Duration, SystemTime};

use bastide_core::{AccessToken, AuthError};

pub use crate::ssh::fuzzing::{Talk, certificate};
use crate::{DeviceCode, entra, exec, public_client};

/// One line of the body of a refusal.
pub fn message(body: &[u8]) -> Option<String> {
    entra::message(body)
}

/// One line of what the Azure CLI wrote to its standard error.
pub fn tool_message(stderr: &str) -> Option<String> {
    entra::tool_message(stderr)
}

/// What to do about a refusal.
pub fn hint(text: &str, provider: &str, tenant: Option<&str>) -> Option<String> {
    entra::hint(text, provider, tenant)
}

/// The answer to a request for a device code.
///
/// # Errors
/// What the user would be told.
pub fn device_code(status: u16, body: &[u8]) -> Result<DeviceCode, AuthError> {
    public_client::read_code(status, body)
}

/// What is said about a device code that has come to an end without a token.
pub fn device_refusal(body: &[u8]) -> AuthError {
    public_client::read_refusal(body)
}

/// The answer to a refresh token: the token, and how long it is good for.
///
/// # Errors
/// What the user would be told.
pub fn token(status: u16, body: &[u8]) -> Result<(AccessToken, Duration), AuthError> {
    let token = public_client::read_token(status, body)?.token;
    let life = token.expires_on.duration_since(SystemTime::now()).unwrap_or_default();
    Ok((token, life))
}

/// What a program has printed.
pub fn printed(stdout: &[u8]) -> Option<AccessToken> {
    exec::read(stdout)
}
