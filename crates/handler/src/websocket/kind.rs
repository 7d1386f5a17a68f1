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
    /// What the route gives. It has a place of its own because a page may be asked for with as many URIs as it has visitors.
    pub site: Rc<Site>,
}

/// What WebSockets have from their route.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Site {
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
        let site = Site {
            bucket: item.route.is_some().then(|| route.clone()).filter(|_| item.separate_stats),
            route,
            trusted: item.trusted,
            prefix: text(&item.channel_prefix).unwrap_or_default(),
            debug: item.debug,
        };
        Kind { uri: text(&item.uri).unwrap_or_else(|| former.uri.clone()), site: Rc::new(site) }
    }
}

/// Each kind and site once, as long as a WebSocket is of it. Clients choose what they ask for, hence the standard library's
/// keyed hash.
#[derive(Default)]
pub struct Kinds {
    kinds: HashSet<Rc<Kind>>,
    sites: HashSet<Rc<Site>>,
}

impl Kinds {
    /// The one that is equal to this, for all who have it.
    pub fn share(&mut self, mut kind: Kind) -> Rc<Kind> {
        if let Some(known) = self.kinds.get(&kind) {
            return known.clone();
        }
        match self.sites.get(&kind.site) {
            Some(known) => kind.site = known.clone(),
            None => drop(self.sites.insert(kind.site.clone())),
        }
        let kind = Rc::new(kind);
        self.kinds.insert(kind.clone());
        kind
    }

    /// A WebSocket is about to be of this kind no more.
    pub fn release(&mut self, kind: &Rc<Kind>) {
        let is_last = |known: &Rc<Kind>| Rc::ptr_eq(known, kind) && Rc::strong_count(kind) == 2;
        if !self.kinds.get(kind).is_some_and(is_last) {
            return;
        }
        self.kinds.remove(kind);
        // The set of sites has it, and this kind, which is about to go.
        if Rc::strong_count(&kind.site) == 2 {
            self.sites.remove(&kind.site);
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
        assert!(Rc::ptr_eq(&shared[0].site, &other.site));
        for (kind, left) in shared.into_iter().zip([2, 1]) {
            kinds.release(&kind);
            drop(kind);
            assert_eq!((kinds.kinds.len(), kinds.sites.len()), (left, 1));
        }
        kinds.release(&other);
        assert_eq!((kinds.kinds.len(), kinds.sites.len()), (0, 0));
    }

    #[test]
    fn one_that_is_named_again_without_its_uri_keeps_that() {
        let again = Item { trusted: true, ..Item::new(ItemKind::Here, "c".as_bytes()) };
        let kind = Kind::new(&again, &kind("a"));
        assert_eq!((&*kind.uri, kind.site.trusted, &kind.site.bucket), ("a", true, &None));
    }
}
