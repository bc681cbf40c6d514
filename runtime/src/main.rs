//! The program `lode`.

use std::process::ExitCode;

fn main() -> ExitCode {
    lodestream::cli::main()
}
