//! One request of a connection: its session, and the response on its way to the client.
//!
//! Packets' status, headers and body become a head and framed pieces in the connection's [`Output`] (frontend, response
//! emission).

use bytes::Bytes;
use wire::http1::{BodyDecoder, BodyFraming, LAST_CHUNK, StatusLine, Version, write_response_head};
use zhttp::{Packet, Violation, Window, client};

use crate::output::Output;
use crate::shared_body::SharedBody;

/// A request being served.
pub struct Request {
    /// Part of the id, never used twice.
    pub serial: u64,
    /// The ZHTTP session.
    pub session: client::Session,
    /// Response body that its server may send.
    pub window: Window,
    /// The request's body.
    pub upload: Upload,
    /// The response.
    pub response: Response,
    /// Of the request, and so of the response.
    pub version: Version,
    /// The method is HEAD.
    pub head_only: bool,
    /// Another request may follow.
    pub persistent: bool,
}

/// The request's body.
pub enum Upload {
    /// All of it has been sent on, or there is none.
    Complete,
    /// There is more to come.
    Running {
        /// Takes the body out of its framing.
        decoder: BodyDecoder,
        /// Bytes that may be sent.
        credits: u32,
        /// The client waits for `100 Continue`.
        expects: bool,
    },
}

/// The response, as far as it has come.
pub enum Response {
    /// Nothing has come.
    Waiting,
    /// The head has gone into the output.
    Running {
        /// For a length: what is left of it.
        framing: BodyFraming,
        /// There is no body on the wire, whatever the framing says: the answer to HEAD, or a 304.
        bodiless: bool,
    },
}

impl Request {
    /// The head of the response, with the body bytes of its packet, so that a small response leaves in one piece.
    ///
    /// # Errors
    /// The packet can not begin a response.
    pub fn begin_response(&mut self, packet: &Packet<'_>) -> Result<Vec<u8>, Violation> {
        if matches!(self.upload, Upload::Running { .. }) {
            // The rest of the body is not read any more, so nothing can follow on this connection.
            self.persistent = false;
        }
        let (framing, bodiless) = response_framing(packet, self.version, self.head_only)
            .ok_or(Violation::Unexpected("data without a status or with a malformed Content-Length"))?;
        if framing == BodyFraming::UntilClose {
            self.persistent = false;
        }
        let status = StatusLine {
            version: self.version,
            code: packet.code.unwrap_or(200),
            reason: packet.reason.unwrap_or(b""),
        };
        let mut head = Vec::with_capacity(256 + packet.body.len());
        write_response_head(&mut head, status, packet.headers.iter(), framing, self.persistent)
            .map_err(|_| Violation::Unexpected("data with a malformed header"))?;
        // Only now, so that a response that can not begin is still answered with an error page.
        self.response = Response::Running { framing, bodiless };
        let mut output = Output::default();
        self.add_body(packet, &SharedBody::new(packet.body), &mut output)?;
        output.pieces().for_each(|piece| head.extend_from_slice(piece));
        Ok(head)
    }

    /// Puts the body bytes of a packet into the output, framed.
    ///
    /// # Errors
    /// More than the head has declared.
    pub fn add_body(
        &mut self,
        packet: &Packet<'_>,
        body: &SharedBody<'_>,
        output: &mut Output,
    ) -> Result<(), Violation> {
        let Response::Running { framing, bodiless } = &mut self.response else { return Ok(()) };
        if *bodiless {
            return Ok(());
        }
        match framing {
            BodyFraming::None => {}
            BodyFraming::Chunked => output.push(body.chunk()),
            BodyFraming::UntilClose => output.push(body.plain()),
            BodyFraming::Length(left) => {
                *left = left
                    .checked_sub(packet.body.len() as u64)
                    .ok_or(Violation::Unexpected("data with more body than declared"))?;
                output.push(body.plain());
            }
        }
        Ok(())
    }

    /// Ends the body after its last packet.
    ///
    /// # Errors
    /// Less than the head has declared.
    pub fn end_response(&mut self, output: &mut Output) -> Result<(), Violation> {
        match self.response {
            Response::Running { bodiless: true, .. } => Ok(()),
            // The client must see that something is missing, so the response is not ended as if it were complete.
            Response::Running { framing: BodyFraming::Length(1..), .. } => {
                Err(Violation::Unexpected("final data with less body than declared"))
            }
            Response::Running { framing: BodyFraming::Chunked, .. } => {
                output.push(Bytes::from_static(LAST_CHUNK));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// How the body of a response is delimited, and whether there is none on the wire; `None` if the packet can not begin a
/// response (frontend, response emission).
fn response_framing(packet: &Packet<'_>, version: Version, head_only: bool) -> Option<(BodyFraming, bool)> {
    let code = packet.code?;
    let declared = match packet.headers.get("Content-Length") {
        Some(value) => Some(std::str::from_utf8(value).ok()?.trim().parse::<u64>().ok()?),
        None => None,
    };
    Some(match declared {
        _ if code < 200 || code == 204 || code == 304 => (BodyFraming::None, true),
        // What the length would be is known to the server only.
        _ if head_only => (declared.map_or(BodyFraming::None, BodyFraming::Length), true),
        Some(length) => (BodyFraming::Length(length), false),
        None if !packet.more => (BodyFraming::Length(packet.body.len() as u64), false),
        None if version == Version::Http11 => (BodyFraming::Chunked, false),
        None => (BodyFraming::UntilClose, false),
    })
}
