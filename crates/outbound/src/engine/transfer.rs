// SPDX-License-Identifier: AGPL-3.0-or-later
//! Bytes between the connection of an exchange and its requester.

use std::io::{self, ErrorKind};

use wire::http1::{BodyFraming, ResponseHead};
use zhttp::{Headers, Ids, Kind, Packet};

use super::Engine;
use crate::context::Context;
use crate::failure::Failure;
use crate::http1::coding::{Coding, Unpacker};
use crate::http1::download::{DownloadError, announced_length};
use crate::http1::exchange::Phase;

/// Reads from one connection in a turn.
const READS_A_TURN: usize = 16;
/// Read at least this much while there are no credits, to notice the end of a body.
const PEEK: usize = 512;
/// Read at least this much for a head.
const HEAD: usize = 8192;
/// Read at most this much at once, so that a packet stays of a size that the caches hold.
const READ: usize = 131_072;

/// Whether there is still an exchange to go on with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    /// It has ended, or must wait.
    Stop,
}

impl Engine {
    /// Writes and reads as far as connection and credits allow.
    pub(super) fn advance(&mut self, index: usize, cx: &mut Context<'_>) {
        if !matches!(self.exchanges[index].phase, Phase::Open { .. }) {
            return;
        }
        if self.is_open_socket(index) {
            return self.advance_socket(index, cx);
        }
        let serial = self.exchanges[index].serial;
        if self.write(index, cx) == Flow::On {
            self.read(index, cx);
        }
        // What came behind the head of the answer is frames.
        let lives = self.exchanges.get(index).is_some_and(|exchange| exchange.serial == serial);
        if lives && self.is_open_socket(index) {
            self.advance_socket(index, cx);
        }
    }

    fn write(&mut self, index: usize, cx: &mut Context<'_>) -> Flow {
        let exchange = &mut self.exchanges[index];
        let Phase::Open { connection: number, .. } = exchange.phase else { return Flow::Stop };
        let connection = self.connections.of(number);
        let mut owes_credits = false;
        connection.flush(number, cx);
        while connection.writable && !exchange.upload.pending().is_empty() {
            match cx.actions.write(number, exchange.upload.pending()) {
                Ok(bytes) => {
                    exchange.moved(cx.now);
                    let passed = exchange.upload.wrote(bytes);
                    owes_credits |= passed > 0 && exchange.session.pass_on(passed);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => connection.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) if exchange.may_be_repeated() => {
                    self.repeat(index, cx);
                    return Flow::Stop;
                }
                Err(_) => {
                    // The backend takes no more, but may have answered: reading tells.
                    exchange.upload.give_up();
                    connection.readable = true;
                    return Flow::On;
                }
            }
        }
        if exchange.asked.is_none() && exchange.upload.is_finished() {
            exchange.asked = Some(cx.now);
            self.watch_again(index);
        }
        if owes_credits && !self.grant(index, cx) { Flow::Stop } else { Flow::On }
    }

    fn read(&mut self, index: usize, cx: &mut Context<'_>) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut joined = std::mem::take(&mut self.joined);
        self.read_into(index, &mut buffer, &mut joined, cx);
        self.buffer = buffer;
        self.joined = joined;
    }

