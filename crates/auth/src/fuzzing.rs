//! Doors for the fuzz targets of `tests/fuzz`, there with `--cfg fuzzing` only: what reads Entra ID's words. The
//! targets say what has to hold.

use crate::entra;

/// One line of the body of a refusal.
pub fn message(body: &[u8]) -> Option<String> {
    entra::message(body)
}

/// One line of what the Azure CLI wrote to its standard error.
pub fn tool_message(stderr: &str) -> Option<String> {
    entra::tool_message(stderr)
}

/// What to do about a refusal.
pub fn hint(text: &str, tenant: Option<&str>) -> Option<String> {
    entra::hint(text, tenant)
}
