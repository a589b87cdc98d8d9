//! `canal get`.

use canal_control::resource::{Found, Kind, ResourceStore};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::documents::{Namespace, documents, sound};
use super::names::{Target, targets};
use super::{Trouble, block_on, columns, datastore, yaml};

#[derive(Debug, Args)]
pub struct Get {
    /// KIND, KIND NAME…, KIND,KIND or KIND/NAME…
    #[arg(value_name = "RESOURCE", conflicts_with = "filename")]
    resources: Vec<String>,
    /// The resources that these files name
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
    /// Namespace [default: default]
    #[arg(short, long, conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// In every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    datastore: datastore::Flags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For eyes
    Table,
    /// With more columns
    Wide,
    /// As `canal apply` reads it
    Yaml,
    /// As `canal apply` reads it, too
    Json,
    /// kind/name of each, as get and delete take them
    Name,
}

/// What was asked for and found.
struct Answer {
    kind: Kind,
    /// By name, or all of a kind.
    single: bool,
    found: Vec<Found>,
}

impl Get {
    /// What there is. Something that was asked for by name and is not there is refused after the rest was shown.
    pub fn run(&self) -> Result<String, Trouble> {
        let namespace = Namespace(self.namespace.clone());
        let targets = self.targets(&namespace)?;
        if self.all_namespaces && targets.iter().any(|t| t.name.is_some() && t.namespace.is_none()) {
            return Err(Trouble::failed(
                "--all-namespaces does not go with a name: it could be in any of them",
            ));
        }
        let (answers, missing) = block_on(async {
            let store = self.datastore.open()?;
            let store = ResourceStore::new(&*store);
            let (mut answers, mut missing) = (Vec::new(), Vec::new());
            for target in &targets {
                let place = target.namespace_in(&namespace);
                match &target.name {
                    Some(name) => {
                        let found = store.get(target.kind, place, name).await.map_err(Trouble::failed)?;
                        missing.extend(found.is_none().then(|| format!("{} {name}", target.kind)));
                        answers.push(Answer {
                            kind: target.kind,
                            single: true,
                            found: found.into_iter().collect(),
                        });
                    }
                    None => {
                        let wanted = (!self.all_namespaces).then_some(place);
                        let (found, unreadable) =
                            store.list(target.kind, wanted).await.map_err(Trouble::failed)?;
                        for value in unreadable {
                            eprintln!("canal: {} is left out: {}", value.key, value.reason);
                        }
                        answers.push(Answer { kind: target.kind, single: false, found });
                    }
                }
            }
            Ok((answers, missing))
        })?;
        let text = self.text(&answers);
        if missing.is_empty() {
            return Ok(text);
        }
        print!("{text}");
        Err(Trouble::refused(format!("{}: not there", missing.join(", "))))
    }

    fn targets(&self, namespace: &Namespace) -> Result<Vec<Target>, Trouble> {
        if self.filename.is_empty() {
            return targets(&self.resources);
        }
        let resources = sound(documents(&self.filename, namespace)?)?;
        let target = |(_, resource): (String, canal_control::resource::Resource)| Target {
            kind: resource.kind(),
            namespace: Some(resource.namespace().to_owned()).filter(|namespace| !namespace.is_empty()),
            name: Some(resource.name().to_owned()),
        };
        Ok(resources.into_iter().map(target).collect())
    }

    fn text(&self, answers: &[Answer]) -> String {
        match self.output {
            Format::Yaml => yaml::document(&value(answers)),
            Format::Json => format!("{:#}\n", value(answers)),
            Format::Name => {
                answers.iter().flat_map(|answer| &answer.found).map(|found| self.name(found)).collect()
            }
            Format::Table | Format::Wide => self.tables(answers),
        }
    }

    fn name(&self, found: &Found) -> String {
        let kind = found.kind.name().to_lowercase();
        if self.all_namespaces && found.kind.is_namespaced() {
            format!("{kind}/{}/{}\n", found.namespace, found.name())
        } else {
            format!("{kind}/{}\n", found.name())
        }
    }

    /// One for each kind, in the order in which kinds were asked for.
    fn tables(&self, answers: &[Answer]) -> String {
        let mut kinds: Vec<Kind> = Vec::new();
        for answer in answers {
            if !kinds.contains(&answer.kind) {
                kinds.push(answer.kind);
            }
        }
        let wide = self.output == Format::Wide;
        let namespaces = self.all_namespaces || self.namespace.is_some();
        let tables = kinds.iter().map(|kind| {
            let of_kind = answers.iter().filter(|answer| answer.kind == *kind);
            let found: Vec<Found> = of_kind.flat_map(|answer| answer.found.clone()).collect();
            columns::table(*kind, &found, wide, namespaces)
        });
        tables.collect::<Vec<_>>().join("\n")
    }
}

/// One resource as itself, all of a kind as its list, several of either as a list of them.
fn value(answers: &[Answer]) -> Value {
    let mut values: Vec<Value> = answers.iter().flat_map(values).collect();
    if values.len() == 1 { values.remove(0) } else { Value::Array(values) }
}

fn values(answer: &Answer) -> Vec<Value> {
    let items: Vec<Value> = answer.found.iter().map(Found::shown).collect();
    if answer.single {
        return items;
    }
    vec![
        json!({ "apiVersion": "projectcalico.org/v3", "kind": format!("{}List", answer.kind), "items": items }),
    ]
}
