//! A person who signs in with a code on a page: `login`, what is kept of it, `account`, `logout`; refusals on the page
//! and afterwards; several processes with one sign-in; and the page itself in a real browser. It leaves out sign-ins
//! without a person (`sign_in`).

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bastide_emulator::RefreshEnd;
use bastide_emulator::scenario::Outcome as SignIn;
use bastide_emulator::transcript::Kind;
use bastide_tests::{Browser, Lab, Outcome, Program, Running};
use rustix::process::Signal;

use crate::identity::bare;
use crate::sign_in::account;

const ADA: &str = "ada@emulator.example";
const TENANT: &str = "11111111-1111-4111-8111-111111111111";
const CONNECT: &str = "proxy -n bastion -g demo --target-resource-id {vm} --resource-port 20";

/// A lab where nobody has to wait for a code's interval, with more lines for `[sign_in]` and other sections.
fn lab(more: &str) -> Lab {
    Lab::with(&format!(
        "[[virtual_machines]]\nname = \"web-01\"\nprivate_ip = \"10.0.0.4\"\nports = {{ 20 = \"produce:6\" }}\n\
         [sign_in]\ndevice_code_interval_seconds = 0\n{more}\n"
    ))
}

/// The command of a person with nothing else to sign in with.
fn person(lab: &Lab, line: &str) -> Program {
    bare(lab.bastide(line)).env("PATH", "/usr/bin:/bin")
}

/// A `login` that waits for its user, and the code that it shows.
#[track_caller]
fn login(lab: &Lab, flags: &str) -> (Running, String) {
    let mut running = person(lab, &format!("login -o json {flags}")).start();
    let event = running.event("code");
    assert_eq!(event["url"], format!("{}/device", lab.emulator().url()), "{event}");
    let code = event["code"].as_str().unwrap().to_owned();
    (running, code)
}

/// A `login` that its user approves.
#[track_caller]
fn signed_in(lab: &Lab, upn: &str) {
    let (running, code) = login(lab, "");
    lab.emulator().approve_device_code(&code, upn).unwrap();
    running.finish().expect_code(0);
}

/// Checks exit code, message and hint.
#[track_caller]
fn refused(outcome: Outcome, says: &str, hint: &str) {
    let outcome = outcome.expect_code(10).expect_stderr(says);
    let told = outcome.stderr.lines().any(|line| line.starts_with("hint: ") && line.contains(hint));
    assert!(told, "no hint '{hint}': {outcome}");
}

/// Opens a connection without a question.
#[track_caller]
fn connects(program: Program) {
    let outcome = program.run().expect_code(0);
    assert_eq!(outcome.stdout, [0, 1, 2, 3, 4, 5], "{outcome}");
    assert!(!outcome.stderr.contains("To sign in"), "{outcome}");
}

/// Every file below a folder, from there.
fn files(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(folder, &mut found);
    let mut names: Vec<String> =
        found.iter().map(|path| path.strip_prefix(folder).unwrap().display().to_string()).collect();
    names.sort();
    names
}

const KEPT: &str = ".local/state/bastide/sign-in.json";
const LOCK: &str = ".local/state/bastide/sign-in.lock";

