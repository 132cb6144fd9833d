//! The page where a person enters a device code, chooses a user and approves or refuses (RFC 8628 section
//! 3.3). Plain forms: no scripts, nothing from elsewhere. What a decision does is `devices.rs`.

use hyper::header::{COOKIE, HeaderValue, SET_COOKIE};
use hyper::{Method, StatusCode};
use subtle::ConstantTimeEq as _;

use super::DeviceCode;
use super::fault::Fault;
use crate::azure::Azure;
use crate::http::{Answer, Request, Response, html, lookup, set_header};
use crate::state::random_text;
use crate::transcript::Kind;

/// Answers `/device`; none for methods that it does not have.
pub(super) fn answer(azure: &Azure, request: &Request) -> Option<Answer> {
    let known = cookie(request);
    let token = known.clone().unwrap_or_else(random_text);
    let form = request.form();
    let page = match request.method {
        Method::GET => enter(&token, "", None),
        Method::POST if is_ours(request, &form, known.as_deref()) => step(azure, &form, &token),
        Method::POST => Page {
            status: StatusCode::FORBIDDEN,
            ..enter(
                &token,
                "",
                Some("This form was too old, or came from another page. Enter the code again."),
            )
        },
        _ => return None,
    };
    let mut response = page.response();
    if known.is_none()
        && let Ok(value) = HeaderValue::from_str(&format!(
            "{COOKIE_NAME}={token}; Path=/; Secure; HttpOnly; SameSite=Strict"
        ))
    {
        response.headers_mut().insert(SET_COOKIE, value);
    }
    let fields = form.into_iter().map(|(name, _)| name).collect();
    Some(Answer { fields, ..Answer::new(Kind::Page, response) })
}

/// The prefix binds it to this host and to TLS (RFC 6265bis section 4.1.3.2).
const COOKIE_NAME: &str = "__Host-device";

fn cookie(request: &Request) -> Option<String> {
    let values = request.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, value)| *name == COOKIE_NAME && !value.is_empty()).map(|(_, value)| value.to_owned())
}

/// Whether a form was sent from here: the cookie that only this host can set says the same as the form, and
/// the browser names no other origin.
fn is_ours(request: &Request, form: &[(String, String)], cookie: Option<&str>) -> bool {
    let said = lookup(form, "csrf").unwrap_or_default();
    let same = cookie.is_some_and(|cookie| bool::from(cookie.as_bytes().ct_eq(said.as_bytes())));
    let host = request.header("host").unwrap_or_default();
    same && request.header("origin").is_none_or(|origin| origin.strip_prefix("https://") == Some(host))
}

fn step(azure: &Azure, form: &[(String, String)], token: &str) -> Page {
    let user_code = lookup(form, "user_code").unwrap_or_default();
    let Some(device) = azure.sign_ins.find(user_code) else {
        let said = match user_code.trim().is_empty() {
            true => "Enter the code that your program shows.".to_owned(),
            false => "No program waits with this code. Check it; it may have expired.".to_owned(),
        };
        return enter(token, user_code, Some(&said));
    };
    match (lookup(form, "decision"), lookup(form, "upn")) {
        (None, _) => decide(azure, token, &device, "", None),
        (Some("approve"), None | Some("")) => {
            decide(azure, token, &device, "", Some("Choose the account to sign in with."))
        }
        (Some("approve"), Some(upn)) => match azure.approve_on_page(&device.user_code, upn) {
            Ok(()) => done(
                "Signed in",
                &format!(
                    "You are signed in to {} as {}. You can close this page and go back to the program.",
                    device.application, upn
                ),
            ),
            Err(said) => decide(azure, token, &device, upn, Some(&said)),
        },
        (Some(_), _) => match azure.sign_ins.decline(&device.user_code) {
            Ok(()) => done(
                "Refused",
                &format!("{} was not given access. You can close this page.", device.application),
            ),
            Err(_) => enter(token, "", Some(&Fault::CodeUnknown.sentence())),
        },
    }
}

/// A page without its frame.
struct Page {
    status: StatusCode,
    title: String,
    main: String,
}

fn enter(token: &str, user_code: &str, error: Option<&str>) -> Page {
    let (token, user_code) = (escaped(token), escaped(user_code));
    let invalid = if error.is_some() { " aria-invalid=\"true\"" } else { "" };
    let main = format!(
        r#"<h1>Enter code</h1>
{alert}<form method="post" action="/device">
<input type="hidden" name="csrf" value="{token}">
<label for="user_code">Code</label>
<p id="hint">The program that asked you to sign in shows it: nine letters.</p>
<input id="user_code" name="user_code" value="{user_code}" aria-describedby="hint{described}"{invalid} autofocus required
 autocomplete="one-time-code" autocapitalize="characters" spellcheck="false" maxlength="20">
<div class="buttons"><button type="submit">Next</button></div>
</form>"#,
        alert = alert(error),
        described = if error.is_some() { " error" } else { "" },
    );
    let title = if error.is_some() { "Error: Enter code" } else { "Enter code" };
    Page { status: StatusCode::OK, title: title.into(), main }
}

