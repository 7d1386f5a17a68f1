// SPDX-License-Identifier: AGPL-3.0-or-later
//! A page that is being fetched for streams: the response to a next link, whose body is added to theirs.

use std::rc::Rc;

use grip::Meta;
use grip::filter::Filter;

use crate::hold::terms::StreamTerms;
use crate::subscribe::classes::Class;

use super::{Link, Tracked};

/// How streams are held after a page.
pub struct HoldAfter {
    /// What they send when they are silent.
    pub terms: Rc<StreamTerms>,
    /// Their channels by full name, with the class in each.
    pub channels: Vec<(String, Option<Rc<Class>>)>,
    /// Whose they are then, if the page says so.
    pub user: Option<Rc<str>>,
    /// The same as a position.
    pub position: Vec<Tracked>,
    /// What their frontends are to keep.
    pub record: Option<Rc<[u8]>>,
}

/// See the module.
#[derive(Default)]
pub struct Page {
    /// Its address.
    pub uri: String,
    /// Its status, once its head has come.
    pub code: Option<u16>,
    /// Bytes of its body that have come.
    pub bytes: usize,
    /// Bytes for which the backend has not been given credits again.
    pub owed: usize,
    /// Where the streams go on after it.
    pub next: Option<Link>,
    /// How they are held after it, if they are.
    pub hold: Option<HoldAfter>,
    /// Body that is only sent as a whole, because filters change it.
    pub collected: Option<Vec<u8>>,
    /// The filters.
    pub filters: Vec<Filter>,
    /// What they look at.
    pub meta: Meta,
}
