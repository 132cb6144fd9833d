//! A host for tests: it answers what it was told to, and notes what it was asked. It leaves out a real vault, which
//! the end-to-end tests have.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use bastide_plugin_abi::{Failure, HttpAnswer, HttpRequest, Token, TokenRequest};
use serde_json::{Value, json};

use crate::vault::{Host, Vault};

/// The host.
#[derive(Default)]
pub(crate) struct Desk {
    answers: RefCell<VecDeque<HttpAnswer>>,
    requests: RefCell<Vec<String>>,
    bodies: RefCell<Vec<String>>,
    tokens: RefCell<Vec<String>>,
    pauses: RefCell<Vec<Duration>>,
}

/// How long the host says that it will wait.
const REMAINING: Duration = Duration::from_secs(60);

impl Desk {
    pub(crate) fn answering(answers: impl IntoIterator<Item = (u16, Value)>) -> Self {
        let desk = Self::default();
        desk.before(answers.into_iter().map(|(status, body)| answer(status, &body)));
        desk
    }

    /// Answers these first.
    pub(crate) fn before(&self, answers: impl IntoIterator<Item = HttpAnswer>) {
        let mut queue = self.answers.borrow_mut();
        let later = std::mem::take(&mut *queue);
        queue.extend(answers);
        queue.extend(later);
    }

    pub(crate) fn vault(&self) -> Vault {
        Vault::new(
            "https://contoso.vault.azure.net".to_owned(),
            "contoso.vault.azure.net".to_owned(),
            "https://vault.azure.net".to_owned(),
        )
    }

    /// Method, URL and authorization of each request.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }

    pub(crate) fn bodies(&self) -> Vec<String> {
        self.bodies.borrow().clone()
    }

    pub(crate) fn tokens(&self) -> Vec<String> {
        self.tokens.borrow().clone()
    }

    pub(crate) fn pauses(&self) -> Vec<Duration> {
        self.pauses.borrow().clone()
    }
}

impl Host for Desk {
    fn token(&self, request: &TokenRequest<'_>) -> Result<Token, Failure> {
        let mut tokens = self.tokens.borrow_mut();
        let tenant = request.tenant.map(|tenant| format!(" tenant {tenant}")).unwrap_or_default();
        let fresh = if request.fresh { " fresh" } else { "" };
        tokens.push(format!("{}{tenant}{fresh}", request.scope));
        Ok(Token { text: format!("token-{}", tokens.len()), expires_on: 0 })
    }

    fn send(&self, request: &HttpRequest<'_>) -> Result<HttpAnswer, Failure> {
        let authorization = request.headers.iter().find(|(name, _)| *name == "Authorization").unwrap().1;
        self.requests.borrow_mut().push(format!("{} {} {authorization}", request.method, request.url));
        self.bodies.borrow_mut().push(String::from_utf8_lossy(request.body).into_owned());
        Ok(self.answers.borrow_mut().pop_front().expect("an answer for each request"))
    }

    fn remaining(&self) -> Duration {
        REMAINING
    }

    fn pause(&self, time: Duration) -> Result<(), Failure> {
        self.pauses.borrow_mut().push(time);
        Ok(())
    }

    fn note(&self, _: &str) {}
}

/// A refusal in Key Vault's form.
pub(crate) fn refusal(status: u16, code: &str, message: &str, inner: Option<&str>) -> HttpAnswer {
    let mut error = json!({"code": code, "message": message});
    if let Some(inner) = inner {
        error["innererror"] = json!({"code": inner});
    }
    answer(status, &json!({ "error": error }))
}

/// An answer in JSON.
pub(crate) fn answer(status: u16, body: &Value) -> HttpAnswer {
    HttpAnswer { status, headers: Vec::new(), body: body.to_string().into_bytes() }
}

/// A 401 that names an authority.
pub(crate) fn challenge(authority: &str) -> HttpAnswer {
    let header = format!("Bearer authorization=\"{authority}\", resource=\"https://vault.azure.net\"");
    let mut answer =
        refusal(401, "Unauthorized", "AKV10032: Invalid issuer. Expected one of x, found y.", None);
    answer.headers.push(("www-authenticate".to_owned(), header));
    answer
}
