// SPDX-License-Identifier: AGPL-3.0-or-later
//! Single fields of a packet, and what can be wrong with them.

use tnetstring::{Item, Kind as Type};

/// Why a packet can not be understood. It is dropped, counted and logged; nothing else notices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The first byte is not the format byte of tnetstrings.
    #[error("the packet does not start with the format byte T")]
    Format,
    /// The value is no tnetstring.
    #[error("the packet is no tnetstring map: {0}")]
    Encoding(#[from] tnetstring::Error),
    /// A field has a value of the wrong type or out of range.
    #[error("the field {0} has a wrong type or value")]
    Field(&'static str),
    /// There are more sessions in the packet than are allowed.
    #[error("the packet names more than {max} sessions", max = crate::MAX_IDS)]
    TooManyIds,
}

pub(super) fn text<'a>(value: Item<'a>, name: &'static str) -> Result<&'a [u8], DecodeError> {
    value.as_bytes().map_err(|_| DecodeError::Field(name))
}

pub(super) fn flag(value: Item<'_>, name: &'static str) -> Result<bool, DecodeError> {
    value.as_bool().map_err(|_| DecodeError::Field(name))
}

pub(super) fn number<T: TryFrom<i64>>(value: Item<'_>, name: &'static str) -> Result<T, DecodeError> {
    // Some originals write numbers as strings of digits.
    let value = if value.kind == Type::Bytes { Item { kind: Type::Int, ..value } } else { value };
    let value = value.as_int().map_err(|_| DecodeError::Field(name))?;
    T::try_from(value).map_err(|_| DecodeError::Field(name))
}

/// Credits below zero count as none.
pub(super) fn map_payload<'a>(value: Item<'a>, name: &'static str) -> Result<&'a [u8], DecodeError> {
    if value.kind == Type::Map { Ok(value.payload) } else { Err(DecodeError::Field(name)) }
}
