//! Requests that the handler gives back, to be proxied anew (internal RPC, retry).

use tnetstring::{Error, Item};
use zhttp::session::HandedOver;
use zhttp::{Headers, Id, Peers};

use crate::handler::inspect::Inspected;

/// One packet from the handler.
#[derive(Debug)]
pub struct Retry<'a> {
    /// The clients.
    pub clients: Vec<Client<'a>>,
    /// Request method.
    pub method: &'a [u8],
    /// The client's URI.
    pub uri: &'a [u8],
    /// The client's headers.
    pub headers: Headers<'a>,
    /// The client's body.
    pub body: &'a [u8],
    /// What the handler knows of the client.
    pub inspected: Option<Inspected>,
    /// Id of the route.
    pub route: Option<&'a [u8]>,
}

/// One client that waits for the response.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Where the session stands.
    pub session: HandedOver,
    /// What the client wants back in every packet.
    pub user_data: Option<Item<'a>>,
    /// It came with TLS.
    pub https: bool,
    /// Its address.
    pub peer_address: Option<&'a [u8]>,
    /// Errors may be shown in detail.
    pub debug: bool,
}

impl<'a> Retry<'a> {
    /// Reads a packet; instances it names become known to `peers`.
    ///
    /// # Errors
    /// A required field is missing or one is of a wrong type.
    pub fn decode(message: &'a [u8], peers: &mut Peers) -> Result<Self, Error> {
        let (map, _) = tnetstring::split(message)?;
        let mut retry = Retry {
            clients: Vec::new(),
            method: b"",
            uri: b"",
            headers: Headers::Absent,
            body: b"",
            inspected: None,
            route: None,
        };
        for field in map.entries()? {
            match field? {
                (b"requests", item) => {
                    for request in item.items()? {
                        retry.clients.push(client(request?, peers)?);
                    }
                }
                (b"request-data", item) => {
                    for field in item.entries()? {
                        match field? {
                            (b"method", item) => retry.method = item.as_bytes()?,
                            (b"uri", item) => retry.uri = item.as_bytes()?,
                            (b"headers", item) => {
                                item.items()?;
                                retry.headers = Headers::Encoded(item.payload);
                            }
                            (b"body", item) => retry.body = item.as_bytes()?,
                            _ => {}
                        }
                    }
                }
                (b"inspect", item) => retry.inspected = Some(Inspected::parse(item)?),
                (b"route", item) => retry.route = Some(item.as_bytes()?).filter(|id| !id.is_empty()),
                _ => {}
            }
        }
        if retry.method.is_empty() || retry.uri.is_empty() || retry.clients.is_empty() {
            return Err(Error::MissingValue);
        }
        Ok(retry)
    }
}

fn client<'a>(state: Item<'a>, peers: &mut Peers) -> Result<Client<'a>, Error> {
    let (mut sender, mut id) = (None, None);
    let (mut in_seq, mut out_seq, mut credits) = (None, None, None);
    let (mut by_router, mut https, mut debug) = (false, false, false);
    let (mut user_data, mut peer_address) = (None, None);
    for field in state.entries()? {
        match field? {
            (b"rid", item) => {
                for field in item.entries()? {
                    match field? {
                        (b"sender", item) => sender = peers.intern(item.as_bytes()?),
                        (b"id", item) => id = Id::new(item.as_bytes()?),
                        _ => {}
                    }
                }
            }
            (b"in-seq", item) => in_seq = Some(number(item)?),
            (b"out-seq", item) => out_seq = Some(number(item)?),
            (b"out-credits", item) => credits = Some(number(item)?),
            (b"router-resp", item) => by_router = item.as_bool()?,
            (b"https", item) => https = item.as_bool()?,
            (b"debug", item) => debug = item.as_bool()?,
            (b"user-data", item) => user_data = Some(item),
            (b"peer-address", item) => peer_address = Some(item.as_bytes()?),
            _ => {}
        }
    }
    const MISSING: Error = Error::MissingValue;
    let session = HandedOver {
        client: sender.ok_or(MISSING)?,
        id: id.ok_or(MISSING)?,
        in_seq: in_seq.ok_or(MISSING)?,
        out_seq: out_seq.ok_or(MISSING)?,
        credits: credits.ok_or(MISSING)?,
        by_router,
    };
    Ok(Client { session, user_data, https, peer_address, debug })
}

fn number(item: Item<'_>) -> Result<u32, Error> {
    u32::try_from(item.as_int_or_digits()?).map_err(|_| Error::BadInt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::call;
    use tnetstring::Writer;

    fn packet(complete: bool) -> Vec<u8> {
        let mut out = Writer::new(16);
        let map = out.mark();
        let data = out.mark();
        call::headers(&mut out, Headers::Pairs(&[(b"Host", b"h")]));
        call::entry(&mut out, "uri", b"http://h/");
        call::entry(&mut out, "method", b"GET");
        out.map(data);
        out.bytes(b"request-data");
        call::entry(&mut out, "route", b"r");
        let list = out.mark();
        let state = out.mark();
        call::int(&mut out, "out-credits", 8192);
        if complete {
            call::int(&mut out, "out-seq", 4);
        }
        call::int(&mut out, "in-seq", 3);
        let rid = out.mark();
        call::entry(&mut out, "id", b"1-0-0");
        call::entry(&mut out, "sender", b"connmgr");
        out.map(rid);
        out.bytes(b"rid");
        out.map(state);
        out.list(list);
        out.bytes(b"requests");
        out.map(map);
        out.finish()
    }

    #[test]
    fn a_request_comes_back_with_the_state_of_its_session() {
        let mut peers = Peers::default();
        let message = packet(true);
        let retry = Retry::decode(&message, &mut peers).unwrap();
        assert_eq!((retry.method, retry.uri, retry.route), (&b"GET"[..], &b"http://h/"[..], Some(&b"r"[..])));
        assert_eq!(retry.headers.get("host"), Some(&b"h"[..]));
        let session = retry.clients[0].session;
        assert_eq!((session.in_seq, session.out_seq, session.credits), (3, 4, 8192));
        assert_eq!(&peers.name(session.client)[..], b"connmgr");
    }

    #[test]
    fn a_packet_that_lacks_something_is_refused() {
        let mut peers = Peers::default();
        assert!(Retry::decode(&packet(false), &mut peers).is_err());
        assert!(Retry::decode(b"0:}", &mut peers).is_err());
        assert!(Retry::decode(b"junk", &mut peers).is_err());
    }
}
