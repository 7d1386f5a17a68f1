//! `pushpin-publish`. See the library.

fn main() -> std::process::ExitCode {
    publish::main()
}
