//! How one attempt at a connection ended, and whether another is worth making (protocol.md §4). It leaves out
//! waiting and trying: the relay does that.

use std::fmt;
use std::time::Duration;

/// How one attempt at a connection ended, as seen by the client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The local side is done, and everything that was on its way was delivered.
    LocalClosed,
    /// The local side broke: it reset the connection, or stopped reading.
    LocalBroken(String),
    /// The local side could not be read or written: a full disk, say. What came meanwhile is lost.
    LocalFailed(String),
    /// The service sent a close frame; 1005 stands for one without a code (RFC 6455 §7.4.1).
    Closed {
        /// The close code.
        code: u16,
        /// The reason that came with it; often empty.
        reason: String,
    },
    /// The service ended the connection without a close frame.
    Eof,
    /// The connection to the service broke.
    Broken(String),
    /// `HTTP/1.` where the first frame belongs: the proxy layer of the service refused after its `101`.
    ProxyRefused {
        /// The status of that raw answer, such as 400.
        status: Option<u16>,
    },
    /// Something that RFC 6455 does not allow.
    Malformed(&'static str),
    /// Nothing came back from the VM in time.
    Silent,
    /// The service answered no ping and sent nothing for too long.
    Dead,
    /// The mint was refused for a reason that another try does not change: a right, a setting, a target.
    Declined,
    /// The upgrade was refused; the one-time token is spent, a new mint may land on a healthy node.
    UpgradeRefused {
        /// The HTTP status.
        status: u16,
    },
    /// The mint failed in a way that another try may mend.
    Refused {
        /// The HTTP status.
        status: u16,
        /// How long the service asks to wait.
        retry_after: Option<Duration>,
    },
    /// The connection to the service could not be opened.
    Unreachable,
    /// The tunnel is being shut down.
    Stopped,
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::LocalClosed => formatter.write_str("closed by the local side"),
            End::LocalBroken(error) => write!(formatter, "the local side broke: {error}"),
            End::LocalFailed(error) => write!(formatter, "the local side failed: {error}"),
            End::Closed { code: 1000 | 1005, .. } => formatter.write_str("closed by the VM"),
            End::Closed { code, reason } if reason.is_empty() => {
                write!(formatter, "closed by the service (code {code})")
            }
            End::Closed { code, reason } => {
                write!(formatter, "closed by the service (code {code}: {reason})")
            }
            End::Eof => formatter.write_str("ended by the service without a close frame"),
            End::Broken(error) => write!(formatter, "the connection to the service broke: {error}"),
            End::ProxyRefused { status: Some(status) } => {
                write!(formatter, "the service's proxy layer answered HTTP {status} after its upgrade")
            }
            End::ProxyRefused { status: None } => {
                formatter.write_str("the service's proxy layer refused after its upgrade")
            }
            End::Malformed(what) => write!(formatter, "the service broke the WebSocket protocol: {what}"),
            End::Silent => formatter.write_str("nothing came back from the VM"),
            End::Dead => formatter.write_str("the service stopped answering"),
            End::Declined => formatter.write_str("the service declined the connection"),
            End::UpgradeRefused { status } => {
                write!(formatter, "the upgrade was refused with status {status}")
            }
            End::Refused { status, .. } => write!(formatter, "the service answered with status {status}"),
            End::Unreachable => formatter.write_str("the service could not be reached"),
            End::Stopped => formatter.write_str("the tunnel was stopped"),
        }
    }
}

impl End {
    /// Whether the far side ended it in an orderly way: a close frame of 1000, or without a code (1005), or the end of
    /// the bytes, as a TCP FIN becomes one (protocol.md §3 step 3). A VM that refuses its port ends so; other codes
    /// (1001, 1011, 1012, 1013 and what nobody has seen) and broken connections are the service's.
    pub fn is_clean(&self) -> bool {
        matches!(self, End::Closed { code: 1000 | 1005, .. } | End::Eof)
    }

    /// Whether nobody needs to be told of it: one of the two programs ended it, or the user did.
    pub fn is_ordinary(&self) -> bool {
        self.is_clean() || matches!(self, End::LocalClosed | End::LocalBroken(_) | End::Stopped)
    }
}

/// Whether anything had come back from the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Not a byte: the bytes sent so far can be sent again over a new connection.
    Nothing,
    /// Not a byte, and the local side has finished and all that it said was sent: the VM may have taken it and have
    /// nothing to answer. After a clean end, sending it again could do twice what was to be done once.
    NoAnswer,
    /// Something, or more was sent than is kept: another attempt would corrupt the stream.
    Something,
}

/// One attempt: which it was, how it ended, and whether the VM was heard.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// 1 for the first.
    pub number: u32,
    /// How it ended.
    pub end: &'a End,
    /// Whether the VM was heard.
    pub heard: Heard,
}

/// Whether so many clean ends ([`End::is_clean`]) in a row without a word from the VM are the VM's own, and another
/// attempt would be closed as well (protocol.md §4, "closed at once, every time"). Each attempt may land on another
/// node, so that one sick node does not look like a closed port.
pub fn is_closed_port(clean_ends: u32) -> bool {
    clean_ends >= 2
}

/// How often and how fast to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Further attempts after the first. Default 4: five tries in all, as Microsoft's own CI makes
    /// (peers.md §1.1, agentbaker).
    pub retries: u32,
    /// The pause before the second attempt; it doubles. Default 500 ms.
    pub first_pause: Duration,
    /// No pause is longer. Default 10 s (peers.md F16).
    pub longest_pause: Duration,
    /// A service that asks for a longer wait (`Retry-After`) is not asked again. Default 60 s: as long as opening
    /// a connection may take.
    pub longest_asked: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 4,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(10),
            longest_asked: Duration::from_secs(60),
        }
    }
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is over.
    Stop,
    /// Mint anew and try again after this pause.
    Again(Duration),
}

