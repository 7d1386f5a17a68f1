// SPDX-License-Identifier: AGPL-3.0-or-later
//! Calls and their answers (internal RPC, zrpc). No format byte stands before them.

use serde::{Deserialize, Serialize};
use tnetstring::{Error, Item, Kind};

use crate::Octets;

/// What is said about a call that fails.
pub mod condition {
    /// Arguments are missing or of another type.
    pub const BAD_REQUEST: &str = "bad-request";
    /// What the arguments contain can not be used; the answer's value says why.
    pub const BAD_FORMAT: &str = "bad-format";
    /// There is no such method.
    pub const METHOD_NOT_FOUND: &str = "method-not-found";
    /// What the call is about is not there.
    pub const ITEM_NOT_FOUND: &str = "item-not-found";
    /// Whoever would have to do it is not there, or too busy.
    pub const SERVICE_UNAVAILABLE: &str = "service-unavailable";
    /// Whoever would have to do it has not answered in time.
    pub const TIMEOUT: &str = "timeout";
    /// The handler asked the proxy, which could not answer.
    pub const PROXY_REQUEST_FAILED: &str = "proxy-request-failed";
}

/// A method: what is asked, and the type of the answer.
pub trait Method: Serialize {
    /// Its name on the wire.
    const NAME: &'static str;
}

/// A message that is no call or no answer. Nobody is told: there may be no id to answer to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It is no map of tnetstrings.
    #[error("no tnetstring map: {0}")]
    Encoding(#[from] Error),
    /// A key is not there or has a value of another type.
    #[error("{0} is missing or has a wrong type")]
    Field(&'static str),
}

/// A call that has come. Its arguments are not decoded yet, since their type depends on the method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call<'a> {
    /// The caller's instance, where it matters.
    pub from: Option<&'a [u8]>,
    /// Echoed in the answer. Without one there is none.
    pub id: Option<&'a [u8]>,
    /// What to do.
    pub method: &'a [u8],
    /// With what; an empty map if absent.
    pub args: Item<'a>,
}

impl<'a> Call<'a> {
    /// Reads a call.
    ///
    /// # Errors
    /// It is none. It is not answered.
    pub fn decode(message: &'a [u8]) -> Result<Self, CallError> {
        let (map, _) = tnetstring::split(message)?;
        let (mut from, mut id, mut method) = (None, None, None);
        let mut args = Item { kind: Kind::Map, payload: b"" };
        for entry in map.entries()? {
            match entry? {
                (b"from", value) => from = Some(value.as_bytes().map_err(|_| CallError::Field("from"))?),
                (b"id", value) => id = Some(value.as_bytes().map_err(|_| CallError::Field("id"))?),
                (b"method", value) => method = Some(value.as_bytes().map_err(|_| CallError::Field("method"))?),
                (b"args", value) if value.kind == Kind::Map => args = value,
                (b"args", _) => return Err(CallError::Field("args")),
                _ => {}
            }
        }
        Ok(Call { from, id, method: method.ok_or(CallError::Field("method"))?, args })
    }

    /// The arguments, as the method wants them.
    ///
    /// # Errors
    /// Something is missing or has another type; answered with [`condition::BAD_REQUEST`].
    pub fn args<T: Deserialize<'a>>(&self) -> Result<T, Error> {
        tnetstring::from_item(self.args)
    }
}

/// Writes a call. Without an `id` no answer is expected.
///
/// # Errors
/// The arguments are nested too deep; only those that contain foreign values can be.
pub fn encode<M: Method>(from: Option<&[u8]>, id: Option<&[u8]>, args: &M) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(256);
    append(from, id, args, &mut bytes)?;
    Ok(bytes)
}

/// As [`encode`], behind what `bytes` has already, for callers that keep their buffer.
///
/// # Errors
/// As [`encode`]; `bytes` is then as before.
pub fn append<M: Method>(from: Option<&[u8]>, id: Option<&[u8]>, args: &M, bytes: &mut Vec<u8>) -> Result<(), Error> {
    #[derive(Serialize)]
    struct Outgoing<'a, M> {
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<Octets<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<Octets<'a>>,
        method: &'static str,
        args: &'a M,
    }
    let (from, id) = (from.map(Octets::from), id.map(Octets::from));
    tnetstring::append(&Outgoing { from, id, method: M::NAME, args }, bytes)
}

/// An answer that has come. Its value is not decoded yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reply<'a> {
    /// The id of the call.
    pub id: &'a [u8],
    /// What has come of it.
    pub result: Result<Item<'a>, Failure<'a>>,
}

/// Why a call has failed, in the words of who was called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failure<'a> {
    /// One of [`condition`], or another.
    pub condition: &'a [u8],
    /// A text for people, or something else.
    pub detail: Option<Item<'a>>,
}

impl<'a> Failure<'a> {
    /// The text for people, if there is one.
    pub fn text(&self) -> Option<&'a [u8]> {
        self.detail.and_then(|detail| detail.as_bytes().ok())
    }
}

impl<'a> Reply<'a> {
    /// Reads an answer.
    ///
    /// # Errors
    /// It is none. A failure without a condition is taken for one whose condition is empty.
    pub fn decode(message: &'a [u8]) -> Result<Self, CallError> {
        let (map, _) = tnetstring::split(message)?;
        let (mut id, mut success, mut value, mut condition) = (None, None, None, &b""[..]);
        for entry in map.entries()? {
            match entry? {
                (b"id", item) => id = Some(item.as_bytes().map_err(|_| CallError::Field("id"))?),
                (b"success", item) => success = Some(item.as_bool().map_err(|_| CallError::Field("success"))?),
                (b"value", item) => value = Some(item),
                (b"condition", item) => condition = item.as_bytes().map_err(|_| CallError::Field("condition"))?,
                _ => {}
            }
        }
        let result = match success.ok_or(CallError::Field("success"))? {
            true => Ok(value.ok_or(CallError::Field("value"))?),
            false => Err(Failure { condition, detail: value }),
        };
        Ok(Reply { id: id.ok_or(CallError::Field("id"))?, result })
    }
}

/// Writes the answer to a call that has succeeded.
///
/// # Errors
/// The value is nested too deep.
pub fn success<T: Serialize + ?Sized>(id: Option<&[u8]>, value: &T) -> Result<Vec<u8>, Error> {
    #[derive(Serialize)]
    struct Success<'a, T: ?Sized> {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<Octets<'a>>,
        success: bool,
        value: &'a T,
    }
    tnetstring::to_vec(&Success { id: id.map(Octets::from), success: true, value })
}

/// Writes the answer to a call that has failed, with a text for people.
pub fn failure(id: Option<&[u8]>, condition: &str, text: Option<&str>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Failed<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<Octets<'a>>,
        success: bool,
        condition: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<&'a str>,
    }
    let id = id.map(Octets::from);
    // Two levels of byte strings and a flag: there is nothing that can not be written.
    tnetstring::to_vec(&Failed { id, success: false, condition, value: text }).unwrap_or_default()
}
