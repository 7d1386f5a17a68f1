// SPDX-License-Identifier: AGPL-3.0-or-later
//! One client's HTTP/1.1: what it sends becomes exchanges, what servers send becomes its output. Without I/O.
//!
//! Requests on one connection are served one at a time; what the client sends ahead waits. The next request begins only
//! when little of the responses before it is still unsent, so a client that does not read can not make the suite
//! produce more (frontend, request parsing, response emission, persistence).

mod ending;
mod upgraded;

use std::net::SocketAddr;

use bytes::Bytes;
use wire::http1::{BodyDecoder, BodyError, BodyFraming, RequestHead, Version, parse_request, write_interim_response};
use zhttp::session::Violation;
use zhttp::{Packet, PeerId};

use super::refusal::Refusal;
use super::response::{BadResponse, Response, Terms};
use super::shared_body::SharedBody;
use crate::client::pacing::Stage;
use crate::context::Context;
use crate::departure::Nature;
use crate::exchange::{Event, Exchanges, Opening, Owed};
use crate::transplant::record::{HttpRecord, PhaseRecord, RecordError};
use crate::websocket::WebSocket;
use crate::websocket::socket::BadFrame;

/// Upload bytes sent in one packet at most.
const MAX_UPLOAD: usize = 65_536;

/// What the credits of a WebSocket are short of an even number.
const UNEVEN: u32 = 7;

/// The HTTP/1.1 side of a client connection.
pub struct Http1 {
    /// The client's slot.
    client: u32,
    /// The client's address; none on a Unix socket.
    peer: Option<SocketAddr>,
    /// The client came with TLS.
    tls: bool,
    /// No request follows the present or the next one.
    last: bool,
    phase: Phase,
    /// Read and not understood yet: a part of a head, upload beyond the credits, or requests sent ahead.
    input: Vec<u8>,
    /// Body bytes of the exchange in the output, for which credits go back when they have left; those that were pushed
    /// stand second.
    unwritten: [u32; 2],
}

enum Phase {
    /// Between requests, or in the middle of a head.
    Head,
    /// A request is being served.
    Serving(Request),
    /// It is a WebSocket now, or is going to be one.
    WebSocket(Box<WebSocket>),
    /// The last response goes out, then the connection is closed.
    Closing,
    /// To be closed at once.
    Closed {
        /// So that the client sees that something is missing.
        abort: bool,
    },
}

struct Request {
    /// Slot of its exchange.
    exchange: u32,
    upload: Upload,
    response: Response,
    terms: Terms,
}

/// The request's body.
enum Upload {
    /// All of it has been sent on, or there is none.
    Complete,
    /// There is more to come. Apart, because what is held has no more to come.
    Running(Box<Running>),
}

/// A body that is coming.
struct Running {
    /// Takes the body out of its framing.
    decoder: BodyDecoder,
    /// The client waits for `100 Continue`.
    expects: bool,
}

