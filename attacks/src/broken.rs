//! The program `coracle` with rules that can be broken: `broken serve … --mutant NAME`.
//!
//! For `scripts/attack`, which has to find out a log that does not sync.

fn main() -> std::process::ExitCode {
    coracle_server::cli::main()
}
