// SPDX-License-Identifier: AGPL-3.0-or-later
//! Next links: pages are fetched for streams, and what they say is done (GRIP, link fetch).

use bytes::Bytes;
use grip::filter::{self, Filter};
use grip::instruct::BackendResponse;
use grip::{HoldMode, Instruct};
use rpc::passthrough::Passthrough;
use zhttp::{Packet, PeerId};

use super::Engine;
use crate::cohort::page::{HoldAfter, Page};
use crate::cohort::{Likeness, Link, State, Urgency};
use crate::context::Context;
use crate::fetch::{Ask, News, Purpose, What};
use crate::hold::Kind;
use crate::notice::Notice;
use crate::subscribe::channels::{CohortKey, HoldKey};
use crate::subscribe::classes::filters_of;
use crate::take_over::admission::{self, Refusal};
use crate::take_over::record;

/// Bytes of a page that filters change, so that it must be there as a whole.
const MAX_COLLECTED: usize = 1_000_000;

/// Why streams end instead of going on. Clients see the text if they may.
#[derive(Debug, thiserror::Error)]
enum PageError {
    #[error(transparent)]
    Instruct(#[from] grip::instruct::InstructError),
    #[error("Next link returned non-stream hold.")]
    NoStream,
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("filter error: {0}")]
    Filter(#[from] filter::FilterError),
    #[error("the page is larger than {MAX_COLLECTED} bytes, which is too much for the filter build-id")]
    TooLarge,
    #[error("channel '{0}' specifies prev-id, but no next link found")]
    NoLink(String),
    #[error("Failed to retrieve next link.")]
    Unreachable,
}

impl Engine {
    /// Fetches the next page of a cohort.
    pub(super) fn fetch_page(&mut self, key: CohortKey, cx: &mut Context<'_>) {
        let Some(cohort) = self.audience.cohorts.get_mut(key) else { return };
        let Some(Link { uri, .. }) = cohort.like.link.clone() else { return };
        let site = &cohort.like.site;
        let passthrough = Passthrough {
            route: &site.route,
            prefer_internal: grip::link::same_site(&site.root, &uri),
            trusted: site.trusted,
            // A cohort has one request for all of its holds. Who else has asked before does not know what has led to this one.
            auto_share: false,
        };
        let passthrough = passthrough.encode();
        let purpose = Purpose::Page(key);
        let ask = Ask { grip_last: cohort.grip_last(), ..Ask::new(purpose, uri.clone(), passthrough) };
        cohort.page = Some(Box::new(Page { uri, ..Page::default() }));
        let fetch = self.fetches.ask(ask, cx);
        self.audience.cohorts.start_fetch(key, fetch);
    }

    /// A packet has come from a proxy for one or more of our own requests.
    pub fn on_proxy_packet(&mut self, from: Option<PeerId>, packet: &Packet<'_>, cx: &mut Context<'_>) {
        for id in packet.ids.iter() {
            let Ok((id, seq)) = id else { continue };
            if let Some(news) = self.fetches.on_packet(from, id, seq, packet, cx) {
                self.on_news(news, packet, cx);
            }
        }
        self.fetches.settle(cx);
        self.fanout.sender.flush(&mut self.audience, cx);
        self.settle(cx);
    }

    /// A proxy is gone, and with it our requests that it had.
    pub fn on_proxy_gone(&mut self, peer: PeerId, cx: &mut Context<'_>) {
        for news in self.fetches.on_proxy_gone(peer, cx) {
            self.on_news(news, &Packet::default(), cx);
        }
        self.settle(cx);
    }

    pub(super) fn on_news(&mut self, news: News, packet: &Packet<'_>, cx: &mut Context<'_>) {
        let key = match news.purpose {
            Purpose::Page(key) => key,
            Purpose::Filter(number) => return self.on_filter_news(number, news, packet, cx),
            Purpose::Gone => {
                // Nobody wants to know.
                return self.fetches.pass_on(news.key, packet.body.len(), cx);
            }
        };
        if self.audience.cohorts.get(key).is_none_or(|cohort| cohort.fetch != Some(news.key)) {
            return;
        }
        match news.what {
            What::Failed => self.page_failed(key, "no response, or not all of it", cx),
            What::Response => self.page_data(key, packet, cx),
        }
    }

