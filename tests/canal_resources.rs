//! `canal apply`, `get`, `delete` and `validate` as somebody types them, on a directory.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

const POLICIES: &str = "\
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 100}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: security.deny-bad}
spec:
  tier: security
  order: 10
  selector: all()
  ingress:
  - {action: Deny, source: {selector: kind == 'bad'}}
  - {action: Pass}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web}
spec:
  selector: app == 'web'
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [80, '8000:8090', http]}}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: bad, namespace: other, labels: {kind: bad, version: 1.5}}
spec: {nets: [10.98.0.0/24, 10.97.0.1]}
";

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs `canal` on a directory, with `input` on its standard input.
fn canal(dir: &Path, line: &str, input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_canal"));
    command.args(line.split_whitespace()).env_clear().env("CANAL_DATA_DIR", dir);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Commands that read nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn done(dir: &Path, line: &str, input: &str) -> String {
    let ran = canal(dir, line, input);
    assert_eq!(ran.code, 0, "canal {line}: {}", ran.err);
    ran.out
}

fn refused(dir: &Path, line: &str, input: &str, code: i32) -> String {
    let ran = canal(dir, line, input);
    assert_eq!(ran.code, code, "canal {line}: {} {}", ran.out, ran.err);
    ran.err
}

#[test]
fn what_is_applied_is_shown_and_can_be_applied_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let said = done(dir, "apply -f -", POLICIES);
    let lines: Vec<&str> = said.lines().collect();
    let expected = [
        "Tier security created",
        "GlobalNetworkPolicy security.deny-bad created",
        "NetworkPolicy default/web created",
        "NetworkSet other/bad created",
    ];
    assert_eq!(lines, expected);
    assert!(dir.join("resources/networkpolicies/default/default.web.json").is_file());

    for format in ["yaml", "json"] {
        let shown = done(dir, &format!("get tier,gnp,np,networksets -A -o {format}"), "");
        let again = done(dir, "apply -f -", &shown);
        assert!(
            again.lines().count() == 4 && again.lines().all(|line| line.ends_with(" unchanged")),
            "{again}"
        );
    }
    let one: Value = serde_json::from_str(&done(dir, "get np web -o json", "")).unwrap();
    assert_eq!(one["metadata"]["name"], "web");
    assert_eq!(one["spec"]["types"], serde_json::json!(["Ingress"]));
    let set: Value = serde_json::from_str(&done(dir, "get networkset/other/bad -o json", "")).unwrap();
    assert_eq!(set["metadata"]["labels"]["version"], "1.5");
    assert_eq!(
        done(dir, "get np,networkset -A -o name", ""),
        "networkpolicy/default/web\nnetworkset/other/bad\n"
    );
    let table = done(dir, "get gnp -o wide", "");
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        words,
        [vec!["NAME", "TIER", "ORDER", "SELECTOR"], vec!["security.deny-bad", "security", "10", "all()"]]
    );
}

#[test]
fn what_cannot_be_done_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let wrong = POLICIES
        .replace("action: Pass", "action: pass")
        .replace("nets: [10.98.0.0/24", "nets: [10.98.0.1/24, x");
    let said = refused(dir, "apply -f -", &wrong, 1);
    assert!(
        said.contains(
            "stdin: document 2 (GlobalNetworkPolicy security.deny-bad): spec.ingress[1].action: must be Allow"
        ),
        "{said}"
    );
    assert!(said.contains("document 4 (NetworkSet other/bad): spec.nets[1]: must be a prefix"), "{said}");
    assert!(!dir.join("resources").exists(), "nothing was written");
    assert_eq!(refused(dir, "validate -f -", &wrong, 1).lines().count(), 3);
    let listed = canal(dir, "validate -o json -f -", &wrong);
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(listed[0]["path"], "spec.ingress[1].action");
    assert_eq!(done(dir, "validate -f -", POLICIES), "4 resources are valid\n");

    let tierless = POLICIES.split("---\n").nth(1).unwrap();
    assert!(refused(dir, "apply -f -", tierless, 1).contains("there is no tier security"));
    assert!(refused(dir, "apply --replace -f -", POLICIES, 1).contains("does not exist (0 of 4 applied)"));
    done(dir, "apply --create -f -", POLICIES);
    assert!(refused(dir, "apply --create -f -", POLICIES, 1).contains("already exists"));

    let seen = done(dir, "get np web -o yaml", "");
    done(dir, "apply -f -", &seen.replace("app == 'web'", "app == 'shop'"));
    let stale = refused(dir, "apply -f -", &seen.replace("app == 'web'", "app == 'bar'"), 1);
    assert!(stale.contains("out of date"), "{stale}");
    assert!(done(dir, "get np web -o yaml", "").contains("app == 'shop'"));

    assert!(
        refused(dir, "delete tier security", "", 1)
            .contains("GlobalNetworkPolicy security.deny-bad is in this tier")
    );
    assert!(refused(dir, "delete np nope", "", 1).contains("does not exist"));
    assert!(done(dir, "delete np nope -s", "").contains("is not there"));
    assert_eq!(
        done(dir, "delete gnp security.deny-bad", ""),
        "GlobalNetworkPolicy security.deny-bad deleted\n"
    );
    done(dir, "delete np/web tier/security", "");
    assert!(refused(dir, "get np web", "", 1).contains("NetworkPolicy web: not there"));
    done(dir, "delete -f - -s", POLICIES);
    assert_eq!(done(dir, "get np,networkset,tier -A -o name", ""), "");
}

#[test]
fn what_cannot_be_asked_is_another_status() {
    let dir = tempfile::tempdir().unwrap();
    for line in [
        "get pods",
        "get",
        "get np web -A",
        "apply -f /no/such/file",
        "get np --etcd-endpoints nonsense",
        "get np --etcd-endpoints http://127.0.0.1:1",
        "get np --data-dir /no/such/directory",
    ] {
        refused(dir.path(), line, "", 2);
    }
    assert!(refused(dir.path(), "validate -f -", "a: [", 1).contains("stdin: document 1"));
}
