//! The program `coracle`. Everything else is in the library beside it, where tests reach it.
#![forbid(unsafe_code)]

/// Commands and entries come from one thread and go on another; by measurement (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    coracle_server::cli::main()
}
