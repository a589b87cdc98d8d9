//! `canal validate`: what `canal apply` would say of files, without a datastore.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::Trouble;
use super::documents::{Document, Namespace, complaints, documents};

#[derive(Debug, Args)]
pub struct Validate {
    /// File or directory of YAML or JSON; - is standard input; may be repeated
    #[arg(short, long, required = true, value_name = "FILE")]
    filename: Vec<String>,
    /// Namespace of resources that name none [default: default]
    #[arg(short, long)]
    namespace: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each thing that is wrong
    Text,
    /// A list of objects: place, resource, path, sentence
    Json,
}

impl Validate {
    /// What there is, or what is wrong with it.
    pub fn run(&self) -> Result<String, Trouble> {
        let documents = documents(&self.filename, &Namespace(self.namespace.clone()))?;
        let wrong = complaints(&documents);
        match self.output {
            Format::Json => {
                let text = format!("{:#}\n", as_json(&documents));
                if wrong.is_empty() {
                    return Ok(text);
                }
                print!("{text}");
                Err(Trouble::refused(format!("{} things are wrong", wrong.len())))
            }
            Format::Text if wrong.is_empty() => Ok(format!("{} resources are valid\n", documents.len())),
            Format::Text => {
                Err(Trouble::refused(format!("{} things are wrong\n{}", wrong.len(), wrong.join("\n"))))
            }
        }
    }
}

fn as_json(documents: &[Document]) -> Value {
    let of = |document: &Document| {
        let errors = document.content.as_ref().err().map(Vec::as_slice).unwrap_or_default().to_vec();
        let (place, title) = (document.place.clone(), document.title.clone());
        errors.into_iter().map(move |error| {
            json!({ "place": place, "resource": title, "path": error.path, "sentence": error.sentence })
        })
    };
    documents.iter().flat_map(of).collect()
}
