// SPDX-License-Identifier: AGPL-3.0-or-later
//! The HTTP control port: `POST /publish/` and what else it answers (publishing, HTTP control endpoint).
//!
//! It runs on a thread of its own that never blocks, so that neither a publisher that sends slowly nor a worker that is
//! busy holds up anybody else's request. What is published goes to the worker as a [`Submission`]; its publisher waits for
//! the outcome. hyper speaks HTTP; the checks that clients know by their texts are made here and in [`head`]. Connections are
//! closed after each answer as Pushpin closes them, unless the client asks for `Connection: keep-alive`.
//!
//! Every wait has an end: for a head, for a body, for the worker, for the client to take its answer, and for its next
//! request. What waits is bounded, see [`connections`].

pub mod answers;
pub mod authorization;
pub mod batch;
mod channels;
pub mod connections;
pub mod head;
pub mod health;
pub mod lines;
mod publisher;
pub mod stream;
pub mod target;

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use grip::header;
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING,
    WWW_AUTHENTICATE,
};
use hyper::http::request;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode, Version};
use hyper_util::rt::TokioIo;
use limited::Limited;
use settings::Handler;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{AbortHandle, LocalSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use transport::Waker;

use self::answers::{Answer, Format, busy, conclude, plain};
use self::authorization::{Gate, Grant, Refusal};
use self::batch::Batch;
use self::connections::{Bounds, Connections, Key};
use self::head::Head;
use self::health::Health;
use self::publisher::{Publisher, Upload};
use self::stream::{Accepted, Listener, Stream};
use self::target::Target;
use crate::publish::submission::{Outcome, Output, Submission, Work};

/// How long a connection stays open for the client to read its answer, and how much the client may send meanwhile.
/// Closing with unread input would reset the connection, which can take the answer with it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1_000_000;
/// How long to wait when no connection can be accepted, mostly because there are no descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How long whoever has no good token waits for the answer, so that nobody tries many.
const REFUSED_AFTER: Duration = Duration::from_millis(500);

/// The path of all channels, and what the path of one begins with.
const CHANNELS: &str = "/channels";
const CHANNEL: &str = "/channels/";

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
    /// Time for the next request of a client that stays.
    pub idle_time: Duration,
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
            idle_time: settings.push_in_http_idle_timeout,
            wait: settings.push_in_http_wait_timeout,
            bounds: Bounds {
                unfinished: settings.push_in_http_max_connections,
                waiting: settings.push_in_http_max_waiting,
                bytes: settings.push_in_http_max_waiting_bytes,
            },
        }
    }

    /// The longest that an answer can take, from the end of the head, or of the line before.
    fn answer_time(&self) -> Duration {
        self.body_time + 2 * self.wait + LINGER
    }
}

/// A place where publishers come in. Each has the limits for itself, so that those of one do not keep out those of another.
#[derive(Debug)]
pub struct Entrance {
    /// Where they connect.
    pub listener: Listener,
    /// Who is let in.
    pub gate: Gate,
    /// For TCP, if TLS is spoken there.
    pub tls: Option<ServerConfig>,
}

/// Serves the control port until the process ends, at all its entrances. Gives the warnings about it, to be counted.
///
/// # Errors
/// The thread or its runtime can not be started.
pub fn start(
    entrances: Vec<Entrance>,
    submissions: SyncSender<Submission>,
    waker: Waker,
    limits: Limits,
    health: Health,
) -> std::io::Result<Arc<Mutex<Limited>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let warnings = Arc::<Mutex<Limited>>::default();
    let shared = warnings.clone();
    std::thread::Builder::new().name("publish-http".to_string()).spawn(move || {
        let health = Rc::new(health);
        let tasks = LocalSet::new();
        for Entrance { listener, gate, tls } in entrances {
            let port = Port {
                submissions: submissions.clone(),
                waker: waker.clone(),
                limits,
                gate,
                health: health.clone(),
                tls: tls.map(|config| TlsAcceptor::from(Arc::new(config))),
                connections: RefCell::new(Connections::new(limits.bounds)),
                tasks: RefCell::default(),
                warnings: warnings.clone(),
            };
            tasks.spawn_local(accept(listener, Rc::new(port)));
        }
        runtime.block_on(tasks);
    })?;
    Ok(shared)
}

/// What all connections of an entrance share.
struct Port {
    submissions: SyncSender<Submission>,
    waker: Waker,
    limits: Limits,
    gate: Gate,
    health: Rc<Health>,
    tls: Option<TlsAcceptor>,
    connections: RefCell<Connections>,
    tasks: RefCell<HashMap<Key, AbortHandle>>,
    /// The worker tells the runner how many there were.
    warnings: Arc<Mutex<Limited>>,
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
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).warn(kind, Instant::now(), text);
    }
}

