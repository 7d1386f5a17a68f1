// SPDX-License-Identifier: AGPL-3.0-or-later
//! How a connection ends: by its client, by its server, by this process, or by an error page.

use wire::http1::Version;

use super::super::page::error_page;
use super::super::response::Response;
use super::{Http1, Phase, Refusal};
use crate::context::Context;

impl Http1 {
    pub(super) fn closing(&mut self) -> Phase {
        self.input = Vec::new();
        Phase::Closing
    }

    /// The client has sent its end. One that waits for a response is taken to be gone, as Pushpin does; one that has
    /// its response, though not all of it is written, gets the rest.
    pub fn on_end(&mut self, cx: &mut Context<'_>) {
        match self.phase {
            Phase::Head if !cx.output.is_empty() => self.phase = self.closing(),
            // It has said all; what the server still says to that concerns nobody.
            Phase::WebSocket(ref socket) if socket.is_closing() => {
                cx.exchanges.finish(socket.exchange, cx.now, cx.up);
                self.phase = Phase::Closed { abort: false };
            }
            Phase::Head | Phase::Serving(_) | Phase::WebSocket(_) => self.on_gone(cx),
            Phase::Closing | Phase::Closed { .. } => {}
        }
    }

    /// The client is gone, or its time is up: tells the server.
    pub fn on_gone(&mut self, cx: &mut Context<'_>) {
        if let Some(exchange) = self.exchange() {
            cx.exchanges.cancel(exchange, cx.up);
        }
        self.phase = Phase::Closed { abort: false };
    }

    /// The exchange is over without a word of its server, which is gone or was silent for too long.
    pub fn on_lost(&mut self, page: Option<(u16, &str)>, cx: &mut Context<'_>) {
        match (&self.phase, page) {
            (Phase::Serving(request), None) => self.break_off(request.response),
            (Phase::Serving(_), Some((code, text))) => self.fail(code, text, cx),
            (Phase::WebSocket(_), page) => {
                let (code, text) = page.unwrap_or((502, "The server of this request is gone.\n"));
                if let Phase::WebSocket(socket) = &mut self.phase
                    && !socket.is_opening()
                {
                    socket.tell(Some((1012, "service restart")), cx.output);
                    self.phase = self.closing();
                } else {
                    self.refuse(Version::Http11, code, text, cx);
                }
            }
            _ => {}
        }
    }

    /// The client is told with its next response that no request can follow on this connection.
    pub fn be_last(&mut self) {
        self.last = true;
    }

    /// This process ends: so does the connection, as properly as it can. A response that is held has no end of its own, so any is
    /// right; others are broken off.
    pub fn leave(&mut self, is_held: bool, cx: &mut Context<'_>) {
        if let Some(slot) = self.exchange() {
            cx.exchanges.cancel(slot, cx.up);
        }
        match &mut self.phase {
            Phase::Head => self.phase = self.closing(),
            Phase::WebSocket(socket) if !socket.is_opening() => {
                socket.tell(Some((1001, "service restart")), cx.output);
                self.phase = self.closing();
            }
            Phase::Serving(request) if is_held && request.response != Response::Waiting => {
                self.phase = match request.response.end(cx.output) {
                    Ok(()) => self.closing(),
                    Err(_) => Phase::Closed { abort: true },
                };
            }
            Phase::Serving(_) | Phase::WebSocket(_) => {
                self.fail(503, "This server is being replaced. Try again.\n", cx)
            }
            Phase::Closing | Phase::Closed { .. } => {}
        }
    }

    /// The response will not come, or not be finished.
    pub(super) fn fail(&mut self, code: u16, text: &str, cx: &mut Context<'_>) {
        if let Phase::WebSocket(socket) = &self.phase {
            if socket.is_opening() {
                self.refuse(Version::Http11, code, text, cx);
            } else {
                // As it is with Pushpin: without a close frame, so that the client knows that something is missing.
                self.phase = self.closing();
            }
            return;
        }
        let Phase::Serving(request) = &self.phase else { return };
        match request.response {
            Response::Waiting => {
                self.refuse(request.terms.version, code, text, cx);
            }
            response => self.break_off(response),
        }
    }

    /// Ends the connection in a way that shows the client that its response is not complete: what has come is sent, but
    /// not the end of the body. Where only the connection's end would end the body, it is reset.
    pub(super) fn break_off(&mut self, response: Response) {
        let closing = self.closing();
        self.phase = if response.ends_with_connection() { Phase::Closed { abort: true } } else { closing };
    }

    /// Answers with an error page and closes.
    pub(super) fn refuse(&mut self, version: Version, code: u16, text: &str, cx: &mut Context<'_>) -> Refusal {
        cx.output.push(error_page(version, code, text));
        self.phase = self.closing();
        Refusal { code, reason: text.trim_end().to_owned() }
    }
}
