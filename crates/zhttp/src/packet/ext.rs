// SPDX-License-Identifier: AGPL-3.0-or-later
//! `ext`: what peers of some kinds tell each other besides. Others skip it.
//!
//! Two of the keys are the originals' (`multi`, `quiet`), the others are ours. Keys that are not known are skipped, so
//! a newer peer may say more. A key whose meaning changes gets another name, or raises [`Ext::VERSION`]: ours are
//! then skipped by everyone who knows only the former meaning.

use tnetstring::{Item, Writer};

use super::field::{DecodeError, flag, number};

/// The field `ext`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ext<'a> {
    /// The sender takes packets for several sessions.
    pub multi: bool,
    /// The request is of no interest to people; it is logged at debug level (first).
    pub quiet: bool,
    /// The sender lets anybody answer as long as it has not heard from whom it asked, so that a request can be handed
    /// over without telling it (ours) (first, from a frontend).
    pub adopt: bool,
    /// The sender takes interim responses (1xx) before the response: keep-alives with a status and headers (ours) (first).
    pub interim: bool,
    /// The sender passes bodies on as the backend has packed them, and `Content-Encoding` with them; from others it is taken off
    /// before. Of a WebSocket it takes frames in any pieces, where others get short ones whole (ours) (first, to outbound).
    pub coded: bool,
    /// The sender takes a second server for the session, which pushes (ours) (first, from a frontend).
    pub lanes: bool,
    /// Which of a session's servers the packet is of or for, if there are two (ours). 0 is the first and not written.
    pub lane: u8,
    /// What the second server sends from here on comes after so many packets of the first (ours).
    pub after: u32,
    /// What the client's side is to keep for the server, so that a successor can go on with the session (ours).
    pub keep: Option<Record<'a>>,
    /// Which messages the packet brings, so that the client's side knows what each of its sessions has (ours).
    pub run: Option<Run<'a>>,
    /// Something for the session waits with its server, which would be lost with that: until the next [`Ext::run`] (ours).
    pub lag: bool,
    /// Packets of the client before this number are of no use to a successor of the server; 0: nothing is said (ours).
    pub ack: u32,
    /// A frontend and an outbound process can be told where a WebSocket stands if the proxy between them ends ([`crate::retained`]). In
    /// front of this position, the other end's packets have come at the sender; 0 at the beginning also says that the sender counts
    /// them (ours).
    pub had: Option<u64>,
    /// With this packet, or without anything of the backend that comes before it, the client's side has all of the backend's in front
    /// of this position (ours) (to a frontend).
    pub at: Option<u64>,
    /// Which closes need not be repeated in a session that is claimed: 1 the backend's, 2 the client's (ours) (from an outbound process).
    pub closed: u8,
    /// By this name a successor of the sender may claim the session; with [`Ext::had`], it does (ours) (first, to an outbound process).
    pub name: Option<&'a [u8]>,
    /// The sender is a proxy, and whoever has sent the request may send it to another one if this one ends before it has begun
    /// to answer (ours) (first, to a frontend).
    pub replay: bool,
}

/// A step of a fan-out: what was published in one turn. A session gets all that it gets of it in one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// Counts up, with every successor of a server too.
    pub number: u64,
    /// Channels and ids of the messages that have one, by turns, each a tnetstring ([`Run::push`]).
    pub items: &'a [u8],
}

impl<'a> Run<'a> {
    /// Appends a message to what becomes [`Run::items`].
    pub fn push(items: &mut Vec<u8>, channel: &str, id: &str) {
        for text in [channel, id] {
            items.extend_from_slice(text.len().to_string().as_bytes());
            items.push(b':');
            items.extend_from_slice(text.as_bytes());
            items.push(b',');
        }
    }

    /// Channels and ids. What can not be read ends them.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.items;
        let mut next = move || {
            let (item, after) = tnetstring::split(rest).ok()?;
            rest = after;
            item.as_bytes().ok()
        };
        std::iter::from_fn(move || Some((next()?, next()?)))
    }
}

/// What one server wants to leave to its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The place in the suite that the server has, whichever process has it now (`h0`, `p0`).
    pub owner: &'a [u8],
    /// The contents, which only the owner understands. They begin with a version of their own.
    pub content: &'a [u8],
}

impl<'a> Ext<'a> {
    /// Of the keys that are ours. Written beside those that mean something to another version.
    pub const VERSION: u8 = 1;