async fn accept(listener: Listener, port: Rc<Port>) {
    let listener = match listener.accepting() {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the HTTP control port can not be served: {error}"),
    };
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let key = port.connections.borrow_mut().open();
                let publisher = Rc::new(Publisher::new(key, port.clone()));
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

async fn serve(stream: Accepted, publisher: &Rc<Publisher>) -> Option<()> {
    let limits = &publisher.port.limits;
    let head = tokio::time::timeout(limits.head_time, publisher.port.read_head(stream)).await.ok()?;
    let stream = match head? {
        Head::Sound(begun) => begun,
        Head::Malformed(stream, text) => return close(stream, refusal(text).as_bytes()).await,
    };
    let mut http = hyper::server::conn::http1::Builder::new();
    // hyper needs no clock: all of its waits end with the connection's deadline.
    http.header_read_timeout(None).auto_date_header(false).title_case_headers(true);
    publisher.expect_end(limits.answer_time());
    let service = service_fn(|request| answer(request, publisher));
    let connection = http.serve_connection(TokioIo::new(stream), service).without_shutdown();
    let parts = publisher.before_deadline(connection).await?.ok()?;
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
async fn close(mut stream: Stream, last: &[u8]) -> Option<()> {
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

async fn answer(request: Request<Incoming>, publisher: &Rc<Publisher>) -> Result<Answer, Infallible> {
    publisher.expect_end(publisher.port.limits.answer_time());
    let (head, body) = request.into_parts();
    let body = Upload::new(body);
    let unread = body.unread.clone();
    let mut response = route(&head, body, publisher).await;
    let is_whole = matches!(response.body(), Either::Left(_));
    // Of a batch more may come while it is answered, and the answer has an end of its own only since HTTP/1.1.
    let may_stay = if is_whole { !unread.get() } else { head.version == Version::HTTP_11 };
    let stays = may_stay && asks_to_stay(&head.headers);
    answers::say_whether_it_stays(&mut response, stays);
    if is_whole {
        publisher.answered();
        publisher.expect_end(publisher.port.limits.idle_time);
    }
    Ok(response)
}

async fn route(head: &request::Parts, body: Upload, publisher: &Rc<Publisher>) -> Answer {
    let is_batch = head.method == Method::POST && batch::is_batch(&head.headers);
    if let Some(refusal) = check_length(&head.headers, &head.method, publisher.port.limits.body, is_batch) {
        return refusal;
    }
    let target = Target::new(head.uri.path_and_query().map_or("", |target| target.as_str()));
    // Whoever checks says nothing of formats and has no token.
    if head.method == Method::GET
        && let Some(answer) = publisher.port.health.answer(target.path).await
    {
        return answer;
    }
    let Some(format) = negotiate(&head.headers).or(is_batch.then_some(Format::Json)) else {
        let text = "Not Acceptable. Supported formats are text/plain and application/json.\n";
        return plain(StatusCode::NOT_ACCEPTABLE, text);
    };
    let method = match target.path {
        "/publish" | "/recover" => Method::POST,
        path if path == CHANNELS || path.starts_with(CHANNEL) => Method::GET,
        "/healthz" | "/readyz" => Method::GET,
        "/" if target.is_bare() => return plain(StatusCode::OK, "Pushpin API\n"),
        _ => return plain(StatusCode::NOT_FOUND, "Not Found\n"),
    };
    // Pushpin knows no queries, and takes none of its paths for itself with one behind.
    let report = target.path == "/publish" && target.asks_for_report();
    if method == Method::POST && !target.is_bare() && !report {
        return plain(StatusCode::NOT_FOUND, "Not Found\n");
    }
    if head.method != method {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, format!("Method not allowed: {}.\n", head.method));
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static(if method == Method::GET { "GET" } else { "POST" }));
        return response;
    }
    let grant = match publisher.port.admit(&head.headers) {
        Ok(grant) => grant,
        Err(refusal) => return publisher.port.refuse(refusal).await,
    };
    match target.path {
        "/publish" if is_batch => Batch::new(publisher, head.headers.clone(), body, report).answer().await,
        "/publish" => publish(body, format, report, publisher, &grant).await,
        "/recover" => match grant.check_all() {
            Ok(()) => conclude(&publisher.submit(Work::Recover).await, format, "Updated"),
            Err(refusal) => publisher.port.refuse(refusal).await,
        },
        CHANNELS => channels::page(target, &grant, publisher).await,
        path => channels::one(path.strip_prefix(CHANNEL).unwrap_or_default(), target, &grant, publisher).await,
    }
}

fn asks_to_stay(headers: &HeaderMap) -> bool {
    let mut elements = headers.get_all(CONNECTION).iter().flat_map(|value| header::elements(value.as_bytes()));
    elements.any(|element| element.eq_ignore_ascii_case(b"keep-alive"))
}

impl Port {
    /// Agrees on TLS, if that is spoken here, and reads the first head.
    async fn read_head(&self, stream: Accepted) -> Option<Head> {
        let stream = match (stream, &self.tls) {
            (Accepted::Local(stream), _) => Stream::Local(stream),
            (Accepted::Tcp(stream), None) => Stream::Plain(stream),
            (Accepted::Tcp(stream), Some(tls)) => match tls.accept(stream).await {
                Ok(stream) => Stream::Tls(Box::new(stream)),
                Err(error) => {
                    self.warn("tls", format_args!("a publisher does not agree on TLS: {error}"));
                    return None;
                }
            },
        };
        head::read(stream, self.limits.head).await.ok()
    }

    fn admit(&self, headers: &HeaderMap) -> Result<Grant, Refusal> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        // Of two, one would be somebody else's: proxies in front do not always replace what the client sent.
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let only = values.next().filter(|_| values.next().is_none());
        self.gate.admit(only.map(HeaderValue::as_bytes), now)
    }

    async fn refuse(&self, refusal: Refusal) -> Answer {
        self.note(&refusal).await;
        let text = format!("{refusal}\n");
        let challenge = match refusal {
            Refusal::Forbidden(_) => return plain(StatusCode::FORBIDDEN, text),
            Refusal::Missing => "Bearer",
            Refusal::Invalid(_) => "Bearer error=\"invalid_token\"",
        };
        let mut response = plain(StatusCode::UNAUTHORIZED, text);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        response
    }

    /// Logs and counts a refusal.
    fn warn_of(&self, refusal: &Refusal) {
        // Warnings are counted by their kind.
        let kind = if matches!(refusal, Refusal::Forbidden(_)) { "forbidden" } else { "unauthorized" };
        self.warn(kind, format_args!("a request to publish is refused: {refusal}"));
    }

    /// The same, and takes the time that one takes.
    async fn note(&self, refusal: &Refusal) {
        self.warn_of(refusal);
        if !matches!(refusal, Refusal::Forbidden(_)) {
            tokio::time::sleep(REFUSED_AFTER).await;
        }
    }
}

