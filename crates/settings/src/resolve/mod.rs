// SPDX-License-Identifier: AGPL-3.0-or-later
//! From checked values to the settings of each process: defaults that depend on others, and who talks to whom.

mod replaced;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use self::replaced::Replaced;
use crate::advice;
use crate::error::{Error, Warning};
use crate::listen::Endpoint;
use crate::model::{
    Exposition, FirstSubscription, ForwardedProtocol, Frontend, Global, Handler, LogFormat, Outbound, Programs, Proxy,
    Runner, Settings, Statistics, Zmq,
};
use crate::original::Original;
use crate::part::Part;
use crate::raw::Raw;
use crate::routes::RoutesSource;
use crate::services::Services;
use crate::source::{Origin, Source};
use crate::specs::{self, FrontendSpecs, OutboundSpecs};
use crate::values::Values;

impl Settings {
    /// Reads and checks a configuration. What it should not have but does no harm comes back as warnings.
    pub fn load(source: &Source) -> Result<(Self, Vec<Warning>), Error> {
        Raw::read(source)?.settings(source)
    }
}

impl Raw {
    /// Checks what was read. What it should not have but does no harm comes back as warnings.
    pub fn settings(&self, source: &Source) -> Result<(Settings, Vec<Warning>), Error> {
        let values = Values::new(self, source)?;
        let base = format!("ipc://{}/{}", values.variables.rundir, values.variables.ipc_prefix);
        let services = services(&values, self)?;
        let replaced = replaced::of(&values, source, &services)?;
        let frontend = frontend(&values, &base, source, &services, &replaced)?;
        let outbound = outbound(&values, &base, &frontend, &services, &replaced)?;
        let runner = runner(&values, &frontend, &services, self)?;
        let proxy = proxy(&values, source, replaced, &frontend, &outbound)?;
        let settings = Settings {
            global: global(&values, self)?,
            runner,
            handler: handler(&values, &frontend, &proxy)?,
            frontend,
            outbound,
            proxy,
        };
        let warnings = advice::of(self, &settings, &services.missing, source.supervised);
        Ok((settings, warnings))
    }
}

fn global(values: &Values, raw: &Raw) -> Result<Global, Error> {
    Ok(Global {
        config: raw.name().into(),
        rundir: values.variables.rundir.clone().into(),
        ipc_prefix: values.variables.ipc_prefix.clone(),
        port_offset: values.port_offset,
    })
}

fn zmq(values: &Values, section: &'static str) -> Result<Zmq, Error> {
    Ok(Zmq {
        ipc_file_mode: values.octal(section, "ipc_file_mode")?,
        max_message: values.int("global", "zmq_max_message_size")?,
        max_peers: values.int("global", "zmq_max_peers")?,
        handshake_timeout: values.seconds("global", "zmq_handshake_timeout")?,
    })
}

/// What to start.
fn services(values: &Values, raw: &Raw) -> Result<Services, Error> {
    const R: &str = "runner";
    // What a file includes is the wiring of some package; who names addresses in the file itself means them.
    let elsewhere = ["zurl", "connmgr_client", "condure_client"]
        .iter()
        .any(|name| values.is_in_main_file(&format!("{name}_out_specs")));
    let installed = |original: Original| original.programs().iter().all(|key| raw.programs().contains_key(*key));
    Services::named(&values.list(R, "services")?, elsewhere, installed).map_err(|e| values.error(R, "services", e))
}

