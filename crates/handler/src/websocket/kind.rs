// SPDX-License-Identifier: AGPL-3.0-or-later
//! What many WebSockets have in common: what their clients asked for, and the route.

use std::collections::HashSet;
use std::rc::Rc;

use rpc::Octets;
use rpc::ws_control::Item;

use crate::order::rate::Bucket;

/// What the proxy says of a WebSocket, as far as it is the same for many.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Kind {
    /// What the client asked for.
    pub uri: Box<str>,
    /// The route's id.
    pub route: Rc<str>,
    /// The route's target may be on a private network, and so may be whom filters ask.
    pub trusted: bool,
    /// Put before the names of channels that the backend gives.
    pub prefix: Box<str>,
    /// The route, if its deliveries are counted apart.
    pub bucket: Bucket,
    /// The client may be told what is wrong.
    pub debug: bool,
}

impl Kind {
    /// By what is said of a WebSocket that was known as `former`.
    pub fn new(item: &Item<'_>, former: &Kind) -> Self {
        let text = |octets: &Option<Octets<'_>>| {
            octets.as_deref().map(|bytes| String::from_utf8_lossy(bytes).into_owned().into_boxed_str())
        };
        let route: Rc<str> = text(&item.route).unwrap_or_default().into();
        Kind {
            uri: text(&item.uri).unwrap_or_else(|| former.uri.clone()),
            bucket: item.route.is_some().then(|| route.clone()).filter(|_| item.separate_stats),
            route,
            trusted: item.trusted,
            prefix: text(&item.channel_prefix).unwrap_or_default(),
            debug: item.debug,
        }
    }
}

/// Each kind once, as long as a WebSocket is of it. Clients choose what they ask for, hence the standard library's keyed hash.
#[derive(Default)]
pub struct Kinds(HashSet<Rc<Kind>>);

impl Kinds {
    /// The one that is equal to this, for all who have it.
    pub fn share(&mut self, kind: Kind) -> Rc<Kind> {
        if let Some(known) = self.0.get(&kind) {
            return known.clone();
        }
        let kind = Rc::new(kind);
        self.0.insert(kind.clone());
        kind
    }

    /// A WebSocket is about to be of this kind no more.
    pub fn release(&mut self, kind: &Rc<Kind>) {
        let is_last = |known: &Rc<Kind>| Rc::ptr_eq(known, kind) && Rc::strong_count(kind) == 2;
        if self.0.get(kind).is_some_and(is_last) {
            self.0.remove(kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc::ws_control::Kind as ItemKind;

    fn kind(uri: &str) -> Kind {
        let item = Item { uri: Some(uri.as_bytes().to_vec().into()), ..Item::new(ItemKind::Here, "c".as_bytes()) };
        Kind::new(&item, &Kind::default())
    }

    #[test]
    fn equal_ones_are_one_which_goes_with_the_last_who_has_it() {
        let mut kinds = Kinds::default();
        let shared = [kinds.share(kind("a")), kinds.share(kind("a"))];
        let other = kinds.share(kind("b"));
        assert!(Rc::ptr_eq(&shared[0], &shared[1]) && !Rc::ptr_eq(&shared[0], &other));
        for (kind, left) in shared.into_iter().zip([2, 1]) {
            kinds.release(&kind);
            drop(kind);
            assert_eq!(kinds.0.len(), left);
        }
        kinds.release(&other);
        assert_eq!(kinds.0.len(), 0);
    }

    #[test]
    fn one_that_is_named_again_without_its_uri_keeps_that() {
        let again = Item { trusted: true, ..Item::new(ItemKind::Here, "c".as_bytes()) };
        let kind = Kind::new(&again, &kind("a"));
        assert_eq!((&*kind.uri, kind.trusted, kind.bucket), ("a", true, None));
    }
}
