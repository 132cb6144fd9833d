//! The sessions of a Bastion host, as ARM lists and ends them (protocol.md §4). It leaves out how many a host can have.

use bastide_core::ResourceId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::answer::shown;
use crate::client::Question;
use crate::{Arm, Error};

/// A session that a Bastion host knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Session {
    /// Its id.
    #[serde(rename = "sessionId")]
    pub id: String,
    /// `SSH` or `RDP`.
    pub protocol: Option<String>,
    /// The VM's resource id.
    pub target_resource_id: Option<String>,
    /// The VM's name.
    pub target_host_name: Option<String>,
    /// The VM's private address.
    pub target_ip_address: Option<String>,
    /// Who is signed in to the VM.
    pub user_name: Option<String>,
    /// When it began, as the service writes times.
    pub start_time: Option<String>,
}

/// What came of ending a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionEnd {
    /// The session's id.
    #[serde(rename = "sessionId")]
    pub id: String,
    /// `Disconnected`, `Failed` or `NotFound`.
    pub state: String,
    /// What the service says about it.
    pub message: Option<String>,
}

impl Session {
    /// Ids have to stay whole; everything else is a name.
    fn fit_for_a_terminal(mut self) -> Self {
        self.id.retain(|letter| !letter.is_control());
        if let Some(id) = &mut self.target_resource_id {
            id.retain(|letter| !letter.is_control());
        }
        let names = [
            &mut self.protocol,
            &mut self.target_host_name,
            &mut self.target_ip_address,
            &mut self.user_name,
            &mut self.start_time,
        ];
        for name in names.into_iter().flatten() {
            *name = shown(name);
        }
        self
    }
}

impl Arm {
    /// The sessions of a Bastion host.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Unfinished`]; those of an exchange with ARM.
    pub async fn sessions(&self, host: &ResourceId) -> Result<Vec<Session>, Error> {
        let what = format!("the sessions of Bastion host '{}'", host.name());
        let sessions =
            self.list_by_action::<Session>(host, "getActiveSessions", &what, &Bytes::new()).await?;
        Ok(sessions.into_iter().map(Session::fit_for_a_terminal).collect())
    }

    /// Ends sessions of a Bastion host; what came of each.
    ///
    /// Not cancel safe: dropping the future leaves open which have ended.
    ///
    /// # Errors
    /// Those of [`Arm::sessions`].
    pub async fn end_sessions(&self, host: &ResourceId, ids: &[String]) -> Result<Vec<SessionEnd>, Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct SessionIds<'a> {
            session_ids: &'a [String],
        }
        let what = format!("the end of sessions of Bastion host '{}'", host.name());
        // A list of texts: serialising it can't fail, and an empty body would be refused.
        let body = serde_json::to_vec(&SessionIds { session_ids: ids }).unwrap_or_default();
        let ends =
            self.list_by_action::<SessionEnd>(host, "disconnectActiveSessions", &what, &body.into()).await?;
        let clean = |end: SessionEnd| SessionEnd {
            id: end.id,
            state: shown(&end.state),
            message: end.message.map(|message| shown(&message)),
        };
        Ok(ends.into_iter().map(clean).collect())
    }

    async fn list_by_action<T: serde::de::DeserializeOwned>(
        &self,
        host: &ResourceId,
        action: &str,
        what: &str,
        body: &Bytes,
    ) -> Result<Vec<T>, Error> {
        let path = format!("{host}/{action}");
        let question = Question {
            what,
            path: &path,
            api_version: API_VERSION,
            expand: None,
            subscription: Some(host.subscription()),
        };
        let first = self.act(&question, body).await?;
        // Without a body there is nothing to tell.
        if first.is_empty() { Ok(Vec::new()) } else { self.list_from(&question, &first).await }
    }
}

