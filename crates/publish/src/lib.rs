//! `pushpin-publish`: sends one message to a channel from the command line.
//!
//! Arguments become an [`item`], the item becomes JSON for [`http`] or tnetstring for [`push`].

#![forbid(unsafe_code)]

pub mod arguments;
pub mod http;
pub mod item;
pub mod push;

use std::process::ExitCode;

use clap::Parser as _;

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
    match publish(&Arguments::parse()) {
        Ok(()) => {
            println!("Published");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::from(1)
        }
    }
}

fn publish(arguments: &Arguments) -> Result<(), Error> {
    let item = item::build(arguments)?;
    let spec = arguments.spec();
    if spec.starts_with("http:") || spec.starts_with("https:") {
        let body = serde_json::json!({"items": [item::to_json(&item)]}).to_string();
        return http::post(&spec, body, arguments.authorization()?);
    }
    if arguments.authorization()?.is_some() {
        return Err(Error::Argument("Authentication requires https".into()));
    }
    let message = tnetstring::to_vec(&item).map_err(|e| Error::Argument(e.to_string()))?;
    // Nobody answers on this way, so what would be skipped at its end is refused here.
    grip::item::from_message(&message, None).map_err(|error| Error::Refused(error.to_string()))?;
    push::send(&spec, &message)
}
