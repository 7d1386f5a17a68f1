// SPDX-License-Identifier: AGPL-3.0-or-later
//! Classes of subscribers: those for whom a channel's messages have the same fate and content.
//!
//! What filters look at belongs to the hold: its data (`Grip-Set-Meta`) and, for some filters, its channels with the ids
//! of their last messages. Holds that are equal in all this share one [`Standing`]. A [`Class`] is a standing in one of
//! its channels, with the filters of that channel. Holds without filters have no class.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use grip::filter::{self, Context, Filter, FilterError, Verdict};
use grip::{Channel, Meta};

/// Channels as their backend has named them, with the ids of the last messages where it asked for that.
pub type Named = Vec<(String, Option<String>)>;

/// Whom the filters of a hold ask, if there are such.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// Absolute URI; none: what the backend has set is no address.
    pub uri: Option<String>,
    /// How the proxy is to treat the request (`rpc::passthrough`).
    pub passthrough: Vec<u8>,
}

/// How far the filters of a class have come with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// They are through: this is delivered, or nothing.
    Done(Option<Bytes>),
    /// The filter with this number has to ask about this content.
    Ask(usize, Bytes),
}

/// What the filters of a hold look at.
#[derive(Debug)]
pub struct Standing {
    meta: Meta,
    /// Empty unless a filter looks at it.
    channels: RefCell<Named>,
    authority: Option<Authority>,
    /// An id has changed since the standing was made, so that no further hold is equal.
    moved: Cell<bool>,
}

/// A standing in one channel; see the module.
#[derive(Debug)]
pub struct Class {
    standing: Rc<Standing>,
    filters: Box<[Filter]>,
    /// Where the channel is in the standing's list.
    channel: Option<usize>,
}

impl Class {
    /// What the class gets of a message: content, or nothing. `content_filters` is what the publisher expects.
    ///
    /// # Errors
    /// A filter fails; the message is not delivered.
    pub fn evaluate(&self, publisher: &Meta, content: &Bytes) -> Result<Option<Bytes>, FilterError> {
        self.run(&self.filters, &self.standing.channels.borrow(), publisher, content)
    }

    /// Goes on with the filter that has the number `from`, up to the next one that asks. `channels` are those of the moment at
    /// which the message was published.
    ///
    /// # Errors
    /// A filter fails; the message is not delivered.
    pub fn proceed(
        &self,
        from: usize,
        channels: &Named,
        publisher: &Meta,
        content: &Bytes,
    ) -> Result<Progress, FilterError> {
        let rest = self.filters.get(from..).unwrap_or_default();
        let asks = rest.iter().position(|filter| filter.asks());
        let content = self.run(&rest[..asks.unwrap_or(rest.len())], channels, publisher, content)?;
        Ok(match (content, asks) {
            (Some(content), Some(at)) => Progress::Ask(from + at, content),
            (content, _) => Progress::Done(content),
        })
    }

    fn run(
        &self,
        filters: &[Filter],
        channels: &Named,
        publisher: &Meta,
        content: &Bytes,
    ) -> Result<Option<Bytes>, FilterError> {
        let channels: Vec<(&str, Option<&str>)> =
            channels.iter().map(|(name, id)| (name.as_str(), id.as_deref())).collect();
        let context = Context { subscriber: &self.standing.meta, publisher, channels: &channels };
        Ok(match filter::message(filters, &context, content)? {
            Verdict::Drop => None,
            Verdict::Deliver(std::borrow::Cow::Borrowed(_)) => Some(content.clone()),
            Verdict::Deliver(std::borrow::Cow::Owned(changed)) => Some(changed.into()),
        })
    }

    /// Whether messages can be delivered only after somebody was asked.
    pub fn asks(&self) -> bool {
        self.filters.iter().any(|filter| filter.asks())
    }

    /// Whom the filters ask.
    pub fn authority(&self) -> Option<&Authority> {
        self.standing.authority.as_ref()
    }

    /// The filter with a number.
    pub fn filter(&self, at: usize) -> Option<Filter> {
        self.filters.get(at).copied()
    }

    /// What the backend has set for the subscribers.
    pub fn meta(&self) -> &Meta {
        &self.standing.meta
    }

    /// The channels with their ids as they are now, as far as filters look at them.
    pub fn channels(&self) -> Named {
        self.standing.channels.borrow().clone()
    }

    /// Whether the class changes messages in the way that the publisher expects.
    pub fn agrees_with(&self, content_filters: &[String]) -> bool {
        filter::content_filters_agree(&self.filters, content_filters)
    }

