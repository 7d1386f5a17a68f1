// SPDX-License-Identifier: AGPL-3.0-or-later
//! The suite in a browser, for operators: how it is, live, and a page to try it.
//!
//! The runner serves it by itself at `dashboard_port`. A channel of the suite's own would need a route for it on the ports of the
//! users, which might as well be one of theirs; so nothing of this is to be seen there.
//!
//! - [`desk`]: answers requests; [`admission`] decides whose, [`page`] has the files.
//! - [`feed`]: a snapshot each second, while somebody looks.
//! - [`hold`]: holds a path as a client does.
//! - [`lines`]: answers that go on.

pub mod admission;
pub mod desk;
pub mod feed;
pub mod hold;
pub mod lines;
pub mod page;

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::Duration;

use certificates::{CertificateError, Certificates};
use handler::publish::http::authorization::Gate;
use process::inherit::{self, ListenError};
use settings::Settings;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use self::desk::Desk;
use self::feed::Feed;
use crate::snapshot::inward;
use crate::vitals::Shared;

/// Connections at a time; others wait in the backlog.
const MAX_CONNECTIONS: usize = 32;
/// For the handshake of TLS.
const PATIENCE: Duration = Duration::from_secs(10);
/// When accepting fails, for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The dashboard can not be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its port.
    #[error("dashboard_port: {0}")]
    Listen(#[from] ListenError),
    /// The key that tokens are checked with.
    #[error("control_key: {0}")]
    Key(String),
    /// Its certificate.
    #[error("push_in_http_tls, for dashboard_port: {0}")]
    Certificate(#[from] CertificateError),
}

/// The dashboard, listened on and not served yet.
pub struct Dashboard {
    address: SocketAddr,
    listener: StdTcpListener,
    gate: Gate,
    tls: Option<TlsAcceptor>,
}

impl Dashboard {
    /// Opens it, if it is configured.
    ///
    /// # Errors
    /// It cannot be listened on, or key or certificate are not good.
    pub fn open(settings: &Settings) -> Result<Option<Self>, OpenError> {
        let Some(address) = settings.runner.dashboard else { return Ok(None) };
        let handler = &settings.handler;
        let (key, token) = (handler.control_key.as_ref(), handler.control_token.as_ref());
        let gate =
            Gate::new(key, handler.control_iss.as_deref(), token).map_err(|error| OpenError::Key(error.to_string()))?;
        // On this machine nobody listens in.
        let certificates = handler.push_in_http_tls.as_deref().filter(|_| !address.ip().is_loopback());
        let tls = certificates.map(|directory| Certificates::new(directory).for_port(address.port())).transpose()?;
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let listener = inherit::open(address, false)?;
        Ok(Some(Self { address, listener, gate, tls }))
    }

    /// Serves it from now on, in tasks of its own.
    ///
    /// # Errors
    /// The system does not let us wait for the socket.
    pub fn serve(self, settings: &Settings, config: String, vitals: &Shared) -> io::Result<()> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        tracing::info!("dashboard: {scheme}://{}/", self.address);
        let feed = Feed::start(vitals.clone(), config, inward::handler(settings));
        let desk = Arc::new(Desk::new(settings, self.gate, feed, vitals.clone()));
        tokio::spawn(accept(TcpListener::from_std(self.listener)?, self.tls, desk));
        Ok(())
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, desk: Arc<Desk>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (desk, tls) = (desk.clone(), tls.clone());
                tokio::spawn(async move {
                    converse(stream, tls, &desk).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!("unable to accept a connection for the dashboard: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// A connection that breaks concerns only its client.
async fn converse(stream: TcpStream, tls: Option<TlsAcceptor>, desk: &Arc<Desk>) {
    let Some(tls) = tls else { return desk.converse(stream).await };
    match timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => desk.converse(stream).await,
        Ok(Err(error)) => tracing::debug!("a browser does not agree on TLS: {error}"),
        Err(_) => {}
    }
}