#[test]
fn one_login_serves_until_logout() {
    let lab = lab("");
    let mut running = person(&lab, "login").start();
    let told = running.stderr_line("and enter the code ");
    let code = told.split_once("the code ").and_then(|(_, rest)| rest.split_once(' ')).unwrap().0;
    assert!(told.ends_with("within 15 minutes"), "{told}");
    lab.emulator().approve_device_code(code, ADA).unwrap();
    let outcome = running.finish().expect_code(0);
    assert!(outcome.stdout.is_empty(), "{outcome}");
    let kept = lab.home().join(KEPT);
    let said = format!("Signed in as {ADA} to the tenant {TENANT}; kept in {}", kept.display());
    let outcome = outcome.expect_stderr(&said).expect_stderr("which only you can read");
    assert!(!outcome.stderr.contains("Press Enter"), "nobody is there to press it: {outcome}");

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&kept), mode(kept.parent().unwrap())), (0o600, 0o700));
    let event = account(person(&lab, "account"));
    assert_eq!((&event["user"], &event["source"]), (&ADA.into(), &"device-code".into()), "{event}");
    let outcome = person(&lab, "account").run().expect_code(0);
    assert!(outcome.text().starts_with(&format!("user     {ADA}\ntenant   {TENANT}\n")), "{outcome}");
    connects(person(&lab, CONNECT));
    // It wins over a service principal of the environment.
    assert_eq!(account(lab.bastide("account"))["source"], "device-code");
    // All of it with the token of the sign-in itself.
    assert_eq!(lab.transcript().count_status(Kind::Token, 200), 1);
    // The next tokens come without a question too.
    lab.emulator().expire_access_tokens();
    connects(person(&lab, CONNECT));
    assert_eq!(lab.transcript().issued("refresh_token"), 1);
    assert_eq!(lab.transcript().issued("device_code_requested"), 1);
    assert_eq!(mode(&kept), 0o600);

    lab.wait_for_releases();
    let outcome = person(&lab, "logout").run().expect_code(0);
    outcome.expect_stderr(&format!("Signed out: {ADA}"));
    let left = files(lab.home());
    assert!(!left.contains(&KEPT.to_owned()), "{left:?}");
    for name in &left {
        let content = String::from_utf8_lossy(&std::fs::read(lab.home().join(name)).unwrap()).into_owned();
        // How refresh and access tokens begin.
        assert!(!content.contains("1.A") && !content.contains("eyJ"), "{name}: {content}");
        assert!(name != LOCK || content.is_empty(), "{content}");
    }
    let outcome = person(&lab, "account").run();
    refused(outcome, "nobody has signed in with `bastide login`", "bastide login");
    assert_eq!(account(lab.bastide("account"))["source"], "client-secret");
    let outcome = person(&lab, "logout").run().expect_code(0);
    outcome.expect_stderr("Nobody was signed in");
}

#[test]
fn a_sign_in_that_is_not_to_be_kept() {
    let lab = lab("");
    let (running, code) = login(&lab, "--no-cache");
    lab.emulator().approve_device_code(&code, ADA).unwrap();
    let mut running = running;
    let event = running.event("signed_in");
    assert_eq!(event["kept"], "in memory until this process ends");
    running.finish().expect_code(0);
    assert_eq!(files(lab.home()), Vec::<String>::new());
    refused(person(&lab, "account").run(), "nobody has signed in", "bastide login");
    // Neither is one that is there taken.
    signed_in(&lab, ADA);
    let before = std::fs::read(lab.home().join(KEPT)).unwrap();
    refused(person(&lab, "account --no-cache").run(), "nobody has signed in", "bastide login");
    assert_eq!(account(lab.bastide("account --no-cache"))["source"], "client-secret");
    assert_eq!(std::fs::read(lab.home().join(KEPT)).unwrap(), before);
}

#[test]
fn a_command_asks_where_it_may() {
    let lab = lab("");
    let start = || person(&lab, CONNECT).words("--credential device-code").start();
    let mut running = start();
    let approve = |running: &mut Running| {
        let told = running.stderr_line("and enter the code ");
        let code = told.split_once("the code ").and_then(|(_, rest)| rest.split_once(' ')).unwrap().0;
        lab.emulator().approve_device_code(code, ADA).unwrap();
    };
    approve(&mut running);
    assert_eq!(running.finish().expect_code(0).stdout, [0, 1, 2, 3, 4, 5]);
    connects(person(&lab, CONNECT));
    // A sign-in that has ended is made anew; by itself nothing asks.
    lab.emulator().expire_access_tokens();
    lab.emulator().end_refresh_tokens(RefreshEnd::Revoked);
    refused(person(&lab, CONNECT).run(), "AADSTS50173", "run `bastide login --tenant");
    let mut running = start();
    approve(&mut running);
    assert_eq!(running.finish().expect_code(0).stdout, [0, 1, 2, 3, 4, 5]);
    connects(person(&lab, CONNECT));
    lab.wait_for_releases();
}