/// protocol.md §4.
const API_VERSION: &str = "2025-07-01";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{Reply, Script};

    const HOST: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/bastionHosts/b";

    /// As the REST specification's example has it (`BastionSessionsList.json`), names made up.
    const LIST: &str = r#"{"value":[{"sessionId":"one","startTime":"2026-1-1T12:00:00.0000Z","targetSubscriptionId":"s",
        "resourceType":"VM","targetHostName":"web-01","targetResourceGroup":"g","userName":"ada","targetIpAddress":"10.0.0.4",
        "protocol":"SSH","targetResourceId":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web-01",
        "sessionDurationInMins":0.5}]}"#;

    fn ids(sessions: &[Session]) -> Vec<&str> {
        sessions.iter().map(|session| session.id.as_str()).collect()
    }

    #[tokio::test]
    async fn a_list_that_is_there_at_once() {
        let script = Script::start(vec![Reply::json(200, LIST)]).await;
        let sessions = script.arm().sessions(&HOST.parse().unwrap()).await.unwrap();
        assert_eq!(ids(&sessions), ["one"]);
        assert_eq!(sessions[0].protocol.as_deref(), Some("SSH"));
        assert_eq!(script.paths(), [format!("{HOST}/getActiveSessions?api-version=2025-07-01")]);
    }

    #[tokio::test]
    async fn a_list_that_takes_its_time() {
        let later = |url: &str| {
            Reply::json(202, "").header(&format!("Location: {url}/operations/1?t=a")).header("Retry-After: 0")
        };
        let script = Script::start_with(|url| {
            let page =
                format!(r#"{{"value":[{{"sessionId":"one"}}],"nextLink":"{url}/operations/1?page=2"}}"#);
            vec![
                later(url),
                Reply::json(202, "").header("Retry-After: 0"),
                Reply::json(200, &page),
                Reply::json(200, r#"{"value":[{"sessionId":"two"}],"nextLink":""}"#),
            ]
        })
        .await;
        let sessions = script.arm().sessions(&HOST.parse().unwrap()).await.unwrap();
        assert_eq!(ids(&sessions), ["one", "two"]);
        assert_eq!(
            script.paths()[1..],
            ["/operations/1?t=a".to_owned(), "/operations/1?t=a".into(), "/operations/1?page=2".into()]
        );
    }

    #[tokio::test]
    async fn a_result_that_never_comes_or_is_elsewhere() {
        let check = async |reply: fn(&str) -> Reply, expected: fn(&Error) -> bool| {
            let script = Script::start_with(|url| vec![reply(url)]).await;
            let error = script.arm().sessions(&HOST.parse().unwrap()).await.unwrap_err();
            assert!(expected(&error), "{error}");
        };
        check(
            |_| Reply::json(202, "").header("Location: https://evil.example/x"),
            |error| matches!(error, Error::ForeignPage { .. }),
        )
        .await;
        check(|_| Reply::json(202, ""), |error| matches!(error, Error::Unreadable { .. })).await;
        check(
            |url| Reply::json(202, "").header(&format!("Location: {url}/x")).header("Retry-After: 3600"),
            |error| matches!(error, Error::Unfinished { .. }),
        )
        .await;
    }

    #[tokio::test]
    async fn names_move_no_cursor() {
        let body = r#"{"value":[{"sessionId":"o\u001bne","userName":"\u001b[2Jada","protocol":"S\nSH"}]}"#;
        let script = Script::start(vec![Reply::json(200, body)]).await;
        let sessions = script.arm().sessions(&HOST.parse().unwrap()).await.unwrap();
        let session = &sessions[0];
        assert_eq!((session.id.as_str(), session.user_name.as_deref()), ("one", Some("[2Jada")));
        assert_eq!(session.protocol.as_deref(), Some("SSH"));
    }

    #[tokio::test]
    async fn ends_are_told_one_by_one() {
        let body = r#"{"value":[{"sessionId":"one","message":"session one invalidated!","state":"Disconnected"},
            {"sessionId":"two","state":"NotFound"}]}"#;
        let script = Script::start(vec![Reply::json(200, body), Reply::json(204, "")]).await;
        let (arm, host) = (script.arm(), HOST.parse().unwrap());
        let ends = arm.end_sessions(&host, &["one".into(), "two".into()]).await.unwrap();
        assert_eq!((ends[0].state.as_str(), ends[1].state.as_str()), ("Disconnected", "NotFound"));
        assert_eq!(script.paths()[0], format!("{HOST}/disconnectActiveSessions?api-version=2025-07-01"));
        assert!(arm.end_sessions(&host, &["one".into()]).await.unwrap().is_empty());
    }
}
