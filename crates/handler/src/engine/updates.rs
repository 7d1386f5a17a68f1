// SPDX-License-Identifier: AGPL-3.0-or-later
//! Backends are asked again: streams fetch their next link, long-polls go back to the proxy (GRIP, updates).

use std::time::{Duration, Instant};

use grip::HoldMode;
use settings::FirstSubscription;
use zhttp::{Ids, Kind as PacketKind, Packet};

use super::Engine;
use crate::cohort::schedule::Update;
use crate::cohort::{Tracked, Urgency};
use crate::context::{Context, GivenBack};
use crate::deliver::fanout::Hinted;
use crate::hold::Kind;
use crate::hold::response::Offered;
use crate::notice::Notice;
use crate::subscribe::channels::{CohortKey, HoldKey};
use crate::take_over::admission::{Prepared, Subscription};
use crate::take_over::asked;

/// After this time a publisher has heard that a channel has a subscriber.
const SUBSCRIPTION: Duration = Duration::from_secs(1);
/// Long-polls of a cohort that go back at a time.
const BATCH: usize = 100;

impl Engine {
    /// Asks the backend of a cohort again, in its turn or now. With a gap it takes no message before that.
    pub(super) fn wish(&mut self, key: CohortKey, urgency: Urgency, gap: bool, cx: &mut Context<'_>) {
        let Some(cohort) = self.audience.cohorts.get_mut(key) else { return };
        match cohort.wish(urgency, gap) {
            None => {}
            Some(Urgency::High) => self.update(key, cx),
            Some(Urgency::Low) => {
                let link = cohort.like.link.as_ref().map_or("", |link| &link.uri);
                self.schedule.add(link, Update::Cohort(key, cohort.serial), cx.now);
            }
        }
    }

    fn update(&mut self, key: CohortKey, cx: &mut Context<'_>) {
        let Some(cohort) = self.audience.cohorts.get_mut(key) else { return };
        if self.fanout.inquiries.has_any_for(key) {
            // The position, with which the backend is asked, is after what waits for answers to filters: that comes first.
            cohort.take_no_more();
            self.schedule.add("", Update::Cohort(key, cohort.serial), cx.now);
            return;
        }
        if cohort.like.mode == HoldMode::Stream {
            return self.fetch_page(key, cx);
        }
        let serial = cohort.serial;
        self.audience.cohorts.send_back(key);
        let Some(cohort) = self.audience.cohorts.get(key) else { return };
        let waits = |&&member: &&HoldKey| matches!(&self.audience.holds[member].kind, Kind::Response(poll) if poll.offered.is_none());
        let members: Vec<HoldKey> = cohort.members.iter().filter(waits).take(BATCH + 1).copied().collect();
        if members.len() > BATCH {
            self.schedule.add("", Update::Cohort(key, serial), cx.now);
        }
        members.into_iter().take(BATCH).for_each(|member| self.offer(member, cx));
    }

    /// Does what the schedule says.
    pub(super) fn on_update_timers(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        if let Some(before) = now.checked_sub(SUBSCRIPTION) {
            for channel in self.audience.fresh_until(before) {
                self.on_first_subscription(&channel, cx);
            }
        }
        for update in self.schedule.take(now) {
            match update {
                Update::Cohort(key, serial) => {
                    let waits = self.audience.cohorts.get(key).is_some_and(|c| c.serial == serial && c.is_waiting());
                    if waits {
                        self.update(key, cx);
                    }
                }
                Update::Poll(key, birth) => {
                    if self.audience.holds.is_there(key, birth) {
                        self.offer(key, cx);
                    }
                }
            }
        }
    }

    /// When that is.
    pub(super) fn next_update(&self) -> Option<Instant> {
        let fresh = self.audience.fresh_since().map(|since| since + SUBSCRIPTION);
        [fresh, self.schedule.next_due()].into_iter().flatten().min()
    }

