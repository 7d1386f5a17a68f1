// SPDX-License-Identifier: AGPL-3.0-or-later
//! Filters: what a subscription lets through, and in which form (GRIP, filters).
//!
//! A backend names filters with a channel. They run in the order in which they are named, on each message for the
//! subscription; some also on the backend's own response. The outcome is content, or nothing.

pub mod format;

use std::borrow::Cow;
use std::collections::HashMap;

use format::{Directive, FormatError, Formatter};

use crate::meta::Meta;

/// A filter. Names that are not known are no filters, and have no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Drops what the subscriber has sent.
    SkipSelf,
    /// Drops what is not for the subscriber's user.
    SkipUsers,
    /// Drops what only the subscribers of another channel as well may see.
    RequireSub,
    /// Fills in ids.
    BuildId,
    /// Fills in the subscriber's data.
    VarSubst,
    /// Asks a URL whether to deliver; whoever runs filters must do that, since nothing here has sockets.
    HttpCheck,
    /// Asks a URL what to deliver; likewise.
    HttpModify,
}

impl Filter {
    /// The filter of a name, in lower case as it must be written.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "skip-self" => Filter::SkipSelf,
            "skip-users" => Filter::SkipUsers,
            "require-sub" => Filter::RequireSub,
            "build-id" => Filter::BuildId,
            "var-subst" => Filter::VarSubst,
            "http-check" => Filter::HttpCheck,
            "http-modify" => Filter::HttpModify,
            _ => return None,
        })
    }

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Filter::SkipSelf => "skip-self",
            Filter::SkipUsers => "skip-users",
            Filter::RequireSub => "require-sub",
            Filter::BuildId => "build-id",
            Filter::VarSubst => "var-subst",
            Filter::HttpCheck => "http-check",
            Filter::HttpModify => "http-modify",
        }
    }

    /// Whether it changes the content of messages, so that a publisher must know of it.
    pub fn changes_messages(self) -> bool {
        matches!(self, Filter::BuildId | Filter::VarSubst | Filter::HttpModify)
    }

    /// Whether it asks a URL, so that whoever runs filters must do that.
    pub fn asks(self) -> bool {
        matches!(self, Filter::HttpCheck | Filter::HttpModify)
    }

    /// Whether it changes a backend's own response.
    pub fn changes_responses(self) -> bool {
        self == Filter::BuildId
    }
}

/// The filters among some names.
pub fn parse_all<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Filter> {
    names.into_iter().filter_map(Filter::parse).collect()
}

/// What a message's filters look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// What the backend has set for the subscriber.
    pub subscriber: &'a Meta,
    /// What the publisher has set for the message.
    pub publisher: &'a Meta,
    /// The subscriber's channels as the backend named them, each with the id of its last message.
    pub channels: &'a [(&'a str, Option<&'a str>)],
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It is delivered with this content.
    Deliver(Cow<'a, [u8]>),
    /// It is not delivered.
    Drop,
}

/// A filter that could not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}", name = filter.name())]
pub struct FilterError {
    /// Which one.
    pub filter: Filter,
    /// What was wrong.
    pub reason: Reason,
}

/// Why a filter could not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The backend has not set what the filter needs.
    #[error("no sub meta '{0}'")]
    NoMeta(&'static str),
    /// The backend has asked for an encoding that does not exist.
    #[error("unsupported encoding: {0}")]
    Encoding(String),
    /// The id of the channels can not be made.
    #[error("failed to render ID: {0}")]
    NoId(FormatError),
    /// The backend has not said whom to ask.
    #[error("missing url value")]
    NoUrl,
    /// What it has said is no address.
    #[error("invalid url value")]
    BadUrl,
    /// Who was asked has answered something else than 200 and 204.
    #[error("unexpected network request status: code={0}")]
    Status(u16),
    /// Who was asked has not answered, or not all of it.
    #[error("network request failed: {0}")]
    Network(&'static str),
    /// The answer is too long.
    #[error("network response exceeded {0} bytes")]
    LongAnswer(usize),
    /// What would be asked is too long.
    #[error("content or meta exceeds {0} bytes, which is too much for a filter that asks")]
    LongQuestion(usize),
    /// The content, or the format of ids, is not in the filter's language.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Runs the filters of a subscription on a message.
///
/// # Errors
/// The first filter that fails; the message must not be delivered.
pub fn message<'a>(filters: &[Filter], context: &Context<'_>, content: &'a [u8]) -> Result<Verdict<'a>, FilterError> {
    let mut content = Cow::Borrowed(content);
    for &filter in filters {
        if drops(filter, context) {
            return Ok(Verdict::Drop);
        }
        let changed = match filter {
            Filter::BuildId => build_id(context.subscriber, Some(context.channels), &content),
            Filter::VarSubst => var_subst(context.subscriber, &content),
            _ => continue,
        };
        content = Cow::Owned(changed.map_err(|reason| FilterError { filter, reason })?);
    }
    Ok(Verdict::Deliver(content))
}

/// Runs filters on a backend's own response, each once, however many channels name it.
///
/// # Errors
/// The first filter that fails.
pub fn response<'a>(filters: &[Filter], subscriber: &Meta, content: &'a [u8]) -> Result<Cow<'a, [u8]>, FilterError> {
    // The only one that changes responses.
    let filter = Filter::BuildId;
    match filters.contains(&filter) {
        false => Ok(Cow::Borrowed(content)),
        true => build_id(subscriber, None, content).map(Cow::Owned).map_err(|reason| FilterError { filter, reason }),
    }
}

