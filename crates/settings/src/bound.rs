// SPDX-License-Identifier: AGPL-3.0-or-later
//! Sockets that the suite binds, whose files somebody has to remove after a crash.

use crate::listen::Port;
use crate::model::Settings;
use crate::original::Original;
use crate::part::Part;

impl Settings {
    /// Every address that a process of the suite binds.
    pub fn bound_specs(&self) -> Vec<String> {
        let (proxy, handler) = (&self.proxy, &self.handler);
        let mut specs = Vec::new();
        for frontend in &self.frontend.processes {
            specs.extend([&frontend.out, &frontend.out_stream, &frontend.input].map(String::clone));
        }
        if self.runner.originals.of(Part::Frontend) == Some(Original::Mongrel2) {
            specs.extend(self.specs_inside_mongrel2());
        }
        let outbound = &self.outbound.specs;
        specs.extend([&outbound.input, &outbound.in_stream, &outbound.out].map(String::clone));
        let single =
            [&proxy.inspect_spec, &proxy.accept_spec, &proxy.retry_spec, &proxy.stats_spec, &proxy.command_spec];
        specs.extend(single.map(String::clone));
        let internal = [&proxy.intreq_in_spec, &proxy.intreq_in_stream_spec, &proxy.intreq_out_spec];
        specs.extend(internal.map(String::clone));
        specs.extend([&proxy.ws_control_in_spec, &proxy.ws_control_out_spec].map(String::clone));
        specs
            .extend([&handler.push_in_spec, &handler.stats_spec, &handler.command_spec].into_iter().flatten().cloned());
        if !handler.push_in_sub_connect {
            specs.extend(handler.push_in_sub_specs.first().cloned());
        }
        specs
    }

    /// The sockets between m2adapter and the Mongrel2 of each port.
    fn specs_inside_mongrel2(&self) -> Vec<String> {
        let global = &self.global;
        let base = format!("ipc://{}/{}m2-", global.rundir.display(), global.ipc_prefix);
        let ports = self.runner.http_ports.iter().chain(&self.runner.https_ports);
        let names = |port: &Port| ["out", "in", "control"].map(|name| format!("{base}{name}-{}", port.address.port()));
        ports.flat_map(names).collect()
    }
}
