// SPDX-License-Identifier: AGPL-3.0-or-later
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::push::item(data));
