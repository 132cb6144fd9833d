//! Calls into plugins that are in this process: prompts, tokens, time limits, and what is abandoned. It leaves out
//! loading files (`file`, `table`, and the end-to-end tests).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bastide_core::{AccessToken, AuthError, Fault, Provider, Secret, TokenRequest};
use bastide_plugin_abi::{self as abi, Call, Code, Failure, raw};

use super::{Asker, Inquiry, InquiryKind, Plugin, PluginSettings, Services, SignInRequest};

fn settings() -> PluginSettings {
    PluginSettings::new("one", "/nowhere")
}

async fn token(plugin: &Plugin) -> Result<String, String> {
    let token = plugin.access_token(&TokenRequest::new("scope")).await;
    token.map(|token| token.secret.expose().to_owned()).map_err(|error| error.to_string())
}

/// Asks whatever its scope says.
struct Asks;

impl abi::Plugin for Asks {
    const NAME: &'static std::ffi::CStr = c"asks";

    fn open(call: &Call<'_>) -> Result<Self, Failure> {
        match call.setting("broken") {
            Some(_) => Err(Failure::new(Code::Settings, "it is broken").hint("mend it")),
            None => Ok(Self),
        }
    }

    fn access_token(
        &mut self,
        call: &Call<'_>,
        request: &abi::TokenRequest<'_>,
    ) -> Result<abi::Token, Failure> {
        let text = match request.scope {
            "text" => call.ask_text("name").ok_or_else(Failure::known)?,
            "secret" => call.ask_secret("PIN").ok_or_else(Failure::known)?,
            "choice" => {
                let chosen = call.ask_choice("key", &["first", "second"]).ok_or_else(Failure::known)?;
                chosen.to_string()
            }
            "azure" => {
                let asked = abi::TokenRequest { scope: "vault", tenant: Some("t"), ..Default::default() };
                call.azure_token(&asked)?.text
            }
            "right" => return Err(Failure::new(Code::Right, "no").hint("ask for it")),
            "nothing" => return Err(Failure::new(Code::Unavailable, "nobody is here")),
            _ => format!("{:?} {:?} {}", request.tenant, request.claims, request.fresh),
        };
        Ok(abi::Token { text, expires_on: 4_102_444_800 })
    }
}

static ASKS: raw::Plugin = abi::table::<Asks>();

#[derive(Debug)]
struct Person(&'static str, Mutex<Vec<Inquiry>>);

#[async_trait]
impl Asker for Person {
    async fn ask(&self, inquiry: &Inquiry) -> Option<Secret> {
        self.1.lock().unwrap().push(inquiry.clone());
        (!self.0.is_empty()).then(|| Secret::new(self.0))
    }
}

/// Says what it was asked.
struct Echo;

#[async_trait]
impl Provider for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        let secret = Secret::new(format!("{} {:?}", request.scope, request.tenant));
        Ok(AccessToken { secret, expires_on: SystemTime::now() })
    }
}

#[tokio::test]
async fn what_a_plugin_asks_is_carried_out() {
    let check = async |answer: &'static str, scope: &str, kind: Option<InquiryKind>, expected: Result<&str, &str>| {
        let person = Arc::new(Person(answer, Mutex::default()));
        let services = Services {
            provider: Some(Arc::new(Echo)),
            asker: Some(person.clone()),
            ..Services::default()
        };
        let plugin = Plugin::with_table(&ASKS, settings(), services);
        plugin.ask(super::Question::Open).await.unwrap();
        let token = plugin.access_token(&TokenRequest::new(scope)).await;
        let token = token.map(|token| token.secret.expose().to_owned()).map_err(|error| error.to_string());
        assert_eq!(token.as_deref().map_err(String::as_str), expected, "{scope}");
        let asked: Vec<_> = person.1.lock().unwrap().iter().map(|inquiry| inquiry.kind.clone()).collect();
        assert_eq!(asked, Vec::from_iter(kind));
    };
    let choices = || InquiryKind::Choice(vec!["first".into(), "second".into()]);
    check("me", "text", Some(InquiryKind::Text), Ok("me")).await;
    check("1234", "secret", Some(InquiryKind::Secret), Ok("1234")).await;
    check("second", "choice", Some(choices()), Ok("1")).await;
    let nobody = "plugin 'one': nobody has answered its question 'PIN'";
    check("", "secret", Some(InquiryKind::Secret), Err(nobody)).await;
    check("", "azure", None, Ok("vault Some(\"t\")")).await;
    check("", "scope", None, Ok("None None false")).await;
    check("", "right", None, Err("plugin 'one': no")).await;
    check("", "nothing", None, Err("plugin 'one' is not set up: nobody is here")).await;
}

