// SPDX-License-Identifier: AGPL-3.0-or-later
//! The id of a WebSocket, by which proxy and handler know it.

use std::rc::Rc;

use rpc::uuid::{Text, Uuid};

/// Proxies give UUIDs, which take less room as numbers; others would do as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cid {
    /// As our proxy gives it.
    Uuid(Uuid),
    /// Another text.
    Other(Rc<[u8]>),
}

impl From<&[u8]> for Cid {
    fn from(text: &[u8]) -> Self {
        Uuid::parse(text).map_or_else(|| Cid::Other(text.into()), Cid::Uuid)
    }
}

impl Cid {
    /// Room for the text of a UUID, for [`Cid::text`].
    pub fn written(&self) -> Text {
        match self {
            Cid::Uuid(uuid) => uuid.text(),
            Cid::Other(_) => [0; 36],
        }
    }

    /// As it stands in items; `written` is what [`Cid::written`] has given.
    pub fn text<'a>(&'a self, written: &'a Text) -> &'a [u8] {
        match self {
            Cid::Uuid(_) => written,
            Cid::Other(text) => text,
        }
    }

    /// Bytes of its text.
    pub fn len(&self) -> usize {
        match self {
            Cid::Uuid(_) => size_of::<Text>(),
            Cid::Other(text) => text.len(),
        }
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_given_back_as_it_was() {
        assert_eq!(size_of::<Cid>(), 24);
        for text in ["01234567-89ab-4def-8123-456789abcdef", "01234567-89AB-4DEF-8123-456789ABCDEF", "a", ""] {
            let cid = Cid::from(text.as_bytes());
            assert_eq!((cid.text(&cid.written()), cid.len()), (text.as_bytes(), text.len()));
        }
    }
}
