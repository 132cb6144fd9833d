//! What a client owes its user for each fault of the emulator: the table that joins the rows of protocol.md §4 with
//! their tests. The match is exhaustive: a new fault does not compile until it is decided here, and
//! `every_fault_is_ordered` fails until it is ordered. It leaves out how a duty is checked.

use bastide_emulator::faults::{At, Ending, Fault, Order, Requests};
use bastide_emulator::transcript::Kind;

/// What the client has to do.
#[derive(Debug)]
pub(super) enum Duty {
    /// The user notices nothing: one attempt, no word.
    Nothing,
    /// Try again with a new token and the same bytes; say why; when it stays, end like this.
    Again(&'static str, Last),
    /// Ask for another access token and try again, without a word; when it stays, end like this.
    SignInAgain(Last),
    /// End at once: another try would not mend it.
    Stop(Last),
    /// End when the user's time is over.
    Wait(Last),
    /// Deliver what had arrived, end the connection, and say this.
    End(&'static str),
    /// Give the token back at another try; when that stays in vain, count it as left behind.
    Release,
    /// Nothing that can be seen within the time of a test: the relay's tests with a clock that is fed show it.
    Elsewhere(#[expect(dead_code, reason = "names the test for the reader")] &'static str),
}

/// The last word: exit code, what the error says, what the hint says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last(pub(super) u8, pub(super) &'static str, pub(super) &'static str);

/// When a fault meets the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// While the Bastion host is being found.
    Start,
    /// While a connection is opened or lives.
    Connection,
    /// While a token is given back.
    Release,
}

/// What a service principal with a secret never asks.
const OTHER_SIGN_INS: Duty = Duty::Elsewhere("sign_in.rs, device_code.rs, keyvault.rs");

/// A file that no tunnel asks for.
const RDP_FILE: Duty = Duty::Elsewhere("rdp.rs");

const SICK: &str = "in trouble";
const SUPPORT: &str = "support request";
const NETWORK: &str = "";

/// The table.
pub(super) fn duty(fault: &Fault) -> Duty {
    match fault {
        Fault::Status { on, status, message, .. } => refusal(on, *status, message),
        Fault::Half { on } => match on.kind {
            Kind::Token => Duty::Again("", Last(20, "cannot reach the sign-in service", "HTTPS")),
            Kind::Arm | Kind::Graph | Kind::Discovery => {
                Duty::Again("", Last(20, "cannot ask Azure Resource", NETWORK))
            }
            Kind::Mint | Kind::Connection => Duty::Again("cannot be reached", Last(20, "cannot be", NETWORK)),
            // Half of an answer that was no 101.
            Kind::Upgrade => Duty::Again("refused the WebSocket", Last(21, "status 502", SUPPORT)),
            Kind::Release => Duty::Release,
            Kind::DeviceCode | Kind::Page | Kind::Identity | Kind::Oidc | Kind::KeyVault => OTHER_SIGN_INS,
            Kind::RdpFile => RDP_FILE,
            Kind::Unknown => Duty::Nothing,
        },
        Fault::Hold { on } => match on.kind {
            Kind::Token => Duty::Wait(Last(20, "gave no answer within 30s", "HTTPS")),
            Kind::Arm | Kind::Graph | Kind::Discovery => {
                Duty::Wait(Last(20, "gave no answer within 30s", NETWORK))
            }
            Kind::Mint | Kind::Connection | Kind::Upgrade => {
                Duty::Wait(Last(124, "no connection to 'web-01' within 2 s", "--connect-timeout"))
            }
            Kind::Release => Duty::Release,
            Kind::DeviceCode | Kind::Page | Kind::Identity | Kind::Oidc | Kind::KeyVault => OTHER_SIGN_INS,
            Kind::RdpFile => RDP_FILE,
            Kind::Unknown => Duty::Nothing,
        },
        Fault::Reset { on } => match on.kind {
            Kind::Token => Duty::Again("", Last(20, "cannot reach the sign-in service", "HTTPS")),
            Kind::Arm | Kind::Graph | Kind::Discovery => Duty::Again("", Last(20, "was reset", NETWORK)),
            Kind::Mint | Kind::Connection | Kind::Upgrade => {
                Duty::Again("cannot be reached", Last(20, "was reset", NETWORK))
            }
            Kind::Release => Duty::Release,
            Kind::DeviceCode | Kind::Page | Kind::Identity | Kind::Oidc | Kind::KeyVault => OTHER_SIGN_INS,
            Kind::RdpFile => RDP_FILE,
            Kind::Unknown => Duty::Nothing,
        },
        Fault::MissingField { on, .. } => match on.kind {
            Kind::Token => Duty::Stop(Last(10, "answered without a token", "bastide login")),
            Kind::Arm | Kind::Graph => {
                Duty::Stop(Last(21, "the answer cannot be read", "something else than Azure"))
            }
            Kind::Discovery => Duty::Stop(Last(2, "is not a cloud", "https://")),
            Kind::Mint => Duty::Again("without ", Last(21, "without ", SUPPORT)),
            Kind::DeviceCode | Kind::Page | Kind::Identity | Kind::Oidc | Kind::KeyVault => OTHER_SIGN_INS,
            Kind::RdpFile => RDP_FILE,
            Kind::Connection | Kind::Upgrade | Kind::Release | Kind::Unknown => Duty::Nothing,
        },
        Fault::ExpiredTokens => Duty::SignInAgain(Last(10, "", "")),
        Fault::Handshake { flaw } => match flaw {
            bastide_emulator::faults::Flaw::NoHeaders | bastide_emulator::faults::Flaw::KeepAlive => {
                Duty::Nothing
            }
            bastide_emulator::faults::Flaw::WrongAccept => {
                Duty::Again("wrong Sec-WebSocket-Accept", Last(21, "wrong Sec-WebSocket-Accept", SUPPORT))
            }
        },
        Fault::RawPage { .. } => Duty::Again(
            "answered HTTP 400 after its upgrade",
            Last(21, "answered HTTP 400 after its upgrade", SICK),
        ),
        Fault::Ending { how, at } => ending(*how, *at),
        Fault::Silence { at: At::Upgrade, direction } => match direction {
            bastide_emulator::faults::Direction::Both | bastide_emulator::faults::Direction::ToClient => {
                Duty::Again("nothing came back from the VM", Last(21, "nothing came back from the VM", SICK))
            }
            bastide_emulator::faults::Direction::ToVm => {
                Duty::Elsewhere("pump::tests::pings_over_an_hour_of_silence_and_death")
            }
        },
        Fault::Silence { at: At::Vm(_) | At::Client(_) | At::Now, .. } | Fault::PingIgnored => {
            Duty::Elsewhere("pump::tests::pings_over_an_hour_of_silence_and_death")
        }
        Fault::PingReset => Duty::Elsewhere("session::ends::a_ping_is_blamed_only_for_what_it_may_have_done"),
        Fault::Frames { .. } => Duty::Nothing,
    }
}

fn refusal(on: &Requests, status: u16, message: &str) -> Duty {
    match (on.kind, status) {
        (Kind::DeviceCode | Kind::Page | Kind::Identity | Kind::Oidc | Kind::KeyVault, _) => OTHER_SIGN_INS,
        (Kind::Token, 400 | 401 | 403) => Duty::Stop(Last(10, "client-secret was refused", "")),
        (Kind::Token, _) => Duty::Again("", Last(21, "client-secret got no token", "try again")),
        (Kind::Arm | Kind::Graph, 401) => {
            Duty::SignInAgain(Last(10, "the access token is not accepted", "az login"))
        }
        (Kind::Arm | Kind::Graph, 403) => Duty::Stop(Last(11, "not allowed", "Reader")),
        (Kind::Arm | Kind::Graph, 404) => Duty::Stop(Last(13, "was not found", "")),
        (Kind::Arm | Kind::Graph | Kind::Discovery, 429) => {
            Duty::Again("", Last(21, "too many requests", "try again"))
        }
        (Kind::Arm | Kind::Graph | Kind::Discovery, _) => {
            Duty::Again("", Last(21, "Azure Resource Manager is not able to answer", "try again"))
        }
        (Kind::Mint | Kind::Connection, 401) => {
            Duty::SignInAgain(Last(10, "status 401", "sign in again, with the tenant"))
        }
        (Kind::Mint | Kind::Connection, 403) => Duty::Stop(Last(11, "status 403", "Reader is needed")),
        (Kind::Mint | Kind::Connection, 404) => Duty::Stop(Last(13, "status 404", "")),
        // The catch-all has many causes, and a sick service is the rarest.
        (Kind::Mint | Kind::Connection, 500) if message == "Unexpected internal error" => {
            Duty::Stop(Last(21, "status 500, \"Unexpected internal error\"", "no Reader role"))
        }
        (Kind::Mint | Kind::Connection, 429) => {
            Duty::Again("status 429", Last(21, "status 429", "limit of sessions"))
        }
        (Kind::Mint | Kind::Connection, _) => Duty::Again("status 5", Last(21, "status 5", "")),
        (Kind::Upgrade, 401 | 403) => Duty::Stop(Last(21, "refused the WebSocket", SUPPORT)),
        (Kind::Upgrade, _) => {
            Duty::Again("refused the WebSocket", Last(21, "refused the WebSocket", SUPPORT))
        }
        // The service has forgotten it already, which is what was wanted.
        (Kind::Release, 404) => Duty::Nothing,
        (Kind::Release, _) => Duty::Release,
        (Kind::RdpFile, _) => RDP_FILE,
        (Kind::Unknown, _) => Duty::Nothing,
    }
}

fn ending(how: Ending, at: At) -> Duty {
    // Half a frame holds bytes of the VM.
    if matches!(at, At::Vm(1..)) || how == Ending::Truncated {
        return Duty::End(match how {
            Ending::Close(1000) => "closed by the VM",
            Ending::Close(1006) | Ending::CloseNotify => "without a close frame",
            Ending::Close(_) => "closed by the service (code ",
            Ending::Truncated => "end within a frame",
            Ending::Fin | Ending::Reset | Ending::Garbage => "",
        });
    }
    let refused = Last(22, "port 7 of 'web-01' was closed before anything came back", "nothing listens on");
    match how {
        Ending::Close(1000) => Duty::Stop(refused),
        Ending::Close(1006) | Ending::CloseNotify | Ending::Fin => Duty::Again("", refused),
        Ending::Close(_) | Ending::Reset | Ending::Truncated | Ending::Garbage => {
            Duty::Again("", Last(21, "no working connection to 'web-01'", SICK))
        }
    }
}

/// When the fault meets the client.
pub(super) fn stage(fault: &Fault) -> Stage {
    let on = match fault {
        Fault::Status { on, .. }
        | Fault::Half { on }
        | Fault::Hold { on }
        | Fault::Reset { on }
        | Fault::MissingField { on, .. } => on.kind,
        _ => Kind::Upgrade,
    };
    match on {
        Kind::DeviceCode
        | Kind::Page
        | Kind::Identity
        | Kind::Oidc
        | Kind::KeyVault
        | Kind::Token
        | Kind::Arm
        | Kind::Graph
        | Kind::Discovery => Stage::Start,
        Kind::Release => Stage::Release,
        Kind::Mint | Kind::Connection | Kind::Upgrade | Kind::RdpFile | Kind::Unknown => Stage::Connection,
    }
}

/// The orders that are tried, in the emulator's own words.
pub(super) const ORDERS: &[&str] = &[
    // Those that take longest come first.
    "hold:on=arm",
    "hold:on=graph",
    "hold:on=discovery",
    "hold:on=token",
    "hold:on=mint",
    "hold:on=upgrade",
    "hold:on=connection",
    "hold:on=release",
    "silence",
    "silence:direction=to_client",
    "status:on=mint,status=401",
    "status:on=mint,status=403,message=No",
    "status:on=mint,status=404",
    "status:on=mint,status=429,retry_after=0",
    "status:on=mint,status=500",
    "status:on=mint,status=500,message=Oops",
    "status:on=mint,status=502,body=html",
    "status:on=mint,status=503,body=empty,retry_after=soon",
    "status:on=upgrade,status=403",
    "status:on=upgrade,status=404",
    "status:on=upgrade,status=500",
    "status:on=upgrade,status=502,body=html",
    "status:on=connection,status=401",
    "status:on=connection,status=403,message=No",
    "status:on=connection,status=503,body=html",
    "status:on=release,status=404",
    "status:on=release,status=500",
    "status:on=release,status=502,body=html",
    "status:on=arm,status=401",
    "status:on=arm,status=403,body=html",
    "status:on=arm,status=404",
    "status:on=arm,status=429,retry_after=0",
    "status:on=arm,status=503,body=html",
    "status:on=graph,status=401",
    "status:on=graph,status=403",
    "status:on=graph,status=429,retry_after=0",
    "status:on=graph,status=503,body=html",
    "status:on=discovery,status=503,body=html",
    "status:on=token,status=400",
    "status:on=token,status=429",
    "status:on=token,status=503,body=html",
    "half:on=mint",
    "half:on=upgrade",
    "half:on=connection",
    "half:on=release",
    "half:on=arm",
    "half:on=graph",
    "half:on=discovery",
    "half:on=token",
    "reset:on=mint",
    "reset:on=upgrade",
    "reset:on=connection",
    "reset:on=release",
    "reset:on=arm",
    "reset:on=graph",
    "reset:on=discovery",
    "reset:on=token",
    "missing_field:on=mint,field=authToken",
    "missing_field:on=mint,field=nodeId",
    "missing_field:on=mint,field=websocketToken",
    "missing_field:on=token,field=access_token",
    "missing_field:on=arm,field=id",
    "missing_field:on=graph,field=data",
    "missing_field:on=discovery,field=authentication",
    "expired_tokens",
    "handshake:flaw=no_headers",
    "handshake:flaw=keep_alive",
    "handshake:flaw=wrong_accept",
    "raw_page",
    "raw_page:piece=1",
    "raw_page:piece=7,then=stay",
    "ending:how=close:1000",
    "ending:how=close:1000,at=client:5",
    "ending:how=close:1001",
    "ending:how=close:1006",
    "ending:how=close:1011",
    "ending:how=close:1012",
    "ending:how=close:1013,at=client:5",
    "ending:how=close_notify",
    "ending:how=fin",
    "ending:how=reset",
    "ending:how=reset,at=client:5",
    "ending:how=truncated",
    "ending:how=garbage,at=client:5",
    "ending:how=close:1000,at=vm:70000",
    "ending:how=close:1001,at=vm:1",
    "ending:how=close:1011,at=vm:70000",
    "ending:how=close_notify,at=vm:70000",
    "ending:how=fin,at=vm:70000",
    "ending:how=reset,at=vm:1",
    "ending:how=truncated,at=vm:70000",
    "ending:how=garbage,at=vm:70000",
    "silence:direction=to_vm",
    "silence:at=vm:1",
    "ping_ignored",
    "ping_reset",
    "frames:form=text",
    "frames:form=fragmented",
    "frames:form=empty",
    "frames:form=pings",
    "frames:form=large:1000000",
];

pub(super) fn parse(order: &str) -> Fault {
    order.parse::<Order>().unwrap().fault
}
