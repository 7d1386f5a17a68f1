//! The HTTP control port: `POST /publish/` and what else it answers (publishing, HTTP control endpoint).
//!
//! It runs on a thread of its own that never blocks, so that neither a publisher that sends slowly nor a worker that is
//! busy holds up anybody else's request. What is published goes to the worker as a [`Submission`]; its publisher waits for
//! the outcome. hyper speaks HTTP; the checks that clients know by their texts are made here and in [`head`].
//!
//! Every wait has an end: for a head, for a body, for the worker, and for the client to take its answer. What waits is
//! bounded, see [`connections`].

pub mod authorization;
pub mod connections;
pub mod head;

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use grip::header;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
    TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use limited::Limited;
use settings::Handler;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, LocalSet};
use transport::Waker;

use self::authorization::{Gate, Grant, Refusal};
use self::connections::{Bounds, Connections, Key};
use self::head::Head;
use crate::publish::submission::{self, Outcome, Submission, Work};

/// How long a connection stays open for the client to read its answer, and how much the client may send meanwhile.
/// Closing with unread input would reset the connection, which can take the answer with it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1_000_000;
/// How long to wait when no connection can be accepted, mostly because there are no descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How long whoever has no good token waits for the answer, so that nobody tries many.
const REFUSED_AFTER: Duration = Duration::from_millis(500);

/// Limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the head.
    pub head: usize,
    /// Bytes of the body.
    pub body: usize,
    /// Time for the head to come.
    pub head_time: Duration,
    /// Time for the body to come.
    pub body_time: Duration,
    /// Time for the worker to begin, and again to end.
    pub wait: Duration,
    /// What may be kept for all connections.
    pub bounds: Bounds,
}

impl Limits {
    /// The limits that are set.
    pub fn of(settings: &Handler) -> Self {
        Limits {
            head: settings.push_in_http_max_headers_size,
            body: settings.push_in_http_max_body_size,
            head_time: settings.push_in_http_header_timeout,
            body_time: settings.push_in_http_body_timeout,
            wait: settings.push_in_http_wait_timeout,
            bounds: Bounds {
                unfinished: settings.push_in_http_max_connections,
                waiting: settings.push_in_http_max_waiting,
                bytes: settings.push_in_http_max_waiting_bytes,
            },
        }
    }

    /// The longest that an answer can take, from the end of the head.
    fn answer_time(&self) -> Duration {
        self.body_time + 2 * self.wait + LINGER
    }
}

/// Serves the control port until the process ends.
///
/// # Errors
/// The thread or its runtime can not be started.
pub fn start(
    listener: TcpListener,
    submissions: SyncSender<Submission>,
    waker: Waker,
    limits: Limits,
    gate: Gate,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("publish-http".to_string()).spawn(move || {
        let port = Port {
            submissions,
            waker,
            limits,
            gate,
            connections: RefCell::new(Connections::new(limits.bounds)),
            tasks: RefCell::default(),
            warnings: RefCell::default(),
        };
        LocalSet::new().block_on(&runtime, accept(listener, Rc::new(port)));
    })?;
    Ok(())
}

/// What all connections share.
struct Port {
    submissions: SyncSender<Submission>,
    waker: Waker,
    limits: Limits,
    gate: Gate,
    connections: RefCell<Connections>,
    tasks: RefCell<HashMap<Key, AbortHandle>>,
    warnings: RefCell<Limited>,
}

impl Port {
    /// Closes connections until the others keep within the bounds.
    fn close_excess(&self) {
        while let Some(key) = self.connections.borrow_mut().excess() {
            if let Some(task) = self.tasks.borrow_mut().remove(&key) {
                task.abort();
            }
            self.warn("excess", "a publisher is disconnected: too many have not sent a whole request");
        }
    }

    fn warn(&self, kind: &'static str, text: impl std::fmt::Display) {
        self.warnings.borrow_mut().warn(kind, Instant::now(), text);
    }
}

/// One connection; it is forgotten when this is dropped.
struct Publisher {
    key: Key,
    port: Rc<Port>,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.port.connections.borrow_mut().close(self.key);
        self.port.tasks.borrow_mut().remove(&self.key);
    }
}