fn runner(values: &Values, frontend: &Frontend, services: &Services, raw: &Raw) -> Result<Runner, Error> {
    const R: &str = "runner";
    let program = |key| values.optional_text(R, key).map(|path| path.map(PathBuf::from));
    let own_frontend = services.originals.of(Part::Frontend).is_none();
    let mut metrics = Vec::<Exposition>::new();
    for (section, program) in [("handler", "handler_bin"), ("proxy", "proxy_bin")] {
        let endpoint = values.endpoint(section, "prometheus_port")?;
        let prefix = values.text(section, "prometheus_prefix")?;
        check_prefix(&prefix).map_err(|e| values.error(section, "prometheus_prefix", e))?;
        let is_own = values.optional_text(R, program)?.is_none();
        let is_new = |endpoint: &Endpoint| metrics.iter().all(|other| other.endpoint != *endpoint);
        let found = endpoint.filter(|endpoint| is_own && is_new(endpoint));
        metrics.extend(found.map(|endpoint| Exposition { endpoint, prefix }));
    }
    Ok(Runner {
        parts: services.parts.clone(),
        http_ports: frontend.http_ports.clone(),
        https_ports: frontend.https_ports.clone(),
        local_ports: frontend.local_ports.clone(),
        logdir: values.text(R, "logdir")?.into(),
        log_buffer_size: values.int(R, "log_buffer_size")?,
        heartbeat_timeout: values.seconds(R, "heartbeat_timeout")?,
        orphan_grace: values.seconds(R, "orphan_grace")?,
        log_levels: values.log_levels(R, "log_level")?,
        log_format: match values.text(R, "log_format")?.as_str() {
            "json" => LogFormat::Json,
            _ => LogFormat::Pushpin,
        },
        frontend_processes: if own_frontend { frontend.processes.len() } else { 1 },
        metrics,
        health: values.endpoint(R, "health_port")?,
        dashboard: dashboard(values)?,
        programs: Programs {
            frontend: program("frontend_bin")?,
            proxy: program("proxy_bin")?,
            handler: program("handler_bin")?,
            outbound: program("outbound_bin")?,
        },
        originals: services.originals,
        original_programs: raw.programs().iter().map(|(key, path)| (key.clone(), path.into())).collect(),
    })
}

/// Who sees the dashboard can publish: beyond this machine, only with a token.
fn dashboard(values: &Values) -> Result<Option<SocketAddr>, Error> {
    const KEY: &str = "dashboard_port";
    let mistake = |text: String| Err(values.error("runner", KEY, text));
    let address = match values.endpoint("runner", KEY)? {
        None => return Ok(None),
        Some(Endpoint::Tcp(address)) => address,
        Some(Endpoint::Local(_)) => {
            return mistake("a browser needs a TCP port; write a port such as 7998, or 127.0.0.1:7998".into());
        }
    };
    let guarded = values.key("handler", "control_key")?.is_some() || values.key("handler", "control_token")?.is_some();
    if !guarded && !address.ip().is_loopback() {
        let port = address.port();
        return mistake(format!(
            "{address} is reached from other machines, and whoever sees the dashboard can publish: set control_token or \
             control_key in [handler], or write 127.0.0.1:{port}"
        ));
    }
    Ok(Some(address))
}

/// What the beginning of a metric's name may be.
fn check_prefix(prefix: &str) -> Result<(), String> {
    let good = |(at, byte): (usize, u8)| {
        matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'_' | b':') || at > 0 && byte.is_ascii_digit()
    };
    match prefix.bytes().enumerate().all(good) {
        true => Ok(()),
        false => {
            Err(format!("`{prefix}` can not begin the name of a metric; write letters, digits and _, such as pushpin_"))
        }
    }
}

fn frontend(
    values: &Values,
    base: &str,
    source: &Source,
    services: &Services,
    (client, _): &(Replaced, Replaced),
) -> Result<Frontend, Error> {
    const R: &str = "runner";
    let processes: usize = values.int(R, "frontend_processes")?;
    // Where the proxy looks for a frontend, ours is to be found.
    let own = |number| client.frontend(number).unwrap_or_else(|| FrontendSpecs::own(base, number));
    let processes = match services.originals.of(Part::Frontend) {
        Some(original) => original.frontend_specs(base),
        None => (0..processes).map(own).collect(),
    };
    Ok(Frontend {
        http_ports: values.ports(R, "http_port")?,
        https_ports: values.ports(R, "https_ports")?,
        local_ports: values.local_ports(R, "local_ports")?,
        certificates: source.origin.directory().join("runner").join("certs"),
        client_maxconn: values.int(R, "client_maxconn")?,
        client_buffer_size: values.int(R, "client_buffer_size")?,
        client_send_window: values.int(R, "client_send_window")?,
        client_max_message_size: values.int(R, "client_max_message_size")?,
        client_header_timeout: values.seconds(R, "client_header_timeout")?,
        client_body_timeout: values.seconds(R, "client_body_timeout")?,
        client_send_timeout: values.seconds(R, "client_send_timeout")?,
        client_min_rate: values.int(R, "client_min_rate")?,
        client_idle_timeout: values.seconds(R, "client_idle_timeout")?,
        client_linger_time: values.seconds(R, "client_linger_time")?,
        client_linger_timeout: values.seconds(R, "client_linger_timeout")?,
        recover_wait: values.seconds(R, "recover_wait")?,
        recover_memory: values.int(R, "recover_memory")?,
        drain_timeout: values.seconds(R, "drain_timeout")?,
        request_ids: values.bool(R, "request_ids")?,
        move_clients: values.bool(R, "move_clients")?,
        replay_wait: values.seconds(R, "replay_wait")?,
        replay_body: values.int(R, "replay_body")?,
        replay_memory: values.int(R, "replay_memory")?,
        allow_compression: values.bool(R, "allow_compression")?,
        processes,
        zmq: zmq(values, "proxy")?,
    })
}

