//! Copies of a journal for a backup, and snapshots from before there were backups.

use super::*;
use crate::store::{COPY, FILE, checksum};

#[test]
fn a_snapshot_from_before_there_were_backups_is_understood() {
    let folder = TempDir::new().unwrap();
    let live = with_snapshots(folder.path(), &[9]);
    let store = Store::open(folder.path()).unwrap();
    let read = |row: &rusqlite::Row| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let select = "SELECT seq, at, payload FROM snapshots";
    let (seq, at, mut payload): (i64, i64, Vec<u8>) =
        store.database.query_row(select, [], read).unwrap();
    // Its last byte says that it came from no backup; format 2 had none.
    assert_eq!(payload.pop(), Some(0));
    let crc = checksum(seq, At(at as u64), &payload);
    let update = "UPDATE snapshots SET format = 2, crc = ?1, payload = ?2";
    store.database.execute(update, rusqlite::params![crc, payload]).unwrap();
    drop(store);
    assert_eq!(restored(folder.path()).unwrap(), (live, 3));
}

#[test]
fn a_copy_holds_everything_and_replaces_the_one_before() {
    let folder = TempDir::new().unwrap();
    let live = with_snapshots(folder.path(), &[4]);
    let mut store = Store::open(folder.path()).unwrap();
    let (other, copy) = (TempDir::new().unwrap(), folder.path().join(COPY));
    std::fs::write(&copy, "half of an earlier one").unwrap();
    let bytes = store.copy(&copy).unwrap();
    assert_eq!(std::fs::metadata(&copy).unwrap().len(), bytes);
    // What comes later is not in it.
    store.append(&records(&[(At(99_000), event(1))])).unwrap();
    std::fs::rename(&copy, other.path().join(FILE)).unwrap();
    assert_eq!(restored(other.path()).unwrap(), (live, 8));
    assert!(store.copy(Path::new("/nowhere/at/all")).is_err());
    store.append(&records(&[(At(99_001), event(2))])).unwrap();
}
