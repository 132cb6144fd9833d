//! Device codes (RFC 8628): handed out to a program, decided by a person or a test, asked for until then.
//! What is granted in the end is `grants.rs`, the person's page is `page.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use hyper::StatusCode;
use rand::RngExt as _;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::fault::{self, Fault};
use super::{SignIns, lock, tenant};
use crate::azure::Azure;
use crate::http::{Answer, Request, json as json_answer, lookup, set_header};
use crate::scenario::Outcome;
use crate::state::random_text;
use crate::transcript::Kind;

/// A device code that waits for somebody to decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceCode {
    /// What the person types in.
    pub user_code: String,
    /// Application (client) id of the program that asks.
    pub client_id: String,
    /// Its name.
    pub application: String,
    /// The tenant that it named, or `organizations` and the like.
    pub tenant: String,
}

/// Why a device code can't be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No such code waits: never issued, decided already, or expired.
    #[error("no device code with this user code is waiting")]
    UnknownCode,
    /// The user is not in the tenant that the program named.
    #[error("no such user in the tenant of this device code")]
    UnknownUser,
}

/// All device codes that were not redeemed, the last [`MAX_DEVICES`].
#[derive(Debug, Default)]
pub(super) struct Devices(VecDeque<Device>);

#[derive(Debug)]
struct Device {
    public: DeviceCode,
    device_code: String,
    scope: String,
    expires: Instant,
    interval: Duration,
    last_poll: Option<Instant>,
    /// Whether the program was told to slow down.
    slowed: bool,
    /// Whether the next question counts as too early, whenever it comes.
    hurried: bool,
    decision: Decision,
}

#[derive(Clone, Debug)]
enum Decision {
    Pending,
    Approved { upn: String },
    Declined,
}

/// What a program gets for its device code.
#[derive(Debug)]
pub(super) struct Approved {
    pub(super) upn: String,
    pub(super) client: String,
    /// The scope of the request for the device code.
    pub(super) scope: String,
}

/// Device codes at once; the oldest ones go first.
const MAX_DEVICES: usize = 1000;
/// RFC 8628 section 3.5: what `slow_down` adds to the interval.
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// Letters of a user code: RFC 8628 section 6.1, consonants only. Entra ID's codes have nine characters.
const USER_CODE_LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const USER_CODE_LENGTH: usize = 9;

/// `POST …/devicecode` (RFC 8628 section 3.1).
pub(super) fn answer(azure: &Azure, named: &str, request: &Request) -> Answer {
    let form = request.form();
    let mut response = match begin(azure, named, &form) {
        Ok(body) => json_answer(StatusCode::OK, &body),
        Err(fault) => fault.response(azure),
    };
    set_header(&mut response, "cache-control", "no-store");
    let fields = form.into_iter().map(|(name, _)| name).collect();
    Answer { fields, ..Answer::new(Kind::DeviceCode, response) }
}

fn begin(azure: &Azure, named: &str, form: &[(String, String)]) -> Result<Value, Fault> {
    let client = super::grants::needed(form, "client_id")?;
    let scope = super::grants::needed(form, "scope")?;
    let home = tenant(azure, named)?;
    super::grants::check_scope(azure, scope, home)?;
    let application =
        azure.inventory.applications.iter().find(|one| one.client_id.eq_ignore_ascii_case(client));
    let application = application.ok_or_else(|| Fault::UnknownClient {
        client: client.to_owned(),
        tenant: home.map_or_else(|| named.to_owned(), fault::name),
    })?;
    let settings = &azure.sign_ins.settings;
    let lifetime = Duration::from_secs(settings.device_code_lifetime_seconds.into());
    let interval = Duration::from_secs(settings.device_code_interval_seconds.into());
    let device = Device {
        public: DeviceCode {
            user_code: user_code(),
            client_id: application.client_id.clone(),
            application: application.name.clone(),
            tenant: home.map_or(named, |tenant| &tenant.id).to_owned(),
        },
        device_code: random_text(),
        scope: scope.to_owned(),
        expires: Instant::now() + lifetime,
        interval,
        last_poll: None,
        slowed: false,
        hurried: false,
        decision: Decision::Pending,
    };
    let page = format!("{}/device", azure.url);
    let user_code = device.public.user_code.clone();
    let body = json!({
        "device_code": device.device_code, "user_code": user_code, "verification_uri": page,
        "expires_in": lifetime.as_secs(), "interval": interval.as_secs(),
        "message": format!("To sign in, use a web browser to open the page {page} and enter the code {user_code} to authenticate."),
    });
    {
        let mut devices = lock(&azure.sign_ins.devices);
        if devices.0.len() >= MAX_DEVICES {
            devices.0.pop_front();
        }
        devices.0.push_back(device);
    }
    if let Some(upn) = &settings.device_code_approved_by {
        // The scenario was checked; a user of another tenant leaves the code undecided.
        let _ = azure.approve(&user_code, upn);
    }
    // Whoever waits for a device code looks at the transcript.
    azure.recorder.count("device_code_requested");
    Ok(body)
}

