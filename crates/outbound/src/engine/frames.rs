// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets: from the answer to the handshake on.

use std::hash::{BuildHasher as _, DefaultHasher, Hasher as _, RandomState};
use std::io::ErrorKind;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wire::http1::ResponseHead;
use zhttp::session::client::GRANT_DELAY;
use zhttp::{Ext, Headers, Ids, Kind, Packet};

use super::Engine;
use crate::context::Context;
use crate::failure::Failure;
use crate::http1::exchange::Phase;
use crate::websocket::handshake;
use crate::websocket::refusal::Refusing;

/// Reads from one connection in a turn.
const READS_A_TURN: usize = 16;
/// Read at least this much, so that headers and closes are seen without credits.
const PEEK: usize = 512;
/// Read at most this much at once.
const READ: usize = 131_072;

/// Makes keys that nobody can guess, so that nobody can choose what bytes go over the wire (RFC 6455, section 10.3).
pub(super) struct Keys {
    hasher: DefaultHasher,
    count: u64,
}

impl Default for Keys {
    fn default() -> Self {
        Keys::of(RandomState::new().build_hasher())
    }
}

impl Keys {
    /// Keys that follow from `hasher`.
    pub(super) fn of(hasher: DefaultHasher) -> Self {
        Keys { hasher, count: 0 }
    }

    /// A mask.
    pub(super) fn mask(&mut self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.number().to_ne_bytes();
        [a, b, c, d]
    }

    /// The key of a handshake.
    pub(super) fn handshake(&mut self) -> String {
        STANDARD.encode([self.number().to_ne_bytes(), self.number().to_ne_bytes()].concat())
    }

    fn number(&mut self) -> u64 {
        self.count += 1;
        let mut hasher = self.hasher.clone();
        hasher.write_u64(self.count);
        hasher.finish()
    }
}

impl Engine {
    /// Whether the exchange is a WebSocket that the backend has granted.
    pub(super) fn is_open_socket(&self, index: usize) -> bool {
        self.exchanges[index].socket.as_ref().is_some_and(|socket| socket.is_open())
    }

    /// The answer to a handshake, or a part of the body of one that refuses. `false` if the exchange is over.
    pub(super) fn answer_handshake(
        &mut self,
        index: usize,
        head: Option<&ResponseHead<'_>>,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) -> bool {
        let exchange = &mut self.exchanges[index];
        let Some(socket) = &mut exchange.socket else { return true };
        if let Some(head) = head.filter(|head| head.code == 101) {
            if let Err(error) = handshake::check(head, socket.key()) {
                self.fail(index, &error.into(), cx);
                return false;
            }
            socket.open();
            let headers: Vec<_> = head.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
            let reason = String::from_utf8_lossy(head.reason);
            let packet = Packet {
                ext: Ext { had: exchange.kept.as_ref().map(|_| 0), ..Ext::default() },
                code: Some(101),
                reason: Some(reason.as_bytes()),
                headers: Headers::Pairs(&headers),
                credits: exchange.session.grant().or(Some(self.limits.window)),
                ..Packet::default()
            };
            return self.send(index, Kind::Data, packet, cx);
        }
        if !socket.refuse(payload) {
            self.fail(index, &Failure::TooLarge, cx);
            return false;
        }
        if let Some(head) = head {
            exchange.refusing = Some(Box::new(Refusing::of(head)));
        }
        if exchange.download.is_done() {
            return self.refuse_socket(index, cx);
        }
        true
    }

    /// The answer that refuses a WebSocket is complete. Always `false`: the exchange is over.
    pub(super) fn refuse_socket(&mut self, index: usize, cx: &mut Context<'_>) -> bool {
        let exchange = &mut self.exchanges[index];
        let refusing = exchange.refusing.take().unwrap_or_default();
        let body = exchange.socket.take().map(|socket| socket.refusal().to_vec()).unwrap_or_default();
        let headers: Vec<(&[u8], &[u8])> =
            refusing.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
        let packet = Packet {
            condition: Some(b"rejected"),
            code: Some(refusing.code),
            reason: Some(refusing.reason.as_bytes()),
            headers: Headers::Pairs(&headers),
            body: &body,
            ..Packet::default()
        };
        if self.send(index, Kind::Error, packet, cx) {
            self.drop_exchange(index, cx);
        }
        false
    }

