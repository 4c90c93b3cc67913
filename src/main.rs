//! The binary: turns the result of the command line into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringway::cli::main(std::env::args_os())
}
