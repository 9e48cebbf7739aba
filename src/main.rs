//! The `leasehold` command. Floor 6; everything is in [`leasehold::app`].

use std::process::ExitCode;

fn main() -> ExitCode {
    leasehold::app::main()
}