/// What a program is told that asks with its device code (RFC 8628 section 3.5).
pub(super) fn redeem(azure: &Azure, form: &[(String, String)]) -> Result<Approved, Fault> {
    let code = lookup(form, "device_code").or_else(|| lookup(form, "code")).unwrap_or_default();
    let client = super::grants::needed(form, "client_id")?;
    let now = Instant::now();
    let mut devices = lock(&azure.sign_ins.devices);
    let found = devices.0.iter().position(|device| device.device_code == code);
    let at = found.ok_or(Fault::CodeUnknown)?;
    let device = devices.0.get_mut(at).ok_or(Fault::CodeUnknown)?;
    if !device.public.client_id.eq_ignore_ascii_case(client) {
        return Err(Fault::CodeUnknown);
    }
    if device.expires <= now {
        return Err(Fault::CodeExpired);
    }
    let hasty = std::mem::take(&mut device.hurried)
        || device.last_poll.is_some_and(|last| now < last + device.interval);
    device.last_poll = Some(now);
    if hasty {
        if std::mem::replace(&mut device.slowed, true) {
            azure.recorder.write(|transcript| transcript.hasty_polls += 1);
        }
        device.interval += SLOW_DOWN;
        return Err(Fault::SlowDown);
    }
    match device.decision.clone() {
        Decision::Pending => Err(Fault::Pending),
        Decision::Declined => Err(Fault::Declined(azure.sign_ins.settings.device_code_refusal)),
        Decision::Approved { upn } => {
            let approved =
                Approved { upn, client: device.public.client_id.clone(), scope: device.scope.clone() };
            devices.0.remove(at);
            Ok(approved)
        }
    }
}

impl SignIns {
    /// Device codes that wait for a decision.
    pub(crate) fn waiting(&self) -> Vec<DeviceCode> {
        let devices = lock(&self.devices);
        devices.0.iter().filter(|device| device.is_waiting()).map(|device| device.public.clone()).collect()
    }

    /// What programs ask with, for all device codes that were not redeemed.
    pub(crate) fn secrets(&self) -> Vec<String> {
        lock(&self.devices).0.iter().map(|device| device.device_code.clone()).collect()
    }

    /// Refuses a device code.
    pub(crate) fn decline(&self, user_code: &str) -> Result<(), DeviceError> {
        self.decide(user_code, Decision::Declined)
    }

    /// Lets every device code expire.
    pub(crate) fn expire_device_codes(&self) {
        let now = Instant::now();
        for device in &mut lock(&self.devices).0 {
            device.expires = now;
        }
    }

    /// Answers the next question of every program that waits with `slow_down`.
    pub(crate) fn slow_down_device_codes(&self) {
        for device in &mut lock(&self.devices).0 {
            device.hurried = true;
        }
    }

    /// The device code with this user code, which people type in as they like.
    pub(super) fn find(&self, user_code: &str) -> Option<DeviceCode> {
        self.waiting().into_iter().find(|one| one.user_code == plain(user_code))
    }

    fn decide(&self, user_code: &str, decision: Decision) -> Result<(), DeviceError> {
        let mut devices = lock(&self.devices);
        let device = devices
            .0
            .iter_mut()
            .find(|device| device.is_waiting() && device.public.user_code == plain(user_code))
            .ok_or(DeviceError::UnknownCode)?;
        device.decision = decision;
        Ok(())
    }
}

impl Azure {
    /// Approves a device code as a user, whatever comes of that user's sign-in: the program is told.
    pub(crate) fn approve(&self, user_code: &str, upn: &str) -> Result<(), DeviceError> {
        let device = self.sign_ins.find(user_code).ok_or(DeviceError::UnknownCode)?;
        let tenant = self.inventory.tenant(&device.tenant).map(|tenant| tenant.id.as_str());
        let (user, _) = self.inventory.user(tenant, upn).ok_or(DeviceError::UnknownUser)?;
        self.sign_ins.decide(user_code, Decision::Approved { upn: user.name.clone() })
    }

    /// Approves a device code as Entra ID's own page would: not for a user who may not sign in.
    pub(super) fn approve_on_page(&self, user_code: &str, upn: &str) -> Result<(), String> {
        let device = self.sign_ins.find(user_code).ok_or_else(|| Fault::CodeUnknown.sentence())?;
        let tenant = self.inventory.tenant(&device.tenant).map(|tenant| tenant.id.as_str());
        let unknown = || Fault::UnknownUser { upn: upn.to_owned(), tenant: device.tenant.clone() }.sentence();
        let (_, user) = self.inventory.user(tenant, upn).ok_or_else(unknown)?;
        match self.sign_ins.outcome(user) {
            // Who types in a code can also prove more.
            Outcome::Granted | Outcome::Mfa => {}
            outcome => {
                let (client, challenge) = (device.client_id, String::new());
                return Err(Fault::Outcome { outcome, client, challenge }.sentence());
            }
        }
        self.approve(user_code, upn).map_err(|fault| fault.to_string())
    }
}

impl Device {
    fn is_waiting(&self) -> bool {
        matches!(self.decision, Decision::Pending) && self.expires > Instant::now()
    }
}

fn user_code() -> String {
    let mut random = rand::rng();
    // An index below 20 is always there.
    let letter =
        |_| USER_CODE_LETTERS.get(random.random_range(0..USER_CODE_LETTERS.len())).copied().unwrap_or(b'B');
    (0..USER_CODE_LENGTH).map(letter).map(char::from).collect()
}

/// RFC 8628 section 6.1: case and punctuation do not matter.
fn plain(user_code: &str) -> String {
    user_code.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::{plain, user_code};

    #[test]
    fn user_codes_as_people_type_them() {
        assert_eq!(plain(" bcdf-ghjk l"), "BCDFGHJKL");
        let code = user_code();
        assert_eq!(plain(&code), code);
        assert_eq!(code.len(), 9);
    }
}
