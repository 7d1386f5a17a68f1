//! Publishing by HTTP POST.

use std::net::IpAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Error;

/// For all of it: connecting, sending, and the answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer that are shown.
const MAX_ANSWER: usize = 64 * 1024;

/// Posts `body` to `/publish/` below the address `spec`, and waits for the answer.
pub fn post(spec: &str, body: String, authorization: Option<String>) -> Result<(), Error> {
    let uri: Uri = spec.parse().map_err(|e| Error::Argument(format!("`{spec}` is not an address: {e}")))?;
    if uri.scheme_str() == Some("https") {
        return Err(Error::Argument("https is not supported yet; use http from a machine that may publish".into()));
    }
    // Nobody else sees what stays on this machine.
    if authorization.is_some() && !uri.host().is_some_and(is_this_machine) {
        return Err(Error::Argument("Authentication requires https, except on this machine (localhost)".into()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::Connection(e.to_string()))?;
    let answer = runtime.block_on(async { tokio::time::timeout(TIMEOUT, exchange(&uri, body, authorization)).await });
    let (status, text) = answer.map_err(|_| Error::Connection("no answer in time".into()))??;
    match status {
        StatusCode::OK => Ok(()),
        _ => Err(Error::Refused(text.trim().to_string())),
    }
}

async fn exchange(uri: &Uri, body: String, authorization: Option<String>) -> Result<(StatusCode, String), Error> {
    let host = uri.host().ok_or_else(|| Error::Argument(format!("`{uri}` names no host")))?;
    let port = uri.port_u16().unwrap_or(80);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    // Tries all addresses of the name: `localhost` may be ::1 first, where nobody listens.
    let stream = TcpStream::connect((bare, port)).await.map_err(|e| Error::Connection(e.to_string()))?;
    let broken = |e: hyper::Error| Error::Connection(e.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the program; what goes wrong in it is seen by the request as well.
    tokio::spawn(connection);
    let mut request = Request::post(format!("{}/publish/", uri.path().trim_end_matches('/')));
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    let request = request
        .header("Host", if port == 80 { host.to_string() } else { format!("{host}:{port}") })
        .header("Content-Type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| Error::Argument(e.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let answer = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let answer = answer.map_err(|e| Error::Connection(e.to_string()))?.to_bytes();
    Ok((status, String::from_utf8_lossy(&answer).into_owned()))
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
