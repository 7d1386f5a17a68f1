//! One client connection: HTTP/1.1 on one side, ZHTTP sessions on the other, without any I/O.
//!
//! Bytes read from the client go to [`Connection::on_input`], packets from proxy or handler to
//! [`Connection::on_packet`]. What the client is to get waits in [`Connection::output`]; what goes to the servers is
//! given to an [`Uplink`]. The worker owns the socket, the clock and the timers.
//!
//! Requests on one connection are served one at a time; what the client sends ahead waits. Each request is a session
//! with an id of its own (ZHTTP, session life cycle; frontend, request parsing and response emission).

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use wire::http1::{BodyDecoder, BodyError, BodyFraming, Limits, RequestHead, Version, parse_request};
use zhttp::{Ext, Id, Kind, Packet, PeerId, Violation, Window, client};

use crate::output::Output;
use crate::request::{Request, Response, Upload};
use crate::shared_body::SharedBody;

/// Upload bytes sent in one packet at most.
const MAX_UPLOAD: usize = 65_536;

/// Where a connection's packets go.
pub trait Uplink {
    /// Opens a session: to any proxy.
    fn open(&mut self, packet: &Packet<'_>);
    /// Sends a later packet to the session's server.
    fn send(&mut self, to: PeerId, packet: &Packet<'_>);
    /// Grants credits, in a packet that many sessions may share.
    fn grant(&mut self, to: PeerId, credits: u32, id: Id, seq: u32);
    /// Takes over a session whose client went away while nobody could be told; its server learns of it as soon as it
    /// speaks.
    fn orphan(&mut self, id: Id, session: client::Session);
}

/// What applies to every connection of a process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Limits of request heads.
    pub head: Limits,
    /// Body bytes granted to the server of a session at once.
    pub window: u32,
}

/// A client connection.
pub struct Connection {
    index: u32,
    /// The client's address; none on a Unix socket.
    peer: Option<SocketAddr>,
    phase: Phase,
    /// Read and not understood yet: a part of a head, upload beyond the credits, or requests sent ahead.
    input: Vec<u8>,
    /// What the client is to get.
    pub output: Output,
    /// Body bytes in `output`, for which credits go back when they have left.
    unwritten: u32,
}

enum Phase {
    /// Between requests, or in the middle of a head.
    Head,
    /// A request is being served.
    Serving(Request),
    /// The output goes out, then the connection is closed.
    Closing,
    /// To be closed at once.
    Closed,
}

/// What the worker has to do about credits that are owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// Nothing, or they have been granted.
    Nothing,
    /// Grant them in a while, if the session goes quiet.
    Later,
}

impl Connection {
    /// A connection that has just been accepted, in slot `index` of the worker's table.
    pub fn new(index: u32, peer: Option<SocketAddr>) -> Self {
        let (input, output) = (Vec::new(), Output::default());
        Connection { index, peer, phase: Phase::Head, input, output, unwritten: 0 }
    }

    /// Bytes that may be read from the client now. 0 while it must wait.
    pub fn wants(&self, config: &Config) -> usize {
        let ahead = config.head.head_bytes.saturating_sub(self.input.len());
        match &self.phase {
            Phase::Head => ahead,
            Phase::Serving(Request { upload: Upload::Running { credits, .. }, .. }) => {
                (*credits as usize).saturating_sub(self.input.len()).min(MAX_UPLOAD)
            }
            // Read on, to notice when the client goes away.
            Phase::Serving(_) => ahead,
            Phase::Closing => 1,
            Phase::Closed => 0,
        }
    }

