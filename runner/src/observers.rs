// SPDX-License-Identifier: AGPL-3.0-or-later
//! Answers those who watch over the suite: metrics and health over HTTP, from what the runner knows already.
//!
//! Nothing is asked of a process when somebody comes, so a process that hangs keeps nobody waiting.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use process::inherit::{self, ListenError};
use process::local::{self, LocalError, LocalFile};
use settings::{Endpoint, Settings};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::vitals::Shared;

/// Connections at a time, for each place; others wait in the backlog.
const MAX_CONNECTIONS: usize = 16;
/// Bytes of a request's head.
const MAX_HEAD: usize = 8192;
/// How long a connection may take, all in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// When accepting fails, for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What is served at a place.
#[derive(Clone, Debug)]
enum Served {
    /// Metrics with this prefix, whatever the path, as Pushpin does.
    Metrics(Arc<str>),
    /// `/healthz` and `/readyz`.
    Health,
}

/// A place that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A TCP port.
    #[error("{key}: {error}")]
    Listen {
        /// The setting that names it.
        key: &'static str,
        /// What is wrong.
        error: ListenError,
    },
    /// A Unix socket.
    #[error("{key}: {error}")]
    Local {
        /// The setting that names it.
        key: &'static str,
        /// What is wrong.
        error: LocalError,
    },
}

enum Listener {
    Tcp(std::net::TcpListener),
    Local(std::os::unix::net::UnixListener),
}

/// All places, listened on and not served yet.
#[derive(Default)]
pub struct Observers {
    places: Vec<(Listener, Served)>,
    /// Files of Unix sockets, removed at the end.
    files: Vec<LocalFile>,
}

impl Observers {
    /// Opens them.
    ///
    /// # Errors
    /// One cannot be listened on.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let mut observers = Self::default();
        for exposition in &settings.runner.metrics {
            let served = Served::Metrics(exposition.prefix.as_str().into());
            observers.add("prometheus_port", &exposition.endpoint, served)?;
        }
        if let Some(endpoint) = &settings.runner.health {
            observers.add("health_port", endpoint, Served::Health)?;
        }
        Ok(observers)
    }

    fn add(&mut self, key: &'static str, endpoint: &Endpoint, served: Served) -> Result<(), OpenError> {
        let listener = match endpoint {
            Endpoint::Tcp(address) => {
                Listener::Tcp(inherit::open(*address, false).map_err(|error| OpenError::Listen { key, error })?)
            }
            Endpoint::Local(port) => {
                let (listener, file) = local::open(port).map_err(|error| OpenError::Local { key, error })?;
                self.files.push(file);
                Listener::Local(listener)
            }
        };
        self.places.push((listener, served));
        Ok(())
    }

    /// Serves them from now on, in tasks of their own. The files go with what comes back.
    ///
    /// # Errors
    /// The system does not let us wait for a socket.
    pub fn serve(self, vitals: &Shared) -> io::Result<Vec<LocalFile>> {
        for (listener, served) in self.places {
            let site = Site { served, vitals: vitals.clone() };
            tokio::spawn(site.serve(listener.into_async()?));
        }
        Ok(self.files)
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

enum AsyncListener {
    Tcp(TcpListener),
    Local(UnixListener),
}

impl Listener {
    fn into_async(self) -> io::Result<AsyncListener> {
        Ok(match self {
            Self::Tcp(listener) => AsyncListener::Tcp(TcpListener::from_std(listener)?),
            Self::Local(listener) => AsyncListener::Local(UnixListener::from_std(listener)?),
        })
    }
}

impl AsyncListener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Local(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

#[derive(Clone)]
struct Site {
    served: Served,
    vitals: Shared,
}

impl Site {
    async fn serve(self, listener: AsyncListener) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // Never closed.
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok(stream) => {
                    let site = self.clone();
                    tokio::spawn(async move {
                        // A connection that breaks or takes too long concerns only its client.
                        let _ = timeout(PATIENCE, site.converse(stream)).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!("unable to accept a connection for metrics or health: {error}");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    async fn converse(&self, stream: Box<dyn Stream>) -> hyper::Result<()> {
        let mut http = hyper::server::conn::http1::Builder::new();
        // The whole connection has a deadline, so that the head needs none.
        http.header_read_timeout(None).keep_alive(false).max_buf_size(MAX_HEAD).title_case_headers(true);
        let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(self.answer(&request))));
        http.serve_connection(TokioIo::new(stream), service).await
    }

    fn answer<T>(&self, request: &Request<T>) -> Response<Full<Bytes>> {
        let now = Instant::now();
        match (&self.served, request.uri().path()) {
            (Served::Metrics(prefix), _) => {
                let text = self.vitals.lock().text(prefix, now);
                respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
            }
            (Served::Health, _) if !matches!(*request.method(), Method::GET | Method::HEAD) => {
                let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Use GET.\n".into());
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
            (Served::Health, "/healthz") => plain(StatusCode::OK, "ok\n".into()),
            (Served::Health, "/readyz") => match self.vitals.lock().missing(now).as_slice() {
                [] => plain(StatusCode::OK, "ready\n".into()),
                missing => plain(StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n"),
            },
            (Served::Health, _) => plain(StatusCode::NOT_FOUND, "There are /healthz and /readyz.\n".into()),
        }
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