/// Bodies must say their length beforehand, and it must be allowed. A batch may have any, or none and chunks.
fn check_length(headers: &HeaderMap, method: &Method, limit: usize, is_batch: bool) -> Option<Answer> {
    let Some(length) = headers.get(CONTENT_LENGTH) else {
        if is_batch && headers.contains_key(TRANSFER_ENCODING) {
            return None;
        }
        let bodiless = [Method::HEAD, Method::GET, Method::DELETE, Method::OPTIONS].contains(method);
        return (!bodiless || headers.contains_key(TRANSFER_ENCODING))
            .then(|| plain(StatusCode::LENGTH_REQUIRED, "Request requires Content-Length.\n"));
    };
    match length.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()) {
        None => Some(plain(StatusCode::BAD_REQUEST, "Bad Content-Length.\n")),
        Some(length) if !is_batch && length > limit as u64 => {
            Some(plain(StatusCode::BAD_REQUEST, "Request body too large.\n"))
        }
        Some(_) => None,
    }
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

async fn publish(body: Upload, format: Format, report: bool, publisher: &Publisher, grant: &Grant) -> Answer {
    let port = &publisher.port;
    let body = match tokio::time::timeout(port.limits.body_time, publisher.read(body)).await {
        Ok(Ok(body)) => body,
        Ok(Err(refusal)) => return plain(StatusCode::BAD_REQUEST, refusal),
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "Request body took too long.\n"),
    };
    let request = match grip::item::from_request(&body) {
        Ok(request) => request,
        Err(error) => {
            port.warn("refused", format_args!("a publish request is refused: {error}"));
            return plain(StatusCode::BAD_REQUEST, format!("{error}\n"));
        }
    };
    // All items or none.
    if let Err(refusal) = request.items.iter().try_for_each(|item| grant.check(&item.channel)) {
        return port.refuse(refusal).await;
    }
    if !report && !request.report {
        return conclude(&publisher.submit(Work::Publish(request.items)).await, format, "Published");
    }
    let channels = request.items.iter().map(|item| item.channel.clone()).collect();
    match publisher.submit(Work::Publish(request.items)).await {
        Outcome::Done(Output::Published(fates)) => answers::report(channels, &fates),
        outcome => busy(&outcome),
    }
}