    fn read_into(&mut self, index: usize, buffer: &mut [u8], joined: &mut Vec<u8>, cx: &mut Context<'_>) {
        if !self.may_send(index) {
            return;
        }
        // Payload that waited for credits comes first.
        let exchange = &mut self.exchanges[index];
        if !exchange.leftover.is_empty() && exchange.download.has_head() && exchange.session.credits() > 0 {
            let leftover = std::mem::take(&mut exchange.leftover);
            if self.pass_on(index, &leftover, joined, cx) == Flow::Stop {
                return;
            }
        }
        for _ in 0..READS_A_TURN {
            // What comes meanwhile waits at the backend; `Engine::requester_has_room` reads on.
            if !self.may_send(index) {
                return;
            }
            let exchange = &mut self.exchanges[index];
            let credits = exchange.session.credits() as usize;
            if exchange.has_unpacked() {
                if credits == 0 || self.send_unpacked(index, None, cx) == Flow::Stop {
                    return;
                }
                continue;
            }
            let Phase::Open { connection: number, .. } = exchange.phase else { return };
            let connection = self.connections.of(number);
            let kept = exchange.leftover.len();
            if !connection.readable || (credits == 0 && kept > 0 && exchange.download.has_head()) {
                return;
            }
            // No more than can be passed on, so that little waits here.
            let want = if exchange.download.has_head() { credits.max(PEEK) } else { credits + HEAD };
            let end = (kept + want.min(READ)).min(buffer.len());
            buffer[..kept].copy_from_slice(&exchange.leftover);
            match connection.read(number, &mut buffer[kept..end], cx) {
                Ok(0) => return self.ended(index, None, cx),
                Ok(bytes) => {
                    exchange.moved(cx.now);
                    if !exchange.answered {
                        exchange.answered = true;
                        exchange.upload.forget_written();
                    }
                    if self.pass_on(index, &buffer[..kept + bytes], joined, cx) == Flow::Stop {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.ended(index, Some(error), cx),
            }
        }
        let serial = self.exchanges[index].serial;
        self.unread.push((index, serial));
    }

    /// Whether the requester takes packets.
    pub(super) fn may_send(&self, index: usize) -> bool {
        let session = &self.exchanges[index].session;
        self.requesters.has_room(session.client(), session.by_router())
    }

    /// Finds head and payload in what was read and sends them to the requester.
    fn pass_on(&mut self, index: usize, input: &[u8], joined: &mut Vec<u8>, cx: &mut Context<'_>) -> Flow {
        let exchange = &mut self.exchanges[index];
        // The body of a refusal is collected here, and one that is unpacked has another length then.
        let all = exchange.socket.is_some() || exchange.unpacker.is_some();
        let credits = if all { usize::MAX } else { exchange.session.credits() as usize };
        let interim = exchange.download.interim();
        let found = match exchange.download.read(input, credits, joined) {
            Ok(found) => found,
            Err(error) => {
                self.fail(index, &error.into(), cx);
                return Flow::Stop;
            }
        };
        if exchange.download.interim() != interim && exchange.asked.is_some() {
            exchange.asked = Some(cx.now);
        }
        if let Some(asked) = exchange.asked.filter(|_| found.head.is_some()) {
            self.counters.response.observe(cx.now.saturating_duration_since(asked), 1);
        }
        exchange.leftover.clear();
        exchange.leftover.extend_from_slice(&input[found.consumed..]);
        if exchange.socket.is_some() {
            let goes_on = self.answer_handshake(index, found.head.as_ref(), found.payload, cx);
            return if goes_on && !self.is_open_socket(index) { Flow::On } else { Flow::Stop };
        }
        if self.exchanges[index].takes_interim && found.interim.iter().any(|head| !self.send_interim(index, head, cx)) {
            return Flow::Stop;
        }
        let (head, consumed) = (found.head, found.consumed);
        if let Some(head) = &head
            && let Err(error) = self.begin_unpacking(index, head)
        {
            self.fail(index, &error.into(), cx);
            return Flow::Stop;
        }
        let exchange = &mut self.exchanges[index];
        let Some(unpacker) = &mut exchange.unpacker else {
            let announced = head.as_ref().and_then(announced_length);
            if !exchange.count_body(found.payload.len(), announced) {
                self.fail(index, &Failure::TooLarge, cx);
                return Flow::Stop;
            }
            let done = exchange.download.is_done();
            return self.send_part(index, head.as_ref(), found.payload, done, cx);
        };
        unpacker.feed(found.payload);
        if head.is_some() && !exchange.download.is_done() {
            // Of what came with the head, only so much has been found as there were credits.
            match exchange.download.read(&input[consumed..], usize::MAX, &mut Vec::new()) {
                Ok(found) => {
                    unpacker.feed(found.payload);
                    exchange.leftover.drain(..found.consumed);
                }
                Err(error) => {
                    self.fail(index, &error.into(), cx);
                    return Flow::Stop;
                }
            }
        }
        self.send_unpacked(index, head.as_ref(), cx)
    }

    /// Has the coding of a body taken off, if it has one that the requester does not take.
    fn begin_unpacking(&mut self, index: usize, head: &ResponseHead<'_>) -> Result<(), DownloadError> {
        let exchange = &mut self.exchanges[index];
        if !exchange.takes_coded
            && head.framing != BodyFraming::None
            && let Some(coding) = Coding::of(head)?
        {
            exchange.unpacker = Some(Box::new(Unpacker::new(coding)));
        }
        Ok(())
    }

    /// Sends as much of a body whose coding is taken off as there is, and as there are credits for.
    fn send_unpacked(&mut self, index: usize, head: Option<&ResponseHead<'_>>, cx: &mut Context<'_>) -> Flow {
        let mut content = std::mem::take(&mut self.unpacked);
        let exchange = &mut self.exchanges[index];
        let max = (exchange.session.credits() as usize).min(READ);
        let whole = exchange.download.is_done();
        let result = exchange.unpacker.as_mut().map_or(Ok(false), |unpacker| {
            unpacker.take(max, &mut content)?;
            let done = whole && unpacker.is_dry();
            if done { unpacker.finish().map(|()| true) } else { Ok(false) }
        });
        let flow = match result {
            Ok(_) if !exchange.count_body(content.len(), None) => {
                self.fail(index, &Failure::TooLarge, cx);
                Flow::Stop
            }
            Ok(done) => self.send_part(index, head, &content, done, cx),
            Err(error) => {
                self.fail(index, &DownloadError::Coding(error).into(), cx);
                Flow::Stop
            }
        };
        self.unpacked = content;
        flow
    }

    /// Sends a part of the response: its head, if it is the first one, and of its body.
    fn send_part(
        &mut self,
        index: usize,
        head: Option<&ResponseHead<'_>>,
        body: &[u8],
        done: bool,
        cx: &mut Context<'_>,
    ) -> Flow {
        if head.is_none() && body.is_empty() && !done {
            return Flow::On;
        }
        let exchange = &mut self.exchanges[index];
        let outgoing = exchange.session.send_body(body.len());
        let mut packet = Packet {
            ids: Ids::One(exchange.session.id_bytes(), Some(outgoing.seq)),
            more: !done,
            body,
            user_data: exchange.user_data(),
            ..Packet::default()
        };
        let (headers, reason): (Vec<_>, _);
        if let Some(head) = head {
            // The length is that of the body as it came.
            let is_of_coding = |name: &str| {
                name.eq_ignore_ascii_case("Content-Encoding") || name.eq_ignore_ascii_case("Content-Length")
            };
            let fields = head.headers.iter().filter(|field| exchange.unpacker.is_none() || !is_of_coding(field.name));
            headers = fields.map(|field| (field.name.as_bytes(), field.value)).collect();
            // Originals take no other than UTF-8.
            reason = String::from_utf8_lossy(head.reason);
            packet.code = Some(head.code);
            packet.reason = Some(reason.as_bytes());
            packet.headers = if headers.is_empty() { Headers::Absent } else { Headers::Pairs(&headers) };
        }
        let sent = self.requesters.send(outgoing, &packet, cx);
        if !sent {
            self.lost(index, cx);
            return Flow::Stop;
        }
        if done {
            self.finish(index, cx);
            return Flow::Stop;
        }
        Flow::On
    }

    /// Sends an interim response, in a keep-alive. `false` if it is lost, and the exchange with it.
    fn send_interim(&mut self, index: usize, head: &ResponseHead<'_>, cx: &mut Context<'_>) -> bool {
        let headers: Vec<_> = head.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
        let reason = String::from_utf8_lossy(head.reason);
        let (code, reason) = (Some(head.code), Some(reason.as_bytes()));
        self.send(
            index,
            Kind::KeepAlive,
            Packet { code, reason, headers: Headers::Pairs(&headers), ..Packet::default() },
            cx,
        )
    }

    /// The backend has closed the connection, or it broke.
    fn ended(&mut self, index: usize, error: Option<io::Error>, cx: &mut Context<'_>) {
        let exchange = &mut self.exchanges[index];
        if exchange.may_be_repeated() {
            return self.repeat(index, cx);
        }
        if let Some(error) = error {
            return self.fail(index, &Failure::Connection(error), cx);
        }
        match exchange.download.end_of_input() {
            Ok(()) if exchange.socket.is_some() => {
                self.refuse_socket(index, cx);
            }
            Ok(()) => match exchange.unpacker.as_ref().map_or(Ok(()), |unpacker| unpacker.finish()) {
                Ok(()) => {
                    if self.send(index, Kind::Data, Packet::default(), cx) {
                        self.finish(index, cx);
                    }
                }
                Err(error) => self.fail(index, &DownloadError::Coding(error).into(), cx),
            },
            Err(error) => self.fail(index, &error.into(), cx),
        }
    }
}
