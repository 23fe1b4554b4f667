//! Backups of clusters that were never started: what is in them, and what is made of damaged ones.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::access::{Change, Grants};
use gantry_model::Principal;

/// A cluster that was never started, with a token that waits, and a backup of it.
fn backed_up() -> (TempDir, PathBuf, PathBuf) {
    let root = TempDir::new().unwrap();
    let (folder, kept) = (root.path().join("scheduler"), root.path().join("kept"));
    crate::init(&folder, "test").unwrap();
    let mut store = Store::open(&folder).unwrap();
    let node = Principal::Node("cpu-1".into());
    store.add_token("hash", &node, At(0), At(u64::MAX / 2)).unwrap();
    let (principal, grant) =
        Grants::default().change(At(7), "operator", &Change::Revoke(node)).unwrap();
    store.keep_grant(&principal, &grant).unwrap();
    drop(store);
    fs::write(folder.join("scheduler.toml"), "token_valid = \"5m\"\n").unwrap();
    fs::write(folder.join("address"), "127.0.0.1:1\n").unwrap();
    fs::write(folder.join("operator.pem.7-0.part"), "half").unwrap();
    let taken = copy_stopped(&folder).unwrap();
    backup(&folder, &kept, taken, &mut |_| {}).unwrap();
    (root, folder, kept)
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn a_backup_holds_what_is_needed_for_nobody_else_to_read() {
    let (_root, folder, kept) = backed_up();
    assert_eq!(
        names(&kept),
        [
            "authority.key",
            "authority.pem",
            "backup.json",
            "journal.sqlite",
            "operator.key",
            "operator.pem",
            "scheduler.key",
            "scheduler.pem",
            "scheduler.toml"
        ]
    );
    assert!(!folder.join(COPY).exists(), "the copy of the journal is removed");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&kept), 0o700);
    for name in names(&kept) {
        assert_eq!(mode(&kept.join(&name)), 0o600, "{name}");
    }
}

#[test]
fn what_is_restored_is_what_was_backed_up_but_for_tokens() {
    let (root, _, kept) = backed_up();
    let to = root.path().join("new/scheduler");
    let report = restore(&kept, &to, &mut |_| {}).unwrap();
    assert_eq!((report.cluster.as_str(), report.audit), ("test", None));
    Authority::load(&to).unwrap();
    let mut store = Store::open(&to).unwrap();
    let grants = store.grants().unwrap();
    assert!(grants[0].1.revoked, "{grants:?}");
    let redeemed = store.redeem("hash", &Principal::Node("cpu-1".into()), At(1)).unwrap();
    assert!(redeemed.unwrap_err().sentence.contains("not known"), "it may have been used since");
    let mut events = Vec::new();
    store.replay(|_, _| {}, |_, _, event| events.push(event)).unwrap();
    assert_eq!(events, [Event::Restored { taken: report.taken }]);
    let audit = audit::verify(&to).unwrap();
    assert_eq!((audit.last, audit.broken), (1, None));
}

/// What is done to a backup.
type Harm<'a> = &'a dyn Fn(&Path);

#[test]
fn a_backup_that_is_not_as_it_was_written_is_not_restored_and_leaves_nothing() {
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let renamed = |kept: &Path, name: &str| {
        let text = fs::read_to_string(kept.join(MANIFEST)).unwrap();
        fs::write(kept.join(MANIFEST), text.replace("scheduler.toml", name)).unwrap();
    };
    let cases: [(Harm, &str); 9] = [
        (&|kept| flip(&kept.join("journal.sqlite")), "journal.sqlite of the backup"),
        (&|kept| flip(&kept.join("authority.key")), "authority.key of the backup"),
        (&|kept| fs::write(kept.join("operator.key"), "").unwrap(), "operator.key of the backup"),
        (&|kept| fs::remove_file(kept.join("operator.key")).unwrap(), "operator.key"),
        (&|kept| fs::remove_file(kept.join(MANIFEST)).unwrap(), "is no backup"),
        (&|kept| renamed(kept, "../escaped.toml"), "is no name of a file"),
        (&|kept| renamed(kept, "/tmp/escaped.toml"), "is no name of a file"),
        (&|kept| renamed(kept, "authority.key"), "it has no authority.key, or several"),
        (
            &|kept| {
                let text = fs::read_to_string(kept.join(MANIFEST)).unwrap();
                let text = text.replace("\"format\": 1", "\"format\": 2");
                fs::write(kept.join(MANIFEST), text).unwrap();
            },
            "newer gantry",
        ),
    ];
    for (harm, part) in cases {
        let (root, _, kept) = backed_up();
        harm(&kept);
        let to = root.path().join("new");
        let error = restore(&kept, &to, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
        assert!(!to.exists() || names(&to).is_empty(), "{part}: {:?}", names(&to));
        assert_eq!(names(root.path()).iter().filter(|name| name.contains("escaped")).count(), 0);
    }
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let (root, folder, kept) = backed_up();
    let before = fs::read(folder.join("authority.key")).unwrap();
    for to in [&folder, &kept] {
        let error = restore(&kept, to, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("is not empty"), "{error}");
    }
    assert_eq!(fs::read(folder.join("authority.key")).unwrap(), before);
    let link = root.path().join("link");
    symlink(root.path().join("nowhere"), &link).unwrap();
    for to in [&kept, &link] {
        let taken = copy_stopped(&folder).unwrap();
        let error = backup(&folder, to, taken, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("is there already"), "{error}");
    }
    assert!(!root.path().join("kept.part").exists() && !root.path().join("nowhere").exists());
}