    /// A piece of a page.
    fn page_data(&mut self, key: CohortKey, packet: &Packet<'_>, cx: &mut Context<'_>) {
        let Some(page) = self.audience.cohorts.get_mut(key).and_then(|cohort| cohort.page.as_mut()) else { return };
        if page.code.is_none() {
            let code = packet.code.unwrap_or_default();
            page.code = Some(code);
            if !(200..300).contains(&code) {
                return self.page_failed(key, &format!("the response has the status {code}"), cx);
            }
            if let Err(error) = self.page_begins(key, packet, cx) {
                return self.end_streams(key, &error, cx);
            }
        }
        if let Err(error) = self.page_body(key, packet.body, cx) {
            return self.end_streams(key, &error, cx);
        }
        if !packet.more
            && let Err(error) = self.page_ends(key, cx)
        {
            self.end_streams(key, &error, cx);
        }
    }

    /// The head of a page: what it says is noted, and done when all of it has come.
    fn page_begins(&mut self, key: CohortKey, packet: &Packet<'_>, cx: &mut Context<'_>) -> Result<(), PageError> {
        let headers: Vec<(&[u8], &[u8])> = packet.headers.iter().collect();
        let response = BackendResponse {
            code: packet.code.unwrap_or_default(),
            reason: packet.reason.unwrap_or_default(),
            headers: &headers,
            body: b"",
        };
        let instruct = Instruct::read(response)?;
        if instruct.hold == Some(HoldMode::Response) {
            return Err(PageError::NoStream);
        }
        let Some(cohort) = self.audience.cohorts.get_mut(key) else { return Ok(()) };
        let site = cohort.like.site.clone();
        let Some(page) = &mut cohort.page else { return Ok(()) };
        let next = instruct.next.as_ref();
        page.next = next.map(|next| admission::link(&page.uri, next)).transpose()?;
        for channel in &instruct.channels {
            page.filters.extend(filters_of(channel));
        }
        page.collected = page.filters.contains(&Filter::BuildId).then(Vec::new);
        page.meta = instruct.meta.clone();
        if instruct.hold.is_some() {
            let hold = self.admission.after_page(&site, &instruct, &page.uri, cx)?;
            let keeps = self.admission.keeps_records() && !page.filters.iter().any(|filter| filter.asks());
            let record = keeps.then(|| record::after_page(&site, &page.uri, &response)).flatten();
            page.hold = Some(HoldAfter { record, ..hold });
        }
        Ok(())
    }

    fn page_body(&mut self, key: CohortKey, body: &[u8], cx: &mut Context<'_>) -> Result<(), PageError> {
        let Some(cohort) = self.audience.cohorts.get_mut(key) else { return Ok(()) };
        let Some(page) = cohort.page.as_mut().filter(|_| !body.is_empty()) else { return Ok(()) };
        let Some(collected) = &mut page.collected else {
            page.owed += body.len();
            self.write_page(key, Bytes::copy_from_slice(body), cx);
            self.pace(key, cx);
            return Ok(());
        };
        if collected.len() + body.len() > MAX_COLLECTED {
            return Err(PageError::TooLarge);
        }
        collected.extend_from_slice(body);
        if let Some(fetch) = cohort.fetch {
            self.fetches.pass_on(fetch, body.len(), cx);
        }
        Ok(())
    }

