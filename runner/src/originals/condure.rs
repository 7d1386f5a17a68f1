// SPDX-License-Identifier: AGPL-3.0-or-later
//! `condure`, and `pushpin-connmgr` which it became. They are told everything on the command line.

use std::ffi::OsString;

use settings::Part;

use super::{Context, option};
use crate::service::Service;

pub(super) fn condure(context: &Context) -> Service {
    let mut arguments = common(context, "condure");
    arguments.push(option("zclient-stream", format!("{}condure", context.base())));
    service(context, "condure", "condure_bin", arguments)
}

pub(super) fn connmgr(context: &Context) -> Service {
    let mut arguments = common(context, "connmgr");
    arguments.push(option("zclient-stream", format!("{}connmgr", context.base())));
    if context.settings.runner.originals.of(Part::Outbound) == Some(settings::original::Original::Connmgr) {
        arguments.push(option("zserver-stream", format!("{}connmgr-client", context.base())));
        arguments.push("--deny-out-internal".into());
    }
    service(context, "connmgr", "connmgr_bin", arguments)
}

fn service(context: &Context, name: &str, program: &str, arguments: Vec<OsString>) -> Service {
    let mut service = context.service(Part::Frontend, name, program, arguments);
    service.output = context.files.log(name);
    service.instance_option = Some("id");
    service
}

fn common(context: &Context, name: &str) -> Vec<OsString> {
    let frontend = &context.settings.frontend;
    let mode = frontend.zmq.ipc_file_mode.unwrap_or(0o600);
    let mut arguments = vec![
        option("log-level", context.level(name).to_string()),
        option("buffer-size", frontend.client_buffer_size.to_string()),
        option("stream-maxconn", frontend.client_maxconn.to_string()),
        option("ipc-file-mode", format!("{mode:o}")),
        option("tls-identities-dir", context.certificates()),
    ];
    if frontend.allow_compression {
        arguments.push("--compression".into());
    }
    for (address, tls) in context.ports() {
        let tls = if tls { format!(",tls,default-cert=default_{}", address.port()) } else { String::new() };
        arguments.push(option("listen", format!("{address},stream{tls}")));
    }
    arguments
}
