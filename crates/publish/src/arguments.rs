// SPDX-License-Identifier: AGPL-3.0-or-later
//! Command line.

use base64::Engine as _;
use clap::Parser;

use crate::Error;

const DEFAULT_SPEC: &str = "http://localhost:5561";

const HELP: &str = "\
A text that begins with @ is the name of a file whose bytes are sent as they are; @- is the standard input.

Examples:
  pushpin-publish test hello                                 to streams, long-polls and WebSockets of the channel `test`
  pushpin-publish -H 'Content-Type: text/html' test @a.html  with a header for long-polls
  date | pushpin-publish test @-                             what another program writes
  pushpin-publish --close test                               ends streams and WebSockets
  pushpin-publish --spec tcp://localhost:5560 test hello     by ZeroMQ instead of HTTP";

/// Publishes a message to a channel: every client that is held on it receives it.
#[derive(Clone, Debug, Parser)]
#[command(name = crate::NAME, bin_name = crate::NAME, version, after_help = HELP)]
pub struct Arguments {
    /// Channel to publish to
    pub channel: String,

    /// Text to send; a line end is added for HTTP clients
    pub content: Option<String>,

    /// Id of the message, to drop duplicates and to order messages
    #[arg(long)]
    pub id: Option<String>,

    /// Id of the message before it
    #[arg(long, value_name = "ID")]
    pub prev_id: Option<String>,

    /// Do not send to connections of this sender (meta `sender`, for the filter skip-self)
    #[arg(long)]
    pub sender: Option<String>,

    /// Status code of the response that long-polls get
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(0..=999))]
    pub code: u16,

    /// Header of that response, as "Name: value"; can be repeated
    #[arg(short = 'H', long, value_name = "HEADER")]
    pub header: Vec<String>,

    /// Information for filters, as "name=value"; can be repeated
    #[arg(short = 'M', long, value_name = "META")]
    pub meta: Vec<String>,

    /// Send nothing, but have clients updated by asking the backend
    #[arg(long)]
    pub hint: bool,

    /// Send nothing, but end streams and WebSockets
    #[arg(long)]
    pub close: bool,

    /// The content is a JSON patch of the body that the backend gave with the hold
    #[arg(long)]
    pub patch: bool,

    /// Deliver at once, without regard to ids of other messages
    #[arg(long)]
    pub no_seq: bool,

    /// Do not add a line end
    #[arg(long)]
    pub no_eol: bool,

    /// Tell how many clients of each kind have been given the message (HTTP only)
    #[arg(long)]
    pub report: bool,

    /// Where to publish: http://host:port, https://host, or a ZeroMQ address such as tcp://localhost:5560
    /// [default: $GRIP_URL, else http://localhost:5561]. `?iss=NAME&key=KEY` behind an address of HTTP makes a token, and `?key=TOKEN` is one, as
    /// the libraries of GRIP have it
    #[arg(long)]
    pub spec: Option<String>,

    /// Authenticate with name and password, as name:password (https, or this machine)
    #[arg(short, long, value_name = "NAME:PASSWORD")]
    pub user: Option<String>,

    /// Authenticate with a token (https, or this machine), as control_key and control_token of the configuration want it
    #[arg(short = 'B', long, value_name = "TOKEN")]
    pub bearer: Option<String>,
}

impl Arguments {
    /// Where to publish.
    pub fn spec(&self) -> String {
        let given = self.spec.clone().or_else(|| std::env::var("GRIP_URL").ok());
        given.filter(|s| !s.is_empty()).unwrap_or_else(|| DEFAULT_SPEC.into())
    }

    /// Value of the Authorization header, if one of the options is to authenticate.
    pub fn authorization(&self) -> Result<Option<String>, Error> {
        match (&self.user, &self.bearer) {
            (Some(_), Some(_)) => Err(Error::Argument("only one authentication method can be specified".into())),
            (Some(user), None) => Ok(Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user)))),
            (None, Some(token)) => Ok(Some(format!("Bearer {token}"))),
            (None, None) => Ok(None),
        }
    }
}
