//! The form of what every command prints with `--json`: each field with its type, in one golden file.
//!
//! `GANTRY_BLESS=1 cargo test -p gantry-tests --test commands` writes `tests/json.txt` anew. A field
//! that goes or changes its type is a new schema.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use gantry_library::{Author, InstanceKey, Library, ModelDraft, Provenance, SampleDraft, Source};
use gantry_tests::Cluster;
use serde_json::{Value, json};

use super::cluster;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/json.txt");

/// The types in a value, each with where it stands. Of an array all elements count.
fn form(value: &Value, place: &str, found: &mut BTreeMap<String, &'static str>) {
    let word = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(all) => {
            for one in all {
                form(one, &format!("{place}[]"), found);
            }
            "array"
        }
        Value::Object(fields) => {
            for (name, one) in fields {
                form(one, &format!("{place}.{name}"), found);
            }
            "object"
        }
    };
    // A value that is absent here may be there elsewhere.
    let known = found.entry(place.to_owned()).or_insert(word);
    if *known == "null" {
        *known = word;
    }
}

/// The kinds of all values, and the form of each.
type Forms = BTreeMap<String, BTreeMap<String, &'static str>>;

fn take(cluster: &Cluster, arguments: &[&str], forms: &mut Forms) -> Result<()> {
    let output = cluster.gantry.run(&[&["--json"], arguments].concat())?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.lines().count() == 1, "{arguments:?} printed no one line: {text}");
    let value: Value = serde_json::from_str(&text)?;
    ensure!(value["schema"] == gantry::output::SCHEMA, "{arguments:?}: {text}");
    let kind = value["kind"].as_str().context("no kind")?;
    ensure!(value.as_object().is_some_and(|all| all.len() == 3), "{text}");
    form(&value[kind], "", forms.entry(kind.to_owned()).or_default());
    Ok(())
}

/// A series of this UID, in a library.
pub(crate) fn store(library: &Library, series_uid: &str) -> Result<String> {
    let key = InstanceKey {
        patient_id: "a".into(),
        study_uid: "1.1".into(),
        series_uid: series_uid.into(),
        sop_instance_uid: format!("{series_uid}.1"),
        sop_class_uid: "1.4".into(),
        modality: "CT".into(),
        transfer_syntax_uid: "1.5".into(),
        rows: 1,
        columns: 1,
        frames: 1,
    };
    library.store_instance(&key, &Source::Import, series_uid.as_bytes())?;
    Ok(library.series_id(&key.series_uid).to_string())
}

/// A series with a sample, in a library.
fn labelled(library: &Library) -> Result<String> {
    let series = store(library, "1.2")?.parse()?;
    let provenance = Provenance {
        sources: library.series_objects(&series)?,
        pipeline: "chest-ct".into(),
        pipeline_hash: "ab".into(),
        program: "gantry".into(),
        author: Author::Auto,
    };
    let id = library.add_sample(SampleDraft {
        series,
        label: "lungs".into(),
        image: b"image".to_vec(),
        mask: b"mask".to_vec(),
        size: [1; 3],
        spacing_mm: [1.0; 3],
        mask_voxels: 1,
        volume_ml: 0.001,
        provenance,
    })?;
    Ok(id.to_string())
}

/// A series of a library, and a file with what is written of it.
fn written(cluster: &Cluster, library: &str) -> Result<[String; 2]> {
    let series = Library::open(library.as_ref())?.series()?[0].id.to_string();
    let text = cluster.folder().join("text").display().to_string();
    std::fs::write(&text, "A nodule.")?;
    Ok([series, text])
}

/// What is asked of the cluster alone.
const LINES: [&str; 42] = [
    "submit -- true",
    "queue",
    "jobs",
    "job j1",
    "job j2",
    "why j3",
    "wait j1",
    "logs j1",
    "logs j1 --search one",
    "hold j3",
    "release j3",
    "wait j3",
    "requeue j3",
    "cancel j4",
    "history",
    "report",
    "nodes",
    "node cpu-1",
    "gpus",
    "pipeline list",
    "pipeline check chest-ct",
    "pipeline plan chest-ct --size 32,32,8 --spacing 4,4,8",
    "scheduler status",
    "top --once",
    "series cpu-1 --what cpu --cells 2",
    "events",
    "drain cpu-1 --reason test",
    "resume cpu-1",
    "maintenance cpu-1 --from +2h --for 1h --reason test",
    "maintenance cpu-1 --clear",
    "scheduler token cpu-9",
    "scheduler reload",
    "access token ada --role user",
    "access grant ada viewer",
    "access revoke ada",
    "access list",
    "access authority",
    "audit",
    "audit list --refused",
    "audit verify",
    "job j99",
    "queue --colour",
];

