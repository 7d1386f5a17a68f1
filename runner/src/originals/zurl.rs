// SPDX-License-Identifier: AGPL-3.0-or-later
//! `zurl`, in the place of our outbound process.

use settings::Part;

use super::{Context, option};
use crate::service::Service;

/// Its configuration.
pub(super) const FILE: &str = "zurl.conf";

pub(super) fn service(context: &Context) -> Service {
    let level = context.level("zurl").to_string();
    let mut arguments = vec![option("config", context.files.generated(FILE)), option("loglevel", level)];
    arguments.extend(context.files.log("zurl").map(|file| option("logfile", file)));
    context.service(Part::Outbound, "zurl", "zurl_bin", arguments)
}

/// As Pushpin has it: the proxy says of each request to a backend that hosts are not to be checked.
pub(super) fn configuration(context: &Context) -> String {
    let base = context.base();
    let most = context.settings.outbound.maxconn;
    let seconds = context.settings.outbound.response_timeout.as_secs();
    format!(
        "[General]\ninstance_id=\nin_spec={base}zurl-in\nin_stream_spec={base}zurl-in-stream\nout_spec={base}zurl-out\n\
         in_req_spec=\ndefpolicy=allow\nallow=\ndeny=127.*,10.*,192.168.*,*.local\nmax_open_requests={most}\n\
         buffer_size=200000\ntimeout={seconds}\nin_hwm=1000\nout_hwm=1000\n"
    )
}
