// SPDX-License-Identifier: AGPL-3.0-or-later
//! Answers the requests of browsers.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use handler::publish::http::authorization::Gate;
use http_body_util::{BodyExt as _, Either, Full, Limited as Bounded};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use limited::Limited;
use settings::Settings;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::admission::{self, Denial};
use super::feed::Feed;
use super::hold::{self, Place, Wanted};
use super::lines::{self, Lines};
use super::page;
use crate::snapshot::inward::{self, Handler};
use crate::vitals::Shared;

/// Bytes of a request's head.
const MAX_HEAD: usize = 16384;
/// Bytes of a request's body.
const MAX_BODY: usize = 65536;
/// How long a connection may take that does not get an answer that goes on.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an answer goes on; the page asks again.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long whoever has no good token waits for the answer, so that nobody tries many.
const REFUSED_AFTER: Duration = Duration::from_millis(500);
/// Paths that are held at a time.
const MAX_HOLDS: usize = 4;

/// An answer, whole or one that goes on.
type Answer = Response<Either<Full<Bytes>, Lines>>;

/// See the module.
pub struct Desk {
    gate: Gate,
    feed: Arc<Feed>,
    handler: Option<Handler>,
    /// Where paths are held.
    place: Option<Place>,
    holds: Arc<Semaphore>,
    warnings: Mutex<Limited>,
    vitals: Shared,
}

impl Desk {
    /// Answers whom the gate lets in.
    pub fn new(settings: &Settings, gate: Gate, feed: Arc<Feed>, vitals: Shared) -> Self {
        Self {
            gate,
            feed,
            handler: inward::handler(settings),
            place: Place::of(&settings.runner),
            holds: Arc::new(Semaphore::new(MAX_HOLDS)),
            warnings: Mutex::default(),
            vitals,
        }
    }

    /// Answers the request of a connection.
    pub async fn converse(self: &Arc<Self>, stream: impl AsyncRead + AsyncWrite + Send + Unpin) {
        let goes_on = AtomicBool::new(false);
        let service = service_fn(|request| async {
            let answer = self.answer(request).await;
            goes_on.store(matches!(answer.body(), Either::Right(_)), Ordering::Relaxed);
            Ok::<_, Infallible>(answer)
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        // The whole connection has a deadline, so that the head needs none.
        http.header_read_timeout(None).keep_alive(false).max_buf_size(MAX_HEAD).title_case_headers(true);
        let deadline = async {
            sleep(PATIENCE).await;
            if goes_on.load(Ordering::Relaxed) {
                sleep(LONGEST).await;
            }
        };
        tokio::select! {
            _ = http.serve_connection(TokioIo::new(stream), service) => {}
            () = deadline => {}
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let file = page::file(path);
        let method = match path {
            _ if file.is_some() => Method::GET,
            "/events" => Method::GET,
            "/hold" | "/publish" => Method::POST,
            _ => return told(StatusCode::NOT_FOUND, "There is no such page.\n"),
        };
        if *request.method() != method {
            let mut answer = told(StatusCode::METHOD_NOT_ALLOWED, format!("Use {method}.\n"));
            if let Ok(method) = method.as_str().parse() {
                answer.headers_mut().insert(ALLOW, method);
            }
            return answer;
        }
        if let Some(file) = file {
            return finish(StatusCode::OK, file.kind, Either::Left(Full::from(file.content)));
        }
        // The files say nothing of this suite, and are where the token is asked for. Of all else nothing is told without it.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        if let Err(denial) = admission::admit(&self.gate, request.method(), request.headers(), now) {
            return self.deny(denial).await;
        }
        match path {
            "/events" => self.events(),
            "/hold" => match read(request).await {
                Ok(body) => self.hold(&body),
                Err(answer) => answer,
            },
            _ => match read(request).await {
                Ok(body) => self.publish(&body).await,
                Err(answer) => answer,
            },
        }
    }

    async fn deny(&self, denial: Denial) -> Answer {
        let text = format!("{denial}\n");
        self.warn(&denial);
        self.vitals.lock().refuse(matches!(denial, Denial::Unauthorized(_)));
        if let Denial::Forbidden(_) = denial {
            return told(StatusCode::FORBIDDEN, text);
        }
        sleep(REFUSED_AFTER).await;
        let mut answer = told(StatusCode::UNAUTHORIZED, text);
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        answer
    }

    fn warn(&self, denial: &Denial) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.warn("dashboard", Instant::now(), format_args!("the dashboard refuses a request: {denial}"));
    }

    fn events(&self) -> Answer {
        let (sender, lines) = lines::channel();
        let snapshots = self.feed.subscribe();
        tokio::spawn(super::feed::follow(snapshots, sender));
        finish(StatusCode::OK, "text/event-stream", Either::Right(lines))
    }

    fn hold(&self, body: &[u8]) -> Answer {
        let request = match serde_json::from_slice::<Wanted>(body).map_err(|error| error.to_string()) {
            Ok(wanted) => wanted.request(),
            Err(error) => Err(error),
        };
        let request = match request {
            Ok(request) => request,
            Err(text) => return told(StatusCode::BAD_REQUEST, format!("{text}\n")),
        };
        let Some(place) = self.place.clone() else {
            let text = "Nothing can be held from here: there is neither an http_port nor a local_port without PROXY protocol.\n";
            return told(StatusCode::CONFLICT, text);
        };
        let Ok(permit) = self.holds.clone().try_acquire_owned() else {
            return told(StatusCode::SERVICE_UNAVAILABLE, format!("{MAX_HOLDS} paths are held already.\n"));
        };
        let (sender, lines) = lines::channel();
        tokio::spawn(async move {
            hold::hold(&place, &request, &sender).await;
            drop(permit);
        });
        finish(StatusCode::OK, "text/event-stream", Either::Right(lines))
    }

    async fn publish(&self, body: &[u8]) -> Answer {
        let Some(handler) = &self.handler else {
            return told(StatusCode::CONFLICT, "The handler is not one of ours.\n");
        };
        match handler.ask("POST", "/publish/?report=1", body).await {
            Ok(reply) => {
                let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
                let kind = if reply.body.starts_with(b"{") { "application/json" } else { PLAIN };
                let mut answer = finish(status, kind, Either::Left(Full::from(reply.body)));
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                }
                answer
            }
            Err(error) => told(StatusCode::BAD_GATEWAY, format!("The handler does not answer: {error}\n")),
        }
    }
}

async fn read(request: Request<Incoming>) -> Result<Bytes, Answer> {
    let body = Bounded::new(request.into_body(), MAX_BODY);
    match timeout(PATIENCE, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(told(StatusCode::PAYLOAD_TOO_LARGE, format!("No more than {MAX_BODY} bytes.\n"))),
        Err(_) => Err(told(StatusCode::REQUEST_TIMEOUT, "It took too long.\n")),
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn told(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    finish(status, PLAIN, Either::Left(Full::new(text.into())))
}

fn finish(status: StatusCode, kind: &'static str, body: Either<Full<Bytes>, Lines>) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in page::POLICY {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    response
}
