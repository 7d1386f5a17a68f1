//! What all exchanges share: where packets go, who everybody is, settings, signatures.

use std::collections::HashMap;
use std::time::Instant;

use grip::signature::{Key, Signer};
use settings::routes::Route;
use tnetstring::Writer;
use zhttp::{Packet, Peers};

use crate::inspect::Availability;
use crate::request::Rules;

/// Where an engine's packets go: the sockets, or in tests a list.
pub trait Outlet {
    /// To the instance that has a client's connection, through ROUTER or PUB.
    fn to_client(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>);
    /// The first packet of a request to a backend; `false` if there is nobody to take it.
    fn open_origin(&mut self, packet: &Packet<'_>) -> bool;
    /// A further packet of one.
    fn to_origin(&mut self, to: &[u8], packet: &Packet<'_>);
    /// An `inspect` call; `false` if there is no handler.
    fn inspect(&mut self, call: &[u8]) -> bool;
    /// An `accept` call; `false` if there is no handler.
    fn accept(&mut self, call: &[u8]) -> bool;
}

/// The settings that exchanges need.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What is done to headers.
    pub rules: Rules,
    /// Error responses say what went wrong.
    pub debug: bool,
    /// Log lines have the client's address.
    pub log_from: bool,
    /// Log lines have the User-Agent.
    pub log_user_agent: bool,
    /// Issuer and key of Grip-Sig, where a route does not set its own.
    pub sig_iss: String,
    /// See `sig_iss`.
    pub sig_key: Option<settings::keys::Key>,
    /// Key of a proxy in front of us.
    pub upstream_key: Option<settings::keys::Key>,
    /// Requests under way at a time.
    pub max_open_requests: usize,
}

/// The things that every exchange uses.
pub struct Desk {
    /// Our instance id.
    pub instance: Vec<u8>,
    /// Instances we have met.
    pub peers: Peers,
    /// Settings.
    pub config: Config,
    /// Grip-Sig tokens.
    pub signatures: Signatures,
    /// Key of a proxy in front of us, ready for use.
    pub upstream: Option<Key>,
    /// Whether the handler answers.
    pub availability: Availability,
    /// For calls to the handler.
    pub writer: Writer,
    serials: u64,
}

impl Desk {
    /// A desk for the instance `instance`.
    pub fn new(instance: &str, config: Config) -> Self {
        Desk {
            instance: instance.as_bytes().to_vec(),
            peers: Peers::default(),
            signatures: Signatures::new(&config),
            upstream: config.upstream_key.as_ref().and_then(|key| usable(key, "upstream_key")),
            config,
            availability: Availability::default(),
            writer: Writer::new(4096),
            serials: 0,
        }
    }

    /// A number that was not given before in this run.
    pub fn serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }
}

/// One call into the engine: the desk, the way out, and the time.
pub struct Turn<'a> {
    /// What exchanges share.
    pub desk: &'a mut Desk,
    /// Where packets go.
    pub out: &'a mut dyn Outlet,
    /// The time.
    pub now: Instant,
    /// The time in seconds since 1970, for tokens.
    pub unix: u64,
}

/// Grip-Sig tokens, made at most once a second for each issuer and key.
pub struct Signatures {
    issuer: String,
    key: Option<settings::keys::Key>,
    general: Option<Signer>,
    /// Those of routes that have an issuer or a key of their own.
    by_route: HashMap<String, Option<Signer>>,
}

impl Signatures {
    fn new(config: &Config) -> Self {
        Signatures {
            issuer: config.sig_iss.clone(),
            key: config.sig_key.clone(),
            general: signer(&config.sig_iss, config.sig_key.as_ref()),
            by_route: HashMap::new(),
        }
    }

    /// The token for requests of a route, if they are signed.
    pub fn token(&mut self, route: &Route, unix: u64) -> Option<&str> {
        if !route.grip {
            return None;
        }
        let signer = if route.sig_iss.is_none() && route.sig_key.is_none() {
            &mut self.general
        } else {
            if !self.by_route.contains_key(&route.id) {
                let issuer = route.sig_iss.as_deref().unwrap_or(&self.issuer);
                let key = route.sig_key.as_ref().or(self.key.as_ref());
                self.by_route.insert(route.id.clone(), signer(issuer, key));
            }
            self.by_route.get_mut(&route.id)?
        };
        signer.as_mut().map(|signer| signer.token(unix))
    }

    /// Forgets the routes' keys, because the routes have changed.
    pub fn forget_routes(&mut self) {
        self.by_route.clear();
    }
}

fn signer(issuer: &str, key: Option<&settings::keys::Key>) -> Option<Signer> {
    let key = key.filter(|_| !issuer.is_empty())?;
    usable(key, "sig_key").map(|key| Signer::new(key, issuer))
}

fn usable(key: &settings::keys::Key, setting: &str) -> Option<Key> {
    match key {
        settings::keys::Key::Secret(secret) => Some(Key::new(secret)),
        settings::keys::Key::Pem(_) => {
            tracing::warn!("{setting} is a PEM key, which is not supported yet; use a shared secret");
            None
        }
    }
}
