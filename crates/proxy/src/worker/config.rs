// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the engine needs of the settings.

use crate::context::Config;
use crate::request::headers::Rules;
use crate::request::signatures::{signing_key, verifying_key};

pub(super) fn config(settings: &settings::Proxy) -> Config {
    if let Some(Err(error)) = settings.sig_key.as_ref().map(signing_key) {
        tracing::error!("sig_key has no effect: {error}");
    }
    if let Some(Err(error)) = settings.upstream_key.as_ref().map(verifying_key) {
        tracing::error!("upstream_key has no effect: {error}");
    }
    let origin_specs = [&settings.origin_out_specs, &settings.origin_out_stream_specs, &settings.origin_in_specs];
    Config {
        stats_connection_ttl: settings.stats_connection_ttl,
        stats_connections_max_ttl: settings.stats_connections_max_ttl,
        stats_report_interval: settings.stats_report_interval,
        rules: Rules {
            accept_protocol: settings.accept_x_forwarded_protocol,
            set_protocol: settings.set_x_forwarded_protocol,
            forwarded_for: settings.x_forwarded_for,
            forwarded_for_trusted: settings.x_forwarded_for_trusted,
            accept_route: settings.accept_pushpin_route,
            cdn_loop: settings.cdn_loop.clone(),
            need_mark: settings.orig_headers_need_mark.clone(),
        },
        debug: settings.debug,
        auto_cross_origin: settings.auto_cross_origin,
        unbuffer_streams: settings.unbuffer_streams,
        recover_wait: settings.recover_wait,
        sockjs_url: settings.sockjs_url.clone(),
        log_requests: Some(|| tracing::enabled!(tracing::Level::INFO)),
        log_from: settings.log_from,
        log_user_agent: settings.log_user_agent,
        sig_iss: settings.sig_iss.clone(),
        sig_key: settings.sig_key.clone(),
        upstream_key: settings.upstream_key.clone(),
        max_open_requests: settings.max_open_requests,
        session_queue_bytes: settings.session_queue_bytes,
        session_queue_time: settings.session_queue_time,
        max_message_size: settings.max_message_size,
        events_timeout: settings.events_timeout,
        router_resp: origin_specs.into_iter().flatten().all(|spec| spec.starts_with("ipc:")),
    }
}
