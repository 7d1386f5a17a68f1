// SPDX-License-Identifier: AGPL-3.0-or-later
//! A connection that is to become a WebSocket, or has become one.

use wire::http1::{RequestHead, Version};
use zhttp::{Headers, Kind, Packet, PeerId};

use super::super::response::{BadResponse, Response, Terms};
use super::super::shared_body::SharedBody;
use super::{Fault, Http1, Phase, Refusal, UNEVEN};
use crate::context::Context;
use crate::exchange::{Event, Exchange, Opening};
use crate::websocket::socket::{Progress, Put};
use crate::websocket::{self, WebSocket, handshake};

impl Http1 {
    /// Opens an exchange for a WebSocket. Pushpin's proxy never goes on with one whose credits it has used up to the byte, and
    /// messages like to have even sizes.
    pub(super) fn begin_websocket(&mut self, head: &RequestHead<'_>, cx: &mut Context<'_>) -> Option<Refusal> {
        let (Some(key), Ok(deflates)) = (handshake::key(head), handshake::offers_deflate(head)) else {
            return Some(self.refuse(head.version, 400, handshake::INVALID, cx));
        };
        let deflates = deflates && cx.config.compression;
        let opening = Opening {
            client: self.client,
            peer: self.peer,
            tls: self.tls,
            head,
            body: false,
            websocket: true,
            // Pushes are frames that nobody has compressed.
            lanes: !deflates,
            recovers: cx.config.router_resp && !cx.config.recover_wait.is_zero(),
            window: cx.config.window - UNEVEN,
            router_resp: cx.config.router_resp,
        };
        let exchange = cx.exchanges.open(&opening, cx.now, cx.up);
        let socket = WebSocket::new(exchange, key, deflates, cx.config.max_message);
        self.phase = Phase::WebSocket(Box::new(socket));
        None
    }

    /// Sends on what has been read of a WebSocket.
    pub(super) fn read_frames(&mut self, cx: &mut Context<'_>) -> Option<Refusal> {
        let Phase::WebSocket(socket) = &mut self.phase else { return None };
        if socket.is_opening() || self.input.is_empty() && !socket.has_more() {
            return None;
        }
        let (used, progress) = socket.on_input(&mut self.input, cx);
        let exchange = socket.exchange;
        self.forget_input(used);
        match progress {
            Progress::GoesOn => None,
            Progress::Closed => {
                cx.exchanges.closed(exchange, cx.now, cx.up);
                self.phase = self.closing();
                None
            }
            Progress::Broken(violation) => {
                cx.exchanges.cancel(exchange, cx.up);
                self.phase = self.closing();
                Some(websocket::socket::refusal(violation))
            }
        }
    }

    pub(super) fn is_rejected(&self, packet: &Packet<'_>) -> bool {
        let opening = matches!(&self.phase, Phase::WebSocket(socket) if socket.is_opening());
        opening && packet.kind == Kind::Error && packet.condition == Some(b"rejected")
    }

    /// The client does not get a WebSocket, but the response in the packet.
    pub(super) fn reject(&mut self, packet: &Packet<'_>, cx: &mut Context<'_>) -> Result<(), BadResponse> {
        let headers: Vec<_> = handshake::theirs(packet.headers)
            .filter(|(name, _)| !name.eq_ignore_ascii_case(b"Content-Length"))
            .collect();
        let packet = Packet { headers: Headers::Pairs(&headers), more: false, ..*packet };
        let mut terms = Terms { version: Version::Http11, head_only: false, persistent: false };
        let mut response = Response::Waiting;
        cx.output.push(response.begin(&packet, &mut terms)?);
        self.phase = self.closing();
        Ok(())
    }

    /// Puts what the server of a WebSocket has sent into the output.
    pub(super) fn frame(
        &mut self,
        packet: &Packet<'_>,
        body: &SharedBody<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let Phase::WebSocket(socket) = &mut self.phase else { return Ok(()) };
        if socket.is_opening() {
            if packet.kind == Kind::Data {
                cx.output.push(socket.accept(packet)?);
            }
            return Ok(());
        }
        let put = socket.on_packet(packet, body, cx.output)?;
        self.on_put(put, cx);
        Ok(())
    }

    /// A packet has come from a server that pushes into a WebSocket.
    pub(super) fn take_push(
        &mut self,
        packet: &Packet<'_>,
        body: &SharedBody<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let Phase::WebSocket(socket) = &mut self.phase else { return Ok(()) };
        let Some(exchange) = cx.exchanges.get_mut(socket.exchange) else { return Ok(()) };
        if exchange.receive_push(packet, from, seq, cx.config.window - UNEVEN, cx.now)? == Event::Failed {
            self.on_pushes_lost(cx);
            return Ok(());
        }
        let put = socket.on_push(packet, body, exchange.received(), cx.output)?;
        self.on_put(put, cx);
        Ok(())
    }

    /// Something has come from the server of a WebSocket, for which pushes may have waited.
    pub(super) fn let_pushes_go(&mut self, cx: &mut Context<'_>) {
        let Phase::WebSocket(socket) = &mut self.phase else { return };
        let Some(received) = cx.exchanges.get(socket.exchange).map(Exchange::received) else { return };
        let put = socket.on_received(received, cx.output);
        self.on_put(put, cx);
    }

    /// Frames of a WebSocket have been put into the output.
    pub(super) fn on_put(&mut self, [sent, pushed]: Put, cx: &mut Context<'_>) {
        self.unwritten[0] += sent as u32;
        self.unwritten[1] += pushed as u32;
        if let Phase::WebSocket(socket) = &self.phase
            && socket.is_closed()
        {
            cx.exchanges.closed(socket.exchange, cx.now, cx.up);
            self.phase = self.closing();
        }
    }

    /// Who pushed into a WebSocket is gone, or wants no more. A message that it has begun can not be completed, and no other
    /// could follow it.
    pub fn on_pushes_lost(&mut self, cx: &mut Context<'_>) {
        let Phase::WebSocket(socket) = &self.phase else { return };
        let (exchange, torn) = (socket.exchange, socket.is_within_push());
        if torn {
            cx.exchanges.cancel(exchange, cx.up);
            self.on_lost(None, cx);
        } else if let Some(exchange) = cx.exchanges.get_mut(exchange) {
            exchange.close_second();
        }
    }
}
