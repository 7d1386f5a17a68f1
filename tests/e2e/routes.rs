// SPDX-License-Identifier: AGPL-3.0-or-later
//! The routes file while the suite runs.

use std::fs;

use nix::sys::signal::Signal;
use pushpin_tests::client::get;
use pushpin_tests::suite::Suite;
use pushpin_tests::until;

/// As careful editors do.
fn replace(suite: &Suite, text: &str) {
    fs::write(suite.path("routes.new"), text).unwrap();
    fs::rename(suite.path("routes.new"), suite.path("routes")).unwrap();
}

fn status(suite: &Suite, path: &str) -> u16 {
    get(suite.port, path).unwrap().head.status
}

#[test]
fn a_broken_file_is_refused_with_line_and_the_word_meant_and_a_mended_one_taken() {
    let suite = Suite::start("* test");
    for (bad, reason) in [
        ("* test\n*,path_bge=/x 127.0.0.1:1\n", "routes:2: unknown option `path_bge`, did you mean `path_beg`?"),
        ("* 127.0.0.1", "routes:1: target bad format"),
        ("", "the file has no routes"),
    ] {
        replace(&suite, bad);
        suite.send("proxy", Signal::SIGHUP);
        until("the mistake is told", || suite.logs().contains(reason));
        assert_eq!(status(&suite, "/"), 200, "the routes read before stay");
    }
    replace(&suite, "*,path_beg=/new test\n");
    until("the file is read without being asked to", || status(&suite, "/") == 502);
    assert_eq!(status(&suite, "/new/"), 200);
    until("the reason is in the log", || suite.logs().contains("no route matches this host and path"));
}

#[test]
fn a_file_that_is_broken_at_the_start_is_used_as_far_as_it_goes() {
    let suite = Suite::start("*,path_beg=/good test\n*,path_beg=/bad 127.0.0.1:port\n*,path_beg=/aco,session test");
    assert_eq!((status(&suite, "/good/"), status(&suite, "/bad/"), status(&suite, "/aco/")), (200, 502, 200));
    for mistake in ["routes:2: target invalid port", "routes:3: `session` is not supported"] {
        until("the mistake is in the log", || suite.logs().contains(mistake));
    }
}
