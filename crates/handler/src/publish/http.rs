//! The HTTP control port: `POST /publish/` and what else it answers (publishing, HTTP control endpoint).
//!
//! It runs on a thread of its own, so that a publisher that sends slowly holds up nobody. What is published goes to the
//! worker through a bounded channel; when that is full, publishers wait for their answers. hyper speaks HTTP; the checks
//! that clients know by their texts are made here.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use bytes::Bytes;
use grip::header;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use transport::Waker;

use crate::publish::http_head;
use crate::publish::submission::{self, Outcome, Submission, Work};

/// Publishers served at once; more wait in the backlog.
const MAX_CONNECTIONS: usize = 128;
/// How long a publisher may take for a request's head, and for the whole of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a publisher waits for the worker to begin, and again for it to finish.
const WORKER_PATIENCE: Duration = Duration::from_secs(10);

/// Limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Bytes of the head.
    pub head: usize,
    /// Bytes of the body.
    pub body: usize,
}

/// The way to the worker.
struct Worker {
    submissions: SyncSender<Submission>,
    waker: Waker,
    limits: RequestLimits,
}

impl Worker {
    /// Hands work over and waits until it is done. Nothing waits for a worker that has too much already.
    async fn give(&self, work: Work) -> Outcome {
        let (submission, waiting) = submission::submit(work);
        if self.submissions.try_send(submission).is_err() {
            return Outcome::NotBegun;
        }
        self.waker.wake();
        waiting.outcome(WORKER_PATIENCE).await
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
    limits: RequestLimits,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worker = Arc::new(Worker { submissions, waker, limits });
    std::thread::Builder::new()
        .name("publish-http".to_string())
        .spawn(move || runtime.block_on(accept(listener, worker)))?;
    Ok(())
}

async fn accept(listener: TcpListener, worker: Arc<Worker>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the HTTP control port can not be served: {error}"),
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("unable to accept publishers: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let worker = worker.clone();
        tokio::spawn(async move {
            // A broken or silent connection concerns only its publisher.
            let _ = tokio::time::timeout(PATIENCE, serve(stream, &worker)).await;
            drop(place);
        });
    }
}

async fn serve(stream: TcpStream, worker: &Worker) -> Option<()> {
    let stream = http_head::check(stream, worker.limits.head).await?;
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).keep_alive(false).auto_date_header(false).title_case_headers(true);
    http.serve_connection(TokioIo::new(stream), service_fn(|request| answer(request, worker))).await.ok()
}

async fn answer(request: Request<Incoming>, worker: &Worker) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if let Some(refusal) = check_length(&head.headers, &head.method, worker.limits.body) {
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
        "/publish" => publish(body, format, worker).await,
        "/recover" => conclude(worker.give(Work::Recover).await, format, "Updated"),
        _ => plain(StatusCode::NOT_FOUND, "Not Found\n"),
    })
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

async fn publish(body: Incoming, format: Format, worker: &Worker) -> Response<Full<Bytes>> {
    let body = match Limited::new(body, worker.limits.body).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return plain(StatusCode::BAD_REQUEST, "Request body too large.\n"),
    };
    match grip::item::from_request(&body) {
        Ok(items) => conclude(worker.give(Work::Publish(items)).await, format, "Published"),
        Err(error) => plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
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
