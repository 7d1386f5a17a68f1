// SPDX-License-Identifier: AGPL-3.0-or-later
//! Commands of the handler (internal RPC, proxy command socket).

use std::time::Instant;

use rpc::call::Method as _;
use rpc::call::{self, Call, condition};
use rpc::command::{ConnCheck, Refresh};

use crate::context::Links;
use crate::engine::Engine;

/// Does what a command says, and answers it; `None` if it wants no answer or is none.
pub fn answer(message: &[u8], now: Instant, engine: &mut Engine, links: &mut dyn Links) -> Option<Vec<u8>> {
    let call = Call::decode(message).ok()?;
    let id = Some(call.id?);
    let refused = |condition| Some(call::failure(id, condition, None));
    match call.method {
        method if method == ConnCheck::NAME.as_bytes() => match call.args::<ConnCheck<'_>>() {
            Ok(mut connections) => {
                connections.ids.retain(|id| engine.has_connection(id));
                call::success(id, &connections.ids).ok()
            }
            Err(_) => refused(condition::BAD_FORMAT),
        },
        method if method == Refresh::NAME.as_bytes() => match call.args::<Refresh<'_>>() {
            // A connection that is no WebSocket over HTTP has nobody to ask.
            Ok(Refresh { cid: Some(cid), .. }) if engine.refresh(&cid, now, links) || engine.has_connection(&cid) => {
                call::success(id, &()).ok()
            }
            Ok(Refresh { cid: Some(_), .. }) => refused(condition::ITEM_NOT_FOUND),
            _ => refused(condition::BAD_FORMAT),
        },
        _ => refused(condition::METHOD_NOT_FOUND),
    }
}
