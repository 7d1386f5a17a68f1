//! Prints the reference of all metrics, `docs/metrics.md`.

fn main() {
    print!("{}", metrics::docs::markdown());
}
