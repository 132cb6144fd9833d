//! `bastide login`: a code to enter on a page, shown so that it is easy to follow. It leaves out the sign-in itself
//! and where it is kept.

use std::io::IsTerminal as _;
use std::time::Duration;

use bastide::{DeviceCode, Prompt};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::json;
use tokio::sync::watch;

use crate::arguments::{Global, Login};
use crate::exit::{Exit, Failure};
use crate::report::Reporter;
use crate::setup::Attendance;
use crate::signals::Signals;
use crate::{setup, sys};

/// Signs in and says who it was.
pub(crate) fn run(global: &Global, login: &Login, reporter: &Reporter) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    setup::block_on(runtime, global, sign_in(global, login, reporter))
}

async fn sign_in(global: &Global, login: &Login, reporter: &Reporter) -> Result<Exit, Failure> {
    let signals = Signals::listen(reporter).map_err(Failure::system("signals cannot be received"))?;
    let stop = signals.stop();
    let page = Page::new(reporter);
    let mut shown = page.shown.subscribe();
    let outcome = async {
        let client = setup::signing_in(global, Attendance::Person, reporter).await?;
        Ok::<_, Failure>(client.login(&page).await?)
    };
    let browser = async {
        let shown = shown.wait_for(Option::is_some).await;
        if let (Ok(Some(url)), false) = (shown.as_deref().cloned(), login.no_browser) {
            offer_browser(url, reporter).await;
        }
        std::future::pending::<()>().await;
    };
    let signed_in = tokio::select! {
        outcome = outcome => outcome?,
        () = browser => return Ok(Exit::Done),
        () = stop.cancelled() => return Ok(signals.received().map_or(Exit::Done, Exit::Signal)),
    };
    reporter.event(
        "signed_in",
        json!({"user": signed_in.username, "tenant": signed_in.tenant, "kept": signed_in.kept.to_string()}),
    );
    reporter.say(&format!(
        "Signed in as {} to the tenant {}; kept {}",
        signed_in.username, signed_in.tenant, signed_in.kept
    ));
    Ok(Exit::Done)
}

/// Shows codes on standard error: as words, and as a picture where the terminal has room for it.
#[derive(Debug)]
pub(crate) struct Page {
    reporter: Reporter,
    /// The page that was shown last.
    shown: watch::Sender<Option<String>>,
}

impl Page {
    pub(crate) fn new(reporter: &Reporter) -> Self {
        Self { reporter: reporter.clone(), shown: watch::Sender::new(None) }
    }
}

impl Prompt for Page {
    fn show(&self, code: &DeviceCode) {
        let DeviceCode { url, code, expires_in } = code;
        self.reporter.event("code", json!({"url": url, "code": code, "seconds": expires_in.as_secs()}));
        if let Some(picture) = picture(url, sys::terminal_size()) {
            self.reporter.say(&picture);
        }
        self.reporter.say(&format!(
            "To sign in, open {url} in any browser\nand enter the code {code} within {} minutes",
            minutes(*expires_in)
        ));
        self.shown.send_replace(Some(url.clone()));
    }
}

/// The URL as a QR code, if it fits on a terminal of this size together with the words below it.
fn picture(url: &str, size: Option<(usize, usize)>) -> Option<String> {
    let (columns, rows) = size?;
    let code = QrCode::new(url).ok()?;
    // Light on dark, as most terminals are; readers take either.
    let picture = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    let width = picture.lines().map(|line| line.chars().count()).max()?;
    (width <= columns && picture.lines().count() + WORDS <= rows).then_some(picture)
}

/// Lines of words around the picture.
const WORDS: usize = 4;

fn minutes(time: Duration) -> u64 {
    time.as_secs().div_ceil(60)
}

/// Opens the page when the user presses Enter: only where there is somebody to press it and a display to see it on.
async fn offer_browser(url: String, reporter: &Reporter) {
    let somebody = std::io::stdin().is_terminal() && std::io::stderr().is_terminal() && sys::has_display();
    // Whatever the service says is opened by the desktop: a page, and nothing else.
    if !somebody || !url.starts_with("https://") {
        return;
    }
    reporter.say("Press Enter to open it in your browser");
    // On a thread that is left behind when the sign-in is done without it.
    let pressed = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).is_ok_and(|length| length > 0)
    });
    if pressed.await.unwrap_or(false)
        && let Err(error) = open::that_detached(&url)
    {
        reporter.warn(&format!("no browser could be opened: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_drawn_where_it_fits() {
        let url = "https://login.microsoft.com/device";
        assert_eq!(picture(url, None), None);
        assert_eq!(picture(url, Some((36, 50))), None);
        assert_eq!(picture(url, Some((80, 20))), None);
        let picture = picture(url, Some((80, 24))).unwrap();
        // Version 3 has 29 modules (ISO/IEC 18004), and four of margin on each side; two to a line.
        assert_eq!(picture.lines().next().unwrap().chars().count(), 37);
        assert_eq!(picture.lines().count(), 19);
    }
}
