// SPDX-License-Identifier: AGPL-3.0-or-later
//! `mongrel2` with `m2adapter`, in the place of our frontend: one Mongrel2 for each port.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;

use settings::Part;

use super::{Context, display, option};
use crate::files::FilesError;
use crate::service::Service;

/// m2adapter's configuration.
const ADAPTER: &str = "m2adapter.conf";
/// Mongrel2's configuration.
const SERVERS: &str = "mongrel2.conf";
/// What Mongrel2's own program makes of it, and Mongrel2 reads.
const DATABASE: &str = "mongrel2.sqlite";

/// Mongrel2 can not be configured.
#[derive(Debug, thiserror::Error)]
#[error("mongrel2: Failure preparing to start: {program}: {reason}")]
pub struct DatabaseError {
    program: String,
    reason: String,
}

pub(super) fn services(context: &Context) -> Vec<Service> {
    let mut services: Vec<_> = context.ports().map(|(address, _)| server(context, address)).collect();
    let level = context.level("m2adapter").to_string();
    let mut arguments = vec![option("config", context.files.generated(ADAPTER)), option("loglevel", level)];
    arguments.extend(context.files.log("m2adapter").map(|file| option("logfile", file)));
    services.push(context.service(Part::Frontend, "m2adapter", "m2adapter_bin", arguments));
    services
}

fn server(context: &Context, address: SocketAddr) -> Service {
    let port = address.port();
    let name = format!("mongrel2_{port}");
    let database = context.here.join(context.files.generated(DATABASE));
    let arguments = vec![database.into(), format!("default_{port}").into()];
    let mut service = context.service(Part::Frontend, &name, "mongrel2_bin", arguments);
    service.output = context.files.log(&name);
    service
}

pub(super) fn write_files(context: &Context) -> Result<(), process::Failure> {
    context.files.generate(ADAPTER, &adapter(context))?;
    context.files.generate(SERVERS, &servers(context))?;
    load(context)?;
    Ok(())
}

/// Has Mongrel2's own program make the database.
fn load(context: &Context) -> Result<(), DatabaseError> {
    let program = context.program("m2sh_bin");
    let [servers, database] = [SERVERS, DATABASE].map(|name| context.here.join(context.files.generated(name)));
    let failed = |reason: String| DatabaseError { program: display(&program), reason };
    let mut command = Command::new(&program);
    command.arg("load").arg("--config").arg(&servers).arg("--db").arg(&database);
    // It notes who made the database, and gives up when nobody is logged in, as in a service.
    if std::env::var_os("LOGNAME").is_none() {
        command.env("LOGNAME", "pushpin");
    }
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    // It may end with 0 though it could not read its file, but says so.
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if !output.status.success() || said.contains("[ERROR]") {
        return Err(failed(said));
    }
    context.files.protect(DATABASE).map_err(|error: FilesError| failed(error.to_string()))
}

fn adapter(context: &Context) -> String {
    let base = context.base();
    let ports: Vec<_> = context.ports().map(|(address, _)| address.port()).collect();
    let each = |name: &str| ports.iter().map(|port| format!("{base}{name}-{port}")).collect::<Vec<_>>().join(",");
    let idents: Vec<_> = ports.iter().map(|port| format!("pushpin-m2-{port}")).collect();
    let mut text = format!(
        "[General]\nm2_in_specs={}\nm2_out_specs={}\nm2_send_idents={}\nm2_control_specs={}\n",
        each("m2-out"),
        each("m2-in"),
        idents.join(","),
        each("m2-control"),
    );
    for kind in ["zhttp", "zws"] {
        let _ = write!(
            text,
            "{kind}_in_specs={base}m2{kind}-in\n{kind}_out_specs={base}m2{kind}-out\n\
             {kind}_out_stream_specs={base}m2{kind}-out-stream\n"
        );
    }
    let most = context.settings.frontend.client_maxconn;
    let _ = write!(text, "m2_client_buffer=200000\nmax_open_requests={most}\n");
    text
}

fn servers(context: &Context) -> String {
    let base = context.base();
    let mut text = String::new();
    let mut names = Vec::new();
    for (address, tls) in context.ports() {
        let (ip, port) = (address.ip(), address.port());
        let log = |kind: &str| match context.files.log(&format!("mongrel2_{kind}_{port}")) {
            Some(file) => display(&context.here.join(file)),
            None => "/dev/stdout".into(),
        };
        let pid = display(&context.here.join(context.files.generated(&format!("mongrel2_{port}.own"))));
        let ssl = if tls { "    use_ssl=1,\n" } else { "" };
        // Mongrel2's levels: 0 errors to 4 debugging.
        let level = context.level("mongrel2");
        let (access, errors) = (log("access"), log("error"));
        // The identity ends in a space so that m2adapter's subscription is not the beginning of another one's.
        let _ = write!(
            text,
            "handler_{port} = Handler(send_spec=\"{base}m2-out-{port}\", send_ident=\"pushpin-m2-{port}\",\n    \
             recv_spec=\"{base}m2-in-{port}\", recv_ident=\"pushpin-m2-{port} \")\n\
             host_{port} = Host(name=\"default\", routes={{ \"/\": handler_{port} }})\n\
             server_{port} = Server(\n    uuid=\"default_{port}\",\n{ssl}    access_log=\"{access}\",\n    \
             error_log=\"{errors}\",\n    error_log_level={level},\n    pid_file=\"{pid}\",\n    \
             control_port=\"{base}m2-control-{port}\",\n    default_host=\"default\",\n    name=\"server-{port}\",\n    \
             bind_addr=\"{ip}\",\n    port={port},\n    hosts=[host_{port}]\n)\n"
        );
        names.push(format!("server_{port}"));
    }
    let frontend = &context.settings.frontend;
    let _ = write!(
        text,
        "settings = {{ \"certdir\": \"{}/\", \"upload.stream\": 1, \"superpoll.max_fd\": {},\n    \
         \"server.daemonize\": 0, \"no_clobber_xff\": 1, \"request.relaxed\": 1, \"download.flow_control\": 1,\n    \
         \"net.tcp_keepalive\": 1, \"limits.buffer_size\": {}, \"disable.access_logging\": {} }}\n\
         servers = [{}]\n",
        display(&context.certificates()),
        frontend.client_maxconn + 1000,
        frontend.client_buffer_size,
        u8::from(context.level("mongrel2") < 3),
        names.join(", "),
    );
    text
}
