// SPDX-License-Identifier: AGPL-3.0-or-later
//! Content filters of GRIP that let every second user pass.

use clap::ValueEnum;

use crate::message::Message;

/// What keeps a message from a user with an odd number.
#[derive(Clone, Copy, ValueEnum, PartialEq, Debug)]
pub enum Filter {
    /// The message names them.
    SkipUsers,
    /// The message is for those who are also on the channel `vip`.
    RequireSub,
    /// The origin is asked, for each message and user.
    HttpCheck,
}

/// Who is filtered, and how. Connection `n` belongs to user `n % users`.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct FilterArgs {
    /// Filter messages, so that those connections get them whose user has an even number
    #[arg(long, value_enum)]
    pub filter: Option<Filter>,
    /// Users whom the connections belong to
    #[arg(long, default_value_t = 2)]
    pub users: usize,
}

impl FilterArgs {
    /// No message is filtered.
    pub const NONE: FilterArgs = FilterArgs { filter: None, users: 1 };

    /// Whether the connection with this number is to get messages.
    pub fn passes(&self, connection: usize) -> bool {
        self.filter.is_none() || passes(connection % self.users)
    }

    /// What the query of the request for a hold has beside the channel.
    pub fn query(&self, connection: usize) -> String {
        match self.filter {
            Some(filter) => format!("&filter={}&user={}", filter.name(), connection % self.users),
            None => String::new(),
        }
    }

    /// The meta data of an item, as name and value. Its warm-up message is for all whom its filter can tell apart.
    pub fn meta(&self, message: &Message) -> Option<(&'static str, String)> {
        match self.filter {
            Some(Filter::SkipUsers) if !message.warm_up => {
                let odd = (1..self.users).step_by(2).map(|user| format!("u{user}"));
                Some(("skip_users", odd.collect::<Vec<_>>().join(",")))
            }
            Some(Filter::RequireSub) if !message.warm_up => Some(("require_sub", "vip".into())),
            _ => None,
        }
    }

    /// Whether the connection with this number gets warm-up messages.
    pub fn warms(&self, connection: usize) -> bool {
        self.filter != Some(Filter::HttpCheck) || self.passes(connection)
    }
}

fn passes(user: usize) -> bool {
    user % 2 == 0
}

impl Filter {
    /// As GRIP calls it.
    fn name(self) -> &'static str {
        match self {
            Filter::SkipUsers => "skip-users",
            Filter::RequireSub => "require-sub",
            Filter::HttpCheck => "http-check",
        }
    }
}

/// The origin's side: the headers of a hold's instruct for a request's `filter` and `user`.
pub fn instruct(channel: &str, filter: &str, user: usize) -> String {
    let vip = if filter == "require-sub" && passes(user) { "Grip-Channel: vip\r\n" } else { "" };
    format!(
        "Grip-Channel: {channel}; filter={filter}\r\n{vip}Grip-Set-Meta: user=\"u{user}\", url=\"/check?user={user}\"\r\n"
    )
}

/// The origin's side: the header that answers `http-check` for a user.
pub fn verdict(user: usize) -> &'static str {
    if passes(user) {
        "Action: send\r\n"
    } else {
        "Action: drop\r\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_user_passes() {
        let args = FilterArgs { filter: Some(Filter::SkipUsers), users: 4 };
        assert_eq!([0, 1, 2, 3, 4].map(|n| args.passes(n)), [true, false, true, false, true]);
        assert_eq!(args.query(5), "&filter=skip-users&user=1");
        let message = Message { warm_up: false, seq: 0, sent_ns: 0 };
        assert_eq!(args.meta(&message), Some(("skip_users", "u1,u3".into())));
        assert_eq!(args.meta(&Message { warm_up: true, ..message }), None);
        assert!(FilterArgs::NONE.passes(1) && FilterArgs::NONE.query(1).is_empty());
    }
}
