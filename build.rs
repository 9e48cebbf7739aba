//! Has the linker put the functions that every run uses side by side, so that less of the program is resident.
//!
//! A page of a program is resident from its first use on, with those around it: Linux maps 64 KiB at a time. What is used up to
//! the first idle session is a quarter of the code, and lay all over it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The names of the functions, one a line, as `benches/order.py` writes them. A name that the linker does not find it passes over.
const ORDER: &str = "benches/functions.order";

fn main() {
    println!("cargo::rerun-if-changed={ORDER}");
    let is = |name, wanted: &str| env::var(name).is_ok_and(|value| value == wanted);
    // For this target Rust links with its own lld, which knows the option; unless another linker is asked for.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let is_lld = is("TARGET", "x86_64-unknown-linux-gnu")
        && env::var_os("RUSTC_LINKER").is_none()
        && !flags.contains("link")
        && has_lld();
    if is("PROFILE", "release")
        && is_lld
        && let Some(root) = env::var_os("CARGO_MANIFEST_DIR")
    {
        let order = PathBuf::from(root).join(ORDER);
        for argument in
            [format!("--symbol-ordering-file={}", order.display()), "--no-warn-symbol-ordering".into()]
        {
            println!("cargo::rustc-link-arg-bin=leasehold=-Wl,{argument}");
        }
    }
}

/// Whether the compiler came with that lld. One of a distribution may link by GNU ld, which ends at an option that it does not know.
fn has_lld() -> bool {
    let (Some(rustc), Ok(host)) = (env::var_os("RUSTC"), env::var("HOST")) else { return false };
    let Ok(printed) = Command::new(rustc).args(["--print", "sysroot"]).output() else { return false };
    let sysroot = String::from_utf8_lossy(&printed.stdout).trim_end().to_owned();
    Path::new(&sysroot).join("lib/rustlib").join(host).join("bin/gcc-ld/ld.lld").exists()
}