    /// Gives a piece of a page to all streams of a cohort, in common packets.
    fn write_page(&mut self, key: CohortKey, body: Bytes, cx: &mut Context<'_>) {
        // What was published before comes first.
        self.fanout.flush(&mut self.audience, cx);
        let Some(cohort) = self.audience.cohorts.get(key) else { return };
        // What a successor would know is no longer so: it can not go on in the middle of a page.
        self.keep(&cohort.members.clone(), b"", cx);
        let Some(cohort) = self.audience.cohorts.get_mut(key) else { return };
        let members = std::mem::take(&mut cohort.members);
        if let Some(page) = &mut cohort.page {
            page.bytes += body.len();
        }
        let (holds, links) = (&mut self.audience.holds, &mut self.audience.links);
        for &member in &members {
            if let Kind::Stream(stream) = &mut holds[member].kind {
                stream.be_silent();
            }
            self.fanout.sender.give(member, &body, holds, links, cx);
        }
        self.fanout.sender.finish(&body, holds, links, cx);
        if let Some(cohort) = self.audience.cohorts.get_mut(key) {
            cohort.members = members;
        }
    }

    /// Lets the backend go on if a client has taken all. The others have their own queues, and limits.
    pub(super) fn pace(&mut self, key: CohortKey, cx: &mut Context<'_>) {
        let Some(cohort) = self.audience.cohorts.get_mut(key) else { return };
        let has_room = |&member: &HoldKey| self.audience.holds[member].queue().is_none();
        if !cohort.members.iter().any(has_room) {
            return;
        }
        if cohort.state == State::Turning {
            return self.fetch_page(key, cx);
        }
        let owed = cohort.page.as_mut().map_or(0, |page| std::mem::take(&mut page.owed));
        if let Some(fetch) = cohort.fetch.filter(|_| owed > 0) {
            self.fetches.pass_on(fetch, owed, cx);
        }
    }

    fn page_ends(&mut self, key: CohortKey, cx: &mut Context<'_>) -> Result<(), PageError> {
        let Some(cohort) = self.audience.cohorts.get_mut(key) else { return Ok(()) };
        cohort.fetch = None;
        let Some(page) = &mut cohort.page else { return Ok(()) };
        if let Some(collected) = page.collected.take() {
            let body = filter::response(&page.filters, &page.meta, &collected)?.into_owned();
            self.write_page(key, body.into(), cx);
        }
        let Some(cohort) = self.audience.cohorts.get_mut(key) else { return Ok(()) };
        let Some(page) = cohort.page.take() else { return Ok(()) };
        let (code, streams) = (page.code.unwrap_or_default(), cohort.members.len());
        cx.report(Notice::Fetched { uri: &page.uri, code, bytes: page.bytes, streams });
        match (page.hold, page.next) {
            (Some(hold), next) => self.hold_after(key, hold, next, cx),
            (None, Some(next)) => {
                (cohort.like.link, cohort.state) = (Some(next), State::Turning);
                cohort.succeeded();
                self.pace(key, cx);
                Ok(())
            }
            (None, None) => {
                let members = cohort.members.clone();
                members.into_iter().for_each(|member| self.end_stream(member));
                Ok(())
            }
        }
    }

    /// A stream of a cohort ends after what waits for it.
    fn end_stream(&mut self, member: HoldKey) {
        self.audience.dismiss(member);
        self.fanout.sender.end(member, &mut self.audience.holds);
    }

