//! The binary: turns the result of the command line into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringway::command_line(std::env::args_os())
}