#[test]
fn what_can_become_of_a_code() {
    let lab = lab("");
    let nothing_kept = || assert!(!lab.home().join(KEPT).exists());
    let (running, code) = login(&lab, "");
    lab.emulator().decline_device_code(&code).unwrap();
    refused(running.finish(), "the sign-in was declined on the page", "run `bastide login` again");
    let (running, _) = login(&lab, "");
    lab.emulator().expire_device_codes();
    refused(running.finish(), "the code was not entered in time", "run `bastide login` again");
    for (upn, outcome, says, hint) in [
        ("eve@emulator.example", None, "AADSTS50057", "the account is disabled"),
        (ADA, Some(SignIn::ConditionalAccess), "AADSTS53003", "a conditional access policy"),
        (ADA, Some(SignIn::Consent), "AADSTS65001", "nobody has allowed this application yet"),
    ] {
        if let Some(outcome) = outcome {
            lab.emulator().set_outcome(upn, outcome);
        }
        let (running, code) = login(&lab, "");
        lab.emulator().approve_device_code(&code, upn).unwrap();
        refused(running.finish(), says, hint);
    }
    nothing_kept();
    let nobody = "00000000-0000-4000-8000-000000000000";
    let unknown = person(&lab, &format!("login --client-id {nobody}")).run();
    refused(unknown, "AADSTS700016", "check AZURE_CLIENT_ID (or --client-id)");
    refused(person(&lab, &format!("login --tenant {nobody}")).run(), "AADSTS90002", "no such tenant");
    refused(person(&lab, "login --tenant a/b").run(), "'a/b' is not a tenant", "a tenant is an id");
    // Nobody is left waiting for a user who has given up.
    let (mut running, _) = login(&lab, "");
    running.signal(Signal::INT);
    assert_eq!(running.wait().code(), Some(130));
    nothing_kept();
}

#[test]
fn the_other_word_for_a_refusal() {
    let lab = lab("device_code_refusal = \"access_denied\"");
    let (running, code) = login(&lab, "");
    lab.emulator().decline_device_code(&code).unwrap();
    refused(running.finish(), "the sign-in was declined on the page", "run `bastide login` again");
}

#[test]
fn a_service_that_wants_to_be_asked_less_often() {
    let lab = lab("");
    let (running, code) = login(&lab, "");
    lab.emulator().slow_down_device_codes();
    // The lab's verdict counts questions that come too early all the same.
    lab.wait_for(|transcript| transcript.count_status(Kind::Token, 400) > 0);
    lab.emulator().approve_device_code(&code, ADA).unwrap();
    running.finish().expect_code(0);
}

#[test]
fn sign_ins_that_are_good_no_more() {
    let lab = lab("");
    signed_in(&lab, ADA);
    // So that every command needs the refresh token.
    let ask = || {
        lab.emulator().expire_access_tokens();
        person(&lab, CONNECT).run()
    };
    for (outcome, says, hint) in [
        (
            SignIn::Mfa,
            "AADSTS50076",
            "the tenant asks for a second factor: sign in with `bastide login --tenant",
        ),
        (SignIn::Disabled, "AADSTS50057", "the account is disabled"),
        (SignIn::ConditionalAccess, "AADSTS53003", "show its administrator the correlation id"),
    ] {
        lab.emulator().set_outcome(ADA, outcome);
        refused(ask(), says, hint);
    }
    lab.emulator().set_outcome(ADA, SignIn::Granted);
    lab.emulator().expire_access_tokens();
    connects(person(&lab, CONNECT));
    for (end, says) in [(RefreshEnd::Expired, "AADSTS700082"), (RefreshEnd::Revoked, "AADSTS50173")] {
        lab.emulator().end_refresh_tokens(end);
        refused(ask(), says, &format!("run `bastide login --tenant {TENANT}` again"));
        signed_in(&lab, ADA);
        connects(person(&lab, CONNECT));
    }
    lab.wait_for_releases();
}

