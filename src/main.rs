//! The `leasehold` command. Floor 6; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    leasehold::main()
}
