// SPDX-License-Identifier: AGPL-3.0-or-later
//! TLS to backends.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use mio::net::TcpStream;
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Certificates of ours that are kept ready.
const MAX_CLIENTS: usize = 64;

/// How a backend is to prove who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The name that its certificate must be for; it is told the same.
    pub name: Box<str>,
    /// Any certificate will do.
    pub unchecked: bool,
    /// What it is shown of us, if it asks.
    pub client: Option<ClientCertificate>,
}

/// A certificate of ours and its private key, in PEM.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// The certificate, and those between it and its authority.
    pub chain: Box<[u8]>,
    /// Its key.
    pub key: Box<[u8]>,
}

impl fmt::Debug for ClientCertificate {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate(..)")
    }
}

/// The bytes between us and a backend, with TLS or without.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<(ClientConnection, TcpStream)>),
}

impl Stream {
    /// Wraps a connection that is being made.
    ///
    /// # Errors
    /// The name is none that a certificate could be for, or TLS can not be set up.
    pub(crate) fn new(tcp: TcpStream, identity: Option<&Identity>) -> io::Result<Self> {
        let Some(identity) = identity else { return Ok(Stream::Plain(tcp)) };
        let name = ServerName::try_from(&*identity.name).map_err(io::Error::other)?.to_owned();
        let config = match (&identity.client, identity.unchecked) {
            (Some(client), unchecked) => with_client(client, unchecked)?,
            (None, true) => unchecked(),
            (None, false) => checked(),
        };
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Stream::Tls(Box::new((connection, tcp))))
    }

    /// The socket.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => &tls.1,
        }
    }

    /// The socket, to be registered.
    pub(crate) fn tcp_mut(&mut self) -> &mut TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => &mut tls.1,
        }
    }

    /// Goes on with the handshake. `false`: more must come.
    ///
    /// # Errors
    /// The backend is not who it should be, or does not speak TLS.
    pub(crate) fn shake_hands(&mut self) -> io::Result<bool> {
        let Stream::Tls(tls) = self else { return Ok(true) };
        let (connection, tcp) = &mut **tls;
        while connection.is_handshaking() {
            match connection.complete_io(tcp) {
                Ok((0, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether an idle connection is as it was left: still open, and nothing has come that nobody asked for.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let seen = match self {
            Stream::Plain(tcp) => tcp.peek(&mut [0]),
            // Tickets for later sessions may have come, which are no data.
            Stream::Tls(_) => self.read(&mut [0]),
        };
        matches!(seen, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.read(buffer),
            Stream::Tls(tls) => rustls::Stream::new(&mut tls.0, &mut tls.1).read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.write(bytes),
            Stream::Tls(tls) => rustls::Stream::new(&mut tls.0, &mut tls.1).write(bytes),
        }
    }

    /// Writes what TLS has kept back, because the socket took no more.
    fn flush(&mut self) -> io::Result<()> {
        let Stream::Tls(tls) = self else { return Ok(()) };
        let (connection, tcp) = &mut **tls;
        while connection.wants_write() {
            connection.write_tls(tcp)?;
        }
        Ok(())
    }
}

/// With the certificates of the system.
fn checked() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    CONFIG.get_or_init(|| Arc::new(builder().with_root_certificates(roots()).with_no_client_auth())).clone()
}

/// The authorities that this system trusts. They are read when the first connection needs them.
fn roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(found.certs);
        if usable == 0 {
            tracing::error!(
                "there are no root certificates on this system, so no https backend can be trusted: install ca-certificates, or \
                 set SSL_CERT_FILE"
            );
        }
        Arc::new(roots)
    };
    ROOTS.get_or_init(read).clone()
}

/// For targets of which any certificate is accepted (`insecure`).
fn unchecked() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    CONFIG.get_or_init(|| Arc::new(believing().with_no_client_auth())).clone()
}

fn believing() -> rustls::ConfigBuilder<ClientConfig, WantsClientCert> {
    builder().dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider())))
}

/// With a certificate of ours. The last ones are kept, since each has its sessions to go on with.
fn with_client(client: &ClientCertificate, unchecked: bool) -> io::Result<Arc<ClientConfig>> {
    type Known = Vec<(ClientCertificate, bool, Arc<ClientConfig>)>;
    static KNOWN: Mutex<Known> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, _, config)) = known.iter().find(|(of, any, _)| of == client && *any == unchecked) {
        return Ok(config.clone());
    }
    let refused = |reason: String| io::Error::other(format!("client_cert of the route can not be used: {reason}"));
    let chain = CertificateDer::pem_slice_iter(&client.chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| refused(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&client.key).map_err(|error| refused(format!("its key: {error}")))?;
    let builder = if unchecked { believing() } else { builder().with_root_certificates(roots()) };
    let config = builder.with_client_auth_cert(chain, key).map_err(|error| refused(error.to_string()))?;
    let config = Arc::new(config);
    if known.len() >= MAX_CLIENTS {
        known.remove(0);
    }
    known.push((client.clone(), unchecked, config.clone()));
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    // ring has what these versions need.
    builder.unwrap_or_else(|error| unreachable!("{error}"))
}

/// Believes every certificate, as the operator wishes, but not every signature.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
