//! Prints the reference of all settings, `docs/configuration.md`.

fn main() {
    print!("{}", settings::docs::markdown());
}