async fn accept(listener: TcpListener, port: Rc<Port>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the HTTP control port can not be served: {error}"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let key = port.connections.borrow_mut().open();
                let publisher = Publisher { key, port: port.clone() };
                let task = tokio::task::spawn_local(async move {
                    // A broken connection concerns only its publisher.
                    let _ = serve(stream, &publisher).await;
                });
                port.tasks.borrow_mut().insert(key, task.abort_handle());
                port.close_excess();
            }
            Err(error) => {
                port.warn("accept", format_args!("unable to accept publishers: {error}"));
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, publisher: &Publisher) -> Option<()> {
    let limits = &publisher.port.limits;
    let head = tokio::time::timeout(limits.head_time, head::read(stream, limits.head)).await.ok()?;
    let stream = match head.ok()? {
        Head::Sound(begun) => begun,
        Head::Malformed(stream, text) => return close(stream, refusal(text).as_bytes()).await,
    };
    let mut http = hyper::server::conn::http1::Builder::new();
    // The head is there already, so that hyper needs no clock.
    http.header_read_timeout(None).keep_alive(false).auto_date_header(false).title_case_headers(true);
    let service = service_fn(|request| answer(request, publisher));
    let connection = http.serve_connection(TokioIo::new(stream), service).without_shutdown();
    let parts = tokio::time::timeout(limits.answer_time(), connection).await.ok()?.ok()?;
    close(parts.io.into_inner().into_stream(), b"").await
}

/// The whole answer to a head that hyper does not get to see.
fn refusal(text: &str) -> String {
    let length = text.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}"
    )
}

/// Sends the last bytes, and gives the client time to read them before the connection is closed.
async fn close(mut stream: TcpStream, last: &[u8]) -> Option<()> {
    let linger = async {
        stream.write_all(last).await.ok()?;
        stream.shutdown().await.ok()?;
        let mut ignored = [0; 4096];
        let mut left = LINGER_BYTES;
        while let read @ 1.. = stream.read(&mut ignored).await.ok()? {
            left = left.checked_sub(read)?;
        }
        Some(())
    };
    tokio::time::timeout(LINGER, linger).await.ok()?
}

async fn answer(request: Request<Incoming>, publisher: &Publisher) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if let Some(refusal) = check_length(&head.headers, &head.method, publisher.port.limits.body) {
        return Ok(refusal);
    }
    let Some(format) = negotiate(&head.headers) else {
        let text = "Not Acceptable. Supported formats are text/plain and application/json.\n";
        return Ok(plain(StatusCode::NOT_ACCEPTABLE, text));
    };
    // The target as it was sent, query and all, is compared; one slash at its end does not count.
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let path = if target.len() > 1 { target.strip_suffix('/').unwrap_or(target) } else { target };
    Ok(match path {
        "/" => plain(StatusCode::OK, "Pushpin API\n"),
        "/publish" | "/recover" if head.method != Method::POST => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, format!("Method not allowed: {}.\n", head.method));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            response
        }
        "/publish" => match publisher.port.admit(&head.headers) {
            Ok(grant) => publish(body, format, publisher, &grant).await,
            Err(refusal) => publisher.port.refuse(refusal).await,
        },
        "/recover" => match publisher.port.admit(&head.headers).and_then(|grant| grant.check_all()) {
            Ok(()) => conclude(publisher.submit(Work::Recover).await, format, "Updated"),
            Err(refusal) => publisher.port.refuse(refusal).await,
        },
        _ => plain(StatusCode::NOT_FOUND, "Not Found\n"),
    })
}

impl Port {
    fn admit(&self, headers: &HeaderMap) -> Result<Grant, Refusal> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        // Of two, one would be somebody else's: proxies in front do not always replace what the client sent.
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let only = values.next().filter(|_| values.next().is_none());
        self.gate.admit(only.map(HeaderValue::as_bytes), now)
    }

    async fn refuse(&self, refusal: Refusal) -> Response<Full<Bytes>> {
        self.warn("unauthorized", format_args!("a request to publish is refused: {refusal}"));
        let text = format!("{refusal}\n");
        let challenge = match refusal {
            Refusal::Forbidden(_) => return plain(StatusCode::FORBIDDEN, text),
            Refusal::Missing => "Bearer",
            Refusal::Invalid(_) => "Bearer error=\"invalid_token\"",
        };
        tokio::time::sleep(REFUSED_AFTER).await;
        let mut response = plain(StatusCode::UNAUTHORIZED, text);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        response
    }
}