#[test]
fn the_json_of_every_command_has_its_known_form() -> Result<()> {
    let cluster = cluster()?;
    let library = cluster.folder().join("library");
    Library::create(&library)?.publish_model(ModelDraft {
        name: "lungs".into(),
        run: "r".into(),
        weights: vec![1],
        metadata: json!({}),
        metrics: json!({ "epochs": [{ "loss": 0.5, "validation_dice": 0.75 }] }),
    })?;
    let sample = labelled(&Library::open(&library)?)?;
    let library = library.display().to_string();
    let place = |name: &str| cluster.folder().join(name).display().to_string();
    let [other, man, scheduler, backup, restored] =
        ["other", "man", "scheduler", "backup", "restored"].map(place);
    let conf = cluster.folder().join("slurm.conf");
    std::fs::write(
        &conf,
        "NodeName=a CPUs=2 RealMemory=9 Gres=gpu:1\nPartitionName=p Nodes=a MaxTime=60\nLicenses=m:2\n",
    )?;
    let conf = conf.display().to_string();
    let mut forms = Forms::new();
    for line in LINES {
        take(&cluster, &line.split(' ').collect::<Vec<_>>(), &mut forms)
            .with_context(|| line.to_owned())?;
    }
    let [series, text] = written(&cluster, &library)?;
    for line in [
        &["library", "--library", &library, "text", &series, &text, "--by", "ada"][..],
        &["library", "--library", &library, "text", &series],
        &["similar", "--library", &library, "--text", "nodule"],
        &["library", "--library", &library],
        &["library", "--library", &other, "create"],
        &["library", "--library", &library, "verify"],
        &["library", "--library", &library, "sweep"],
        &["library", "--library", &library, "labels"],
        &["library", "--library", &library, "next", "--label", "liver"],
        &["library", "--library", &library, "accept", &sample, "--by", "ada"],
        &["library", "--library", &library, "reject", &sample, "--by", "ada", "--reason", "dark"],
        &["library", "--library", &library, "undo", &sample, "--by", "ada"],
        &["library", "--library", &library, "show", &sample],
        &["data", "--library", &library],
        &["models", "--library", &library],
        &["models", "--library", &library, "lungs"],
        &["models", "--library", &library, "lungs", "--approve", "--by", "ada"],
        &["config", "explain", "node_timeout", "--of", "scheduler", "--dir", &scheduler],
        &["config", "list", "--of", "scheduler", "--dir", &scheduler],
        &["config", "check", "--of", "scheduler", "--dir", &scheduler],
        &["config", "import", &conf],
        &["pilot", "slurm", "--time", "2h", "--folder", &other, "--dry-run"],
        &["doctor", "--agent-dir", &scheduler],
        &["scheduler", "backup", &backup],
        &["scheduler", "restore", &backup, "--to", &restored],
        &["man", &man],
        &["sbom"],
    ] {
        take(&cluster, line, &mut forms).with_context(|| format!("{line:?}"))?;
    }
    compare(&forms)
}

/// Holds forms against the golden file: the same fields, of the same types where both know them.
fn compare(forms: &Forms) -> Result<()> {
    let golden = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    let mut known = BTreeMap::new();
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let (place, word) = line.split_once(": ").context("a line of the golden file")?;
        known.insert(place.to_owned(), word.to_owned());
    }
    let found: BTreeMap<String, &str> = forms
        .iter()
        .flat_map(|(kind, form)| {
            form.iter().map(move |(place, word)| (format!("{kind}{place}"), *word))
        })
        .collect();
    if std::env::var_os("GANTRY_BLESS").is_some() {
        let mut text = format!("# schema {}\n", gantry::output::SCHEMA);
        for (place, word) in &found {
            let before = known.get(place).map(String::as_str).filter(|_| *word == "null");
            writeln!(text, "{place}: {}", before.unwrap_or(word))?;
        }
        std::fs::write(GOLDEN, text)?;
        return Ok(());
    }
    ensure!(
        golden.starts_with(&format!("# schema {}\n", gantry::output::SCHEMA)),
        "the golden file is of another schema"
    );
    let mut wrong = Vec::new();
    for (place, word) in &found {
        match known.get(place) {
            None => wrong.push(format!("{place} is new")),
            Some(before) if before != word && *word != "null" && before != "null" => {
                wrong.push(format!("{place} was {before} and is {word}"));
            }
            Some(_) => {}
        }
    }
    // What stands in an array that is empty today is not missed.
    let empty = |place: &str| {
        let arrays = place.match_indices("[]").map(|(at, _)| &place[..at]);
        arrays.clone().any(|array| found.contains_key(array)) && !found.contains_key(place)
    };
    let gone = known.keys().filter(|place| !found.contains_key(*place) && !empty(place));
    wrong.extend(gone.map(|place| format!("{place} is gone")));
    ensure!(wrong.is_empty(), "{}\nGANTRY_BLESS=1 writes the form anew", wrong.join("\n"));
    Ok(())
}