    /// A packet of the requester for a WebSocket. `false` if the exchange is over.
    pub(super) fn push_frame(&mut self, index: usize, packet: &Packet<'_>, cx: &mut Context<'_>) -> bool {
        let key = self.keys.mask();
        let Some(socket) = &mut self.exchanges[index].socket else { return true };
        if let Err(error) = socket.push(packet, key) {
            let id = self.exchanges[index].session.id();
            let text = format_args!("session {id} cancelled: {error}");
            cx.warn("violation", text);
            self.cancel(index, cx);
            return false;
        }
        self.exchanges[index].kept.iter_mut().for_each(|kept| kept.take(packet));
        true
    }

    /// Writes and reads frames as far as connection and credits allow.
    pub(super) fn advance_socket(&mut self, index: usize, cx: &mut Context<'_>) {
        // What a predecessor of the requester has lost comes before anything else.
        if !self.write_frames(index, cx) || self.exchanges[index].is_orphan() || !self.send_kept_again(index, cx) {
            return;
        }
        if self.exchanges[index].is_closed_socket() {
            return self.socket_closed(index, cx);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let goes_on = self.read_frames(index, &mut buffer, cx);
        self.buffer = buffer;
        // A close may have been answered.
        if goes_on && self.write_frames(index, cx) && self.exchanges[index].is_closed_socket() {
            self.socket_closed(index, cx);
        }
    }

    fn write_frames(&mut self, index: usize, cx: &mut Context<'_>) -> bool {
        let exchange = &mut self.exchanges[index];
        let (Phase::Open { connection: number, .. }, Some(socket)) = (&exchange.phase, &mut exchange.socket) else {
            return false;
        };
        let number = *number;
        let connection = self.connections.of(number);
        let mut owes_credits = false;
        connection.flush(number, cx);
        while connection.writable && !socket.pending().is_empty() {
            match cx.actions.write(number, socket.pending()) {
                Ok(bytes) => {
                    exchange.active = cx.now;
                    let passed = socket.wrote(bytes);
                    owes_credits |= passed > 0 && exchange.session.pass_on(passed);
                    if passed > 0 && !std::mem::replace(&mut exchange.owing, true) {
                        self.owing.push_back((index, exchange.serial, cx.now + GRANT_DELAY));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => connection.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.fail(index, &Failure::Connection(error), cx);
                    return false;
                }
            }
        }
        !owes_credits || self.grant(index, cx)
    }

    fn read_frames(&mut self, index: usize, buffer: &mut [u8], cx: &mut Context<'_>) -> bool {
        for _ in 0..READS_A_TURN {
            if self.exchanges[index].is_closed_socket() || !self.may_send(index) {
                return true;
            }
            // What waited for credits comes first.
            let exchange = &mut self.exchanges[index];
            let kept = exchange.leftover.len();
            buffer[..kept].copy_from_slice(&exchange.leftover);
            if kept > 0 && !self.pass_frames_on(index, &mut buffer[..kept], cx) {
                return false;
            }
            let exchange = &mut self.exchanges[index];
            let Phase::Open { connection: number, .. } = exchange.phase else { return false };
            let connection = self.connections.of(number);
            let credits = exchange.session.credits() as usize;
            let kept = exchange.leftover.len();
            let lacks_input = exchange.socket.as_ref().is_some_and(|socket| socket.lacks_input(&exchange.leftover));
            // More than a header waits only for credits, or for the rest of its frame.
            if !connection.readable || kept >= PEEK && !lacks_input {
                return true;
            }
            buffer[..kept].copy_from_slice(&exchange.leftover);
            let end = (kept + credits.clamp(PEEK, READ)).min(buffer.len());
            match connection.read(number, &mut buffer[kept..end], cx) {
                Ok(0) => {
                    self.socket_ended(index, cx);
                    return false;
                }
                Ok(bytes) => {
                    exchange.active = cx.now;
                    if !self.pass_frames_on(index, &mut buffer[..kept + bytes], cx) {
                        return false;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.fail(index, &Failure::Connection(error), cx);
                    return false;
                }
            }
        }
        let serial = self.exchanges[index].serial;
        self.unread.push((index, serial));
        true
    }

    /// Sends the frames in `input` to the requester, and keeps what is left. `false` if the exchange is over.
    fn pass_frames_on(&mut self, index: usize, input: &mut [u8], cx: &mut Context<'_>) -> bool {
        let (mut consumed, mut goes_on) = (0, true);
        while goes_on {
            let exchange = &mut self.exchanges[index];
            let Some(socket) = &mut exchange.socket else { return false };
            let credits = exchange.session.credits() as usize;
            let found = match socket.read(&mut input[consumed..], credits) {
                Ok(found) => found,
                Err(violation) => {
                    let key = self.keys.mask();
                    socket.close_for(violation, key);
                    if self.write_frames(index, cx) {
                        self.fail(index, &Failure::Frames(violation), cx);
                    }
                    return false;
                }
            };
            if found.consumed == 0 {
                break;
            }
            consumed += found.consumed;
            let Some(packet) = found.packet else { continue };
            // A close needs no credits.
            let bytes = if packet.kind == Kind::Close { 0 } else { packet.body.len() };
            let outgoing = exchange.session.send_body(bytes);
            // What is owed goes along.
            let credits = exchange.session.grant();
            let ids = Ids::One(exchange.session.id_bytes(), Some(outgoing.seq));
            let had = exchange.kept.as_mut().and_then(|kept| kept.note(&packet));
            let ext = Ext { had, ..packet.ext };
            let packet = Packet { ids, credits, user_data: exchange.user_data(), ext, ..packet };
            if !self.requesters.send(outgoing, &packet, cx) {
                self.lost(index, cx);
                goes_on = false;
            }
        }
        // One that is lost may wait for a successor of its requester.
        let Some(exchange) = self.exchanges.get_mut(index) else { return false };
        exchange.leftover.clear();
        exchange.leftover.extend_from_slice(&input[consumed..]);
        if exchange.leftover.is_empty() {
            exchange.leftover = Vec::new();
        }
        goes_on
    }

    /// Grants what has been owed for a while: less than is worth a packet of its own at once.
    pub(super) fn grant_owed(&mut self, cx: &mut Context<'_>) {
        while let Some(&(index, serial, _)) = self.owing.front().filter(|(_, _, due)| *due <= cx.now) {
            self.owing.pop_front();
            if let Some(exchange) = self.exchanges.get_mut(index).filter(|exchange| exchange.serial == serial) {
                exchange.owing = false;
                self.grant(index, cx);
            }
        }
    }

    /// The backend has closed its side.
    fn socket_ended(&mut self, index: usize, cx: &mut Context<'_>) {
        let awaits = self.exchanges[index].socket.as_ref().is_some_and(|socket| socket.awaits_close());
        if !awaits {
            return self.fail(index, &Failure::Unclosed, cx);
        }
        // Many close the connection instead of answering.
        let exchange = &mut self.exchanges[index];
        exchange.socket.iter_mut().for_each(|socket| socket.end());
        let close = Packet { kind: Kind::Close, ..Packet::default() };
        let had = exchange.kept.as_mut().and_then(|kept| kept.note(&close));
        let ext = Ext { had, ..Ext::default() };
        if self.send(index, Kind::Close, Packet { ext, ..Packet::default() }, cx) {
            self.socket_closed(index, cx);
        }
    }
}
