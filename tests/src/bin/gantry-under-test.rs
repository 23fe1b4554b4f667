//! The product's binary, built again here so that the tests of this package can find it.

use std::process::ExitCode;

fn main() -> ExitCode {
    gantry::main()
}
