// SPDX-License-Identifier: AGPL-3.0-or-later
//! From checked values to the settings of each process: defaults that depend on others, and who talks to whom.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::advice;
use crate::error::{Error, Warning};
use crate::listen::Endpoint;
use crate::model::{
    Exposition, FirstSubscription, ForwardedProtocol, Frontend, Global, Handler, LogFormat, Outbound, Programs, Proxy,
    Runner, Settings, Statistics, Zmq,
};
use crate::original::Original;
use crate::parts::{self, Part, Services};
use crate::raw::Raw;
use crate::routes::RoutesSource;
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
        let replaced = replaced(&values, source, &services)?;
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
    parts::named(&values.list(R, "services")?, elsewhere, installed).map_err(|e| values.error(R, "services", e))
}

/// Addresses in the file for the sides of clients and of backends. None for those that our runner starts itself: it gives them
/// names of its own.
fn replaced(values: &Values, source: &Source, services: &Services) -> Result<(Replaced, Replaced), Error> {
    let started = |part, key| -> Result<bool, Error> {
        let named = values.optional_text("runner", key)?.is_none();
        Ok(source.supervised && services.parts.contains(&part) && named)
    };
    let client = if started(Part::Frontend, "frontend_bin")? { Replaced::default() } else { Replaced::client(values)? };
    let origin = if started(Part::Outbound, "outbound_bin")? { Replaced::default() } else { Replaced::origin(values)? };
    Ok((client, origin))
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

/// Sockets of another program in place of our frontend or outbound process, by any of the names they had. All empty when
/// nothing was written: then ours are meant.
#[derive(Default)]
struct Replaced {
    first: Vec<String>,
    stream: Vec<String>,
    back: Vec<String>,
}

impl Replaced {
    fn client(values: &Values) -> Result<Self, Error> {
        let mongrel = values.list("runner", "services")?.iter().any(|s| s == "mongrel2");
        let names: &[&str] = if mongrel { &["m2a"] } else { &["connmgr", "condure"] };
        Self::collect(values, names, ["in_specs", "in_stream_specs", "out_specs"])
    }

    fn origin(values: &Values) -> Result<Self, Error> {
        let zurl = Self::collect(values, &["zurl"], ["out_specs", "out_stream_specs", "in_specs"])?;
        if !zurl.first.is_empty() {
            return Ok(zurl);
        }
        let names = ["connmgr_client", "condure_client"];
        Self::collect(values, &names, ["out_specs", "out_stream_specs", "in_specs"])
    }

    /// The sockets of frontend process `number`, if there are as many.
    fn frontend(&self, number: usize) -> Option<FrontendSpecs> {
        let of = |all: &[String]| all.get(number).cloned();
        Some(FrontendSpecs { out: of(&self.first)?, out_stream: of(&self.stream)?, input: of(&self.back)? })
    }

    /// The sockets of the outbound process.
    fn outbound(&self) -> Option<OutboundSpecs> {
        let of = |all: &[String]| all.first().cloned();
        Some(OutboundSpecs { input: of(&self.first)?, in_stream: of(&self.stream)?, out: of(&self.back)? })
    }

    fn collect(values: &Values, names: &[&str], kinds: [&str; 3]) -> Result<Self, Error> {
        let all = |kind: &str| -> Result<Vec<String>, Error> {
            let mut found = Vec::new();
            for name in names {
                found.extend(values.specs("proxy", &format!("{name}_{kind}"))?);
            }
            Ok(found)
        };
        Ok(Self { first: all(kinds[0])?, stream: all(kinds[1])?, back: all(kinds[2])? })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::listen::Port;
    use crate::model::ForwardedFor;
    use crate::table::{Kind, SETTINGS, State};

    fn source(text: &str) -> Source {
        Source { origin: Origin::Text(text.into()), ..Source::default() }
    }

    fn load(text: &str) -> Settings {
        Settings::load(&source(text)).expect("the text is good").0
    }

    fn error(text: &str) -> String {
        Settings::load(&source(text)).expect_err("the text is bad").to_string()
    }

    #[test]
    fn the_built_in_configuration_is_good_and_has_no_warnings() {
        let (settings, warnings) = Settings::load(&Source::default()).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(settings.runner.http_ports, [Port::parse("7999").unwrap()]);
        assert_eq!(settings.handler.push_in_http, Some("127.0.0.1:5561".parse().unwrap()));
        assert_eq!(settings.proxy.routes, RoutesSource::BuiltIn);
        assert_eq!((settings.handler.message_rate, settings.handler.message_hwm), (None, None));
    }

    #[test]
    fn an_empty_file_has_every_default() {
        let settings = load("");
        assert_eq!(settings.handler.push_in_spec, None);
        assert_eq!(settings.proxy.client_in_specs, ["ipc://run/pushpin-frontend-out"]);
        assert_eq!(settings.handler.proxy_inspect_specs, ["ipc://run/pushpin-inspect"]);
    }

    #[test]
    fn unix_sockets_for_clients_are_named_with_variables() {
        let ports = load("[runner]\nlocal_ports={rundir}/{ipc_prefix}server?mode=666, /s\n").frontend.local_ports;
        assert_eq!(
            ports.iter().map(|port| &*port.path).collect::<Vec<_>>(),
            [Path::new("run/pushpin-server"), Path::new("/s")]
        );
        assert_eq!((ports[0].mode, ports[1].mode), (Some(0o666), None));
        assert!(
            error("[runner]\nlocal_ports=/s?tls\n").contains("text:2: local_ports: `/s?tls`: unknown option `tls`")
        );
    }

    #[test]
    fn unknown_keys_are_warned_about_with_their_line() {
        let (_, warnings) = Settings::load(&source("[proxy]\nroutesfile=r\nroute_file=x\n")).unwrap();
        assert_eq!(warnings.len(), 1);
        assert_eq!(
            warnings[0].to_string(),
            "text:3: unknown setting `route_file` in [proxy] is ignored; did you mean `routesfile`?"
        );
    }

    #[test]
    fn a_bad_value_is_an_error_with_its_line_and_what_to_write() {
        assert_eq!(
            error("[runner]\nclient_maxconn=many\n"),
            "text:2: client_maxconn: `many` must be a whole number from 1 to 10000000"
        );
        assert!(error("[runner]\nhttp_port=x\n").contains("text:2: http_port: `x` is not a port"));
        assert!(error("[handler]\npush_in_spec=5560\n").contains("tcp://127.0.0.1:5560"));
        assert!(error("[handler]\npush_in_spec=tcp://a:1,tcp://a:2\n").contains("only one value"));
        assert!(error("[proxy]\ndebug=perhaps\n").contains("neither true nor false"));
        assert!(error("[proxy]\nset_x_forwarded_protocol=maybe\n").contains("proto-only"));
    }

    #[test]
    fn variables_and_the_port_offset_apply_to_lists_as_well() {
        let settings = load(
            "[global]\nrundir=/r\nipc_prefix=z-\nport_offset=10\n[handler]\n\
             push_in_sub_specs=tcp://127.0.0.1:1,ipc://{rundir}/{ipc_prefix}x\npush_in_http_port=5561\n",
        );
        assert_eq!(settings.handler.push_in_sub_specs, ["tcp://127.0.0.1:11", "ipc:///r/z-x"]);
        assert_eq!(settings.handler.push_in_http.unwrap().port(), 5571);
        assert_eq!(settings.proxy.origin_in_specs, ["ipc:///r/z-outbound-out"]);
    }

    #[test]
    fn the_command_line_replaces_prefix_and_offset() {
        let text = "[global]\nport_offset=1\nipc_prefix=a-\n[handler]\ncommand_spec=tcp://127.0.0.1:5563\n";
        let source = Source { ipc_prefix: Some("b-".into()), port_offset: Some(10), ..source(text) };
        let settings = Settings::load(&source).unwrap().0;
        assert_eq!(settings.global.ipc_prefix, "b-");
        assert_eq!(settings.handler.command_spec.as_deref(), Some("tcp://127.0.0.1:5573"));
    }

    #[test]
    fn an_empty_value_overrides_and_switches_off() {
        let settings = load("[handler]\ncommand_spec=\nprometheus_port=\n");
        assert_eq!(settings.handler.command_spec, None);
    }

    #[test]
    fn names_of_both_generations_replace_our_own_sockets() {
        let settings = load("[proxy]\ncondure_in_specs=ipc://c\nzurl_out_specs=ipc://z\nconnmgr_out_specs=ipc://o\n");
        assert_eq!(settings.proxy.client_in_specs, ["ipc://c"]);
        assert_eq!(settings.proxy.origin_out_specs, ["ipc://z"]);
        assert_eq!(settings.handler.client_out_specs, ["ipc://o"]);
    }

    const ZURL: &str = "[proxy]\nzurl_out_specs=ipc://z\nzurl_out_stream_specs=ipc://y\nzurl_in_specs=ipc://x\n";

    fn supervised(text: &str) -> (Settings, Vec<Warning>) {
        Settings::load(&Source { supervised: true, ..source(text) }).unwrap()
    }

    #[test]
    fn sockets_of_a_part_that_the_runner_starts_itself_are_ours_and_it_is_said() {
        let (settings, warnings) = supervised(&format!(
            "[runner]\nservices=condure,zurl,proxy,handler\ncondure_bin=/no\nzurl_bin=/no\n{ZURL}"
        ));
        assert_eq!(settings.proxy.origin_out_specs, ["ipc://run/pushpin-outbound-in"]);
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        let warnings: Vec<_> = warnings.iter().map(Warning::to_string).collect();
        assert_eq!(warnings[0], "text:2: condure is not installed (condure_bin): ours takes its place");
        assert!(warnings[2].contains("the runner starts pushpin-outbound itself"), "{warnings:?}");
    }

    #[test]
    fn sockets_of_a_part_that_runs_elsewhere_are_used() {
        let (settings, warnings) = supervised(&format!("[runner]\nservices=frontend,proxy,handler\n{ZURL}"));
        assert!(!settings.runner.parts.contains(&Part::Outbound));
        assert_eq!(settings.proxy.origin_out_specs, ["ipc://z"]);
        assert_eq!(warnings, []);
    }

    #[test]
    fn sockets_of_a_part_that_is_another_program_are_used() {
        let (settings, _) = supervised(&format!("[runner]\noutbound_bin=/usr/bin/zurl\n{ZURL}"));
        assert_eq!(settings.proxy.origin_out_specs, ["ipc://z"]);
    }

    #[test]
    fn a_program_of_pushpin_that_is_installed_is_used_with_the_names_that_pushpin_has() {
        // Any program will do to be found.
        let text = "[runner]\nservices=condure,zurl,proxy,handler\ncondure_bin=/bin/sh\nzurl_bin=sh\n";
        let (settings, warnings) = supervised(text);
        assert_eq!(warnings, []);
        assert_eq!(settings.proxy.client_in_specs, ["ipc://run/pushpin-condure-out"]);
        assert_eq!(settings.handler.client_out_specs, ["ipc://run/pushpin-condure-in"]);
        assert_eq!(settings.proxy.origin_out_specs, ["ipc://run/pushpin-zurl-in"]);
        assert_eq!(settings.runner.own_parts().collect::<Vec<_>>(), [Part::Proxy, Part::Handler]);
        let (settings, warnings) = supervised(&format!("{text}frontend_processes=2\n"));
        assert_eq!(settings.runner.frontend_processes, 1);
        assert_eq!(warnings[0].to_string(), "text:5: frontend_processes has no effect: condure is one process");
        assert!(settings.runner.original_programs["zurl_bin"].is_absolute());
        let text = "[runner]\nservices=mongrel2,m2adapter,proxy,handler\nm2sh_bin=sh\nm2adapter_bin=sh\nmongrel2_bin=";
        let (settings, _) = supervised(&format!("{text}sh\n"));
        assert_eq!(settings.proxy.client_in_specs, ["ipc://run/pushpin-m2zhttp-out", "ipc://run/pushpin-m2zws-out"]);
        assert_eq!(settings.proxy.origin_out_specs, ["ipc://run/pushpin-outbound-in"]);
        let (settings, warnings) = supervised(&format!("{text}/no\n"));
        assert_eq!(settings.proxy.client_in_specs, ["ipc://run/pushpin-frontend-out"]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].to_string().contains("mongrel2 is not installed (mongrel2_bin, m2sh_bin, m2adapter_bin)"));
    }

    #[test]
    fn without_our_runner_our_processes_are_where_the_file_says_that_those_are_whose_place_they_take() {
        let text = "[proxy]\ncondure_in_specs=ipc://a\ncondure_in_stream_specs=ipc://b\ncondure_out_specs=ipc://c\n";
        let settings = load(&format!("{text}{}", ZURL.replace("[proxy]", "")));
        let frontend = &settings.frontend.processes[0];
        assert_eq!([&frontend.out, &frontend.out_stream, &frontend.input], ["ipc://a", "ipc://b", "ipc://c"]);
        let outbound = &settings.outbound.specs;
        assert_eq!([&outbound.input, &outbound.in_stream, &outbound.out], ["ipc://z", "ipc://y", "ipc://x"]);
    }

    #[test]
    fn an_unknown_service_is_an_error_with_its_line() {
        assert!(error("[runner]\nservices=nginx\n").starts_with("text:2: services: `nginx` is unknown"));
    }

    #[test]
    fn quotes_around_a_list_do_not_make_it_one_item() {
        let rule = load("[proxy]\nx_forwarded_for=\"truncate:0,append\"\n").proxy.x_forwarded_for;
        assert_eq!(rule, ForwardedFor { truncate: Some(0), append: true });
        let subs = load("[handler]\npush_in_sub_specs=\"tcp://a:1, tcp://b:2\"\n").handler.push_in_sub_specs;
        assert_eq!(subs, ["tcp://a:1", "tcp://b:2"]);
    }

    #[test]
    fn a_number_without_a_value_counts_as_not_set() {
        for setting in SETTINGS.iter().filter(|setting| matches!(setting.kind, Kind::Int(..) | Kind::Choice(_))) {
            load(&format!("[{}]\n{}=\n", setting.section, setting.name));
        }
        assert_eq!(load("[runner]\nclient_maxconn=\n").frontend.client_maxconn, 50000);
    }

    #[test]
    fn a_number_out_of_its_range_is_an_error_with_its_line() {
        let used = SETTINGS.iter().filter(|setting| setting.state == State::Used);
        for setting in used {
            let Kind::Int(min, max) = setting.kind else { continue };
            for number in [(min - 1).to_string(), (max + 1).to_string(), "99999999999999999999".into(), "1.5".into()] {
                let error = error(&format!("[{}]\n{}={number}\n", setting.section, setting.name));
                assert!(error.starts_with(&format!("text:2: {}: `{number}` must be", setting.name)), "{error}");
            }
        }
    }

    #[test]
    fn ports_that_the_offset_takes_beyond_the_last_are_errors() {
        let text = "[global]\nport_offset=60000\n[handler]\n";
        for line in ["push_in_http_port=5561", "push_in_spec=tcp://127.0.0.1:5560", "push_in_sub_specs=tcp://a:5562"] {
            let error = error(&format!("{text}{line}\n"));
            assert!(error.starts_with("text:4: push_in_") && error.contains("above 65535"), "{error}");
        }
    }

    #[test]
    fn a_publish_port_without_an_address_is_for_this_machine_only_and_it_is_said() {
        let (settings, warnings) = Settings::load(&source("[handler]\npush_in_http_port=5561\n")).unwrap();
        assert_eq!(settings.handler.push_in_http, Some("127.0.0.1:5561".parse().unwrap()));
        assert!(warnings[0].to_string().starts_with("text:2: push_in_http_port is open to this machine only"));
        let all = load("[handler]\npush_in_http_port=5561\npush_in_http_addr=*\n");
        assert_eq!(all.handler.push_in_http, Some("0.0.0.0:5561".parse().unwrap()));
    }

    #[test]
    fn a_dashboard_beyond_this_machine_needs_a_token() {
        let dashboard = |text: &str| load(text).runner.dashboard.map(|address| address.to_string());
        assert_eq!(dashboard(""), None);
        assert_eq!(dashboard("[runner]\ndashboard_port=7998\n").as_deref(), Some("127.0.0.1:7998"));
        assert_eq!(dashboard("[runner]\ndashboard_port=[::1]:7998\n").as_deref(), Some("[::1]:7998"));
        for address in ["*", "0.0.0.0", "[::]", "192.0.2.1"] {
            let line = format!("[runner]\ndashboard_port={address}:7998\n");
            let error = error(&line);
            assert!(error.starts_with("text:2: dashboard_port: ") && error.contains("set control_token or"), "{error}");
            for guard in ["control_token=x", "control_key=x"] {
                assert!(dashboard(&format!("{line}[handler]\n{guard}\n")).is_some(), "{guard}");
            }
            assert!(Settings::load(&source(&format!("{line}[handler]\ncontrol_iss=x\n"))).is_err());
        }
        assert!(error("[runner]\ndashboard_port=ipc:///d\n").contains("needs a TCP port"));
    }

    #[test]
    fn metrics_are_served_to_this_machine_unless_it_says_otherwise() {
        let (settings, warnings) =
            Settings::load(&source("[proxy]\nprometheus_port=9100\nprometheus_prefix=p_\n")).unwrap();
        let endpoint = Endpoint::Tcp("127.0.0.1:9100".parse().unwrap());
        assert_eq!(settings.runner.metrics, [Exposition { endpoint, prefix: "p_".into() }]);
        assert!(warnings[0].to_string().starts_with("text:2: prometheus_port is open to this machine only"));
        // Not shifted, as in Pushpin; and once if both sections name the same.
        let text = "[global]\nport_offset=1\n[proxy]\nprometheus_port=*:9100\n[handler]\nprometheus_port=*:9100\n";
        let metrics = load(text).runner.metrics;
        assert_eq!(metrics.len(), 1);
        assert_eq!(metrics[0].endpoint, Endpoint::Tcp("0.0.0.0:9100".parse().unwrap()));
        assert!(!load("").runner.is_watched() && load("[runner]\nhealth_port=1\n").runner.is_watched());
    }

    #[test]
    fn a_handler_of_pushpins_serves_its_own_metrics() {
        assert_eq!(load("[runner]\nhandler_bin=/h\n[handler]\nprometheus_port=:1\n").runner.metrics, []);
    }

    #[test]
    fn a_prefix_that_no_metric_can_have_is_refused() {
        for prefix in ["1x", "a-b", "a b"] {
            let error = error(&format!("[handler]\nprometheus_prefix={prefix}\n"));
            assert!(error.starts_with("text:2: prometheus_prefix") && error.contains("pushpin_"), "{error}");
        }
    }

    #[test]
    fn a_key_in_the_wrong_section_is_told_where_it_belongs() {
        let (_, warnings) = Settings::load(&source("[proxy]\nmessage_rate=1\n")).unwrap();
        assert!(warnings[0].to_string().ends_with("it belongs in [handler]"), "{warnings:?}");
    }

    #[test]
    fn each_frontend_process_has_sockets_of_its_own() {
        let settings = load("[runner]\nfrontend_processes=2\n");
        let expected = ["ipc://run/pushpin-frontend-in", "ipc://run/pushpin-frontend-1-in"];
        assert_eq!(settings.handler.client_out_specs, expected);
    }

    #[test]
    fn the_standard_include_line_is_not_read_and_a_missing_file_is_a_warning() {
        let warnings = |text| Settings::load(&source(text)).unwrap().1;
        assert_eq!(warnings("[global]\ninclude={libdir}/internal.conf\n"), []);
        assert!(warnings("[global]\ninclude=/nowhere/x.conf\n")[0].to_string().contains("/nowhere/x.conf"));
    }

    #[test]
    fn rate_zero_and_minus_one_mean_no_limit() {
        assert_eq!(load("[handler]\nmessage_rate=0\n").handler.message_rate, None);
        assert_eq!(load("[handler]\nmessage_rate=2500\n").handler.message_rate, Some(2500));
    }

    #[test]
    fn x_forwarded_for_rules_are_read() {
        let rule = load("[proxy]\nx_forwarded_for=truncate:0,append\n").proxy.x_forwarded_for;
        assert_eq!(rule, ForwardedFor { truncate: Some(0), append: true });
        assert!(error("[proxy]\nx_forwarded_for=truncate\n").contains("truncate:N"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let source = Source { origin: Origin::File("/nowhere/p.conf".into()), ..Source::default() };
        let text = Settings::load(&source).unwrap_err().to_string();
        assert!(text.starts_with("failed to open config file: /nowhere/p.conf"), "{text}");
    }
}
