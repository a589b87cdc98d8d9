//! `canal apply`: what files say is what the datastore holds.

use std::time::SystemTime;

use canal_control::resource::{Done, Mode, Resource, ResourceStore, Stamp, StoreError};
use clap::Args;

use super::documents::{Namespace, documents, sound};
use super::{Trouble, block_on, datastore};

#[derive(Debug, Args)]
pub struct Apply {
    /// File or directory of YAML or JSON; - is standard input; may be repeated
    #[arg(short, long, required = true, value_name = "FILE")]
    filename: Vec<String>,
    /// Only what is not there yet: fail on the first that is
    #[arg(long, conflicts_with = "replace")]
    create: bool,
    /// Only what is there already: fail on the first that is not
    #[arg(long)]
    replace: bool,
    /// Namespace of resources that name none [default: default]
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    datastore: datastore::Flags,
}

impl Apply {
    /// Checks everything, then writes in the order of the files and stops at the first that is refused.
    pub fn run(&self) -> Result<String, Trouble> {
        let resources = sound(documents(&self.filename, &Namespace(self.namespace.clone()))?)?;
        block_on(async {
            let store = self.datastore.open()?;
            let (mode, count) = (self.mode(), resources.len());
            let mut said = String::new();
            for (n, (place, resource)) in resources.iter().enumerate() {
                let stamp = Stamp::new(SystemTime::now(), rand::random());
                match ResourceStore::new(&*store).write(resource, mode, &stamp).await {
                    Ok(done) => said.push_str(&line(resource, done, store.keeps_revisions())),
                    Err(error) => {
                        // What was done must be known.
                        print!("{said}");
                        let text = format!("{place} ({}): {error} ({n} of {count} applied)", title(resource));
                        return Err(match error {
                            StoreError::Datastore(_) => Trouble::failed(text),
                            _ => Trouble::refused(text),
                        });
                    }
                }
            }
            Ok(said)
        })
    }

    fn mode(&self) -> Mode {
        match (self.create, self.replace) {
            (true, _) => Mode::Create,
            (_, true) => Mode::Replace,
            _ => Mode::Apply,
        }
    }
}

/// The revision is what `canal wait` waits for; in a directory there is none.
fn line(resource: &Resource, done: Done, revisions: bool) -> String {
    let (what, revision) = match done {
        Done::Created(revision) => ("created", revision),
        Done::Updated(revision) => ("updated", revision),
        Done::Unchanged(revision) => ("unchanged", revision),
    };
    let revision = if revisions { format!(" (revision {revision})") } else { String::new() };
    format!("{} {what}{revision}\n", title(resource))
}

/// `NetworkPolicy default/web`, `Tier security`.
fn title(resource: &Resource) -> String {
    let (kind, name) = (resource.kind(), resource.name());
    if kind.is_namespaced() {
        format!("{kind} {}/{name}", resource.namespace())
    } else {
        format!("{kind} {name}")
    }
}
