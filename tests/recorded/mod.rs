//! Where recorded cases are; for the tests of every crate, by `#[path]`.
//!
//! The directory is `$CANAL_CONFORMANCE_DIR`, by default `../shared/conformance` beside the workspace. Without it nothing
//! is tested, which is an error when `CI=true`.

use std::path::{Path, PathBuf};

/// The file or directory of this name; `None` (said aloud) where there is none.
pub fn find(name: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    let path = std::env::var_os("CANAL_CONFORMANCE_DIR").map_or(default, PathBuf::from).join(name);
    if path.exists() {
        return Some(path);
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "there is no {}", path.display());
    println!("SKIP: there is no {}", path.display());
    None
}