#[tokio::test]
async fn failures_keep_their_fault_and_hint() {
    let plugin = Plugin::with_table(&ASKS, settings(), Services::default());
    plugin.ask(super::Question::Open).await.unwrap();
    let error = plugin.access_token(&TokenRequest::new("right")).await.unwrap_err();
    assert_eq!((error.fault(), error.hint().as_str()), (Fault::Right, "ask for it"));
    let error = plugin.access_token(&TokenRequest::new("azure")).await.unwrap_err();
    assert!(error.to_string().contains("it is itself the way to sign in to Azure"), "{error}");
    let request = SignInRequest { vm: "web-01".into(), resource_id: None, user: None };
    let error = plugin.sign_in(&request).await.unwrap_err();
    assert_eq!(error.to_string(), "plugin 'one': it does not give a sign-in to a VM");

    let mut broken = settings();
    broken.config.insert("broken".into(), "true".into());
    let plugin = Plugin::with_table(&ASKS, broken, Services::default());
    let error = plugin.ask(super::Question::Open).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.fault()), ("plugin 'one': it is broken", Fault::Usage));
}

/// Waits until it is told to answer, and says when it was told that nobody waits.
struct Waits;

type Doors = (Mutex<Option<Receiver<()>>>, Mutex<Option<Sender<bool>>>);

static DOORS: Doors = (Mutex::new(None), Mutex::new(None));

impl abi::Plugin for Waits {
    const NAME: &'static std::ffi::CStr = c"waits";

    fn open(_: &Call<'_>) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn access_token(&mut self, call: &Call<'_>, _: &abi::TokenRequest<'_>) -> Result<abi::Token, Failure> {
        let (go, said) = (DOORS.0.lock().unwrap().take(), DOORS.1.lock().unwrap().take());
        if let (Some(go), Some(said)) = (go, said) {
            // The other end says when, or goes away.
            let _ = go.recv();
            said.send(call.is_cancelled()).unwrap();
        }
        Ok(abi::Token { text: "late".into(), expires_on: 4_102_444_800 })
    }
}

static WAITS: raw::Plugin = abi::table::<Waits>();

#[tokio::test]
async fn a_call_that_does_not_come_back_is_left_behind() {
    let ((go, waits), (said, cancelled)) = (channel(), channel());
    (*DOORS.0.lock().unwrap(), *DOORS.1.lock().unwrap()) = (Some(waits), Some(said));
    let plugin = Plugin::with_table(&WAITS, settings(), Services::default());
    plugin.ask(super::Question::Open).await.unwrap();
    // From here on the clock runs ahead whenever everybody waits.
    tokio::time::pause();
    let error = token(&plugin).await.unwrap_err();
    assert_eq!(
        error,
        "plugin 'one': it gave no answer within 30 s, and does not come back: its thread is left behind"
    );
    let error = token(&plugin).await.unwrap_err();
    assert_eq!(error, "plugin 'one': it is still busy with a question that was given up");
    // It comes back late: its answer is thrown away, and it can be asked again.
    go.send(()).unwrap();
    assert!(cancelled.recv().unwrap(), "it could know");
    tokio::time::resume();
    while plugin.worker.lock().await.as_ref().unwrap().is_busy() {
        tokio::task::yield_now().await;
    }
    assert_eq!(token(&plugin).await, Ok("late".into()));
}

/// Says when it is closed.
struct Closes(Option<Sender<()>>);

static CLOSED: Mutex<Option<Sender<()>>> = Mutex::new(None);
static DROPPED: AtomicBool = AtomicBool::new(false);

impl Drop for Closes {
    fn drop(&mut self) {
        DROPPED.store(true, Ordering::Relaxed);
        drop(self.0.take());
    }
}

impl abi::Plugin for Closes {
    const NAME: &'static std::ffi::CStr = c"closes";

    fn open(_: &Call<'_>) -> Result<Self, Failure> {
        Ok(Self(CLOSED.lock().unwrap().take()))
    }
}

static CLOSES: raw::Plugin = abi::table::<Closes>();

#[tokio::test]
async fn a_plugin_is_closed_when_nobody_has_it_any_more() {
    let (sender, closed) = channel();
    *CLOSED.lock().unwrap() = Some(sender);
    let plugin = Plugin::with_table(&CLOSES, settings(), Services::default());
    plugin.ask(super::Question::Open).await.unwrap();
    assert!(!DROPPED.load(Ordering::Relaxed));
    drop(plugin);
    // Nothing is ever sent: the wait ends with the plugin's state.
    assert!(closed.recv_timeout(Duration::from_secs(60)).is_err());
    assert!(DROPPED.load(Ordering::Relaxed));
}

#[tokio::test]
async fn nobody_else_is_asked_for_plugins() {
    let plugins = [PluginSettings::new("vault", "/a")];
    assert!(super::named(&plugins, "vault").is_ok());
    let error = super::named(&plugins, "valut").unwrap_err();
    assert_eq!((error.fault(), error.hint().as_str()), (Fault::Usage, "the configuration names vault"));
    let missing = Plugin::new(plugins[0].clone(), Services::default());
    let error = token(&missing).await.unwrap_err();
    assert!(error.starts_with("plugin 'vault': it is not loaded: '/a' cannot be read"), "{error}");
}
