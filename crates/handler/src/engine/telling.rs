// SPDX-License-Identifier: AGPL-3.0-or-later
//! What statistics are made of.

use zhttp::{Id, PeerId};

use super::Engine;
use crate::statistics::Counters;
use crate::statistics::notes::Notes;
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::{Channels, Mode};
use crate::subscribe::counts::Counts;
use crate::subscribe::presence::{Asked, Users};

impl Engine {
    /// Whether notes are taken for statistics.
    pub fn takes_notes(&self) -> bool {
        self.audience.notes.is_some()
    }

    /// Takes notes from now on, beginning with all who are there, or no more.
    pub fn take_notes_for_statistics(&mut self, take: bool) {
        self.audience.notes = take.then(|| {
            let names = self.audience.channels.names();
            let modes = [Mode::Response, Mode::Stream, Mode::Socket];
            let changed = names.flat_map(|name| modes.map(|mode| (mode, name.into()))).collect();
            Box::new(Notes { changed, ..Notes::default() })
        });
    }

    /// The sessions of all who are held.
    pub fn held_sessions(&self) -> impl Iterator<Item = (PeerId, Id)> {
        self.audience.holds.iter().map(|hold| (hold.session.client(), hold.session.id()))
    }

    /// What has been noted since the last call; none if no notes are taken.
    pub fn notes(&mut self) -> Option<Notes> {
        self.audience.notes.as_deref_mut().map(std::mem::take)
    }

    /// Who is held, and for which channels.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Who is subscribed to what.
    pub fn channels(&self) -> &Channels {
        &self.audience.channels
    }

    /// How many are subscribed to a channel, and which users, if they are asked for; nothing if it is not known.
    pub fn subscribers(&self, channel: &str, users: Option<&Asked>) -> Option<(Counts, Option<Users>)> {
        let key = self.audience.channels.find(channel)?;
        Some((self.audience.channels.counts(key), users.map(|asked| self.audience.users(key, asked))))
    }

    /// What has been counted so far.
    pub fn counters(&self) -> Counters {
        let totals = self.fanout.totals;
        Counters {
            received: totals.received,
            sent: totals.sent,
            responses_sent: totals.responses_sent,
            blocks_received: totals.blocks_received,
            blocks_sent: totals.blocks_sent,
            header_bytes_sent: self.audience.links.header_bytes,
            content_bytes_sent: self.audience.links.content_bytes,
            holds: self.held(),
        }
    }
}