    /// The filters that change messages, as a publisher must name them.
    pub fn content_filters(&self) -> Vec<&'static str> {
        self.filters.iter().filter(|filter| filter.changes_messages()).map(|filter| filter.name()).collect()
    }

    /// Notes that the channel's last message has this id, whether it was delivered or not.
    pub fn advance(&self, id: Option<&str>) {
        let mut channels = self.standing.channels.borrow_mut();
        let Some((_, last)) = self.channel.and_then(|channel| channels.get_mut(channel)) else { return };
        if last.is_some() && last.as_deref() != id {
            *last = id.map(str::to_string);
            self.standing.moved.set(true);
        }
    }

    /// What tells the classes of one channel apart. It is valid as long as the class lives.
    pub fn key(&self) -> (*const Standing, u32) {
        let number = |filter: &Filter| HERE.iter().position(|here| here == filter).unwrap_or(HERE.len()) as u32;
        (Rc::as_ptr(&self.standing), self.filters.iter().fold(1, |key, filter| key << 3 | number(filter)))
    }
}

/// All filters, each with its number in [`Class::key`].
const HERE: [Filter; 7] = [
    Filter::SkipSelf,
    Filter::SkipUsers,
    Filter::RequireSub,
    Filter::BuildId,
    Filter::VarSubst,
    Filter::HttpCheck,
    Filter::HttpModify,
];

/// The filters of a channel.
pub fn filters_of(channel: &Channel) -> Box<[Filter]> {
    filter::parse_all(channel.filters.iter().map(String::as_str)).into()
}

/// A hold's wishes with regard to one channel.
pub struct Wish {
    /// The channel as the backend has named it.
    pub name: String,
    /// The id of the last message that the client has.
    pub prev_id: Option<String>,
    /// See [`filters_of`].
    pub filters: Box<[Filter]>,
}

/// The standings in use, so that equal ones are kept once.
#[derive(Default)]
pub struct Standings {
    known: HashMap<(Meta, Named, Option<Authority>), Weak<Standing>>,
    /// Entries after which those are removed that nobody uses any more.
    purge_at: usize,
}

impl Standings {
    /// The classes of a hold in its channels, in their order. `authority` is looked at if a filter asks.
    pub fn classes(
        &mut self,
        meta: &Meta,
        wishes: &[Wish],
        authority: impl FnOnce() -> Option<Authority>,
    ) -> Vec<Option<Rc<Class>>> {
        let any = |of: &dyn Fn(&Filter) -> bool| wishes.iter().any(|wish| wish.filters.iter().any(of));
        if !any(&|_| true) {
            return wishes.iter().map(|_| None).collect();
        }
        let ids_count = any(&|filter| *filter == Filter::BuildId);
        let channels: Named = match ids_count || any(&|filter| *filter == Filter::RequireSub) {
            true => wishes.iter().map(|w| (w.name.clone(), w.prev_id.clone().filter(|_| ids_count))).collect(),
            false => Vec::new(),
        };
        let standing = self.share(meta.clone(), channels, any(&|filter| filter.asks()).then(authority).flatten());
        let class = |(at, wish): (usize, &Wish)| {
            let counts = ids_count && wish.prev_id.is_some();
            (counts || !wish.filters.is_empty()).then(|| {
                let channel = counts.then_some(at);
                Rc::new(Class { standing: standing.clone(), filters: wish.filters.clone(), channel })
            })
        };
        wishes.iter().enumerate().map(class).collect()
    }

