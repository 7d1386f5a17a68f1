// SPDX-License-Identifier: AGPL-3.0-or-later
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
    assert!(error("[runner]\nlocal_ports=/s?tls\n").contains("text:2: local_ports: `/s?tls`: unknown option `tls`"));
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
    let (settings, warnings) =
        supervised(&format!("[runner]\nservices=condure,zurl,proxy,handler\ncondure_bin=/no\nzurl_bin=/no\n{ZURL}"));
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
