// SPDX-License-Identifier: AGPL-3.0-or-later
//! Publishing to the suite in each of its ways.

use std::io;

use transport::{Context, Options, Push};

use crate::client::{Client, Response};
use crate::suite::Suite;

/// Posts to the HTTP publish port.
pub fn post(suite: &Suite, body: &str) -> io::Result<Response> {
    let mut client = Client::connect(suite.publish_port)?;
    let length = body.len();
    client.send(format!("POST /publish/ HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())?;
    client.response()
}

/// Publishes a text to the streams and long-polls of a channel over HTTP.
pub fn text(suite: &Suite, channel: &str, text: &str) -> io::Result<()> {
    let item = format!(
        r#"{{"channel":"{channel}","formats":{{"http-stream":{{"content":"{text}"}},"http-response":{{"body":"{text}"}}}}}}"#
    );
    let response = post(suite, &format!(r#"{{"items":[{item}]}}"#))?;
    match response.head.status {
        200 => Ok(()),
        status => Err(io::Error::other(format!("{status}: {}", response.text()))),
    }
}

/// Sends one frame to the ZeroMQ PULL socket.
pub fn push(suite: &Suite, frame: &[u8]) {
    let specs = [format!("tcp://127.0.0.1:{}", suite.push_port)];
    let socket = Push::connect(&Context::new(), &specs, &Options { linger: 20_000, ..Options::default() }).unwrap();
    socket.send(frame).unwrap();
}