/// Whether a subscription changes messages exactly as the publisher expects; otherwise the message is not for it.
pub fn content_filters_agree(filters: &[Filter], expected: &[String]) -> bool {
    filters.iter().filter(|f| f.changes_messages()).map(|f| f.name()).eq(expected.iter().map(String::as_str))
}

/// Whether names with commas between them, and space around them, have this one. It is looked for as a text, since each class
/// of subscribers looks through the same names.
fn lists(names: &str, name: &str) -> bool {
    if name.is_empty() || name.contains(',') || name.trim() != name {
        return false;
    }
    memchr::memmem::find_iter(names.as_bytes(), name).any(|at| {
        let before = names.get(..at).map(str::trim_end);
        let after = names.get(at + name.len()..).map(str::trim_start);
        before.is_some_and(|before| before.is_empty() || before.ends_with(','))
            && after.is_some_and(|after| after.is_empty() || after.starts_with(','))
    })
}

fn drops(filter: Filter, context: &Context<'_>) -> bool {
    let user = || context.subscriber.get("user").unwrap_or_default();
    let of_message = |name| context.publisher.get(name).unwrap_or_default();
    match filter {
        Filter::SkipSelf => !user().is_empty() && user() == of_message("sender"),
        Filter::SkipUsers => lists(of_message("skip_users"), user()),
        Filter::RequireSub => {
            let required = of_message("require_sub");
            !required.is_empty() && !context.channels.iter().any(|(name, _)| *name == required)
        }
        _ => false,
    }
}