fn outbound(
    values: &Values,
    base: &str,
    frontend: &Frontend,
    services: &Services,
    (_, origin): &(Replaced, Replaced),
) -> Result<Outbound, Error> {
    const P: &str = "proxy";
    let specs = match services.originals.of(Part::Outbound) {
        Some(original) => original.outbound_specs(base),
        None => origin.outbound().unwrap_or_else(|| OutboundSpecs::named(base, "outbound")),
    };
    Ok(Outbound {
        specs,
        maxconn: frontend.client_maxconn,
        lookup_threads: values.int(P, "backend_lookup_threads")?,
        lookup_queue: values.int(P, "backend_lookup_queue")?,
        connect_attempts: values.int(P, "backend_connect_attempts")?,
        connect_timeout: values.seconds(P, "backend_connect_timeout")?,
        response_timeout: values.seconds(P, "backend_response_timeout")?,
        idle_timeout: values.seconds(P, "backend_idle_timeout")?,
        keepalive_timeout: values.seconds(P, "backend_keepalive_timeout")?,
        keepalive_connections: values.int(P, "backend_keepalive_connections")?,
        keepalive_per_target: values.int(P, "backend_keepalive_per_target")?,
        recover_wait: frontend.recover_wait,
        recover_memory: frontend.recover_memory,
        queue_bytes: values.int(P, "backend_queue_bytes")?,
        max_headers_size: values.int(P, "backend_max_headers_size")?,
        max_headers: values.int(P, "backend_max_headers")?,
        zmq: frontend.zmq.clone(),
    })
}

/// How often a part reports.
fn report_interval(values: &Values, section: &'static str) -> Result<Option<Duration>, Error> {
    Ok(values.limit::<u32>(section, "stats_report_interval")?.map(|s| Duration::from_secs(s.into())))
}