#[test]
fn a_sign_in_that_cannot_be_read() {
    let lab = lab("");
    for anew in [true, false] {
        signed_in(&lab, ADA);
        lab.file(KEPT, "{\"kept_in\": \"file\", \"accounts\": [{\"refresh_token\": \"1.Ahalf");
        let outcome = person(&lab, "account").run();
        assert!(!outcome.stderr.contains("1.Ahalf"), "{outcome}");
        refused(outcome, "cannot be used", "`bastide login`");
        // The other ways are open, and so is the way out.
        assert_eq!(account(lab.bastide("account"))["source"], "client-secret");
        if anew {
            signed_in(&lab, ADA);
            assert_eq!(account(person(&lab, "account"))["user"], ADA);
        } else {
            person(&lab, "logout").run().expect_code(0);
            assert!(!lab.home().join(KEPT).exists());
        }
    }
}

#[test]
fn several_processes_share_a_sign_in_whose_tokens_work_once() {
    // An access token of a minute is never good enough to be taken from the disk.
    let lab = lab("refresh_token_reuse = false\n[settings]\ntoken_lifetime_seconds = 60");
    signed_in(&lab, ADA);
    let running: Vec<Running> = (0..6).map(|_| person(&lab, "account").start()).collect();
    for process in running {
        process.finish().expect_code(0);
    }
    assert_eq!(lab.transcript().issued("refresh_token"), 6);
    account(person(&lab, "account"));
    assert_eq!(lab.transcript().issued("refresh_token"), 7);
}

#[test]
fn several_processes_want_the_same_token() {
    let lab = lab("refresh_token_reuse = false");
    signed_in(&lab, ADA);
    let kept = std::fs::read_to_string(lab.home().join(KEPT)).unwrap();
    let ended = with_tokens_ended(&kept);
    std::fs::write(lab.home().join(KEPT), ended).unwrap();
    let running: Vec<Running> = (0..6).map(|_| person(&lab, "account").start()).collect();
    for process in running {
        process.finish().expect_code(0);
    }
    assert_eq!(lab.transcript().issued("refresh_token"), 1);
}

/// What is kept, with access tokens that end now.
fn with_tokens_ended(kept: &str) -> String {
    let mut document: serde_json::Value = serde_json::from_str(kept).unwrap();
    for token in document["tokens"].as_array_mut().unwrap() {
        token["expires_on"] = 0.into();
    }
    document.to_string()
}

#[test]
fn claims_that_arm_demands_of_a_person() {
    let lab = lab("");
    signed_in(&lab, ADA);
    lab.emulator().demand_claims(Some(r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#));
    connects(person(&lab, CONNECT));
}

#[test]
fn a_browser_approves_and_refuses() {
    let lab = lab("");
    let browser = Browser::start();
    let (running, code) = login(&lab, "");
    browser.open(&format!("{}/device", lab.emulator().url()));
    browser.shows("h1", "Enter code");
    assert_eq!(browser.title(), "Enter code - bastide-emulator");
    // The field has the focus, and takes the code as people type it.
    browser.type_in("wrong\n");
    browser.shows("*[@role='alert']", "No program waits with this code");
    assert_eq!(browser.title(), "Error: Enter code - bastide-emulator");
    browser.open(&format!("{}/device", lab.emulator().url()));
    let (start, end) = code.split_at(4);
    browser.type_in(&format!("{}-{end}\n", start.to_lowercase()));
    browser.shows("h1", "Sign in to Microsoft Azure CLI?");
    browser.shows("main", "asks to act for you in your organization");
    browser.click("button[value=approve]");
    browser.shows("*[@role='alert']", "Choose the account");
    browser.click(&format!("input[value='{ADA}']"));
    browser.click("button[value=approve]");
    browser.shows("h1", "Signed in");
    browser.shows("*[@role='status']", ADA);
    running.finish().expect_code(0);
    assert_eq!(account(person(&lab, "account"))["user"], ADA);

    let (running, code) = login(&lab, "");
    browser.open(&format!("{}/device", lab.emulator().url()));
    browser.type_in(&format!("{code}\n"));
    browser.click("button[value=refuse]");
    browser.shows("*[@role='status']", "was not given access");
    refused(running.finish(), "the sign-in was declined on the page", "run `bastide login` again");
    // Who is signed in already stays so.
    assert_eq!(account(person(&lab, "account"))["user"], ADA);
}