    /// Whether the socket is to be closed, once the output has been written.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Closed) || matches!(self.phase, Phase::Closing) && self.output.is_empty()
    }

    /// Whether no request is being served.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Head)
    }

    /// Whether this is the request that a packet is for.
    pub fn serves(&self, serial: u64) -> bool {
        matches!(&self.phase, Phase::Serving(request) if request.serial == serial)
    }

    /// The session, if a request is being served.
    pub fn session(&self) -> Option<&client::Session> {
        match &self.phase {
            Phase::Serving(request) => Some(&request.session),
            _ => None,
        }
    }

    /// Address, id and number for a keep-alive packet, if the session's server is known.
    pub fn keep_alive(&mut self) -> Option<(PeerId, Id, u32)> {
        let index = self.index;
        let Phase::Serving(request) = &mut self.phase else { return None };
        let (peer, seq) = request.session.send()?;
        Some((peer, Id::indexed(index, request.serial), seq))
    }

    /// The client has sent bytes.
    pub fn on_input(&mut self, bytes: &[u8], config: &Config, serials: &mut u64, now: Instant, up: &mut impl Uplink) {
        match &self.phase {
            Phase::Head if self.input.is_empty() => {
                let used = self.read_head(bytes, config, serials, now, up);
                self.input.extend_from_slice(&bytes[used..]);
            }
            Phase::Closing | Phase::Closed => return,
            _ => self.input.extend_from_slice(bytes),
        }
        self.go_on(config, serials, now, up);
    }

    /// Works on what has been read.
    fn go_on(&mut self, config: &Config, serials: &mut u64, now: Instant, up: &mut impl Uplink) {
        if matches!(self.phase, Phase::Head) && !self.input.is_empty() {
            let input = std::mem::take(&mut self.input);
            let used = self.read_head(&input, config, serials, now, up);
            self.input = input;
            self.forget_input(used);
        }
        self.upload(up);
    }

    fn forget_input(&mut self, used: usize) {
        if used == self.input.len() {
            // An idle connection keeps no buffer.
            self.input = Vec::new();
        } else if used > 0 {
            self.input.drain(..used);
        }
    }

    /// Tries to read a request head at the front of `bytes`; returns how many bytes it took.
    fn read_head(
        &mut self,
        bytes: &[u8],
        config: &Config,
        serials: &mut u64,
        now: Instant,
        up: &mut impl Uplink,
    ) -> usize {
        match parse_request(bytes, &config.head) {
            Ok(None) => 0,
            Ok(Some((head, used))) => {
                self.begin(&head, config, serials, now, up);
                used
            }
            Err(error) => {
                self.refuse(Version::Http10, error.status(), &error.page_text());
                bytes.len()
            }
        }
    }

    /// Opens a session for a request.
    fn begin(
        &mut self,
        head: &RequestHead<'_>,
        config: &Config,
        serials: &mut u64,
        now: Instant,
        up: &mut impl Uplink,
    ) {
        if head.websocket {
            return self.refuse(head.version, 501, "WebSockets are not supported by this version.\n");
        }
        let mut uri = Vec::with_capacity(256);
        head.write_uri("http", &mut uri);
        let serial = *serials;
        *serials += 1;
        let id = Id::indexed(self.index, serial);
        let upload = match head.framing {
            BodyFraming::None | BodyFraming::Length(0) => Upload::Complete,
            framing => {
                Upload::Running { decoder: BodyDecoder::new(framing), credits: 0, expects: head.expects_continue }
            }
        };
        let headers: Vec<(&[u8], &[u8])> =
            head.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
        let address = self.peer.map(|peer| peer.ip().to_canonical().to_string());
        up.open(&Packet {
            ids: zhttp::Ids::One(id.as_bytes(), Some(0)),
            method: Some(head.method.as_bytes()),
            uri: Some(&uri),
            headers: if headers.is_empty() { zhttp::Headers::Absent } else { zhttp::Headers::Pairs(&headers) },
            credits: Some(config.window),
            more: matches!(upload, Upload::Running { .. }),
            stream: true,
            ext: Ext { adopt: true, ..Ext::MULTI },
            peer_address: address.as_deref().map(str::as_bytes),
            peer_port: self.peer.map(|peer| peer.port()),
            ..Packet::default()
        });
        self.phase = Phase::Serving(Request {
            serial,
            session: client::Session::start(now),
            window: Window::granted(config.window),
            upload,
            response: Response::Waiting,
            version: head.version,
            head_only: head.method == "HEAD",
            persistent: head.persistent,
        });
    }

    /// Sends on what has been read of the request's body, within the credits.
    fn upload(&mut self, up: &mut impl Uplink) {
        let index = self.index;
        let Phase::Serving(request) = &mut self.phase else { return };
        let Upload::Running { decoder, credits, expects } = &mut request.upload else { return };
        if *credits == 0 || request.session.server().is_none() {
            return;
        }
        if self.input.is_empty() {
            if std::mem::take(expects) {
                self.output.push(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
            }
            return;
        }
        *expects = false;
        let mut body = Vec::new();
        let (mut used, mut failure) = (0, None);
        while !decoder.is_done() && used < self.input.len() {
            match decoder.decode(&self.input[used..], *credits as usize - body.len()) {
                Ok(decoded) if decoded.consumed == 0 => break,
                Ok(decoded) => {
                    used += decoded.consumed;
                    body.extend_from_slice(decoded.payload);
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let done = decoder.is_done();
        *credits -= body.len() as u32;
        self.forget_input(used);
        if let Some(error) = failure {
            return self.refuse_upload(error, up);
        }
        let Phase::Serving(request) = &mut self.phase else { return };
        if done {
            request.upload = Upload::Complete;
        }
        if (done || !body.is_empty())
            && let Some((peer, seq)) = request.session.send()
        {
            let id = Id::indexed(index, request.serial);
            let ids = zhttp::Ids::One(id.as_bytes(), Some(seq));
            up.send(peer, &Packet { ids, body: &body, more: !done, ext: Ext::MULTI, ..Packet::default() });
        }
    }

    fn refuse_upload(&mut self, error: BodyError, up: &mut impl Uplink) {
        self.cancel(up);
        if let Phase::Serving(Request { response: Response::Waiting, version, .. }) = self.phase {
            self.refuse(version, error.status(), &error.page_text());
        } else {
            self.phase = Phase::Closed;
        }
    }

    /// A packet has come for the request being served. Cancels the session when the packet breaks the rules.
    ///
    /// # Errors
    /// What the server did wrong, for the log.
    #[allow(clippy::too_many_arguments)]
    pub fn on_packet(
        &mut self,
        packet: &Packet<'_>,
        body: &SharedBody<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        config: &Config,
        serials: &mut u64,
        now: Instant,
        up: &mut impl Uplink,
    ) -> Result<(), Violation> {
        let result = self.take_packet(packet, body, from, seq, now, up);
        if result.is_err() {
            self.cancel(up);
            self.fail();
        }
        self.go_on(config, serials, now, up);
        result
    }

    fn take_packet(
        &mut self,
        packet: &Packet<'_>,
        body: &SharedBody<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        now: Instant,
        up: &mut impl Uplink,
    ) -> Result<(), Violation> {
        let Phase::Serving(request) = &mut self.phase else { return Ok(()) };
        request.session.receive(packet.kind, from, seq, now)?;
        if let (Upload::Running { credits, .. }, Some(granted)) = (&mut request.upload, packet.credits) {
            *credits = credits.saturating_add(granted);
        }
        match packet.kind {
            Kind::Credit | Kind::KeepAlive => Ok(()),
            Kind::HandoffStart => {
                if let Some((peer, seq)) = request.session.hand_off() {
                    let id = Id::indexed(self.index, request.serial);
                    let ids = zhttp::Ids::One(id.as_bytes(), Some(seq));
                    up.send(peer, &Packet { ids, kind: Kind::HandoffProceed, ext: Ext::MULTI, ..Packet::default() });
                }
                Ok(())
            }
            Kind::Error | Kind::Cancel => {
                self.fail();
                Ok(())
            }
            Kind::Data => self.respond(packet, body),
            kind => Err(Violation::Unexpected(kind.name())),
        }
    }

    /// Puts a data packet of the response into the output.
    fn respond(&mut self, packet: &Packet<'_>, body: &SharedBody<'_>) -> Result<(), Violation> {
        let Phase::Serving(request) = &mut self.phase else { return Ok(()) };
        request.window.receive(packet.body.len())?;
        self.unwritten += packet.body.len() as u32;
        if matches!(request.response, Response::Waiting) {
            let head = request.begin_response(packet)?;
            self.output.push(head.into());
        } else {
            request.add_body(packet, body, &mut self.output)?;
        }
        if !packet.more {
            request.end_response(&mut self.output)?;
            self.unwritten = 0;
            self.phase = if request.persistent { Phase::Head } else { Phase::Closing };
        }
        Ok(())
    }

    /// Bytes of the output have been written. Gives credits back for the part of them that was body.
    pub fn on_written(&mut self, bytes: usize, up: &mut impl Uplink) -> Owed {
        let index = self.index;
        let body = self.unwritten.min(bytes as u32);
        self.unwritten -= body;
        let Phase::Serving(request) = &mut self.phase else { return Owed::Nothing };
        let due = request.window.pass_on(body as usize);
        if !due {
            return if request.window.owes() { Owed::Later } else { Owed::Nothing };
        }
        Self::grant(index, request, up);
        Owed::Nothing
    }

    /// The session has been quiet for a while: grants what is owed.
    pub fn grant_owed(&mut self, up: &mut impl Uplink) {
        let index = self.index;
        if let Phase::Serving(request) = &mut self.phase
            && request.window.owes()
        {
            Self::grant(index, request, up);
        }
    }

    fn grant(index: u32, request: &mut Request, up: &mut impl Uplink) {
        if let Some((peer, seq)) = request.session.send() {
            up.grant(peer, request.window.take_owed(), Id::indexed(index, request.serial), seq);
        }
    }

    /// The client is gone, or its time is up: tells the server.
    pub fn on_gone(&mut self, up: &mut impl Uplink) {
        self.cancel(up);
        self.phase = Phase::Closed;
    }

    /// The server has been silent for too long; it is not told.
    pub fn on_expired(&mut self) {
        self.phase = Phase::Closed;
    }

    fn cancel(&mut self, up: &mut impl Uplink) {
        let index = self.index;
        let Phase::Serving(request) = &mut self.phase else { return };
        let id = Id::indexed(index, request.serial);
        match request.session.send() {
            Some((peer, seq)) => {
                let ids = zhttp::Ids::One(id.as_bytes(), Some(seq));
                up.send(peer, &Packet { ids, kind: Kind::Cancel, ext: Ext::MULTI, ..Packet::default() });
            }
            None => up.orphan(id, request.session),
        }
    }

    /// The response will not come, or not be finished.
    fn fail(&mut self) {
        match self.phase {
            Phase::Serving(Request { response: Response::Waiting, version, .. }) => {
                self.refuse(version, 500, "Failed to process request.\n");
            }
            // The client must see that the response is not complete.
            _ => self.phase = Phase::Closed,
        }
    }

    /// Answers with an error page and closes.
    fn refuse(&mut self, version: Version, code: u16, text: &str) {
        let reason = match code {
            400 => "Bad Request",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            _ => "Internal Server Error",
        };
        let version = if version == Version::Http10 { "1.0" } else { "1.1" };
        let page = format!(
            "HTTP/{version} {code} {reason}\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        self.output.push(page.into());
        self.input = Vec::new();
        self.phase = Phase::Closing;
    }
}
