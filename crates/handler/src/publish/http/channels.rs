// SPDX-License-Identifier: AGPL-3.0-or-later
//! `GET /channels`: who is subscribed to what.

use hyper::StatusCode;
use serde_json::json;

use super::answers::{Answer, busy, plain, respond};
use super::authorization::Grant;
use super::publisher::Publisher;
use super::target::{Target, decode};
use crate::publish::submission::{Outcome, Output, Work};
use crate::subscribe::counts::{Listing, Order};
use crate::subscribe::presence::{Asked, Users};

/// Channels of a page, if nothing is said about it, and at most.
const USUAL: usize = 100;
const MOST: usize = 1_000;
/// What a query for one channel may be.
const USERS: &str = "The query may have `users=true`, and with it `after` and `limit`.";

/// Answers a request about one channel, by the part of the path that names it.
pub(super) async fn one(name: &str, target: Target<'_>, grant: &Grant, publisher: &Publisher) -> Answer {
    let Some(name) = decode(name) else {
        return plain(StatusCode::BAD_REQUEST, "The name of the channel is no text.\n");
    };
    if let Err(refusal) = grant.check(&name) {
        return publisher.port.refuse(refusal).await;
    }
    let asked = match users(target) {
        Ok(asked) => asked,
        Err(text) => return plain(StatusCode::BAD_REQUEST, format!("{text}\n")),
    };
    match publisher.submit(Work::Count(name.clone(), asked)).await {
        Outcome::Done(Output::Counted(Some((counts, users)))) => {
            let mut value = json!({"channel": name, "subscribers": counts});
            if let Some(Users { users, more }) = users {
                let each = users.iter().map(|(user, counts)| json!({"user": user, "subscribers": counts}));
                value["users"] = each.collect();
                if let Some((last, _)) = users.last().filter(|_| more) {
                    value["next"] = last.as_str().into();
                }
            }
            told(&value)
        }
        Outcome::Done(_) => plain(StatusCode::NOT_FOUND, "Nobody is subscribed to this channel.\n"),
        outcome => busy(&outcome),
    }
}

/// Answers a request for a page of channels.
pub(super) async fn page(target: Target<'_>, grant: &Grant, publisher: &Publisher) -> Answer {
    let listing = match listing(target, grant) {
        Ok(listing) => listing,
        Err(text) => return plain(StatusCode::BAD_REQUEST, format!("{text}\n")),
    };
    let order = listing.order;
    match publisher.submit(Work::List(listing)).await {
        Outcome::Done(Output::Listed(page)) => {
            let goes_on = page.more && order == Order::Names;
            let next = page.channels.last().filter(|_| goes_on).map(|(name, _)| name.clone());
            let channels = page.channels.iter().map(|(name, counts)| json!({"channel": name, "subscribers": counts}));
            let mut value = json!({"channels": channels.collect::<Vec<_>>()});
            if let Some(next) = next {
                value["next"] = next.into();
            }
            told(&value)
        }
        outcome => busy(&outcome),
    }
}

fn listing(target: Target<'_>, grant: &Grant) -> Result<Listing, String> {
    let members = target.members().ok_or("The query is no text.")?;
    let mut listing = Listing { limit: USUAL, among: grant.names(), ..Listing::default() };
    for (name, value) in members {
        match name.as_str() {
            "prefix" => listing.prefix = value,
            "order" if value == "subscribers" => listing.order = Order::Subscribers,
            "after" => listing.after = Some(value),
            "limit" => listing.limit = limit(&value)?,
            _ => return Err("The query may have `prefix`, `after`, `limit` and `order=subscribers`.".into()),
        }
    }
    if listing.order == Order::Subscribers && listing.after.is_some() {
        return Err("`after` goes with the order of names, not with `order=subscribers`.".into());
    }
    Ok(listing)
}

/// Which users of a channel are asked for.
fn users(target: Target<'_>) -> Result<Option<Asked>, String> {
    let members = target.members().ok_or("The query is no text.")?;
    if members.is_empty() {
        return Ok(None);
    }
    let (mut wanted, mut asked) = (false, Asked { after: None, limit: USUAL });
    for (name, value) in members {
        match name.as_str() {
            "users" if value == "true" => wanted = true,
            "after" => asked.after = Some(value),
            "limit" => asked.limit = limit(&value)?,
            _ => return Err(USERS.into()),
        }
    }
    wanted.then_some(Some(asked)).ok_or(USERS.into())
}

fn limit(value: &str) -> Result<usize, String> {
    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
    limit.ok_or(format!("`limit` must be a number from 1 to {MOST}."))
}

fn told(value: &serde_json::Value) -> Answer {
    respond(StatusCode::OK, "application/json", format!("{value}\n"))
}
