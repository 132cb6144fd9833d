//! An error with all its causes, in words. It leaves out what to do about it, which each error's hint says.

use std::error::Error;

/// What an error says, and then each of its causes; a wrapper that shows its cause says it once.
pub fn causes(error: &dyn Error) -> Vec<String> {
    let mut said = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !said.last().is_some_and(|last| last.ends_with(&words)) {
            said.push(words);
        }
        source = cause.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Layer {
            text: &'static str,
            source: Option<Box<Layer>>,
        }
        let layer = |text, source: Option<Layer>| Layer { text, source: source.map(Box::new) };
        let error = layer("a: b", Some(layer("b", Some(layer("c", None)))));
        assert_eq!(causes(&error), ["a: b", "c"]);
    }
}
