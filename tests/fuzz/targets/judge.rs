//! What holds for every text that a user may see, whoever wrote what is in it.

/// Panics when `text` could do something to a terminal, or fills more of it than a message should.
pub(crate) fn fit_for_a_terminal(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?} holds control characters");
    assert!(text.len() < LONGEST, "{} bytes of message", text.len());
}

/// Four bytes for each of the 300 characters of a service's message, as much for an id in it, and our words.
const LONGEST: usize = 4096;