    /// Publishers who wait for subscriptions have now heard of this one. What they published before was missed.
    fn on_first_subscription(&mut self, channel: &str, cx: &mut Context<'_>) {
        let mode = self.update_on_first_subscription;
        if mode == FirstSubscription::Never {
            return;
        }
        let Some(channel) = self.audience.channels.find(channel) else { return };
        let groups = self.audience.channels.channel(channel).groups.clone();
        let cohorts = groups.iter().filter_map(|&group| self.audience.channels.group_at(group).kin.cohort);
        for cohort in cohorts.collect::<Vec<_>>() {
            self.wish(cohort, Urgency::Low, false, cx);
        }
        if mode == FirstSubscription::Always {
            for &group in &groups {
                let group = self.audience.channels.group_at(group);
                let polls = if group.kin.cohort.is_none() { group.polls.to_vec() } else { Vec::new() };
                polls.into_iter().for_each(|poll| self.plan(poll, cx));
            }
        }
    }

    /// Gives a long-poll that is in no cohort back to the proxy when it is its turn.
    fn plan(&mut self, key: HoldKey, cx: &mut Context<'_>) {
        let hold = &mut self.audience.holds[key];
        if let Kind::Response(poll) = &mut hold.kind
            && !poll.planned
            && poll.offered.is_none()
        {
            poll.planned = true;
            self.schedule.add("", Update::Poll(key, hold.birth), cx.now);
        }
    }

    /// Forgets what was published, so that no item waits for one that came before, and has all backends asked again.
    pub fn recover(&mut self, cx: &mut Context<'_>) {
        self.sequencer.forget_last_ids();
        for key in self.audience.cohorts.keys() {
            self.wish(key, Urgency::Low, false, cx);
        }
        let alone = self.audience.holds.iter_keys().filter(|(_, hold)| hold.membership.is_none());
        let alone: Vec<HoldKey> = alone.map(|(key, _)| key).collect();
        alone.into_iter().for_each(|key| self.plan(key, cx));
    }

    /// What publishing has led to: cohorts that have missed something, and holds whose backends are to be asked.
    pub(super) fn follow_up(&mut self, cx: &mut Context<'_>) {
        for (key, _) in self.fanout.take_gaps() {
            if let Some(cohort) = self.audience.cohorts.get_mut(key) {
                cohort.forget_kept();
            }
            self.wish(key, Urgency::Low, true, cx);
        }
        for hinted in self.fanout.take_hinted() {
            match hinted {
                Hinted::Cohort(key) => self.wish(key, Urgency::High, false, cx),
                Hinted::Poll(key, birth) if self.audience.holds.is_there(key, birth) => self.offer(key, cx),
                Hinted::Poll(..) => {}
            }
        }
        let inquiries = &self.fanout.inquiries;
        let moves = self.audience.cohorts.take_alike(|cohort| inquiries.has_any_for(cohort));
        if !moves.is_empty() {
            // Streams move to other lists, where what was published before must not be missed.
            self.fanout.flush(&mut self.audience, cx);
        }
        for (members, cohort) in moves {
            for member in members {
                let channels = self.channels_of(member);
                self.audience.enlist(member, cohort);
                self.audience.resubscribe(member, &channels, cx);
            }
        }
    }

    fn channels_of(&self, key: HoldKey) -> Vec<Subscription> {
        let places = &self.audience.holds[key].places;
        let groups = places.iter().map(|place| self.audience.channels.group_at(place.group));
        let channel = |name: u32| self.audience.channels.channel(name).name.to_string();
        groups.map(|group| (channel(group.channel), group.kin.class.clone())).collect()
    }

    /// Asks the frontend of a long-poll to pause it, so that it can be given back. One that is being answered is left alone.
    fn offer(&mut self, key: HoldKey, cx: &mut Context<'_>) {
        let Some(hold) = self.audience.holds.get_mut(key) else { return };
        let Kind::Response(poll) = &mut hold.kind else { return };
        if hold.ending || poll.offered.is_some() || poll.asked.is_empty() {
            return;
        }
        poll.ends_at = None;
        let cohort = hold.membership.and_then(|membership| self.audience.cohorts.get(membership.cohort));
        let ids = cohort.into_iter().flat_map(|cohort| cohort.last_ids());
        let last_ids = ids.map(|(name, id)| (name.to_string(), id.to_string())).collect();
        poll.offered = Some(Box::new(Offered { last_ids, round: self.rounds.at(cx.now) }));
        let (to, id, seq) = (hold.address(), hold.session.id(), hold.session.offer().seq);
        let ids = Ids::One(id.as_bytes(), Some(seq));
        self.audience.links.send(to, &Packet { ids, kind: PacketKind::HandoffStart, ..Packet::default() }, cx);
    }

