// SPDX-License-Identifier: AGPL-3.0-or-later
//! One request with WebSocket events: its session with an outbound process, and its answer as it comes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use zhttp::session::Protocol;
use zhttp::session::client::{Outcome, Session};
use zhttp::{Headers, INITIAL_BODY, Packet, PeerId};

/// A request under way.
#[derive(Debug)]
pub struct Asking {
    /// The number in the session's id.
    pub serial: u64,
    /// The session.
    pub session: Session,
    /// When an outbound process must have taken the request.
    pub taken_by: Instant,
    /// When the answer must be there.
    pub answer_by: Instant,
    /// What is left of the request's body. It follows the head once an outbound process has taken that, so that a request
    /// which nobody took can be repeated.
    unsent: Bytes,
    /// All of the body has left.
    handed_over: bool,
    head: Option<Head>,
    content: Vec<u8>,
    /// Bytes that the content may have.
    most: usize,
}

/// What bounds a request.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long it may take until an outbound process has it.
    pub taken_within: Duration,
    /// How long the backend has for its whole answer.
    pub answered_within: Duration,
    /// Bytes that the answer may have.
    pub answer: usize,
}

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    /// Status.
    pub code: u16,
    /// Its text.
    pub reason: Vec<u8>,
    /// Names and values.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is to be done after a packet.
#[derive(Debug)]
pub enum Step {
    /// Body may have to be sent, and so many bytes of the answer have been taken in.
    Going(usize),
    /// The answer is there.
    Answered(Head, Bytes),
    /// The packet says that there will be none.
    Ended,
}

impl Asking {
    /// A request that is sent now.
    pub fn start(serial: u64, body: Bytes, bounds: Bounds, now: Instant) -> Self {
        Asking {
            serial,
            session: Session::start(Protocol::Http, INITIAL_BODY as u32, now),
            taken_by: now + bounds.taken_within,
            answer_by: now + bounds.answered_within,
            handed_over: body.is_empty(),
            unsent: body,
            head: None,
            content: Vec::new(),
            most: bounds.answer,
        }
    }

    /// The backend may have acted on the request.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    /// When there is something to do.
    pub fn next_due(&self) -> Instant {
        let due = self.session.next_due().min(self.answer_by);
        let due = self.session.grant_due().map_or(due, |grant| due.min(grant));
        if self.session.is_answered() { due } else { due.min(self.taken_by) }
    }

    /// Takes in a packet.
    ///
    /// # Errors
    /// The outbound process or the backend broke the rules, as the text says.
    pub fn on_packet(
        &mut self,
        packet: &Packet<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        now: Instant,
    ) -> Result<Step, String> {
        match self.session.on_packet(packet, from, seq, now).map_err(|violation| violation.to_string())? {
            Outcome::Alive => Ok(Step::Going(0)),
            Outcome::Data => {
                let head = match self.head.take() {
                    Some(head) => head,
                    None => Head::read(packet)?,
                };
                if self.content.len() + packet.body.len() > self.most {
                    return Err(format!("the answer has more than {} bytes (backend_max_message_size)", self.most));
                }
                self.content.extend_from_slice(packet.body);
                if packet.more {
                    self.head = Some(head);
                    return Ok(Step::Going(packet.body.len()));
                }
                Ok(Step::Answered(head, std::mem::take(&mut self.content).into()))
            }
            Outcome::Ended => Ok(Step::Ended),
            Outcome::Control | Outcome::HandOff(_) => Err("a packet that is none of a response".into()),
        }
    }

    /// The next piece of the body that may leave, and whether more follows.
    pub fn next_piece(&mut self) -> Option<(Bytes, bool)> {
        let credits = self.session.credits() as usize;
        if self.handed_over || credits == 0 {
            return None;
        }
        let piece = self.unsent.split_to(credits.min(self.unsent.len()));
        self.handed_over = self.unsent.is_empty();
        Some((piece, !self.handed_over))
    }
}

impl Head {
    fn read(packet: &Packet<'_>) -> Result<Self, String> {
        let code = packet.code.ok_or("a response without a status")?;
        let headers = packet.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        Ok(Head { code, reason: packet.reason.unwrap_or_default().to_vec(), headers })
    }

    /// As names and values for a packet.
    pub fn pairs(&self) -> Vec<(&[u8], &[u8])> {
        self.headers.iter().map(|(name, value)| (&name[..], &value[..])).collect()
    }

    /// Reads what it says about the conversation.
    pub fn answer(&self) -> super::Answer {
        super::Answer::read(self.code, Headers::Pairs(&self.pairs()))
    }
}