fn decide(azure: &Azure, token: &str, device: &DeviceCode, chosen: &str, error: Option<&str>) -> Page {
    let tenant = azure.inventory.tenant(&device.tenant);
    let users = azure.inventory.users().filter(|(principal, user)| {
        tenant.map_or(!user.guest, |tenant| principal.tenant.eq_ignore_ascii_case(&tenant.id))
    });
    let choices: String = users
        .enumerate()
        .map(|(number, (principal, user))| {
            let upn = escaped(&principal.name);
            let name = if user.display_name.is_empty() { String::new() } else { escaped(&user.display_name) };
            // Until somebody has chosen, nobody is chosen: an approval names its user.
            let checked = if principal.name == chosen { " checked" } else { "" };
            format!(
                r#"<label class="choice" for="user{number}"><input type="radio" id="user{number}" name="upn" value="{upn}"{checked}><span>{name} <small>{upn}</small></span></label>
"#
            )
        })
        .collect();
    let place = tenant.map_or("your organization", |tenant| match tenant.display_name.is_empty() {
        true => &tenant.domain,
        false => &tenant.display_name,
    });
    let main = format!(
        r#"<h1>Sign in to {application}?</h1>
{alert}<p>{application} asks to act for you in {place}. Go on only if you have started it yourself.</p>
<form method="post" action="/device">
<input type="hidden" name="csrf" value="{token}">
<input type="hidden" name="user_code" value="{code}">
<fieldset{described}><legend>Account</legend>
{choices}</fieldset>
<div class="buttons"><button type="submit" name="decision" value="approve">Approve</button>
<button type="submit" name="decision" value="refuse" class="quiet">Refuse</button></div>
</form>"#,
        application = escaped(&device.application),
        alert = alert(error),
        place = escaped(place),
        token = escaped(token),
        code = escaped(&device.user_code),
        described = if error.is_some() { " aria-describedby=\"error\"" } else { "" },
    );
    let title = if error.is_some() { "Error: Sign in" } else { "Sign in" };
    Page { status: StatusCode::OK, title: title.into(), main }
}

fn done(title: &str, text: &str) -> Page {
    let main = format!("<h1>{}</h1>\n<p role=\"status\">{}</p>", escaped(title), escaped(text));
    Page { status: StatusCode::OK, title: title.into(), main }
}

fn alert(error: Option<&str>) -> String {
    error.map_or_else(String::new, |text| {
        format!(
            "<p class=\"error\" id=\"error\" role=\"alert\"><strong>Error:</strong> {}</p>\n",
            escaped(text)
        )
    })
}

impl Page {
    fn response(self) -> Response {
        let nonce = random_text();
        let body = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title} - bastide-emulator</title>\n<style nonce=\"{nonce}\">{STYLE}</style>\n</head>\n<body>\n<header>bastide-emulator</header>\n<main>\n{main}\n</main>\n<footer>This is an emulator on your own machine. No account of yours is used.</footer>\n</body>\n</html>\n",
            title = escaped(&self.title),
            main = self.main,
        );
        let mut response = html(self.status, body);
        let policy = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        );
        set_header(&mut response, "content-security-policy", &policy);
        set_header(&mut response, "x-frame-options", "DENY");
        set_header(&mut response, "x-content-type-options", "nosniff");
        set_header(&mut response, "referrer-policy", "same-origin");
        set_header(&mut response, "cache-control", "no-store");
        response
    }
}

/// Contrast of text and of borders that matter is above 4.5 and 3 to 1 in both schemes (WCAG 2.2, 1.4.3 and
/// 1.4.11).
const STYLE: &str = "
:root { color-scheme: light dark; --text: #1b1b1f; --back: #f4f4f6; --card: #fff; --line: #767680; --act: #0b57b0; --on: #fff; --bad: #a4001d; }
@media (prefers-color-scheme: dark) { :root { --text: #ececf1; --back: #17171b; --card: #222228; --line: #90909a; --act: #8ab8ff; --on: #10131a; --bad: #ff9ba5; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: flex; flex-direction: column; align-items: center; background: var(--back); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
header, footer { padding: 1rem; font-size: .875rem; text-align: center; }
main { width: min(28rem, calc(100% - 2rem)); margin: auto; padding: clamp(1.25rem, 6vw, 2rem); background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
main > :last-child { margin-bottom: 0; }
h1 { margin: 0 0 1rem; font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
label { font-weight: 600; }
#hint { margin: 0 0 .5rem; }
#user_code { width: 100%; padding: .625rem .75rem; font: inherit; font-family: ui-monospace, monospace; letter-spacing: .15em; text-transform: uppercase; color: inherit; background: transparent; border: 1px solid var(--line); border-radius: .25rem; }
#user_code[aria-invalid] { border: 2px solid var(--bad); }
fieldset { margin: 0; padding: 0; border: 0; }
legend { padding: 0; font-weight: 600; }
.choice { display: flex; gap: .75rem; align-items: center; min-height: 2.75rem; padding: .25rem 0; font-weight: 400; overflow-wrap: anywhere; }
.choice small { display: block; font-size: .875rem; }
.choice input { width: 1.125rem; height: 1.125rem; flex: none; accent-color: var(--act); }
.buttons { display: flex; flex-wrap: wrap; gap: .75rem; margin-top: 1.5rem; }
button { min-height: 2.75rem; padding: .5rem 1.5rem; font: inherit; font-weight: 600; color: var(--on); background: var(--act); border: 2px solid var(--act); border-radius: .25rem; cursor: pointer; }
button.quiet { color: var(--act); background: transparent; }
:focus-visible { outline: 3px solid var(--act); outline-offset: 2px; }
.error { margin: 0 0 1rem; padding: .5rem .75rem; color: var(--bad); border-left: 4px solid var(--bad); overflow-wrap: anywhere; }
";

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nothing_leaves_its_place() {
        assert_eq!(escaped("<a b=\"c\" d='e'>&amp;"), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;amp;");
    }
}