    /// The streams are held again, as the page says.
    fn hold_after(
        &mut self,
        key: CohortKey,
        hold: HoldAfter,
        next: Option<Link>,
        cx: &mut Context<'_>,
    ) -> Result<(), PageError> {
        let HoldAfter { terms, channels, user, position, record } = hold;
        if next.is_none()
            && let Some(tracked) = position.iter().find(|tracked| tracked.prev_id.is_some())
        {
            return Err(PageError::NoLink(tracked.name().to_string()));
        }
        // Streams move to other lists, where what was published before must not be missed.
        self.fanout.flush(&mut self.audience, cx);
        let goes_on = next.is_some();
        let Some(cohort) = self.audience.cohorts.get_mut(key) else { return Ok(()) };
        let like = Likeness { mode: HoldMode::Stream, position, link: next, site: cohort.like.site.clone() };
        let members = cohort.members.clone();
        let again = self.audience.cohorts.hold_again(key, like, cx.now);
        for &member in &members {
            let jitter = self.timers.jitter();
            let hold = &mut self.audience.holds[member];
            if let Kind::Stream(stream) = &mut hold.kind {
                stream.go_on(terms.clone(), cx.now, jitter);
            }
            self.timers.watch(member, hold);
            self.audience.holds.set_user(member, user.clone());
            for channel in self.audience.resubscribe(member, &channels, cx) {
                cx.report(Notice::Subscribed { uri: "a page", channel });
            }
        }
        self.keep(&members, record.as_deref().unwrap_or_default(), cx);
        self.deliver_kept(key, cx);
        if !goes_on {
            self.fanout.flush(&mut self.audience, cx);
            for member in members {
                if self.audience.holds.get(member).is_some_and(|hold| hold.membership.is_some_and(|m| m.cohort == key))
                {
                    self.audience.dismiss(member);
                    self.audience.resubscribe(member, &channels, cx);
                }
            }
        } else if let Some(urgency) = again {
            self.wish(key, urgency, false, cx);
        }
        Ok(())
    }

    /// Messages that came while a page was fetched come after it.
    fn deliver_kept(&mut self, key: CohortKey, cx: &mut Context<'_>) {
        let Some(cohort) = self.audience.cohorts.get_mut(key) else { return };
        for item in cohort.take_kept() {
            self.fanout.deliver_kept(item, key, &mut self.audience, cx);
            // Once something was missed the rest is the page's again.
            if self.fanout.has_gap(key) {
                break;
            }
        }
    }

    /// A page could not be fetched: it is tried again if nothing of it has been sent, and not too often.
    fn page_failed(&mut self, key: CohortKey, reason: &str, cx: &mut Context<'_>) {
        let jitter = self.timers.jitter();
        let Some(cohort) = self.audience.cohorts.get_mut(key) else { return };
        let fetch = cohort.fetch.take();
        let page = cohort.page.take();
        let begun = page.as_ref().is_some_and(|page| page.bytes > 0);
        let again = !begun && cohort.back_off(jitter, cx.now).is_some();
        let uri = page.as_ref().map_or("", |page| &page.uri);
        cx.report(Notice::FetchFailed { uri, reason, again });
        if let Some(fetch) = fetch {
            self.fetches.cancel(fetch, cx);
        }
        match again {
            true => self.audience.cohorts.watch(key),
            false => self.end_streams(key, &PageError::Unreachable, cx),
        }
    }

    /// The streams of a cohort end; their clients are told why if they may know.
    fn end_streams(&mut self, key: CohortKey, error: &PageError, cx: &mut Context<'_>) {
        let Some(cohort) = self.audience.cohorts.get_mut(key) else { return };
        let fetch = cohort.fetch.take();
        let members = cohort.members.clone();
        let reason = error.to_string();
        let uri = cohort.like.link.as_ref().map_or("", |link| &link.uri);
        cx.report(Notice::LinkRefused { uri, reason: &reason, streams: members.len() });
        if let Some(fetch) = fetch {
            self.fetches.cancel(fetch, cx);
        }
        self.fanout.flush(&mut self.audience, cx);
        let text = Bytes::from(format!("\n\n{reason}\n"));
        for member in members {
            let Some(hold) = self.audience.holds.get_mut(member) else { continue };
            if hold.debug {
                hold.enqueue(text.clone());
            }
            self.end_stream(member);
        }
    }

    /// What the timers of cohorts and of our own requests say.
    pub(super) fn on_page_timers(&mut self, cx: &mut Context<'_>) {
        while let Some(key) = self.audience.cohorts.pop(cx.now) {
            match self.audience.cohorts.get(key).map(|cohort| cohort.state) {
                Some(State::BackingOff(_)) => self.fetch_page(key, cx),
                Some(_) => self.wish(key, Urgency::Low, false, cx),
                None => {}
            }
        }
        for news in self.fetches.on_timer(cx) {
            self.on_news(news, &Packet::default(), cx);
        }
    }
}
