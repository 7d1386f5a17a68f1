// SPDX-License-Identifier: AGPL-3.0-or-later
//! What those see who watch over the suite: metrics and health.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pushpin_tests::client::{Client, Response, get};
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::publish;
use pushpin_tests::suite::{Stopped, Suite, free_ports};
use pushpin_tests::until;

struct Watched {
    suite: Suite,
    metrics: u16,
    health: u16,
}

impl Watched {
    fn start(settings: &str) -> Self {
        let [metrics, health] = free_ports();
        let settings = format!("prometheus_port={metrics}\n{settings}\n[runner]\nhealth_port={health}\n");
        let mut suite = Suite::prepare("* test", &settings);
        suite.launch();
        Watched { suite, metrics, health }
    }

    /// All samples now, by name with labels.
    fn scrape(&self) -> BTreeMap<String, f64> {
        samples(&self.text())
    }

    fn text(&self) -> String {
        let answer = get(self.metrics, "/metrics").unwrap();
        assert_eq!(answer.head.status, 200);
        answer.text()
    }

    /// Waits until a sample has a value.
    fn shows(&self, sample: &str, value: f64) {
        until(&format!("{sample} is {value}"), || self.scrape().get(sample) == Some(&value));
    }

    fn readiness(&self) -> Response {
        get(self.health, "/readyz").unwrap()
    }

    fn is_ready(&self) -> bool {
        self.readiness().head.status == 200
    }

    fn hold(&self, channel: &str) -> Client {
        let mut client = Client::connect(self.suite.port).unwrap();
        client.get(&format!("/stream?channel={channel}")).unwrap();
        client.head().unwrap();
        client.expect("[stream opened]\n").unwrap();
        client
    }
}

fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        (name.to_string(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
    };
    lines.map(sample).collect()
}

#[test]
fn one_scrape_shows_what_was_done_in_all_processes() {
    let watched = Watched::start("");
    let mut streams: Vec<_> = (0..3).map(|_| watched.hold("room")).collect();
    get(watched.suite.port, "/").unwrap();
    publish::text(&watched.suite, "room", "hello").unwrap();
    let message = br#"J{"channel":"room","formats":{"http-stream":{"content":"again"}}}"#;
    publish::push(&watched.suite, message);
    for stream in &mut streams {
        stream.expect("hello").unwrap();
        stream.expect("again").unwrap();
    }
    watched.shows("message_sent", 6.0);
    for (sample, value) in [
        ("message_received", 2.0),
        ("request_received", 4.0),
        ("connection_minute", 4.0),
        ("pushpin_messages_total{process=\"handler\",input=\"http\"}", 1.0),
        ("pushpin_messages_total{process=\"handler\",input=\"pull\"}", 1.0),
        ("pushpin_deliveries_total{process=\"handler\",mode=\"stream\"}", 6.0),
        ("pushpin_holds{process=\"handler\",mode=\"stream\"}", 3.0),
        ("pushpin_channels{process=\"handler\"}", 1.0),
        ("pushpin_clients{process=\"frontend\"}", 3.0),
        ("pushpin_client_response_seconds_count{process=\"frontend\"}", 4.0),
        ("pushpin_publish_seconds_count{process=\"handler\"}", 2.0),
        ("pushpin_queue_bytes{process=\"handler\",queue=\"publishing\"}", 0.0),
        ("pushpin_requests_total{process=\"proxy\",kind=\"http\"}", 4.0),
        ("pushpin_process_up{process=\"outbound\"}", 1.0),
        ("connection_connected", 3.0),
    ] {
        watched.shows(sample, value);
    }
    drop(streams);
    watched.shows("pushpin_holds{process=\"handler\",mode=\"stream\"}", 0.0);
    watched.shows("pushpin_clients{process=\"frontend\"}", 0.0);
}

#[test]
fn a_response_and_a_publish_take_as_long_as_they_take() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let origin = Origin::start(move |_, stream| {
        released.lock().unwrap().recv().unwrap();
        respond(stream, "200 OK", "", b"late")
    });
    let [metrics] = free_ports();
    let mut suite = Suite::prepare(&format!("* 127.0.0.1:{}", origin.port), &format!("prometheus_port={metrics}\n"));
    suite.launch();
    let began = Instant::now();
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/").unwrap();
    until("some time has passed", || began.elapsed() > Duration::from_millis(300));
    release.send(()).unwrap();
    assert_eq!(client.response().unwrap().text(), "late");
    let (took, scrape) = (began.elapsed(), || samples(&get(metrics, "/").unwrap().text()));
    let of_client = |end: &str| format!("pushpin_client_response_seconds_{end}{{process=\"frontend\"}}");
    until("the response is counted", || scrape().get(&of_client("count")) == Some(&1.0));
    let sum = scrape()[&of_client("sum")];
    assert!((0.29..=took.as_secs_f64()).contains(&sum), "{sum} of {took:?}");
    let began = Instant::now();
    publish::text(&suite, "c", "x").unwrap();
    let took = began.elapsed().as_secs_f64();
    until("it is counted", || scrape().get("pushpin_publish_seconds_count{process=\"handler\"}") == Some(&1.0));
    let sum = scrape()["pushpin_publish_seconds_sum{process=\"handler\"}"];
    assert!(sum > 0.0 && sum <= took, "{sum} of {took}");
}

