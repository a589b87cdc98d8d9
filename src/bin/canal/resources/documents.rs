//! The resources of the files that a command line names.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use canal_control::resource::{FieldError, Resource, TEXT_MAX, read};
use serde_json::Value;

use super::Trouble;

/// What stands for standard input.
const STDIN: &str = "-";

/// Ends of the names of files that are read out of a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// A resource, right or wrong, and where it stands.
#[derive(Debug)]
pub struct Document {
    /// File, document, item.
    pub place: String,
    /// What it claims to be, e.g. `NetworkPolicy default/web`; for messages.
    pub title: String,
    /// The checked resource, or everything that is wrong.
    pub content: Result<Resource, Vec<FieldError>>,
}

/// Reads all of them, in order. A directory means the YAML and JSON files in it, in order of name.
pub fn documents(files: &[String], namespace: &Namespace) -> Result<Vec<Document>, Trouble> {
    let mut found = Vec::new();
    for file in files {
        if file == STDIN {
            let mut text = Vec::new();
            let limit = TEXT_MAX as u64 + 1;
            std::io::stdin()
                .lock()
                .take(limit)
                .read_to_end(&mut text)
                .map_err(|e| Trouble::failed(format!("stdin: {e}")))?;
            found.extend(of_text("stdin", &text, namespace)?);
            continue;
        }
        for path in paths(Path::new(file))? {
            let shown = path.display().to_string();
            let text = fs::read(&path).map_err(|error| Trouble::failed(format!("{shown}: {error}")))?;
            found.extend(of_text(&shown, &text, namespace)?);
        }
    }
    Ok(found)
}

fn paths(file: &Path) -> Result<Vec<PathBuf>, Trouble> {
    if !file.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let failed = |error: std::io::Error| Trouble::failed(format!("{}: {error}", file.display()));
    let entries = fs::read_dir(file).map_err(failed)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let wanted =
        |path: &PathBuf| path.extension().is_some_and(|end| EXTENSIONS.iter().any(|known| end == *known));
    paths.retain(wanted);
    paths.sort();
    if paths.is_empty() {
        return Err(Trouble::failed(format!("{}: no YAML or JSON file in it", file.display())));
    }
    Ok(paths)
}

fn of_text(file: &str, text: &[u8], namespace: &Namespace) -> Result<Vec<Document>, Trouble> {
    let found = read(text).map_err(|error| Trouble::refused(format!("{file}: {error}")))?;
    let document = |(place, value): (_, Value)| Document {
        place: format!("{file}: {place}"),
        title: title(&value),
        content: namespace.check(&value),
    };
    Ok(found.into_iter().map(document).collect())
}

fn title(value: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&value["kind"]), text(&value["metadata"]["name"]));
    match text(&value["metadata"]["namespace"]) {
        namespace if namespace.is_empty() => format!("{kind} {name}"),
        namespace => format!("{kind} {namespace}/{name}"),
    }
}

/// The namespace of a command line.
#[derive(Clone, Debug, Default)]
pub struct Namespace(pub Option<String>);

impl Namespace {
    /// What it is when nobody says.
    pub fn or_default(&self) -> &str {
        self.0.as_deref().unwrap_or(canal_control::resource::DEFAULT_NAMESPACE)
    }

    /// Checks a resource; one that is in another namespace than the command line says is refused, as by calicoctl.
    fn check(&self, value: &Value) -> Result<Resource, Vec<FieldError>> {
        let resource = Resource::check(value, self.or_default())?;
        match &self.0 {
            Some(wanted) if resource.kind().is_namespaced() && resource.namespace() != wanted => {
                let sentence = format!("must be {wanted}, as --namespace says, or absent");
                Err(vec![FieldError { path: "metadata.namespace".to_owned(), sentence }])
            }
            _ => Ok(resource),
        }
    }
}

/// All of them, or everything that is wrong with any.
pub fn sound(documents: Vec<Document>) -> Result<Vec<(String, Resource)>, Trouble> {
    let wrong = complaints(&documents);
    if !wrong.is_empty() {
        return Err(Trouble::refused(format!("nothing was done:\n{}", wrong.join("\n"))));
    }
    let sound = documents.into_iter().filter_map(|document| Some((document.place, document.content.ok()?)));
    Ok(sound.collect())
}

/// One line for each thing that is wrong.
pub fn complaints(documents: &[Document]) -> Vec<String> {
    let lines = |document: &Document| {
        let errors = document.content.as_ref().err().map(Vec::as_slice).unwrap_or_default();
        let line = |error: &FieldError| format!("{} ({}): {error}", document.place, document.title);
        errors.iter().map(line).collect::<Vec<_>>()
    };
    documents.iter().flat_map(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIER: &str = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: a}\n";
    const SET: &str =
        "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: s, namespace: x}\n";

    #[test]
    fn directories_are_read_in_order_of_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.yaml"), SET).unwrap();
        fs::write(dir.path().join("a.yml"), TIER).unwrap();
        fs::write(dir.path().join("c.txt"), "x").unwrap();
        let dir_name = dir.path().display().to_string();
        let found = documents(&[dir_name], &Namespace::default()).unwrap();
        let titles: Vec<&str> = found.iter().map(|document| document.title.as_str()).collect();
        assert_eq!(titles, ["Tier a", "NetworkSet x/s"]);
        let empty = tempfile::tempdir().unwrap();
        assert!(documents(&[empty.path().display().to_string()], &Namespace::default()).is_err());
    }

    #[test]
    fn a_namespace_fills_in_and_is_not_contradicted() {
        let check = |text: &str, namespace: Option<&str>| {
            of_text("f", text.as_bytes(), &Namespace(namespace.map(str::to_owned))).unwrap().remove(0)
        };
        assert!(check(SET, None).content.is_ok());
        assert!(check(SET, Some("x")).content.is_ok());
        assert!(check(TIER, Some("y")).content.is_ok());
        let wrong = complaints(&[check(SET, Some("y"))]);
        assert_eq!(
            wrong,
            ["f: document 1 (NetworkSet x/s): metadata.namespace: must be y, as --namespace says, or absent"]
        );
    }
}
