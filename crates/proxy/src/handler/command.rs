//! Commands of the handler (internal RPC, proxy command socket).

use rpc::call::Method as _;
use rpc::call::{self, Call, condition};
use rpc::command::{ConnCheck, Refresh};

use crate::engine::Engine;

/// Answers a command; `None` if it wants no answer or is none.
pub fn answer(message: &[u8], engine: &Engine) -> Option<Vec<u8>> {
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
        // There are no WebSockets yet whose backend could be asked again.
        method if method == Refresh::NAME.as_bytes() => refused(condition::ITEM_NOT_FOUND),
        _ => refused(condition::METHOD_NOT_FOUND),
    }
}