    fn share(&mut self, meta: Meta, channels: Named, authority: Option<Authority>) -> Rc<Standing> {
        if self.known.len() >= self.purge_at {
            self.known.retain(|_, standing| standing.strong_count() > 0);
            self.purge_at = (self.known.len() * 2).max(64);
        }
        let key = (meta, channels, authority);
        if let Some(standing) = self.known.get(&key).and_then(Weak::upgrade).filter(|s| !s.moved.get()) {
            return standing;
        }
        let (meta, channels, authority) = key.clone();
        let standing = Rc::new(Standing { meta, channels: RefCell::new(channels), authority, moved: Cell::new(false) });
        self.known.insert(key, Rc::downgrade(&standing));
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(user: &str) -> Meta {
        let pairs = [("user", user), ("id_format", "%(a)s-%(b)s")];
        pairs.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn wish(name: &str, prev_id: Option<&str>, filters: &[&str]) -> Wish {
        let filters = filter::parse_all(filters.iter().copied()).into();
        Wish { name: name.into(), prev_id: prev_id.map(Into::into), filters }
    }

    fn get(class: &Option<Rc<Class>>, publisher: &Meta, content: &'static str) -> Option<String> {
        let content = class.as_ref().unwrap().evaluate(publisher, &Bytes::from_static(content.as_bytes())).unwrap();
        content.map(|content| String::from_utf8(content.to_vec()).unwrap())
    }

    #[test]
    fn equal_holds_share_a_standing_and_others_do_not() {
        let mut standings = Standings::default();
        let mut one = |user: &str| {
            let classes = standings.classes(&meta(user), &[wish("a", None, &["skip-self"])], || None);
            classes.into_iter().flatten().next().unwrap()
        };
        let (bob, again, alice) = (one("bob"), one("bob"), one("alice"));
        assert!(bob.key() == again.key() && bob.key() != alice.key());
    }

    #[test]
    fn equal_holds_with_other_filters_are_other_classes() {
        let mut standings = Standings::default();
        let mut one =
            |filters: &[&str]| standings.classes(&meta("bob"), &[wish("a", None, filters)], || None).remove(0).unwrap();
        let classes = [one(&["skip-self"]), one(&["skip-self", "var-subst"]), one(&["var-subst", "skip-self"])];
        assert!(classes[0].key() != classes[1].key() && classes[1].key() != classes[2].key());
        assert!(Rc::ptr_eq(&classes[0].standing, &classes[2].standing));
    }

    #[test]
    fn channels_without_filters_have_no_class() {
        let mut standings = Standings::default();
        let wishes = [wish("a", Some("1"), &[]), wish("b", None, &["skip-self"])];
        let classes = standings.classes(&meta("bob"), &wishes, || None);
        assert!(classes[0].is_none() && classes[1].is_some());
        assert!(standings.classes(&meta("bob"), &wishes[..1], || None)[0].is_none());
    }

    #[test]
    fn what_is_not_changed_is_the_same_bytes() {
        let mut standings = Standings::default();
        let classes = standings.classes(&meta("bob"), &[wish("a", None, &["skip-self"])], || None);
        let content = Bytes::from_static(b"x");
        let got = classes[0].as_ref().unwrap().evaluate(&Meta::default(), &content).unwrap().unwrap();
        assert_eq!(got.as_ptr(), content.as_ptr());
        let sender = [("sender".to_string(), "bob".to_string())].into_iter().collect();
        assert_eq!(classes[0].as_ref().unwrap().evaluate(&sender, &content), Ok(None));
    }

    #[test]
    fn an_id_counts_for_all_channels_of_the_hold_and_not_for_later_holds() {
        let mut standings = Standings::default();
        let wishes = [wish("a", Some("1"), &["build-id"]), wish("b", Some("2"), &[]), wish("c", None, &[])];
        let classes = standings.classes(&meta("bob"), &wishes, || None);
        assert_eq!(get(&classes[0], &Meta::default(), "%I").as_deref(), Some("1-2"));
        classes[1].as_ref().unwrap().advance(Some("3"));
        assert_eq!(get(&classes[0], &Meta::default(), "%I").as_deref(), Some("1-3"));
        assert!(classes[2].is_none());
        let later = standings.classes(&meta("bob"), &wishes, || None);
        assert_eq!(get(&later[0], &Meta::default(), "%I").as_deref(), Some("1-2"));
    }

    #[test]
    fn standings_that_nobody_uses_are_forgotten() {
        let mut standings = Standings::default();
        for i in 0..1000 {
            standings.classes(&meta(&i.to_string()), &[wish("a", None, &["skip-self"])], || None);
        }
        assert!(standings.known.len() <= 65);
    }

    #[test]
    fn filters_run_up_to_the_one_that_asks() {
        let mut standings = Standings::default();
        let wishes = [wish("a", None, &["var-subst", "http-check", "skip-self"])];
        let class = standings.classes(&meta("bob"), &wishes, || None).remove(0).unwrap();
        let from = |at, text: &'static str| {
            class.proceed(at, &class.channels(), &Meta::default(), &Bytes::from_static(text.as_bytes()))
        };
        assert_eq!(from(0, "%(user)s"), Ok(Progress::Ask(1, Bytes::from_static(b"bob"))));
        assert_eq!(from(2, "x"), Ok(Progress::Done(Some(Bytes::from_static(b"x")))));
        assert!(from(0, "%(nobody)s").is_err());
    }
}
