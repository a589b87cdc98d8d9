//! Certificates made on the spot with openssl(1): an authority, a server, a client, and an authority nobody trusts.

use crate::cmd;
use crate::plan;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// A directory with a `.crt` and a `.key` for each name.
#[derive(Clone, Debug)]
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Makes `ca` and `stranger` (authorities), `server` (for the switch's address) and `client`, both signed by `ca`.
    pub fn make(dir: &Path) -> Result<Self> {
        let made = Self { dir: dir.to_owned() };
        for authority in ["ca", "stranger"] {
            let mut argv = vec!["req", "-x509", "-days", "2"];
            argv.extend(NEW_KEY);
            made.openssl(&argv, authority, &[("-keyout", "key"), ("-out", "crt")])?;
        }
        let address =
            format!("subjectAltName=IP:{}\nextendedKeyUsage=serverAuth,clientAuth\n", plan::switch_v4(0));
        made.sign("server", &address)?;
        made.sign("client", "extendedKeyUsage=clientAuth\n")?;
        Ok(made)
    }

    fn sign(&self, name: &str, extensions: &str) -> Result<()> {
        std::fs::write(self.file(name, "ext"), extensions)?;
        let mut argv = vec!["req", "-new"];
        argv.extend(NEW_KEY);
        self.openssl(&argv, name, &[("-keyout", "key"), ("-out", "csr")])?;
        let (ca, key) = (self.certificate("ca"), self.key("ca"));
        let argv = ["x509", "-req", "-days", "2", "-CAcreateserial", "-CA", &ca, "-CAkey", &key];
        self.openssl(&argv, name, &[("-in", "csr"), ("-extfile", "ext"), ("-out", "crt")])
    }

    fn openssl(&self, words: &[&str], name: &str, files: &[(&str, &str)]) -> Result<()> {
        let mut argv: Vec<String> = vec!["openssl".to_owned()];
        argv.extend(words.iter().map(|w| (*w).to_owned()));
        if words[0] == "req" {
            argv.extend(["-subj".to_owned(), format!("/CN={name}")]);
        }
        for (flag, kind) in files {
            argv.extend([(*flag).to_owned(), self.file(name, kind)]);
        }
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        cmd::run(&argv).map(drop).with_context(|| format!("certificate {name}"))
    }

    fn file(&self, name: &str, kind: &str) -> String {
        self.dir.join(format!("{name}.{kind}")).to_string_lossy().into_owned()
    }

    /// Path of the certificate of `name`.
    pub fn certificate(&self, name: &str) -> String {
        self.file(name, "crt")
    }

    /// Path of the private key of `name`.
    pub fn key(&self, name: &str) -> String {
        self.file(name, "key")
    }
}
