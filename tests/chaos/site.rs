// SPDX-License-Identifier: AGPL-3.0-or-later
//! The suite that is tried: this one, or Pushpin's.

use std::path::Path;
use std::thread;

use pushpin_tests::suite::Suite;

use crate::pushpin::Pushpin;
use crate::trouble::Part;

/// See the module.
pub enum Site {
    Ours(Box<Suite>),
    Pushpin(Pushpin),
}

/// Where it listens.
#[derive(Clone, Copy)]
pub struct Ports {
    pub clients: u16,
    pub publish: u16,
    pub push: u16,
    pub sub: u16,
}

/// A process that has died often is started again after five seconds, and may be killed at once.
const SETTINGS: &str = "id_cache_ttl=60\n[runner]\nrecover_wait=20\nfrontend_processes=2\n";

impl Site {
    /// This suite, with programs from a directory if not from where this test was built.
    pub fn start(routes: &str, programs: Option<&Path>) -> Self {
        let mut suite = Suite::prepare(routes, SETTINGS);
        programs.into_iter().for_each(|programs| suite.copy_programs(programs));
        suite.launch();
        Site::Ours(Box::new(suite))
    }

    /// Pushpin's, whose runner is this program. Somebody has to call [`keep`](Self::keep).
    pub fn of_pushpin(program: &Path, routes: &str) -> Self {
        Site::Pushpin(Pushpin::prepare(program.to_path_buf(), routes))
    }

    pub fn ports(&self) -> Ports {
        match self {
            Site::Ours(suite) => {
                Ports { clients: suite.port, publish: suite.publish_port, push: suite.push_port, sub: suite.sub_port }
            }
            Site::Pushpin(suite) => {
                Ports { clients: suite.port, publish: suite.publish_port, push: suite.push_port, sub: suite.sub_port }
            }
        }
    }

    /// Starts it again whenever it has ended, if it does not do so itself.
    pub fn keep(&self) {
        if let Site::Pushpin(suite) = self {
            suite.keep();
        }
    }

    /// It is not needed any more.
    pub fn end(&self) {
        if let Site::Pushpin(suite) = self {
            suite.end();
        }
    }

    /// Process ids of a part.
    pub fn pids(&self, part: Part) -> Vec<i32> {
        match self {
            Site::Ours(suite) => suite.pids(part.name()),
            Site::Pushpin(suite) => suite.pids(match part {
                Part::Handler => "pushpin-handler",
                Part::Proxy => "pushpin-proxy",
                Part::Outbound => "zurl",
                Part::Frontend => "condure",
            }),
        }
    }

    /// Replaces the frontends as an operator does. All of Pushpin has to be started again for that.
    pub fn replace_frontends(&self) {
        match self {
            Site::Ours(suite) => {
                let output = suite.run_with(&["ctl", "restart", Part::Frontend.name()]);
                assert!(output.status.success(), "{output:?}");
            }
            Site::Pushpin(suite) => suite.restart(),
        }
    }

    pub fn logs(&self) -> String {
        match self {
            Site::Ours(suite) => suite.logs(),
            Site::Pushpin(suite) => suite.logs(),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.end();
        if let Site::Pushpin(suite) = self
            && thread::panicking()
        {
            eprintln!("--- logs of Pushpin\n{}", suite.logs());
        }
    }
}