/// What a server did wrong. Its session is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It broke the rules of sessions.
    #[error("{0}")]
    Session(#[from] Violation),
    /// It sent no response that a client could read.
    #[error("{0}")]
    Response(#[from] BadResponse),
    /// It sent what can not be a frame.
    #[error("{0}")]
    Frame(#[from] BadFrame),
}

impl Http1 {
    /// A connection that has just been accepted, in slot `client` of the worker's table.
    pub fn new(client: u32, peer: Option<SocketAddr>) -> Self {
        Http1 { client, peer, tls: false, last: false, phase: Phase::Head, input: Vec::new(), unwritten: [0, 0] }
    }

    /// The same with TLS, or without.
    pub fn over_tls(self, tls: bool) -> Self {
        Http1 { tls, ..self }
    }

    /// Writes down where it stands, for another process; none if it can not go on there: a request's body is under way, or the
    /// connection ends.
    pub(crate) fn snapshot(&self) -> Option<HttpRecord> {
        let phase = match &self.phase {
            Phase::Head => PhaseRecord::Head,
            Phase::Serving(Request { exchange, upload: Upload::Complete, response, terms }) => {
                PhaseRecord::Serving { exchange: *exchange, response: *response, terms: *terms }
            }
            Phase::WebSocket(socket) => PhaseRecord::WebSocket(socket.snapshot()?),
            Phase::Serving(_) | Phase::Closing | Phase::Closed { .. } => return None,
        };
        let (input, unwritten) = (self.input.clone(), self.unwritten);
        Some(HttpRecord { peer: self.peer, last: self.last, phase, input, unwritten })
    }

    /// Goes on from there, in slot `client` of the worker's table.
    ///
    /// # Errors
    /// The record does not fit together.
    pub(crate) fn restore(client: u32, record: HttpRecord, max_message: u64) -> Result<Self, RecordError> {
        let phase = match record.phase {
            PhaseRecord::Head => Phase::Head,
            PhaseRecord::Serving { exchange, response, terms } => {
                Phase::Serving(Request { exchange, upload: Upload::Complete, response, terms })
            }
            PhaseRecord::WebSocket(socket) => Phase::WebSocket(Box::new(WebSocket::restore(socket, max_message)?)),
        };
        let (input, unwritten) = (record.input, record.unwritten);
        Ok(Http1 { client, peer: record.peer, tls: false, last: record.last, phase, input, unwritten })
    }

    /// Where the connection stands, for the decisions about reading and deadlines.
    pub fn stage(&self, unsent: usize, exchanges: &Exchanges, low_water: usize) -> Stage {
        match &self.phase {
            Phase::Head if matches!(&self.input[..], [] | [b'\r']) => Stage::Idle,
            Phase::Head if unsent > low_water => Stage::Waiting,
            Phase::Head => Stage::Head,
            Phase::Serving(Request { exchange, upload: Upload::Running(_), response, .. }) => {
                let credits = exchanges.get(*exchange).map_or(0, |exchange| exchange.credits() as usize);
                match credits.saturating_sub(self.input.len()).min(MAX_UPLOAD) {
                    0 => Stage::Stopped,
                    room => Stage::Body { room, awaited: *response == Response::Waiting },
                }
            }
            Phase::Serving(_) => Stage::Waiting,
            Phase::WebSocket(socket) if socket.is_opening() => Stage::Waiting,
            Phase::WebSocket(socket) => {
                let credits = exchanges.get(socket.exchange).map_or(0, |exchange| exchange.credits() as usize);
                match socket.room(self.input.len(), credits) {
                    0 => Stage::Stopped,
                    room => {
                        let awaited = socket.awaits_close() || self.input.is_empty() && socket.awaits_compressed();
                        Stage::Body { room, awaited }
                    }
                }
            }
            Phase::Closing => Stage::Closing,
            Phase::Closed { abort } => Stage::Closed { abort: *abort },
        }
    }

    /// Notes the client's address, before its first request.
    pub fn set_address(&mut self, address: Option<SocketAddr>) {
        self.peer = address;
    }

    /// The client's address.
    pub fn address(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Bytes read and not understood yet.
    pub fn buffered(&self) -> usize {
        self.input.len()
    }

    /// The exchange being served.
    pub fn exchange(&self) -> Option<u32> {
        match &self.phase {
            Phase::Serving(request) => Some(request.exchange),
            Phase::WebSocket(socket) => Some(socket.exchange),
            _ => None,
        }
    }

    /// What its exchange is.
    pub fn nature(&self) -> Nature {
        match &self.phase {
            Phase::WebSocket(socket) if socket.is_open() && socket.is_torn() => Nature::TornWebSocket,
            Phase::WebSocket(socket) if socket.is_open() => Nature::WebSocket,
            _ => Nature::Request,
        }
    }

    /// The client has sent bytes. Gives the reason if they are refused.
    pub fn on_input(&mut self, mut bytes: &[u8], cx: &mut Context<'_>) -> Option<Refusal> {
        match &self.phase {
            Phase::Closing | Phase::Closed { .. } => return None,
            Phase::Head if self.input.is_empty() => {
                bytes = skip_empty_lines(bytes);
                if cx.output.len() <= cx.config.low_water() {
                    let (used, refusal) = self.read_head(bytes, cx);
                    if refusal.is_some() {
                        return refusal;
                    }
                    bytes = &bytes[used..];
                }
                if !bytes.is_empty() {
                    self.input.extend_from_slice(bytes);
                }
            }
            _ => self.input.extend_from_slice(bytes),
        }
        self.go_on(cx)
    }

    /// Works on what has been read, when the output has become less or the server has granted credits.
    pub fn go_on(&mut self, cx: &mut Context<'_>) -> Option<Refusal> {
        if matches!(self.phase, Phase::Head) && !self.input.is_empty() && cx.output.len() <= cx.config.low_water() {
            let input = std::mem::take(&mut self.input);
            let rest = skip_empty_lines(&input);
            let (used, refusal) = self.read_head(rest, cx);
            let used = input.len() - rest.len() + used;
            if refusal.is_some() {
                return refusal;
            }
            self.input = input;
            self.forget_input(used);
        }
        if let Phase::WebSocket(_) = self.phase {
            return self.read_frames(cx);
        }
        self.upload(cx)
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
    fn read_head(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> (usize, Option<Refusal>) {
        match parse_request(bytes, &cx.config.head) {
            Ok(None) => (0, None),
            Ok(Some((head, used))) => (used, self.begin(&head, cx)),
            Err(error) => (bytes.len(), Some(self.refuse(Version::Http10, error.status(), &error.page_text(), cx))),
        }
    }

    /// Opens an exchange for a request.
    fn begin(&mut self, head: &RequestHead<'_>, cx: &mut Context<'_>) -> Option<Refusal> {
        if head.websocket {
            return self.begin_websocket(head, cx);
        }
        let upload = match head.framing {
            BodyFraming::None | BodyFraming::Length(0) => Upload::Complete,
            framing => Upload::Running(Box::new(Running {
                decoder: BodyDecoder::new(framing),
                expects: head.expects_continue,
            })),
        };
        let opening = Opening {
            client: self.client,
            peer: self.peer,
            tls: self.tls,
            head,
            body: matches!(upload, Upload::Running(_)),
            websocket: false,
            lanes: false,
            recovers: false,
            window: cx.config.window,
            router_resp: cx.config.router_resp,
        };
        let exchange = cx.exchanges.open(&opening, cx.now, cx.up);
        let terms = Terms { version: head.version, head_only: head.method == "HEAD", persistent: head.persistent };
        self.phase = Phase::Serving(Request { exchange, upload, response: Response::Waiting, terms });
        None
    }

    /// Sends on what has been read of the request's body, within the credits.
    fn upload(&mut self, cx: &mut Context<'_>) -> Option<Refusal> {
        let Phase::Serving(request) = &mut self.phase else { return None };
        let Upload::Running(running) = &mut request.upload else { return None };
        let Running { decoder, expects } = &mut **running;
        let exchange = cx.exchanges.get_mut(request.exchange)?;
        let credits = exchange.credits() as usize;
        if credits == 0 {
            return None;
        }
        if self.input.is_empty() {
            if std::mem::take(expects) && request.response == Response::Waiting {
                cx.output.push(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
            }
            return None;
        }
        *expects = false;
        let mut body = Vec::new();
        let (mut used, mut failure) = (0, None);
        while !decoder.is_done() && used < self.input.len() {
            match decoder.decode(&self.input[used..], credits - body.len()) {
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
        if let Some(error) = failure {
            return self.refuse_upload(error, cx);
        }
        if done {
            request.upload = Upload::Complete;
        }
        if done || !body.is_empty() {
            exchange.send_body(&body, !done, cx.up);
        }
        self.forget_input(used);
        None
    }

    fn refuse_upload(&mut self, error: BodyError, cx: &mut Context<'_>) -> Option<Refusal> {
        let Phase::Serving(request) = &self.phase else { return None };
        let (exchange, response, version) = (request.exchange, request.response, request.terms.version);
        cx.exchanges.cancel(exchange, cx.up);
        if response == Response::Waiting {
            return Some(self.refuse(version, error.status(), &error.page_text(), cx));
        }
        self.break_off(response);
        Some(Refusal { code: error.status(), reason: error.to_string() })
    }

    /// A packet has come for the exchange that is being served. Cancels the session when the packet breaks the rules.
    ///
    /// # Errors
    /// What the server did wrong, for the log.
    pub fn on_packet(
        &mut self,
        packet: &Packet<'_>,
        body: &SharedBody<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        cx: &mut Context<'_>,
    ) -> Result<Option<Refusal>, Fault> {
        let Some(slot) = self.exchange() else { return Ok(None) };
        cx.exchanges.begin_to_keep(slot, packet);
        let Some(exchange) = cx.exchanges.get_mut(slot) else { return Ok(None) };
        if packet.ext.lane > 0 && matches!(self.phase, Phase::WebSocket(_)) {
            let result = self.take_push(packet, body, from, seq, cx);
            return self.after_packet(slot, result, cx);
        }
        let result = match exchange.receive(packet, from, seq, cx.now, cx.up) {
            Ok(Event::Nothing) => {
                self.pass_interim(packet, cx);
                Ok(())
            }
            Ok(Event::Data | Event::Control) if matches!(self.phase, Phase::WebSocket(_)) => {
                self.frame(packet, body, cx)
            }
            Ok(Event::Data | Event::Control) => self.respond(packet, body, cx).map_err(Fault::from),
            Ok(Event::Failed) if self.is_rejected(packet) => {
                cx.exchanges.close(slot);
                self.reject(packet, cx).map_err(Fault::from)
            }
            Ok(Event::Failed) => {
                cx.exchanges.close(slot);
                self.fail(500, "Failed to process request.\n", cx);
                Ok(())
            }
            Err(violation) => Err(violation.into()),
        };
        self.let_pushes_go(cx);
        self.after_packet(slot, result, cx)
    }

    fn after_packet(
        &mut self,
        slot: u32,
        result: Result<(), Fault>,
        cx: &mut Context<'_>,
    ) -> Result<Option<Refusal>, Fault> {
        if let Err(fault) = &result {
            cx.exchanges.cancel(slot, cx.up);
            match fault {
                Fault::Response(BadResponse::Status(_)) => self.fail(502, "Malformed response from the backend.\n", cx),
                _ => self.fail(500, "Failed to process request.\n", cx),
            }
        }
        let refusal = self.go_on(cx);
        result.map(|()| refusal)
    }

    /// Puts an interim response into the output, for a client that understands it and reads. `100` is for one that waits with its
    /// body, and comes once.
    fn pass_interim(&mut self, packet: &Packet<'_>, cx: &mut Context<'_>) {
        let (Some(code @ 100..200), Phase::Serving(request)) = (packet.code, &mut self.phase) else { return };
        let reads = cx.output.len() <= cx.config.low_water();
        if code == 101 || request.terms.version == Version::Http10 || request.response != Response::Waiting || !reads {
            return;
        }
        if code == 100 {
            match &mut request.upload {
                Upload::Running(running) if running.expects => running.expects = false,
                _ => return,
            }
        }
        let mut head = Vec::new();
        // One that can not be written is left out: the client can do without.
        if write_interim_response(&mut head, code, packet.reason.unwrap_or_default(), packet.headers.iter()).is_ok() {
            cx.output.push(head);
        }
    }

    /// Puts a data packet of the response into the output.
    fn respond(&mut self, packet: &Packet<'_>, body: &SharedBody<'_>, cx: &mut Context<'_>) -> Result<(), BadResponse> {
        let Phase::Serving(request) = &mut self.phase else { return Ok(()) };
        if request.response == Response::Waiting {
            if self.last || matches!(request.upload, Upload::Running(_)) {
                // Of a body that is still coming, nobody may want the rest, so nothing can follow on this connection.
                request.terms.persistent = false;
            }
            let head = request.response.begin(packet, &mut request.terms)?;
            cx.output.push(head);
            cx.exchanges.responds(request.exchange, cx.now);
        } else {
            request.response.add_body(packet.body.len(), body, cx.output)?;
        }
        self.unwritten[0] += packet.body.len() as u32;
        if !packet.more {
            request.response.end(cx.output)?;
            cx.exchanges.close(request.exchange);
        } else if request.response.is_bodiless() {
            // A held response to HEAD, a held 204: the client has it all, so it need not wait for the server.
            cx.exchanges.finish(request.exchange, cx.now, cx.up);
        } else {
            return Ok(());
        }
        self.unwritten = [0, 0];
        self.phase = if request.terms.persistent { Phase::Head } else { self.closing() };
        Ok(())
    }

    /// Bytes of the output have been written. Gives credits back for the part of them that was body.
    pub fn on_written(&mut self, bytes: usize, cx: &mut Context<'_>) -> Owed {
        let (own, pushed) = (u64::from(self.unwritten[0]), u64::from(self.unwritten[1]));
        let all = own + pushed;
        // Compressed, it was less.
        let left = if cx.output.is_empty() { all } else { all.min(bytes as u64) };
        // Of two servers each gets its share, whichever bytes they were: none waits for the other.
        let pushed = (left * pushed).checked_div(all).unwrap_or(0);
        let own = left - pushed;
        self.unwritten[0] -= own as u32;
        self.unwritten[1] -= pushed as u32;
        let Some(exchange) = self.exchange().and_then(|slot| cx.exchanges.get_mut(slot)) else { return Owed::Nothing };
        let owed = exchange.on_written(own as usize, cx.now, cx.up);
        if pushed > 0 && exchange.on_push_written(pushed as usize, cx.now, cx.up) == Owed::Later {
            return Owed::Later;
        }
        owed
    }
}

/// Empty lines before a request mean nothing, and do not make its head begin (RFC 9112, section 2.2).
fn skip_empty_lines(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(b"\r\n").or_else(|| bytes.strip_prefix(b"\n")) {
        bytes = rest;
    }
    bytes
}
