//! `gantry sbom`: what this program is made of, for those who look for crates with known weaknesses.
//!
//! It is read from the lock file that the program was built by, and has the form of `CycloneDX` 1.5. The
//! lock file knows crates for every platform, and for the tests of gantry's own crates, and no licences. So
//! beside it there is a list of the crates of a build for Linux on x86-64, with the licence of each
//! (`crates.txt`, which a test writes and holds): what it does not name is left out. Features that are not the
//! default have their crates there too, and so has what only the build runs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Failure, Outcome};
use crate::output::Format;

/// The lock file of this build.
const LOCK: &str = include_str!("../../../Cargo.lock");
/// The crates of others in a build, a line each: name, version, licence as an SPDX expression.
const CRATES: &str = include_str!("sbom/crates.txt");
const PROGRAM: &str = "gantry";

/// The licences of crates by their names and versions.
type Licences<'a> = BTreeMap<(&'a str, &'a str), &'a str>;

fn licences(crates: &str) -> Licences<'_> {
    let words = crates.lines().filter_map(|line| {
        let (name, rest) = line.split_once(' ')?;
        let (version, licence) = rest.split_once(' ')?;
        Some(((name, version), licence))
    });
    words.collect()
}

/// What is read of a lock file.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    /// The registry; absent of gantry's own crates.
    source: Option<String>,
    /// SHA-256 of the file that the registry gives out.
    checksum: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

impl Package {
    /// Its name in the document; the package URL of what comes from a registry.
    fn reference(&self) -> String {
        let Self { name, version, source, .. } = self;
        let kind = if source.is_some() { "pkg:cargo/" } else { "" };
        format!("{kind}{name}@{}", version.replace('+', "%2B"))
    }

    fn licence<'a>(&self, licences: &Licences<'a>) -> Option<&'a str> {
        match self.source {
            None => Some(env!("CARGO_PKG_LICENSE")),
            Some(_) => licences.get(&(self.name.as_str(), self.version.as_str())).copied(),
        }
    }

    fn component(&self, kind: &str, licences: &Licences<'_>) -> Value {
        let reference = self.reference();
        let mut component = json!({
            "type": kind,
            "bom-ref": reference,
            "name": self.name,
            "version": self.version,
        });
        if self.source.is_some() {
            component["purl"] = reference.into();
        }
        if let Some(licence) = self.licence(licences) {
            component["licenses"] = json!([{ "expression": licence }]);
        }
        if let Some(checksum) = &self.checksum {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        component
    }
}

impl Lock {
    fn read(text: &str) -> Result<Self, Failure> {
        toml::from_str(text).map_err(Failure::trouble)
    }

    /// The package that another one names, with its version where there are several.
    fn find(&self, named: &str) -> Option<&Package> {
        let mut words = named.split(' ');
        let (name, version) = (words.next()?, words.next());
        self.package.iter().find(|package| {
            package.name == name && version.is_none_or(|version| package.version == version)
        })
    }

