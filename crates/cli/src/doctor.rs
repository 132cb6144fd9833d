//! `bastide doctor`: which link between here and a VM is broken, and what mends it. The library walks the chain; here it
//! is shown.

use bastide::doctor::{self, Diagnosis, Finding, Patient, Status};
use serde_json::{Value, json};

use crate::arguments::{self, Global};
use crate::exit::{Exit, Failure};
use crate::report::Reporter;
use crate::setup::{self, FirstWord};
use crate::signals::Signals;

/// Examines, and says each finding as it comes.
pub(crate) fn run(
    global: &Global,
    arguments: &arguments::Doctor,
    reporter: &Reporter,
) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    setup::block_on(runtime, global, async {
        let signals = Signals::listen(reporter).map_err(Failure::system("signals cannot be received"))?;
        let stop = signals.stop();
        let words = setup::words(global, &arguments.place)?;
        let port = arguments.resource_port;
        let relay = setup::relay_options(&arguments.behaviour, FirstWord::on(port));
        let patient = Patient { words, port, relay };
        let settings = setup::settings(global, &arguments.place, &arguments.behaviour, reporter)?;
        // What is found after the user has lost patience is nobody's fault.
        let mut tell = |finding: &Finding| {
            if signals.received().is_none() {
                say(finding, reporter);
            }
        };
        let diagnosis = doctor::examine(settings, &patient, &mut tell, stop).await?;
        if let Some(signal) = signals.received() {
            return Ok(Exit::Signal(signal));
        }
        Ok(sum_up(&diagnosis, reporter))
    })
}

/// Wide enough for the longest title.
const TITLE: usize = 18;

fn say(finding: &Finding, reporter: &Reporter) {
    if let Ok(fields) = serde_json::to_value(finding) {
        reporter.event("link", fields);
    }
    let took = finding.took.map_or_else(String::new, |took| format!("{} ms", took.as_millis()));
    let (status, title) = (finding.status.name(), finding.link.title());
    reporter.data(&format!("{status:<8} {title:<TITLE$} {took:>8}  {}", finding.message));
    if matches!(finding.status, Status::Failed(_) | Status::Warning) {
        for cause in &finding.causes {
            reporter.data(&format!("         caused by: {cause}"));
        }
        if let Some(fix) = &finding.fix {
            reporter.data(&format!("         fix: {fix}"));
        }
    }
}

/// What it comes to: the exit status is that of the first broken link.
fn sum_up(diagnosis: &Diagnosis, reporter: &Reporter) -> Exit {
    let exit = diagnosis.fault().map_or(Exit::Done, Exit::Failed);
    let broken = diagnosis.broken();
    let warnings = diagnosis.findings.iter().filter(|finding| finding.status == Status::Warning).count();
    let text = |text: Option<&str>| text.map_or(Value::Null, Value::from);
    reporter.event(
        "summary",
        json!({
            "broken": text(broken.map(|finding| finding.link.name())),
            "code": exit.code(),
            "message": text(broken.map(|finding| finding.message.as_str())),
            "hint": text(broken.and_then(|finding| finding.fix.as_deref())),
            "warnings": warnings,
        }),
    );
    reporter.data("");
    match broken {
        Some(finding) => {
            reporter.data(&format!("Broken: {}: {}", finding.link.title(), finding.message));
            if let Some(fix) = &finding.fix {
                reporter.data(&format!("Fix: {fix}"));
            }
        }
        None if warnings == 1 => reporter.data("Nothing is broken; there is a warning"),
        None if warnings > 0 => reporter.data(&format!("Nothing is broken; there are {warnings} warnings")),
        None => reporter.data("Nothing is broken"),
    }
    reporter.data(
        "This report names resources, addresses, tenants and object ids. It holds no secret and nobody's name, so that \
         it can be passed on.",
    );
    exit
}