fn proxy(
    values: &Values,
    source: &Source,
    (client, origin): (Replaced, Replaced),
    frontend: &Frontend,
    outbound: &Outbound,
) -> Result<Proxy, Error> {
    const P: &str = "proxy";
    let each = |pick: fn(&FrontendSpecs) -> &String| frontend.processes.iter().map(|p| pick(p).clone()).collect();
    let own_or = |replaced: Vec<String>, own: Vec<String>| if replaced.is_empty() { own } else { replaced };
    let bound = |key| values.spec(P, key).map(Option::unwrap_or_default);
    let most = frontend.client_maxconn.saturating_mul(frontend.processes.len());
    let routes = match &source.origin {
        _ if !source.routes.is_empty() => RoutesSource::Lines(source.routes.clone()),
        Origin::BuiltIn => RoutesSource::BuiltIn,
        origin => RoutesSource::File(origin.directory().join(values.text(P, "routesfile")?)),
    };
    Ok(Proxy {
        routes,
        debug: values.bool(P, "debug")?,
        recover_wait: values.seconds("runner", "recover_wait")?,
        auto_cross_origin: values.bool(P, "auto_cross_origin")?,
        unbuffer_streams: values.bool("global", "unbuffer_streams")?,
        sockjs_url: values.text(P, "sockjs_url")?,
        accept_x_forwarded_protocol: values.bool(P, "accept_x_forwarded_protocol")?,
        set_x_forwarded_protocol: match values.text(P, "set_x_forwarded_protocol")?.as_str() {
            "true" => ForwardedProtocol::Both,
            "proto-only" => ForwardedProtocol::ProtoOnly,
            _ => ForwardedProtocol::None,
        },
        x_forwarded_for: values.forwarded_for(P, "x_forwarded_for")?,
        x_forwarded_for_trusted: values.forwarded_for(P, "x_forwarded_for_trusted")?,
        accept_pushpin_route: values.bool(P, "accept_pushpin_route")?,
        orig_headers_need_mark: values.list(P, "orig_headers_need_mark")?,
        cdn_loop: values.text(P, "cdn_loop")?,
        log_from: values.bool(P, "log_from")?,
        log_user_agent: values.bool(P, "log_user_agent")?,
        sig_iss: values.text(P, "sig_iss")?,
        sig_key: values.key(P, "sig_key")?,
        upstream_key: values.key(P, "upstream_key")?,
        max_open_requests: values.limit(P, "max_open_requests")?.map_or(most, |n: usize| n.min(most)),
        zmq: zmq(values, P)?,
        client_in_specs: own_or(client.first, each(|p| &p.out)),
        client_in_stream_specs: own_or(client.stream, each(|p| &p.out_stream)),
        client_out_specs: own_or(client.back, each(|p| &p.input)),
        origin_out_specs: own_or(origin.first, vec![outbound.specs.input.clone()]),
        origin_out_stream_specs: own_or(origin.stream, vec![outbound.specs.in_stream.clone()]),
        origin_in_specs: own_or(origin.back, vec![outbound.specs.out.clone()]),
        inspect_spec: bound("handler_inspect_spec")?,
        accept_spec: bound("handler_accept_spec")?,
        retry_spec: bound("handler_retry_in_spec")?,
        stats_spec: bound("stats_spec")?,
        command_spec: bound("command_spec")?,
        intreq_in_spec: bound("intreq_in_specs")?,
        intreq_in_stream_spec: bound("intreq_in_stream_specs")?,
        intreq_out_spec: bound("intreq_out_specs")?,
        stats_connection_ttl: values
            .bool("global", "stats_connection_send")?
            .then(|| values.seconds("global", "stats_connection_ttl"))
            .transpose()?,
        stats_connections_max_ttl: values.seconds(P, "stats_connections_max_ttl")?,
        stats_report_interval: report_interval(values, P)?,
        ws_control_in_spec: bound("handler_ws_control_in_spec")?,
        ws_control_out_spec: bound("handler_ws_control_out_spec")?,
        session_queue_bytes: values.int("handler", "session_queue_bytes")?,
        session_queue_time: values.seconds("handler", "session_queue_time")?,
        max_message_size: values.int(P, "backend_max_message_size")?,
        events_timeout: values.seconds(P, "backend_events_timeout")?,
    })
}