fn fill(
    content: &[u8],
    each: impl FnMut(Directive<'_>) -> Option<Result<Vec<u8>, String>>,
) -> Result<Vec<u8>, FormatError> {
    let mut out = Vec::with_capacity(content.len());
    let mut formatter = Formatter::default();
    formatter.push(content, &mut out, each)?;
    formatter.finish()?;
    Ok(out)
}

fn no_such_variable(name: &[u8]) -> String {
    format!("No such variable '{}'", String::from_utf8_lossy(name))
}

/// Fills in `%(name)s` from what the backend has set.
fn var_subst(subscriber: &Meta, content: &[u8]) -> Result<Vec<u8>, Reason> {
    let filled = fill(content, |directive| {
        let name = directive.argument.filter(|_| directive.letter == 's')?;
        let found = std::str::from_utf8(name).ok().and_then(|name| subscriber.get(name));
        Some(found.map(|value| value.as_bytes().to_vec()).ok_or_else(|| no_such_variable(name)))
    })?;
    Ok(filled)
}

/// Fills in `%I`, the id made of the channels' ids, and `%(text)I`. Without `channels` there is no id to make.
fn build_id(subscriber: &Meta, channels: Option<&[(&str, Option<&str>)]>, content: &[u8]) -> Result<Vec<u8>, Reason> {
    let id_format = subscriber.get("id_format").ok_or(Reason::NoMeta("id_format"))?;
    let hex = match subscriber.get("id_encoding") {
        None => false,
        Some("hex") => true,
        Some(other) => return Err(Reason::Encoding(other.to_string())),
    };
    let default = match channels.filter(|channels| !channels.is_empty()) {
        None => None,
        Some(channels) => {
            let ids: HashMap<&[u8], _> = channels.iter().map(|(name, id)| (name.as_bytes(), *id)).collect();
            let id = fill(id_format.as_bytes(), |directive| {
                let name = directive.argument.filter(|_| directive.letter == 's')?;
                let id = ids.get(name).copied().flatten();
                Some(id.map(|id| id.as_bytes().to_vec()).ok_or_else(|| no_such_variable(name)))
            });
            Some(id.map_err(Reason::NoId)?)
        }
    };
    let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
    let encode = |id: &[u8]| match hex {
        true => id.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect(),
        false => id.to_vec(),
    };
    let filled = fill(content, |directive| {
        let id = match (directive.letter, directive.argument) {
            ('I', Some(text)) => Ok(text),
            ('I', None) => default.as_deref().ok_or("No ID specified and no default ID in context".to_string()),
            _ => return None,
        };
        Some(id.map(encode))
    })?;
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(pairs: &[(&str, &str)]) -> Meta {
        pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
    }

    /// Runs one filter on a message; `None` is dropped.
    fn run(
        filter: Filter,
        subscriber: &[(&str, &str)],
        publisher: &[(&str, &str)],
        content: &str,
    ) -> Result<Option<String>, String> {
        let (subscriber, publisher) = (meta(subscriber), meta(publisher));
        let channels = [("a", Some("5")), ("b", None)];
        let context = Context { subscriber: &subscriber, publisher: &publisher, channels: &channels };
        match message(&[filter], &context, content.as_bytes()) {
            Ok(Verdict::Deliver(content)) => Ok(Some(String::from_utf8(content.into_owned()).unwrap())),
            Ok(Verdict::Drop) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn delivers(filter: Filter, subscriber: &[(&str, &str)], publisher: &[(&str, &str)]) -> bool {
        run(filter, subscriber, publisher, "x").unwrap().is_some()
    }

    #[test]
    fn skip_self_drops_what_the_user_has_sent() {
        let user = [("user", "bob")];
        assert!(!delivers(Filter::SkipSelf, &user, &[("sender", "bob")]));
        assert!(delivers(Filter::SkipSelf, &user, &[("sender", "alice")]));
        assert!(delivers(Filter::SkipSelf, &[], &[]));
        assert!(delivers(Filter::SkipSelf, &[("user", "")], &[("sender", "")]));
    }

    #[test]
    fn skip_users_drops_for_the_users_that_are_named() {
        let user = [("user", "bob")];
        assert!(!delivers(Filter::SkipUsers, &user, &[("skip_users", "alice, bob ,")]));
        assert!(delivers(Filter::SkipUsers, &user, &[("skip_users", "alice,bobby")]));
        assert!(delivers(Filter::SkipUsers, &[], &[("skip_users", ",")]));
    }

    proptest::proptest! {
        #[test]
        fn a_name_is_listed_if_it_is_one_of_those_between_commas(names in "[ab, \u{e4}\u{2003}]{0,12}", name in "[ab, \u{e4}]{0,3}") {
            let expected = !name.is_empty() && names.split(',').any(|listed| listed.trim() == name);
            proptest::prop_assert_eq!(lists(&names, &name), expected);
        }
    }

    #[test]
    fn require_sub_drops_for_those_without_the_other_channel() {
        assert!(delivers(Filter::RequireSub, &[], &[("require_sub", "b")]));
        assert!(!delivers(Filter::RequireSub, &[], &[("require_sub", "c")]));
        assert!(delivers(Filter::RequireSub, &[], &[("require_sub", "")]));
    }

    #[test]
    fn var_subst_fills_in_what_the_backend_has_set() {
        let user = [("user", "bob")];
        assert_eq!(run(Filter::VarSubst, &user, &[], "hi %(user)s, 100%%"), Ok(Some("hi bob, 100%".into())));
        assert_eq!(
            run(Filter::VarSubst, &user, &[], "%(x)s"),
            Err("var-subst: No such variable 'x' at position 4".into())
        );
        assert_eq!(
            run(Filter::VarSubst, &user, &[], "%s"),
            Err("var-subst: Unknown directive 's' at position 1".into())
        );
    }

    #[test]
    fn build_id_makes_ids_of_the_channels_ids() {
        let format = [("id_format", "a=%(a)s")];
        assert_eq!(run(Filter::BuildId, &format, &[], "id: %I %(x)I"), Ok(Some("id: a=5 x".into())));
        let hex = [("id_format", "%(a)s"), ("id_encoding", "hex")];
        assert_eq!(run(Filter::BuildId, &hex, &[], "id %(x)I %I"), Ok(Some("id 78 35".into())));
    }

    #[test]
    fn build_id_says_what_is_missing() {
        let fails = |meta: &[(&str, &str)]| run(Filter::BuildId, meta, &[], "%I").unwrap_err();
        assert_eq!(fails(&[]), "build-id: no sub meta 'id_format'");
        assert_eq!(fails(&[("id_format", "x"), ("id_encoding", "rot13")]), "build-id: unsupported encoding: rot13");
        assert_eq!(
            fails(&[("id_format", "%(b)s")]),
            "build-id: failed to render ID: No such variable 'b' at position 4"
        );
        assert_eq!(
            fails(&[("id_format", "%(c)s")]),
            "build-id: failed to render ID: No such variable 'c' at position 4"
        );
    }

    #[test]
    fn a_response_has_no_channels_whose_ids_could_be_used() {
        let subscriber = meta(&[("id_format", "%(a)s")]);
        let twice = [Filter::BuildId, Filter::SkipSelf, Filter::BuildId];
        assert_eq!(&response(&twice, &subscriber, b"%(x)I %%").unwrap()[..], b"x %");
        let error = response(&[Filter::BuildId], &subscriber, b"%I").unwrap_err();
        assert_eq!(error.to_string(), "build-id: No ID specified and no default ID in context at position 1");
        assert_eq!(&response(&[Filter::VarSubst], &subscriber, b"%(x)s").unwrap()[..], b"%(x)s");
    }

    #[test]
    fn filters_run_in_their_order_and_the_first_drop_or_error_ends() {
        let subscriber = meta(&[("user", "bob"), ("id_format", "%%(user)s")]);
        let context = Context { subscriber: &subscriber, ..Context::default() };
        let content = message(&[Filter::BuildId, Filter::VarSubst], &context, b"%(%\\(user\\)s)I");
        assert_eq!(content, Ok(Verdict::Deliver(Cow::Borrowed(b"bob"))));
        let publisher = meta(&[("sender", "bob")]);
        let context = Context { publisher: &publisher, ..context };
        assert_eq!(message(&[Filter::SkipSelf, Filter::VarSubst], &context, b"%(x)s"), Ok(Verdict::Drop));
        assert!(message(&[Filter::VarSubst, Filter::SkipSelf], &context, b"%(x)s").is_err());
    }

    #[test]
    fn content_does_not_grow_without_bound() {
        let user = [("user", "x".repeat(10_000))];
        let user: Vec<_> = user.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let text = run(Filter::VarSubst, &user, &[], &"%(user)s".repeat(10_000)).unwrap_err();
        assert_eq!(text, "var-subst: Content is larger than 16777216 bytes when it is filled in");
        let format = [("id_format", "%(a)s"), ("id_encoding", "hex")];
        let text = run(Filter::BuildId, &format, &[], &format!("%({})I", "x".repeat(5000))).unwrap_err();
        assert_eq!(text, "build-id: Field starting at position 1 is longer than 4096 bytes");
    }

    /// It took time by the product of the two.
    #[test]
    fn many_variables_are_filled_in_from_many() {
        let subscriber: Meta = (0..10_000).map(|n| (format!("k{n}"), "v".to_string())).collect();
        let context = Context { subscriber: &subscriber, ..Context::default() };
        let content: String = (0..100_000).map(|n| format!("%(k{})s", n % 10_000)).collect();
        let filled = message(&[Filter::VarSubst], &context, content.as_bytes());
        assert_eq!(filled, Ok(Verdict::Deliver(Cow::Owned(b"v".repeat(100_000)))));
    }

    #[test]
    fn names_that_are_not_known_are_ignored() {
        let filters = parse_all(["skip-self", "nonsense", "Build-Id", "build-id"]);
        assert_eq!(filters, [Filter::SkipSelf, Filter::BuildId]);
        for filter in filters {
            assert_eq!(Filter::parse(filter.name()), Some(filter));
        }
    }

    #[test]
    fn a_message_is_for_subscriptions_that_change_it_as_expected() {
        let filters = [Filter::SkipSelf, Filter::BuildId, Filter::VarSubst];
        let agree = |expected: &[&str]| {
            content_filters_agree(&filters, &expected.iter().map(|e| e.to_string()).collect::<Vec<_>>())
        };
        assert!(agree(&["build-id", "var-subst"]));
        assert!(!agree(&["var-subst", "build-id"]) && !agree(&["build-id"]) && !agree(&[]));
    }
}
