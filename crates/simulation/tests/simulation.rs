// SPDX-License-Identifier: AGPL-3.0-or-later
//! Some thousand runs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use simulation::{Report, Weather, World};

/// Events and decisions of a run.
const STEPS: usize = 700;

/// Runs many seeds; a failure names its seed.
fn run(weather: Weather) -> Report {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(150),
    };
    let mut all = Report::default();
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| World::new(seed, weather).run(STEPS))) {
            Ok(report) => all.add(&report),
            Err(_) => panic!("seed {seed} of {weather:?} failed; SIMULATION_SEED={seed} repeats it"),
        }
    }
    println!("{weather:?}: {all:?}");
    all
}

/// A run in which nothing happens would prove nothing.
fn much_has_happened(report: &Report) {
    let one_seed = std::env::var_os("SIMULATION_SEED").is_some();
    assert!(one_seed || (report.answered > 500 && report.held > 200), "too little happens: {report:?}");
}

/// Nothing that an engine does may depend on the addresses or the random keys of its tables.
#[test]
fn a_seed_is_one_run() {
    for seed in 0..50 {
        let run = || World::new(seed, Weather::Stormy).run(STEPS);
        assert_eq!(run(), run(), "seed {seed}");
    }
}

#[test]
fn in_fair_weather_everything_arrives() {
    much_has_happened(&run(Weather::Fair));
}

#[test]
fn processes_that_stop_and_go_on_cost_what_was_with_them_at_most() {
    let report = run(Weather::Halting);
    much_has_happened(&report);
}

#[test]
fn what_dies_is_seen_to_end_and_leaves_nothing_behind() {
    let report = run(Weather::Deadly);
    much_has_happened(&report);
}

#[test]
fn a_storm_leaves_nothing_behind_either() {
    let report = run(Weather::Stormy);
    much_has_happened(&report);
}

#[test]
fn handlers_die_and_their_heirs_go_on_with_every_client() {
    let report = run(Weather::Heirs);
    much_has_happened(&report);
    assert!(std::env::var_os("SIMULATION_SEED").is_some() || report.taken_up > 80, "few have an heir: {report:?}");
}

#[test]
fn proxies_die_and_cost_held_clients_nothing() {
    let report = run(Weather::Proxies);
    much_has_happened(&report);
    assert!(
        std::env::var_os("SIMULATION_SEED").is_some() || report.deaths > 150 && report.adopted > 50,
        "few proxies die: {report:?}"
    );
}

#[test]
fn proxies_and_handlers_die_close_after_each_other() {
    let report = run(Weather::Successors);
    much_has_happened(&report);
    assert!(std::env::var_os("SIMULATION_SEED").is_some() || report.deaths > 250, "few of them die: {report:?}");
}

#[test]
fn backends_that_break_off_hurt_only_those_who_have_asked_them() {
    let report = run(Weather::Backends);
    much_has_happened(&report);
    let much = report.hurt > 250 && report.deaths > 100 && report.repeated > 0;
    assert!(std::env::var_os("SIMULATION_SEED").is_some() || much, "little goes wrong: {report:?}");
}