fn handler(values: &Values, frontend: &Frontend, proxy: &Proxy) -> Result<Handler, Error> {
    const H: &str = "handler";
    let either = |new: &str, old: &str, own: &String| -> Result<Vec<String>, Error> {
        let mut found = values.specs(H, new)?;
        found.extend(values.spec(H, old)?);
        Ok(if found.is_empty() { vec![own.clone()] } else { found })
    };
    let internal = |key: &str, own: &String| -> Result<Vec<String>, Error> {
        let found = values.specs(H, key)?;
        Ok(if found.is_empty() { vec![own.clone()] } else { found })
    };
    let mut push_in_sub_specs = values.specs(H, "push_in_sub_specs")?;
    push_in_sub_specs.extend(values.spec(H, "push_in_sub_spec")?);
    // Looked at even if it is not used, so that a mistake does not wait for the day when it is.
    let push_in_http_addr = values.address(H, "push_in_http_addr")?;
    let push_in_http = match values.limit::<u16>(H, "push_in_http_port")? {
        Some(port) => {
            let port = specs::offset_port(port, values.port_offset);
            let port = port.map_err(|e| values.error(H, "push_in_http_port", e))?;
            Some(SocketAddr::new(push_in_http_addr, port))
        }
        None => None,
    };
    Ok(Handler {
        zmq: zmq(values, H)?,
        push_in_spec: values.spec(H, "push_in_spec")?,
        push_in_sub_specs,
        push_in_sub_connect: values.bool(H, "push_in_sub_connect")?,
        push_in_http,
        push_in_http_tls: values.bool(H, "push_in_http_tls")?.then(|| frontend.certificates.clone()),
        control_key: values.key(H, "control_key")?,
        control_iss: values.optional_text(H, "control_iss")?,
        control_token: values.key(H, "control_token")?,
        push_in_http_max_headers_size: values.int(H, "push_in_http_max_headers_size")?,
        push_in_http_max_body_size: values.int(H, "push_in_http_max_body_size")?,
        push_in_http_header_timeout: values.seconds(H, "push_in_http_header_timeout")?,
        push_in_http_body_timeout: values.seconds(H, "push_in_http_body_timeout")?,
        push_in_http_idle_timeout: values.seconds(H, "push_in_http_idle_timeout")?,
        push_in_http_max_connections: values.int(H, "push_in_http_max_connections")?,
        push_in_http_max_waiting: values.int(H, "push_in_http_max_waiting")?,
        push_in_http_max_waiting_bytes: values.int(H, "push_in_http_max_waiting_bytes")?,
        push_in_http_wait_timeout: values.seconds(H, "push_in_http_wait_timeout")?,
        stats_spec: values.spec(H, "stats_spec")?,
        stats: Statistics {
            connections: values.bool("global", "stats_connection_send")?,
            connection_ttl: values.seconds("global", "stats_connection_ttl")?,
            subscription_ttl: values.seconds(H, "stats_subscription_ttl")?,
            report_interval: report_interval(values, H)?,
            json: values.text(H, "stats_format")? == "json",
        },
        command_spec: values.spec(H, "command_spec")?,
        message_rate: values.limit(H, "message_rate")?,
        message_hwm: values.limit(H, "message_hwm")?,
        message_block_size: values.limit(H, "message_block_size")?,
        unbuffer_streams: values.bool("global", "unbuffer_streams")?,
        message_wait: values.int(H, "message_wait").map(Duration::from_millis)?,
        id_cache_ttl: values.seconds(H, "id_cache_ttl")?,
        id_cache_max: values.int(H, "id_cache_max")?,
        recover_wait: values.seconds("runner", "recover_wait")?,
        arrears: PathBuf::from(&values.variables.rundir)
            .join(format!("{}handler-arrears", values.variables.ipc_prefix)),
        update_on_first_subscription: match values.text(H, "update_on_first_subscription")?.as_str() {
            "true" => FirstSubscription::Always,
            "false" => FirstSubscription::Never,
            _ => FirstSubscription::Reliable,
        },
        link_requests_max: values.int(H, "link_requests_max")?,
        gone_requests_max: values.int(H, "gone_requests_max")?,
        filter_requests_max: values.int(H, "filter_requests_max")?,
        filter_messages_max: values.int(H, "filter_messages_max")?,
        filter_queue_bytes: values.int(H, "filter_queue_bytes")?,
        share_all: values.bool(H, "share_all")?,
        connection_subscription_max: values.int(H, "connection_subscription_max")?,
        subscription_linger: values.seconds(H, "subscription_linger")?,
        session_queue_bytes: values.int(H, "session_queue_bytes")?,
        link_queue_bytes: values.int(H, "link_queue_bytes")?,
        link_timeout: values.seconds(H, "link_timeout")?,
        publish_queue_bytes: values.int(H, "publish_queue_bytes")?,
        session_queue_time: values.seconds(H, "session_queue_time")?,
        client_maxconn: frontend.client_maxconn.saturating_mul(frontend.processes.len()),
        client_in_stream_specs: proxy.client_in_stream_specs.clone(),
        client_out_specs: proxy.client_out_specs.clone(),
        proxy_inspect_specs: either("proxy_inspect_specs", "proxy_inspect_spec", &proxy.inspect_spec)?,
        proxy_accept_specs: either("proxy_accept_specs", "proxy_accept_spec", &proxy.accept_spec)?,
        proxy_retry_specs: either("proxy_retry_out_specs", "proxy_retry_out_spec", &proxy.retry_spec)?,
        proxy_command_spec: values.spec(H, "proxy_command_spec")?.unwrap_or_else(|| proxy.command_spec.clone()),
        proxy_ws_control_in_spec: values
            .spec(H, "proxy_ws_control_in_spec")?
            .unwrap_or_else(|| proxy.ws_control_out_spec.clone()),
        proxy_ws_control_out_spec: values
            .spec(H, "proxy_ws_control_out_spec")?
            .unwrap_or_else(|| proxy.ws_control_in_spec.clone()),
        proxy_stats_specs: either("proxy_stats_specs", "proxy_stats_spec", &proxy.stats_spec)?,
        proxy_intreq_out_specs: internal("proxy_intreq_out_specs", &proxy.intreq_in_spec)?,
        proxy_intreq_out_stream_specs: internal("proxy_intreq_out_stream_specs", &proxy.intreq_in_stream_spec)?,
        proxy_intreq_in_specs: internal("proxy_intreq_in_specs", &proxy.intreq_out_spec)?,
    })
}

#[cfg(test)]
mod tests;
