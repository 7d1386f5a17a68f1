// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-publish`: sends one message to a channel from the command line.
//!
//! Arguments become an [`item`], the item becomes JSON for [`http`] or tnetstring for [`push`].

#![forbid(unsafe_code)]

pub mod address;
pub mod arguments;
pub mod credentials;
pub mod http;
pub mod item;
pub mod push;
pub mod report;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser as _;

use crate::address::Address;
use crate::arguments::Arguments;

/// Name of the program.
pub const NAME: &str = "pushpin-publish";

/// What went wrong; its text is for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Arguments that make no sense together, or a file that cannot be read.
    #[error("{0}")]
    Argument(String),
    /// Nobody there, or no answer.
    #[error("{0}")]
    Connection(String),
    /// The server did not want it, or would not; in its words.
    #[error("{0}")]
    Refused(String),
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match publish(&arguments) {
        Ok(report) => {
            // Whoever has closed the output does not want to know.
            let _ =
                writeln!(io::stdout(), "Published{}", report.map(|report| format!("\n{report}")).unwrap_or_default());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::from(1)
        }
    }
}

/// Returns what the server reports, if that is asked for.
fn publish(arguments: &Arguments) -> Result<Option<String>, Error> {
    let spec = arguments.spec();
    let over_http = spec.starts_with("http:") || spec.starts_with("https:");
    let authorization = arguments.authorization()?;
    if !over_http && authorization.is_some() {
        return Err(Error::Argument("Authentication requires https".into()));
    }
    if !over_http && arguments.report {
        return Err(Error::Argument("--report requires http: nobody answers over ZeroMQ".into()));
    }
    let item = item::build(arguments)?;
    if over_http {
        let address = Address::parse(&spec)?;
        if authorization.is_some() && !address.is_private() {
            return Err(Error::Argument("Authentication requires https, except on this machine (localhost)".into()));
        }
        // With what is in the address the libraries go everywhere too.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let of_address = credentials::token(&spec, now.as_secs())?.map(|token| format!("Bearer {token}"));
        let authorization = authorization.or(of_address);
        let mut body = serde_json::json!({"items": [item::to_json(&item)]});
        if arguments.report {
            body["report"] = true.into();
        }
        let answer = http::post(&address, &body.to_string(), authorization.as_deref())?;
        return Ok(arguments.report.then(|| report::summary(&answer.body)));
    }
    let message = tnetstring::to_vec(&item).map_err(|e| Error::Argument(e.to_string()))?;
    // Nobody answers on this way, so what would be skipped at its end is refused here.
    grip::item::from_message(&message, None).map_err(|error| Error::Refused(error.to_string()))?;
    push::send(&spec, &message).map(|()| None)
}