    /// Nothing.
    const NONE: Ext<'static> = Ext {
        multi: false,
        quiet: false,
        adopt: false,
        interim: false,
        coded: false,
        lanes: false,
        lane: 0,
        after: 0,
        keep: None,
        run: None,
        lag: false,
        ack: 0,
        had: None,
        at: None,
        closed: 0,
        name: None,
        replay: false,
    };

    /// Nothing but [`Ext::multi`], which stands in most packets.
    pub const MULTI: Ext<'static> = Ext { multi: true, ..Ext::NONE };
    /// What the first packet of a proxy has.
    const OF_A_PROXY: Ext<'static> = Ext { interim: true, coded: true, ..Ext::MULTI };
    /// What the first packet of a frontend has.
    const OF_A_FRONTEND: Ext<'static> = Ext { interim: true, adopt: true, ..Ext::MULTI };

    /// Reads the field. A record or lane of a version that is not known is skipped as an unknown key is.
    pub(super) fn decode(value: Item<'a>) -> Result<Self, DecodeError> {
        let mut ext = Ext::default();
        let mut version = 0;
        for entry in value.entries().map_err(|_| DecodeError::Field("ext"))? {
            match entry? {
                (b"multi", value) => ext.multi = flag(value, "ext")?,
                (b"quiet", value) => ext.quiet = flag(value, "ext")?,
                (b"adopt", value) => ext.adopt = flag(value, "ext")?,
                (b"interim", value) => ext.interim = flag(value, "ext")?,
                (b"coded", value) => ext.coded = flag(value, "ext").unwrap_or(false),
                (b"lanes", value) => ext.lanes = flag(value, "ext").unwrap_or(false),
                // Another version may write these in another way.
                (b"lane", value) => ext.lane = number(value, "ext").unwrap_or(0),
                (b"after", value) => ext.after = number(value, "ext").unwrap_or(0),
                (b"keep", value) => ext.keep = record(value),
                (b"run", value) => ext.run = run(value),
                (b"lag", value) => ext.lag = flag(value, "ext").unwrap_or(false),
                (b"ack", value) => ext.ack = number(value, "ext").unwrap_or(0),
                (b"had", value) => ext.had = number(value, "ext").ok(),
                (b"at", value) => ext.at = number(value, "ext").ok(),
                (b"closed", value) => ext.closed = number(value, "ext").unwrap_or(0),
                (b"name", value) => ext.name = value.as_bytes().ok(),
                (b"replay", value) => ext.replay = flag(value, "ext").unwrap_or(false),
                (b"v", value) => version = number(value, "ext").unwrap_or(u32::MAX),
                _ => {}
            }
        }
        if version > u32::from(Self::VERSION) {
            let Ext { multi, quiet, adopt, interim, coded, .. } = ext;
            ext = Ext { multi, quiet, adopt, interim, coded, ..Ext::default() };
        }
        Ok(ext)
    }

    /// Writes the field, unless it is empty.
    pub(super) fn encode(self, out: &mut Writer) {
        match self {
            Ext::NONE => {}
            // What all but a few packets have, as it stands.
            Ext::MULTI => out.raw(b"3:ext,15:5:multi,4:true!}"),
            Ext::OF_A_PROXY => out.raw(b"3:ext,47:5:multi,4:true!7:interim,4:true!5:coded,4:true!}"),
            Ext::OF_A_FRONTEND => out.raw(b"3:ext,47:5:multi,4:true!7:interim,4:true!5:adopt,4:true!}"),
            _ => self.encode_all(out),
        }
    }

    fn encode_all(self, out: &mut Writer) {
        let map = out.mark();
        if let Some(record) = self.keep {
            let keep = out.mark();
            out.bytes(record.content);
            out.bytes(b"r");
            out.bytes(record.owner);
            out.bytes(b"o");
            out.map(keep);
            out.bytes(b"keep");
        }
        if self.after > 0 {
            out.int(i64::from(self.after));
            out.bytes(b"after");
        }
        if let Some(run) = self.run {
            let list = out.mark();
            out.raw(run.items);
            out.int(i64::try_from(run.number).unwrap_or(i64::MAX));
            out.list(list);
            out.bytes(b"run");
        }
        if self.lag {
            out.bool(true);
            out.bytes(b"lag");
        }
        if self.ack > 0 {
            out.int(i64::from(self.ack));
            out.bytes(b"ack");
        }
        for (position, key) in [(self.had, "had"), (self.at, "at")] {
            if let Some(position) = position {
                out.int(i64::try_from(position).unwrap_or(i64::MAX));
                out.bytes(key.as_bytes());
            }
        }
        if self.closed > 0 {
            out.int(i64::from(self.closed));
            out.bytes(b"closed");
        }
        if let Some(name) = self.name {
            out.bytes(name);
            out.bytes(b"name");
        }
        if self.replay {
            out.bool(true);
            out.bytes(b"replay");
        }
        if self.lane > 0 {
            out.int(i64::from(self.lane));
            out.bytes(b"lane");
        }
        if self.lanes {
            out.bool(true);
            out.bytes(b"lanes");
        }
        let ours = self.lanes || self.keep.is_some() || self.run.is_some() || self.lag || self.replay;
        let counts = self.had.is_some() || self.at.is_some() || self.closed > 0 || self.name.is_some();
        if ours || counts || self.lane > 0 || self.after > 0 || self.ack > 0 {
            out.int(i64::from(Self::VERSION));
            out.bytes(b"v");
        }
        for (set, key) in [
            (self.coded, "coded"),
            (self.adopt, "adopt"),
            (self.interim, "interim"),
            (self.quiet, "quiet"),
            (self.multi, "multi"),
        ] {
            if set {
                out.bool(true);
                out.bytes(key.as_bytes());
            }
        }
        out.map(map);
        out.bytes(b"ext");
    }
}

/// A record without an owner or without contents is of no use and skipped.
fn record(value: Item<'_>) -> Option<Record<'_>> {
    let (mut owner, mut content) = (None, None);
    for entry in value.entries().ok()? {
        match entry.ok()? {
            (b"o", value) => owner = value.as_bytes().ok(),
            (b"r", value) => content = value.as_bytes().ok(),
            _ => {}
        }
    }
    Some(Record { owner: owner?, content: content? })
}

/// One that is not as it must be is skipped too.
fn run(value: Item<'_>) -> Option<Run<'_>> {
    value.items().ok()?;
    let (number, items) = tnetstring::split(value.payload).ok()?;
    Some(Run { number: u64::try_from(number.as_int().ok()?).ok()?, items })
}
