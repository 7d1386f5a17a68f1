// SPDX-License-Identifier: AGPL-3.0-or-later
//! Raw requests by which two readers could come to disagree about where one ends (`smuggling.txt`).

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pushpin_tests::origin::{Origin, Request, respond};
use pushpin_tests::suite::Suite;

pub(crate) const CANARY: &[u8] = b"GET /canary HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
/// No request of the table may take longer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Number, expectation and bytes of each line of the table.
pub(crate) fn table() -> impl Iterator<Item = (usize, &'static str, &'static str)> {
    let lines = include_str!("smuggling.txt").lines().zip(1..);
    lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#')).map(|(line, number)| {
        let (expected, raw) = line.split_once('\t').unwrap();
        (number, expected, raw)
    })
}

/// The bytes of a line of the table, with `\r \n \t \\ \xHH` for those that a text can not show.
pub fn bytes(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let (byte, used) = match tail {
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', a, b, ..] => (u8::from_str_radix(&format!("{}{}", *a as char, *b as char), 16).unwrap(), 3),
            _ => panic!("not an escape: {text}"),
        };
        out.push(byte);
        rest = &tail[used..];
    }
    out
}

/// What came back until the suite closed, and whether it did.
pub(crate) fn converse(port: u16, sent: &[u8]) -> (Vec<u8>, bool) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // It may have been closed in the middle.
    let _ = stream.write_all(sent);
    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (received, true),
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return (received, true),
            Err(_) => return (received, false),
        }
    }
}

/// What a backend saw of a request: as in the table, with a note if another backend could have read it otherwise.
pub(crate) fn seen(request: &Request) -> String {
    let count = |name: &str| request.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count();
    let framings = count("Content-Length") + count("Transfer-Encoding");
    let control = request.headers.iter().any(|(n, v)| n.chars().chain(v.chars()).any(|c| c.is_ascii_control()));
    let ambiguous = if framings > 1 || count("Host") != 1 || control { " (ambiguous)" } else { "" };
    let body = String::from_utf8_lossy(&request.body);
    let colon = if body.is_empty() { "" } else { ":" };
    format!("{}{}{colon}{body}{ambiguous}", request.method, request.target)
}

/// The status of the first response.
pub(crate) fn status(received: &[u8]) -> Option<u16> {
    std::str::from_utf8(received.get(9..12)?).ok()?.parse().ok()
}

/// What is wrong with what came of a line, if anything.
pub(crate) fn complaint(expected: &str, received: &[u8], closed: bool, seen: &[String]) -> Option<String> {
    let status = status(received);
    let fits = match expected {
        "broken" => seen.is_empty() && status != Some(200),
        "4xx" => seen.is_empty() && status.is_some_and(|status| (400..500).contains(&status) || status == 505),
        code if code.bytes().all(|b| b.is_ascii_digit()) => seen.is_empty() && status == code.parse().ok(),
        requests => {
            let wanted = requests.split(' ').chain(["GET/canary"]);
            let answers = received.windows(12).filter(|w| w == b"HTTP/1.1 200").count();
            answers == seen.len() && wanted.eq(seen.iter().map(String::as_str))
        }
    };
    let came = String::from_utf8_lossy(received);
    (!fits || !closed).then(|| format!("closed={closed}, the backend saw {seen:?}, the client {came:?}"))
}

#[test]
fn no_request_hides_another() {
    let record = Arc::new(Mutex::new(Vec::new()));
    let at_origin = record.clone();
    let origin = Origin::start(move |request, stream| {
        at_origin.lock().unwrap().push(seen(request));
        respond(stream, "200 OK", "", b"ok")
    });
    let suite = Suite::before(origin.port);
    let (mut cases, mut complaints) = (0, Vec::new());
    for (number, expected, raw) in table() {
        cases += 1;
        let start = Instant::now();
        let (received, closed) = converse(suite.port, &[&bytes(raw), CANARY].concat());
        let saw = std::mem::take(&mut *record.lock().unwrap());
        if let Some(complaint) = complaint(expected, &received, closed, &saw) {
            complaints.push(format!("line {number}: {expected}\t{raw}\n  {:?}: {complaint}", start.elapsed()));
        }
    }
    assert!(cases >= 150, "{cases} cases");
    assert!(complaints.is_empty(), "{} of {cases}:\n{}", complaints.len(), complaints.join("\n"));
}
