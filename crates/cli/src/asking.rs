//! Questions of plugins to the user, on the terminal: neither standard input nor output is touched, which belong to the
//! session. It leaves out what is done with the answers.

use std::fmt::Write as _;

use async_trait::async_trait;
use bastide::Secret;
use bastide::plugin::{Asker, Inquiry, InquiryKind};
use serde_json::json;

use crate::report::Reporter;
use crate::sys;

/// The user's terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    reporter: Reporter,
}

impl Terminal {
    pub(crate) fn new(reporter: &Reporter) -> Self {
        Self { reporter: reporter.clone() }
    }
}

#[async_trait]
impl Asker for Terminal {
    async fn ask(&self, inquiry: &Inquiry) -> Option<Secret> {
        let Inquiry { plugin, text, kind } = inquiry;
        self.reporter.event("question", json!({"plugin": plugin, "text": text}));
        let echo = match kind {
            InquiryKind::Secret => sys::Echo::Off,
            InquiryKind::Text | InquiryKind::Choice(_) => sys::Echo::On,
        };
        let mut question = String::new();
        if let InquiryKind::Choice(choices) = kind {
            for (index, choice) in choices.iter().enumerate() {
                // Writing into a String cannot fail.
                let _ = writeln!(question, "  {}  {choice}", index + 1);
            }
        }
        let _ = write!(question, "plugin '{plugin}' asks: {text}: ");
        let answer = match sys::ask_on_terminal(question, echo).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::info!(%error, "there is no terminal to ask on");
                return None;
            }
        };
        let answer = answer.expose().trim_end_matches(['\r', '\n']);
        match kind {
            InquiryKind::Choice(choices) => chosen(choices, answer).map(Secret::new),
            InquiryKind::Text | InquiryKind::Secret if answer.is_empty() => None,
            InquiryKind::Text | InquiryKind::Secret => Some(Secret::new(answer)),
        }
    }
}

/// By number, or word for word.
fn chosen<'a>(choices: &'a [String], answer: &str) -> Option<&'a str> {
    let by_number = || choices.get(answer.trim().parse::<usize>().ok()?.checked_sub(1)?);
    choices.iter().find(|choice| *choice == answer).or_else(by_number).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_made_by_number_or_by_name() {
        let choices = ["one".to_owned(), "2".to_owned(), "three".to_owned()];
        for (answer, expected) in
            [("1", Some("one")), ("one", Some("one")), ("2", Some("2")), ("4", None), ("0", None), ("", None)]
        {
            assert_eq!(chosen(&choices, answer), expected, "{answer}");
        }
    }
}
