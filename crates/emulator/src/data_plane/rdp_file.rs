//! `GET /api/rdpfile`: the file by which an RDP client reaches a machine through the host's gateway (protocol.md §6). It
//! leaves out that gateway: nothing here speaks its protocol.

use hyper::StatusCode;

use super::tokens::{Refusal, Target, authorize, needed, port};
use super::{Door, noted};
use crate::azure::{Azure, Denied};
use crate::http::{Answer, Request, set_header, text};
use crate::transcript::Kind;

pub(super) fn answer(azure: &Azure, door: Door<'_>, request: &Request) -> Answer {
    let response = match file(azure, door, request) {
        Ok(file) => {
            let mut response = text(StatusCode::OK, file);
            set_header(&mut response, "content-type", "application/x-rdp");
            response
        }
        Err(refusal) => refusal.response(),
    };
    noted(Kind::RdpFile, response, &request.query)
}

fn file(azure: &Azure, door: Door<'_>, request: &Request) -> Result<String, Refusal> {
    let token = request.bearer().ok_or(Denied::Missing)?;
    // The one answer of the live service to whatever is wrong with such a request (peers.md F2).
    let field = |name| needed(&request.query, name).map_err(|_| Refusal::Unexpected);
    let resource = field("resourceId")?;
    let port = port(field("rdpport")?).map_err(|_| Refusal::Unexpected)?;
    let entra = match field("enablerdsaad")?.to_ascii_lowercase().as_str() {
        "true" => 1,
        "false" => 0,
        _ => return Err(Refusal::Unexpected),
    };
    if field("format")? != "rdp" {
        return Err(Refusal::Unexpected);
    }
    let Target::Machine(machine) = authorize(azure, door, token, resource, &[])? else {
        return Err(Refusal::Unexpected);
    };
    let gateway = format!("{}:{}", door.host.dns_name, azure.url.rsplit(':').next().unwrap_or_default());
    let token = azure.sessions.gateway_token();
    let address = machine.private_ip;
    Ok(format!(
        "full address:s:{address}:{port}\r\n\
         alternate full address:s:{address}:{port}\r\n\
         gatewayhostname:s:{gateway}\r\n\
         gatewayusagemethod:i:1\r\n\
         gatewayprofileusagemethod:i:1\r\n\
         gatewaycredentialssource:i:5\r\n\
         gatewayaccesstoken:s:{token}\r\n\
         enablerdsaadauth:i:{entra}\r\n\
         use multimon:i:0\r\n"
    ))
}