/// Judges an attempt. `jitter` is a random number from 0 to 1, which spreads the clients of a sick service.
pub fn verdict(policy: &RetryPolicy, attempt: Attempt<'_>, jitter: f64) -> Verdict {
    if attempt.heard == Heard::Something || attempt.number > policy.retries || !is_curable(attempt.end) {
        return Verdict::Stop;
    }
    if attempt.heard == Heard::NoAnswer && attempt.end.is_clean() {
        return Verdict::Stop;
    }
    let doubled = policy.first_pause.saturating_mul(1 << (attempt.number - 1).min(10));
    // Half of the pause is fixed, half is chance ("equal jitter").
    let pause = doubled.min(policy.longest_pause).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
    match attempt.end {
        End::Refused { retry_after: Some(asked), .. } if *asked > policy.longest_asked => Verdict::Stop,
        End::Refused { retry_after: Some(asked), .. } => Verdict::Again(pause.max(*asked)),
        _ => Verdict::Again(pause),
    }
}

/// Whether a new mint, which may land on another node, can help (protocol.md §4).
fn is_curable(end: &End) -> bool {
    match end {
        End::Closed { code, .. } => matches!(code, 1001 | 1005 | 1006 | 1011 | 1012 | 1013),
        End::Refused { status, .. } => matches!(status, 408 | 429 | 500..=599),
        End::UpgradeRefused { status } => !matches!(status, 401 | 403),
        End::Eof
        | End::Broken(_)
        | End::ProxyRefused { .. }
        | End::Malformed(_)
        | End::Silent
        | End::Dead
        | End::Unreachable => true,
        End::LocalClosed | End::LocalBroken(_) | End::LocalFailed(_) | End::Stopped | End::Declined => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(number: u32, end: End, heard: Heard) -> Verdict {
        verdict(&RetryPolicy::default(), Attempt { number, end: &end, heard }, 1.0)
    }

    fn closed(code: u16) -> End {
        End::Closed { code, reason: String::new() }
    }

    #[test]
    fn a_sick_service_is_tried_again_until_the_vm_was_heard() {
        let half_second = Verdict::Again(Duration::from_millis(500));
        for end in [
            End::Eof,
            End::Silent,
            End::Broken("reset".into()),
            End::ProxyRefused { status: Some(400) },
            End::Closed { code: 1011, reason: String::new() },
            End::Refused { status: 503, retry_after: None },
        ] {
            assert_eq!(judge(1, end.clone(), Heard::Nothing), half_second, "{end:?}");
            assert_eq!(judge(1, end.clone(), Heard::Something), Verdict::Stop, "{end:?}");
            assert_eq!(judge(5, end.clone(), Heard::Nothing), Verdict::Stop, "{end:?}");
        }
    }

    #[test]
    fn what_another_try_cannot_mend_stops() {
        for end in [
            End::LocalClosed,
            End::Stopped,
            End::Declined,
            End::Closed { code: 1000, reason: String::new() },
            End::Refused { status: 403, retry_after: None },
            End::Refused { status: 429, retry_after: Some(Duration::from_secs(3600)) },
        ] {
            assert_eq!(judge(1, end.clone(), Heard::Nothing), Verdict::Stop, "{end:?}");
        }
    }

    #[test]
    fn a_closed_port_is_told_from_a_sick_service() {
        let again = Verdict::Again(Duration::from_millis(500));
        for clean in [closed(1005), End::Eof] {
            assert!(clean.is_clean());
            assert_eq!(judge(1, clean.clone(), Heard::Nothing), again, "{clean:?}");
        }
        assert!(!is_closed_port(1) && is_closed_port(2));
        assert_eq!(judge(1, closed(1000), Heard::Nothing), Verdict::Stop, "the VM's own word");
        for sick in [
            closed(1001),
            closed(1006),
            closed(1011),
            closed(1012),
            closed(1013),
            End::Broken("reset".into()),
            End::Malformed("x"),
            End::Dead,
        ] {
            assert!(!sick.is_clean() && !sick.is_ordinary());
            for heard in [Heard::Nothing, Heard::NoAnswer] {
                assert!(matches!(judge(4, sick.clone(), heard), Verdict::Again(_)), "{sick:?}");
            }
            assert_eq!(judge(5, sick.clone(), Heard::Nothing), Verdict::Stop, "{sick:?}");
        }
        for lasting in [closed(1002), closed(1003), closed(1007), closed(1008), closed(1009), closed(4000)] {
            assert_eq!(judge(1, lasting.clone(), Heard::Nothing), Verdict::Stop, "{lasting:?}");
        }
    }

    #[test]
    fn what_the_vm_may_have_done_is_not_done_twice() {
        for clean in [closed(1000), closed(1005), End::Eof] {
            assert_eq!(judge(1, clean.clone(), Heard::NoAnswer), Verdict::Stop, "{clean:?}");
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_obey_the_service() {
        assert_eq!(judge(4, End::Eof, Heard::Nothing), Verdict::Again(Duration::from_secs(4)));
        let policy = RetryPolicy { retries: 90, ..RetryPolicy::default() };
        let late = Attempt { number: 80, end: &End::Eof, heard: Heard::Nothing };
        assert_eq!(verdict(&policy, late, 1.0), Verdict::Again(Duration::from_secs(10)));
        assert_eq!(verdict(&policy, late, 0.0), Verdict::Again(Duration::from_secs(5)));
        let asked = End::Refused { status: 429, retry_after: Some(Duration::from_secs(7)) };
        assert_eq!(judge(1, asked, Heard::Nothing), Verdict::Again(Duration::from_secs(7)));
    }
}