    /// A package and all that it needs and that is in a build, directly or not, in the order of their names.
    fn below(&self, name: &str, licences: &Licences<'_>) -> Result<Vec<&Package>, Failure> {
        let missing = |named: &str| Failure::trouble(format!("the lock file lacks {named}"));
        let mut open = vec![self.find(name).ok_or_else(|| missing(name))?];
        let mut found = BTreeMap::new();
        while let Some(package) = open.pop() {
            if found.insert((&package.name, &package.version), package).is_none() {
                for named in &package.dependencies {
                    let needed = self.find(named).ok_or_else(|| missing(named))?;
                    open.extend(needed.licence(licences).map(|_| needed));
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// The document for one package of it.
    fn document(&self, name: &str, licences: &Licences<'_>) -> Result<Value, Failure> {
        let all = self.below(name, licences)?;
        let (program, parts): (Vec<&Package>, Vec<&Package>) =
            all.iter().partition(|package| package.name == name && package.source.is_none());
        let needs = |package: &&Package| {
            let on = package.dependencies.iter().filter_map(|named| self.find(named));
            let on = on.filter(|needed| needed.licence(licences).is_some());
            let on: BTreeSet<String> = on.map(Package::reference).collect();
            json!({ "ref": package.reference(), "dependsOn": on })
        };
        Ok(json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {
                "component": program.first().map(|program| program.component("application", licences)),
            },
            "components": parts.iter().map(|part| part.component("library", licences)).collect::<Vec<_>>(),
            "dependencies": all.iter().map(needs).collect::<Vec<_>>(),
        }))
    }
}

/// `gantry sbom`.
///
/// # Errors
/// Where standard output cannot be written.
pub(super) fn run(format: Format) -> Outcome {
    let document = Lock::read(LOCK)?.document(PROGRAM, &licences(CRATES))?;
    let references = || {
        let parts = document["components"].as_array().into_iter().flatten();
        let references: Vec<&str> = parts.filter_map(|part| part["bom-ref"].as_str()).collect();
        references.join("\n")
    };
    format.print("sbom", &document, || format!("{document:#}"), references)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_names_what_is_needed_and_nothing_else() {
        let package = |name: &str, version: &str, more: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{more}\n")
        };
        let from = "source = \"registry+x\"\nchecksum = \"00ff\"\n";
        let lock = [
            package("gantry", "0.1.0", "dependencies = [\"a 2.0.0\", \"gantry-model\"]"),
            package("gantry-model", "0.1.0", "dependencies = [\"b\"]"),
            package("gantry-tests", "0.1.0", "dependencies = [\"a 1.0.0\", \"gantry\"]"),
            package("elsewhere", "1.0.0", &format!("{from}dependencies = [\"a 1.0.0\"]")),
            package("a", "1.0.0", from),
            package("a", "2.0.0", &format!("{from}dependencies = [\"b\", \"elsewhere\"]")),
            package("b", "3.0.0+c", from),
        ];
        let licences = licences("a 1.0.0 MIT\na 2.0.0 MIT OR Apache-2.0\nb 3.0.0+c ISC\n");
        let document = Lock::read(&lock.concat()).unwrap().document("gantry", &licences).unwrap();
        let parts = document["components"].as_array().unwrap();
        let references: Vec<&str> =
            parts.iter().map(|part| part["bom-ref"].as_str().unwrap()).collect();
        let expected = ["pkg:cargo/a@2.0.0", "pkg:cargo/b@3.0.0%2Bc", "gantry-model@0.1.0"];
        assert_eq!(references, expected);
        assert_eq!(parts[0]["hashes"], json!([{ "alg": "SHA-256", "content": "00ff" }]));
        assert_eq!(document["metadata"]["component"]["name"], "gantry");
        assert_eq!(parts[0]["licenses"], json!([{ "expression": "MIT OR Apache-2.0" }]));
        assert_eq!(document["dependencies"][0]["dependsOn"], json!(["pkg:cargo/b@3.0.0%2Bc"]));
        let needs = &document["dependencies"][2];
        assert_eq!(needs["dependsOn"], json!(["gantry-model@0.1.0", "pkg:cargo/a@2.0.0"]));
        let lacking = Lock::read(&lock[0]).unwrap().document("gantry", &licences).unwrap_err();
        assert!(lacking.sentence.contains("lacks"), "{}", lacking.sentence);
    }

    #[test]
    fn this_build_has_a_checksum_for_every_crate_of_others() {
        let lock = Lock::read(LOCK).unwrap();
        let all = lock.below(PROGRAM, &licences(CRATES)).unwrap();
        assert!(all.len() > 200, "{} crates", all.len());
        for package in &all {
            assert_eq!(package.source.is_some(), package.checksum.is_some(), "{}", package.name);
        }
        let has = |name: &str| all.iter().any(|package| package.name == name);
        assert!(has("rustls") && has("gantry-agent") && !has("gantry-tests"));
    }
}
