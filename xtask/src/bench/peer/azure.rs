//! Just enough of an Azure for one command line of `bastide tunnel`: canned answers, no checks, so that nothing
//! but the client is measured. The emulator is the one that checks (`crates/emulator`).

use std::io::{self, Read, Write};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::far::{PORTS, Service, Stream, framed};

/// Answers requests on one connection until it is closed or becomes a WebSocket.
pub(crate) fn serve(mut stream: Stream) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let Some(request) = Request::read(&mut stream, &mut bytes)? else { return Ok(()) };
        if let Some(token) = request.path.strip_prefix("/webtunnelv2/") {
            let token = token.split('?').next().unwrap_or_default();
            let Some(service) = service(token) else { return respond(&mut stream, 404, &json!({})) };
            let accept =
                derive_accept_key(request.header("sec-websocket-key").unwrap_or_default().as_bytes());
            stream.write_all(
                format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Accept: {accept}\r\n\r\n"
                )
                .as_bytes(),
            )?;
            return framed(&mut stream, service, bytes);
        }
        let (status, answer) = answer(&request);
        respond(&mut stream, status, &answer)?;
    }
}

fn answer(request: &Request) -> (u16, Value) {
    // A delay line before this Azure is named in it, so that no call goes round it.
    let host = request.header("host").unwrap_or_default();
    let url = format!("https://{host}");
    let path = request.path.split('?').next().unwrap_or_default();
    let answer = match (request.method.as_str(), path) {
        ("GET", "/metadata/endpoints") => json!({
            "name": "Bench", "resourceManager": url,
            "authentication": { "loginEndpoint": url, "audiences": [format!("{url}/")], "tenant": "common" },
            "suffixes": {},
        }),
        ("POST", path) if path.ends_with("/oauth2/v2.0/token") => json!({
            "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": "bench",
        }),
        ("GET", path) if path.contains("/bastionHosts/") => json!({
            "id": path, "name": "bastion", "type": "Microsoft.Network/bastionHosts", "location": "westeurope",
            "sku": { "name": "Standard" },
            "properties": {
                "provisioningState": "Succeeded", "dnsName": host,
                "enableTunneling": true, "enableIpConnect": true,
            },
        }),
        ("POST", "/api/tokens") => {
            let wanted = request.body.split('&').find_map(|field| field.strip_prefix("workloadHostPort="));
            json!({ "authToken": "bench", "nodeId": "bench", "websocketToken": wanted.unwrap_or_default() })
        }
        ("DELETE", path) if path.starts_with("/api/tokens/") => json!({}),
        (method, path) => {
            eprintln!("no answer for {method} {path}");
            return (404, json!({ "error": { "code": "NotFound", "message": "not in this Azure" } }));
        }
    };
    (200, answer)
}

fn service(token: &str) -> Option<Service> {
    let number: u16 = token.parse().ok()?;
    PORTS.iter().find(|(port, _)| *port == number).map(|(_, service)| *service)
}

fn respond(stream: &mut Stream, status: u16, answer: &Value) -> io::Result<()> {
    let body = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())
}

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    /// The next request, taken off the front of `bytes`; none at the end of the connection.
    fn read(stream: &mut Stream, bytes: &mut Vec<u8>) -> io::Result<Option<Request>> {
        let mut scratch = [0; 4096];
        loop {
            if let Some((request, length)) = Request::parse(bytes) {
                bytes.drain(..length);
                return Ok(Some(request));
            }
            let count = stream.read(&mut scratch)?;
            if count == 0 {
                return Ok(None);
            }
            bytes.extend_from_slice(scratch.get(..count).unwrap_or_default());
        }
    }

    fn parse(bytes: &[u8]) -> Option<(Request, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
        let mut lines = head.lines();
        let mut words = lines.next()?.split(' ').map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut request = Request { method, path, headers, body: String::new() };
        let length = request.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        request.body = String::from_utf8_lossy(bytes.get(end..end + length)?).into_owned();
        Some((request, end + length))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
