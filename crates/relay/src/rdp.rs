//! Fetches the `.rdp` file of the Bastion host's RDP gateway (protocol.md §6). It leaves out what is in it, and the
//! connection that an RDP client makes by it, which is none of ours.

use bastide_core::{End, RdpFile, Secret};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};

use crate::error::Wanted;
use crate::mint::{Failure, Gate};
use crate::{Error, USER_AGENT};

impl Gate {
    /// Asks for the file at `path`. Unlike a mint it carries the access token as any API has it.
    ///
    /// Cancel safe.
    pub(crate) async fn rdp_file(&self, path: &str) -> Result<RdpFile, Failure> {
        let mut token = self.access_token().await?;
        let ask = |token: &Secret| {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))?;
            bearer.set_sensitive(true);
            Request::builder()
                .method(Method::GET)
                .uri(format!("{}{path}", self.front))
                .header(header::AUTHORIZATION, bearer)
                .header(header::ACCEPT, "*/*")
                .header(header::USER_AGENT, USER_AGENT)
                .body(Bytes::new())
        };
        let answer = self.ask(&self.front, &mut token, ask).await?;
        if answer.status() != 200 {
            return Err(self.refused(Wanted::RdpFile, &answer));
        }
        RdpFile::parse(answer.body())
            .map_err(|error| Failure { error: Error::RdpFile(error), end: End::Declined })
    }
}
