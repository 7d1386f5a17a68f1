//! `pushpin-proxy`: see the library.

use std::process::ExitCode;

const HELP: &str = "\
Requests come from pushpin-frontend and go to backends through pushpin-outbound; responses that tell to hold the client
go to pushpin-handler. The sockets between the processes are files under rundir (setting in [global]).

Routes are read from the file named by `routesfile` in [proxy], and again when it changes or on HUP. Example, without
a routes file, everything to a server on port 8000:

    pushpin-proxy --config=pushpin.conf --route='* localhost:8000'
";

fn main() -> ExitCode {
    let component = process::Component {
        name: "pushpin-proxy",
        about: "Finds the route of each request, has it answered by a backend, and hands over what is to be held.",
        help: HELP,
        routes: true,
        several: false,
    };
    process::run(&component, proxy::worker::run)
}