#[test]
fn what_a_frontend_does_not_take_are_bytes_in_a_queue() {
    let watched = Watched::start("");
    // More than the kernel keeps for a link, and for each what it has credits for.
    let rooms: Vec<String> = (0..60).map(|number| format!("room{number}")).collect();
    let _streams: Vec<_> = rooms.iter().map(|room| watched.hold(room)).collect();
    let _stopped = Stopped::new(watched.suite.pid("frontend"));
    let text = "x".repeat(7000);
    for room in &rooms {
        let item = format!(r#"J{{"channel":"{room}","formats":{{"http-stream":{{"content":"{text}"}}}}}}"#);
        publish::push(&watched.suite, item.as_bytes());
    }
    let queued = "pushpin_queue_bytes{process=\"handler\",queue=\"frontends\"}";
    until("something waits", || watched.scrape().get(queued).is_some_and(|bytes| *bytes > 7000.0));
}

#[test]
fn what_a_client_does_not_take_are_bytes_in_a_queue() {
    let watched = Watched::start("");
    let _stream = watched.hold("room");
    let item = format!(r#"J{{"channel":"room","formats":{{"http-stream":{{"content":"{}"}}}}}}"#, "x".repeat(60_000));
    let queued = "pushpin_queue_bytes{process=\"frontend\",queue=\"clients\"}";
    // The kernel takes some megabytes first.
    until("something waits", || {
        publish::push(&watched.suite, item.as_bytes());
        watched.scrape().get(queued).is_some_and(|bytes| *bytes > 0.0)
    });
}

#[test]
fn the_page_is_pushpins_with_its_prefix_on_a_unix_socket_too() {
    let [port] = free_ports();
    let settings = format!(
        "prometheus_port=127.0.0.1:{port}\nprometheus_prefix=pushpin_\n[proxy]\nprometheus_port=ipc://{{rundir}}/metrics\n"
    );
    let mut suite = Suite::prepare("* test", &settings);
    suite.launch();
    let text = get(port, "/any").unwrap().text();
    // As Pushpin 1.36 answers.
    let expected = "\
# HELP pushpin_request_received Number of requests received
# TYPE pushpin_request_received counter
pushpin_request_received 0
# HELP pushpin_connection_connected Number of concurrent connections
# TYPE pushpin_connection_connected gauge
pushpin_connection_connected 0
# HELP pushpin_connection_minute Number of minutes clients have been connected
# TYPE pushpin_connection_minute counter
pushpin_connection_minute 0
# HELP pushpin_message_received Number of messages received by the publish API
# TYPE pushpin_message_received counter
pushpin_message_received 0
# HELP pushpin_message_sent Number of messages sent to clients
# TYPE pushpin_message_sent counter
pushpin_message_sent 0
";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("\npushpin_build_info{"), "{text}");
    let mut stream = UnixStream::connect(suite.path("run/metrics")).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    assert!(answer.contains("\r\n\r\n# HELP request_received "), "{answer}");
    suite.stop();
    assert!(!suite.path("run/metrics").exists());
}

#[test]
fn a_process_that_is_killed_is_missing_until_it_serves_again() {
    let watched = Watched::start("");
    get(watched.suite.port, "/").unwrap();
    watched.shows("request_received", 1.0);
    let restarts = "pushpin_process_restarts_total{process=\"proxy\"}";
    assert_eq!(watched.scrape()[restarts], 0.0);
    watched.suite.kill("proxy");
    watched.shows(restarts, 1.0);
    until("it is ready again", || watched.is_ready());
    get(watched.suite.port, "/").unwrap();
    // What the first had counted is not lost.
    watched.shows("request_received", 2.0);
    watched.shows("pushpin_requests_total{process=\"proxy\",kind=\"http\"}", 1.0);
    // The first restart may be too quick to be seen; each further one waits longer.
    until("it is seen to be missing", || {
        if let Some(pid) = watched.suite.children().get("pushpin-proxy") {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), Signal::SIGKILL);
        }
        let readiness = watched.readiness();
        readiness.head.status == 503 && readiness.text().starts_with("proxy ")
    });
    assert_eq!(get(watched.health, "/healthz").unwrap().head.status, 200);
    until("it is ready again", || watched.is_ready());
}

#[test]
fn a_process_that_hangs_costs_only_its_own_samples() {
    let watched = Watched::start("");
    let outbound = "pushpin_backend_requests_total{process=\"outbound\"}";
    let handler = "pushpin_channels{process=\"handler\"}";
    watched.shows(outbound, 0.0);
    watched.shows(handler, 0.0);
    let stopped = Stopped::new(watched.suite.pid("outbound"));
    watched.shows("pushpin_process_up{process=\"outbound\"}", 0.0);
    let readiness = watched.readiness();
    assert_eq!((readiness.head.status, &*readiness.text()), (503, "outbound has not answered for 5 s\n"));
    until("the control port tells the same", || {
        let told = get(watched.suite.publish_port, "/readyz").unwrap();
        told.head.status == 503 && told.text() == readiness.text()
    });
    assert_eq!(get(watched.suite.publish_port, "/healthz").unwrap().text(), "ok\n");
    let scrape = watched.scrape();
    assert!(!scrape.contains_key(outbound) && scrape.contains_key(handler), "{scrape:?}");
    drop(stopped);
    until("it is ready again", || watched.is_ready());
    until("the control port tells so", || get(watched.suite.publish_port, "/readyz").unwrap().text() == "ready\n");
    watched.shows(outbound, 0.0);
}

#[test]
fn the_control_port_tells_of_health_without_token() {
    let mut suite = Suite::prepare("* test", "control_token=secret\n");
    suite.launch();
    until("it is ready", || get(suite.publish_port, "/readyz").unwrap().text() == "ready\n");
    assert_eq!(get(suite.publish_port, "/channels").unwrap().head.status, 401);
    suite.send("proxy", Signal::SIGSTOP);
    until("the proxy is missing", || get(suite.publish_port, "/readyz").unwrap().text().starts_with("proxy "));
    suite.send("proxy", Signal::SIGCONT);
    until("it is ready again", || get(suite.publish_port, "/readyz").unwrap().head.status == 200);
}

#[test]
fn a_scrape_has_what_the_documentation_says() {
    let [tls, metrics, health] = free_ports();
    let settings = format!("prometheus_port={metrics}\n[runner]\nhealth_port={health}\nhttps_ports={tls}\n");
    let mut suite = Suite::prepare("* test", &settings);
    let certificate = format!("default_{tls}");
    crate::tls::certify(&suite, &certificate, "localhost");
    suite.launch();
    let watched = Watched { suite, metrics, health };
    publish::push(&watched.suite, b"nonsense");
    // As rcgen has it: the first day of 4096.
    let expiry =
        format!("pushpin_certificate_expiry_timestamp_seconds{{process=\"frontend\",certificate=\"{certificate}\"}}");
    watched.shows(&expiry, 67_090_118_400.0);
    watched.shows("pushpin_warnings_total{process=\"handler\",kind=\"pull\"}", 1.0);
    until("all processes have told something", || watched.text().contains("process=\"outbound\""));
    let text = watched.text();
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let rows = rows.map(|(name, rest)| (name, rest.split(" | ").collect::<Vec<_>>()));
    // The others say what the values of a label mean.
    let documented: BTreeMap<_, _> = rows.filter(|(_, rest)| rest.len() == 3).collect();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let types: BTreeMap<_, _> =
        types.map(|(name, kind)| (name.strip_prefix("pushpin_").unwrap_or(name), kind)).collect();
    assert_eq!(documented.keys().collect::<Vec<_>>(), types.keys().collect::<Vec<_>>());
    for (name, rest) in &documented {
        assert_eq!(rest[0], types[name], "{name}");
    }
    for sample in samples(&text).keys() {
        let sample = sample.strip_prefix("pushpin_").unwrap_or(sample);
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        let family = documented.get_key_value(name).or_else(|| {
            let (family, _) = name.rsplit_once('_')?;
            documented.get_key_value(family).filter(|(_, rest)| rest[0] == "histogram")
        });
        let Some((_, rest)) = family else { panic!("{sample} is not documented") };
        let labels =
            labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty() && !label.starts_with("le="));
        let labels: Vec<_> = labels.map(|label| format!("`{}`", label.split('=').next().unwrap())).collect();
        assert_eq!(rest[1], labels.join(", "), "{sample}");
    }
}

#[test]
fn a_place_that_is_taken_is_an_error_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = Suite::prepare("* test", &format!("prometheus_port={port}")).run();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("prometheus_port: unable to bind to 127.0.0.1:{port}")), "{told}");
}
