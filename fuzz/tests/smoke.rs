// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every target with its seeds, and with changed ones: a short search on any compiler, the same each time.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;

use fuzz::TARGETS;

/// Changed inputs for each target; all of them take some seconds in a build without optimisation.
const CHANGED: usize = 8_000;
/// Changes do not make an input longer than this.
const LONGEST: usize = 4096;

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Numbers that look random (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    /// One change: of a byte, of a length, or of the order; or a piece of another seed.
    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        const WORDS: [&[u8]; 10] = [
            b"\r\n\r\n",
            b"\n",
            b"0",
            b"-1",
            b"18446744073709551616",
            b"}",
            b"[[[[[[[[",
            b"{\"",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\0",
        ];
        let at = self.below(input.len() + 1);
        let end = (at + self.below(16)).min(input.len());
        match self.below(7) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.below(256) as u8,
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            4 => drop(input.splice(at..end, WORDS[self.below(WORDS.len())].iter().copied())),
            5 => {
                let piece = input[at..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            _ => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len());
                input.splice(at..end, other[from..(from + 64).min(other.len())].iter().copied());
            }
        }
        input.truncate(LONGEST);
    }
}

/// Runs a target, and shows the input if it fails.
fn run(name: &str, target: fn(&[u8]), input: &[u8]) {
    if std::panic::catch_unwind(|| target(input)).is_err() {
        panic!("{name} fails; keep this input in fuzz/corpus/{name}:\n{}", input.escape_ascii());
    }
}

#[test]
fn seeds_and_changed_ones_break_nothing() {
    for &(name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "fuzz/corpus/{name} is empty");
        for seed in &seeds {
            run(name, target, seed);
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for round in 0..CHANGED {
            let mut input = seeds[round % seeds.len()].clone();
            for _ in 0..=random.below(6) {
                random.change(&mut input, &seeds);
            }
            run(name, target, &input);
        }
    }
}

/// A target whose seeds are all refused at the door searches nothing.
#[test]
fn each_reader_understands_one_of_its_seeds() {
    use wire::http1::{Limits, parse_request, parse_response};
    let understood = |name: &str, input: &[u8]| match name {
        "packet" => zhttp::Packet::decode(input).is_ok(),
        "tnetstring" => tnetstring::split(input).is_ok(),
        "zmtp" => transport::explain_zmtp(&input[1..], 100).contains("Part"),
        "request" => matches!(parse_request(input, &Limits::default()), Ok(Some(_))),
        "response" => matches!(parse_response(&input[1..], &Limits::default(), "GET"), Ok(Some(_))),
        "chunks" => input.ends_with(b"0\r\n\r\n"),
        "proxied" => matches!(wire::proxied::read(input), Ok(Some(_))),
        "item" => grip::item::from_message(input, None).is_ok(),
        "instruct" => input.windows(5).any(|word| word == b"Grip-"),
        "filter" => input.split(|&byte| byte == b'\n').count() > 2,
        "events" => grip::websocket::events::Events::new(input.to_vec().into()).all(|event| event.is_ok()),
        "routes" => {
            let (table, problems) = routes::Table::parse(input, "routes", &());
            problems.is_empty() && !table.is_empty()
        }
        "ini" => !settings::ini::Document::parse(&String::from_utf8_lossy(input), "f").entries.is_empty(),
        other => panic!("{other} has no check"),
    };
    for (name, _) in TARGETS {
        assert!(seeds(name).iter().any(|seed| understood(name, seed)), "{name}");
    }
}
