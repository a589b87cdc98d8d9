//! `canal apply`, `get`, `delete`, `validate`: Calico's resources in the datastore, as calicoctl has them there.
//!
//! These talk to the datastore, not to the daemon: they work from any host that reaches it.

mod apply;
mod columns;
mod datastore;
mod delete;
mod documents;
mod get;
mod names;
mod validate;
mod yaml;

use std::fmt;
use std::process::ExitCode;

pub use apply::Apply;
pub use delete::Delete;
pub use get::Get;
pub use validate::Validate;

/// Something was refused: invalid, in conflict, missing.
const REFUSED: u8 = 1;

/// A file could not be read, the datastore not be asked.
const FAILED: u8 = 2;

/// Why a command did not do all that it was told to.
#[derive(Debug)]
pub struct Trouble {
    code: u8,
    text: String,
}

impl Trouble {
    fn refused(text: impl fmt::Display) -> Self {
        Self { code: REFUSED, text: text.to_string() }
    }

    fn failed(text: impl fmt::Display) -> Self {
        Self { code: FAILED, text: text.to_string() }
    }
}

/// Runs one of the commands: prints what it says and ends with its status.
pub fn run(outcome: Result<String, Trouble>) -> ExitCode {
    match outcome {
        Ok(text) => super::print(&text, 0),
        Err(trouble) => {
            eprintln!("canal: {}", trouble.text);
            ExitCode::from(trouble.code)
        }
    }
}

/// An event loop for as long as `work` runs.
fn block_on<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Trouble::failed)?.block_on(work)
}
