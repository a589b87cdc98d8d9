//! `canal delete`.

use canal_control::resource::{ResourceStore, StoreError};
use clap::Args;

use super::documents::{Namespace, documents, sound};
use super::names::{Target, targets};
use super::{Trouble, block_on, datastore};

#[derive(Debug, Args)]
pub struct Delete {
    /// KIND NAME…, or KIND/NAME…
    #[arg(value_name = "RESOURCE", conflicts_with = "filename")]
    resources: Vec<String>,
    /// The resources in these files; what they say beside name and resourceVersion does not matter
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
    /// Namespace [default: default]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only if this is its revision
    #[arg(long, value_name = "REVISION", conflicts_with = "filename")]
    resource_version: Option<String>,
    /// What is not there is as good as deleted
    #[arg(short, long)]
    skip_not_exists: bool,
    #[command(flatten)]
    datastore: datastore::Flags,
}

impl Delete {
    /// Deletes in order and stops at the first that is refused.
    pub fn run(&self) -> Result<String, Trouble> {
        let namespace = Namespace(self.namespace.clone());
        let wanted = self.wanted(&namespace)?;
        block_on(async {
            let store = self.datastore.open()?;
            let mut said = String::new();
            for (target, version) in &wanted {
                let (kind, name) = (target.kind, target.name.as_deref().unwrap_or_default());
                let place = target.namespace_in(&namespace);
                let title = if place.is_empty() {
                    format!("{kind} {name}")
                } else {
                    format!("{kind} {place}/{name}")
                };
                match ResourceStore::new(&*store).delete(kind, place, name, version.as_deref()).await {
                    Ok(_) => said.push_str(&format!("{title} deleted\n")),
                    Err(StoreError::Missing) if self.skip_not_exists => {
                        said.push_str(&format!("{title} is not there\n"))
                    }
                    Err(error) => {
                        print!("{said}");
                        let text = format!("{title}: {error}");
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

    fn wanted(&self, namespace: &Namespace) -> Result<Vec<(Target, Option<String>)>, Trouble> {
        if !self.filename.is_empty() {
            let resources = sound(documents(&self.filename, namespace)?)?;
            let target = |(_, resource): &(String, canal_control::resource::Resource)| {
                let (kind, name) = (resource.kind(), Some(resource.name().to_owned()));
                let namespace =
                    Some(resource.namespace().to_owned()).filter(|namespace| !namespace.is_empty());
                (Target { kind, namespace, name }, resource.resource_version().map(str::to_owned))
            };
            return Ok(resources.iter().map(target).collect());
        }
        let targets = targets(&self.resources)?;
        if targets.iter().any(|target| target.name.is_none()) {
            return Err(Trouble::failed("say which: KIND NAME…"));
        }
        if self.resource_version.is_some() && targets.len() > 1 {
            return Err(Trouble::failed("--resource-version is that of one resource"));
        }
        Ok(targets.into_iter().map(|target| (target, self.resource_version.clone())).collect())
    }
}