    /// The frontend has paused a long-poll: it goes back to the proxy, which sends its request to the backend anew.
    pub(super) fn give_back(&mut self, key: HoldKey, cx: &mut Context<'_>) {
        let Some(membership) = self.audience.holds.get(key).map(|hold| hold.membership) else { return };
        let cohort = membership.and_then(|membership| self.audience.cohorts.get(membership.cohort));
        let known = self.last_known(cohort.map_or(&[], |cohort| &cohort.like.position));
        let hold = &mut self.audience.holds[key];
        let session = hold.session.hand_over();
        let Kind::Response(poll) = &hold.kind else { return };
        let Some(offered) = &poll.offered else { return };
        let Offered { last_ids, round } = &**offered;
        let given = GivenBack { session: &session, asked: &poll.asked, last_ids, known: &known, round: *round };
        let taken = cx.actions.give_back(&given);
        self.totals.given_back += u64::from(taken);
        if taken && poll.is_taken_up {
            self.returned.add(&session, cx.now);
        }
        if taken {
            return self.audience.remove_given_back(key, cx);
        }
        cx.report(Notice::NotGivenBack { polls: 1 });
        self.audience.links.cancel(hold.address(), session.id, session.out_seq, cx);
        self.audience.remove(key, cx);
    }

    /// The ids of the last items of channels that are tracked, as far as they are known.
    fn last_known(&self, position: &[Tracked]) -> Vec<(String, String)> {
        let tracked = position.iter().filter(|tracked| tracked.prev_id.is_some());
        tracked.filter_map(|t| Some((t.name().to_string(), self.sequencer.last_id(&t.channel)?.to_string()))).collect()
    }

    /// Whether a channel's last message is another than the one that new holds have: they have missed some. But a backend
    /// that was asked after that message was known, and still has nothing newer, is believed.
    pub(super) fn has_missed(&mut self, prepared: &Prepared) -> bool {
        let Some(course) = &prepared.course else { return false };
        let mut missed = false;
        for tracked in &course.like.position {
            let Some(prev_id) = &tracked.prev_id else { continue };
            let Some(last) = self.sequencer.last_id(&tracked.channel).filter(|last| last != prev_id) else { continue };
            let known = prepared.asked.iter().flat_map(|kept| asked::known(kept));
            if known.into_iter().any(|(name, id)| name == tracked.name() && id == last) {
                self.sequencer.forget_last_id(&tracked.channel);
            } else {
                missed = true;
            }
        }
        missed
    }

    /// Long-polls that have missed something while they were handed over go back at once.
    pub(super) fn give_back_at_once(&mut self, prepared: &Prepared, cx: &mut Context<'_>) {
        let position = prepared.course.iter().flat_map(|course| &course.like.position);
        let last_ids: Vec<(String, String)> =
            position.filter_map(|t| Some((t.name().to_string(), t.prev_id.clone()?))).collect();
        let known = self.last_known(prepared.course.as_ref().map_or(&[], |course| &course.like.position));
        let round = self.rounds.at(cx.now);
        for (request, asked) in prepared.requests.iter().zip(&prepared.asked) {
            let given = GivenBack { session: &request.state, asked, last_ids: &last_ids, known: &known, round };
            let taken = cx.actions.give_back(&given);
            self.totals.given_back += u64::from(taken);
            if !taken {
                cx.report(Notice::NotGivenBack { polls: 1 });
                let to = crate::context::Address { peer: request.state.client, by_router: request.state.by_router };
                self.audience.links.cancel(to, request.state.id, request.state.out_seq, cx);
            }
        }
    }
}