/// Bodies must say their length beforehand, and it must be allowed.
fn check_length(headers: &HeaderMap, method: &Method, limit: usize) -> Option<Response<Full<Bytes>>> {
    let Some(length) = headers.get(CONTENT_LENGTH) else {
        let bodiless = [Method::HEAD, Method::GET, Method::DELETE, Method::OPTIONS].contains(method);
        return (!bodiless || headers.contains_key(TRANSFER_ENCODING))
            .then(|| plain(StatusCode::LENGTH_REQUIRED, "Request requires Content-Length.\n"));
    };
    match length.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()) {
        None => Some(plain(StatusCode::BAD_REQUEST, "Bad Content-Length.\n")),
        Some(length) if length > limit as u64 => Some(plain(StatusCode::BAD_REQUEST, "Request body too large.\n")),
        Some(_) => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// The format of the answer: the last acceptable one that the client names counts.
fn negotiate(headers: &HeaderMap) -> Option<Format> {
    if !headers.contains_key(ACCEPT) {
        return Some(Format::Text);
    }
    let mut chosen = None;
    for value in headers.get_all(ACCEPT) {
        for element in header::elements(value.as_bytes()) {
            match header::first(element) {
                b"text/plain" | b"text/*" | b"*/*" | b"*" => chosen = Some(Format::Text),
                b"application/json" | b"application/*" => chosen = Some(Format::Json),
                _ => {}
            }
        }
    }
    chosen
}

async fn publish(body: Incoming, format: Format, publisher: &Publisher, grant: &Grant) -> Response<Full<Bytes>> {
    let port = &publisher.port;
    let body = match tokio::time::timeout(port.limits.body_time, publisher.read(body)).await {
        Ok(Ok(body)) => body,
        Ok(Err(refusal)) => return plain(StatusCode::BAD_REQUEST, refusal),
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "Request body took too long.\n"),
    };
    match grip::item::from_request(&body) {
        // All items or none.
        Ok(items) => match items.iter().try_for_each(|item| grant.check(&item.channel)) {
            Ok(()) => conclude(publisher.submit(Work::Publish(items)).await, format, "Published"),
            Err(refusal) => port.refuse(refusal).await,
        },
        Err(error) => {
            port.warn("refused", format_args!("a publish request is refused: {error}"));
            plain(StatusCode::BAD_REQUEST, format!("{error}\n"))
        }
    }
}

impl Publisher {
    /// Reads a body, whose length has been checked.
    async fn read(&self, mut body: Incoming) -> Result<Bytes, &'static str> {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| "Request body is incomplete.\n")?;
            let Some(data) = frame.data_ref() else { continue };
            self.port.connections.borrow_mut().read(self.key, data.len());
            self.port.close_excess();
            whole.extend_from_slice(data);
        }
        Ok(whole.freeze())
    }

    /// Hands work to the worker and waits until it is done.
    async fn submit(&self, work: Work) -> Outcome {
        let port = &self.port;
        let waits = port.connections.borrow_mut().wait(self.key);
        let (submission, waiting) = submission::submit(work);
        // The channel is full of submissions that were given up, if the worker takes none for long.
        let outcome = match waits.is_ok() && port.submissions.try_send(submission).is_ok() {
            true => {
                port.waker.wake();
                waiting.outcome(port.limits.wait).await
            }
            false => Outcome::NotBegun,
        };
        port.connections.borrow_mut().answered(self.key);
        port.close_excess();
        if outcome != Outcome::Done {
            port.warn("busy", "a publish request is answered 503: too much waits to be published or delivered");
        }
        outcome
    }
}

/// The answer to work, by how it ended.
fn conclude(outcome: Outcome, format: Format, done: &str) -> Response<Full<Bytes>> {
    let text = match outcome {
        Outcome::Done => return success(format, done),
        Outcome::NotBegun => "Too busy; nothing was done. Please try again.\n",
        Outcome::Unfinished => "Too busy; not everything may have been done. Please try again.\n",
    };
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn success(format: Format, text: &str) -> Response<Full<Bytes>> {
    match format {
        Format::Text => plain(StatusCode::OK, format!("{text}\n")),
        Format::Json => respond(StatusCode::OK, "application/json", format!("{{\"message\":\"{text}\"}}\n")),
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, "text/plain", text)
}

fn respond(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
