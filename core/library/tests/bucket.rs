//! A library whose objects are in a bucket, against a real S3 server (moto, from `PyPI`), and the same
//! with objects in a folder.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gantry_library::{BucketPlace, Library, LibraryError, Stored};
use support::{key, model, prediction, sample, store};
use tempfile::TempDir;

/// A server of S3 on this machine, with one bucket.
struct Server {
    child: Child,
    endpoint: String,
    program: PathBuf,
}

impl Server {
    /// Starts it; says aloud that a test is skipped where there is none.
    fn start(test: &str) -> Option<Self> {
        let program = std::env::var_os("GANTRY_PYTHON").map(PathBuf::from);
        let has = |program: &PathBuf| {
            let output = Command::new(program).args(["-c", "import moto.server, flask"]).output();
            output.is_ok_and(|output| output.status.success())
        };
        let Some(program) = program.filter(has) else {
            eprintln!("skipped: {test} needs moto[server]; set GANTRY_PYTHON to a Python with it");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(&program)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, endpoint: format!("http://127.0.0.1:{port}"), program };
        let begun = Instant::now();
        while ureq::put(&format!("{}/scans", server.endpoint)).send_empty().is_err() {
            assert!(begun.elapsed() < Duration::from_mins(1), "the server does not answer");
        }
        Some(server)
    }

    fn place(&self, prefix: &str) -> BucketPlace {
        BucketPlace {
            endpoint: self.endpoint.clone(),
            bucket: "scans".into(),
            region: "us-east-1".into(),
            prefix: prefix.into(),
        }
    }

    /// Runs a line of Python with `scans`, the bucket; gives what it prints.
    fn run(&self, line: &str) -> String {
        let code = format!(
            "import boto3; scans = boto3.resource('s3', endpoint_url='{}', region_name='us-east-1').Bucket('scans'); {line}",
            self.endpoint
        );
        let output = Command::new(&self.program).args(["-c", &code]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Does something to an object behind the library's back.
    fn meddle(&self, key: &str, what: &str) {
        self.run(&format!("scans.Object('{key}').{what}"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this process has keys for a bucket; where not, runs the test in one that has.
fn has_keys(test: &str) -> bool {
    if std::env::var_os("AWS_ACCESS_KEY_ID").is_some_and(|key| key == "a key of nobody") {
        return true;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("AWS_ACCESS_KEY_ID", "a key of nobody")
        .env("AWS_SECRET_ACCESS_KEY", "a secret of nobody")
        .status();
    assert!(status.unwrap().success(), "{test}");
    false
}

/// What a library does wherever its objects are.
fn holds_what_it_is_given(library: &Library) {
    assert_eq!(store(library, "1.1", 1, b"a"), Stored::New);
    assert_eq!(store(library, "1.1", 1, b"a"), Stored::Same);
    assert_eq!(store(library, "1.1", 1, b"b"), Stored::Conflict);
    let objects = library.series_objects(&library.series_id("1.1")).unwrap();
    assert_eq!(library.read_object(&objects[0]).unwrap(), b"a");
    assert_eq!(library.put_object(b"").and_then(|hash| library.read_object(&hash)).unwrap(), b"");
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let hash = library.put_object(&large).unwrap();
    assert_eq!(library.put_object(&large).unwrap(), hash);
    assert_eq!(library.read_object(&hash).unwrap(), large);
    assert_eq!(library.read_object_head(&hash, 1000).unwrap(), large[..1000]);
    assert_eq!(library.object_bytes(&hash).unwrap(), large.len() as u64);
    library.add_sample(sample(library, "1.1", b"mask")).unwrap();
    let id = library.publish_model(model("lungs")).unwrap();
    library.add_prediction(prediction(library, "1.1", &id, &[1.0])).unwrap();
    let report = library.verify().unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    // The empty one and the large one are named by no record.
    assert_eq!((report.objects, report.unnamed), (9, 2), "{report:?}");
}

#[test]
fn a_folder_holds_objects() {
    let folder = TempDir::new().unwrap();
    holds_what_it_is_given(&Library::create(folder.path()).unwrap());
}

#[test]
fn a_bucket_holds_objects_as_a_folder_does() {
    if !has_keys("a_bucket_holds_objects_as_a_folder_does") {
        return;
    }
    let Some(server) = Server::start("objects in a bucket") else { return };
    server.run("scans.Versioning().enable()");
    let folder = TempDir::new().unwrap();
    let library = Library::create_in_bucket(folder.path(), &server.place("site/")).unwrap();
    holds_what_it_is_given(&library);
    assert!(!folder.path().join("objects").exists(), "no object is in the folder");
    let again = Library::open(folder.path()).unwrap();
    assert_eq!(again.samples().unwrap(), library.samples().unwrap());
    let error = Library::create_in_bucket(&folder.path().join("b"), &server.place("site/"));
    assert!(error.unwrap_err().to_string().contains("another prefix"));

    // Many at once.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..10_u8 {
                    again.put_object(&[number; 9]).unwrap();
                }
            });
        }
    });
    let report = library.verify().unwrap();
    assert_eq!((report.objects, report.damage.len()), (19, 0));
    let known = library.put_object(&[0; 9]).unwrap();
    let place = library.object_path(&known).display().to_string();
    let versions = format!("print(len(list(scans.object_versions.filter(Prefix='{place}'))))");
    let before = server.run(&versions);
    library.put_object(&[0; 9]).unwrap();
    assert_eq!(server.run(&versions), before, "what is there is not put again");
    pieces_are_put_together(&library);

    let objects = library.series_objects(&library.series_id("1.1")).unwrap();
    let place = library.object_path(&objects[0]).display().to_string();
    server.meddle(&place, "put(Body=b'other bytes')");
    let error = library.read_object(&objects[0]).unwrap_err();
    assert!(matches!(error, LibraryError::Damaged { .. }), "{error}");
    assert_eq!(library.verify().unwrap().damage.len(), 1);
    server.meddle(&place, "delete()");
    let error = library.read_object(&objects[0]).unwrap_err().to_string();
    assert!(error.contains("not in the bucket"), "{error}");
    assert_eq!(library.verify().unwrap().damage.len(), 1);

    server.run("scans.object_versions.delete(); scans.delete()");
    let error = library.put_object(b"it is gone").unwrap_err().to_string();
    assert!(error.contains("s3://scans/site/") && error.contains("no such bucket"), "{error}");
    let error = library.read_object(&objects[0]).unwrap_err().to_string();
    assert!(error.contains("no such bucket") && !error.contains("Signature"), "{error}");
    assert!(library.store_instance(&key("1.2", 1), &gantry_library::Source::Import, b"x").is_err());
    assert!(library.series().unwrap().len() == 1, "nothing is named that was not kept");
}

/// An object that is read in two pieces.
fn pieces_are_put_together(library: &Library) {
    let large: Vec<u8> = (0..33_u32 << 20).map(|n| (n % 253) as u8).collect();
    let hash = library.put_object(&large).unwrap();
    assert!(library.read_object(&hash).unwrap() == large);
    assert_eq!(library.verify().unwrap().damage.len(), 0);
}

#[test]
fn a_bucket_that_cannot_be_used_is_refused_with_what_to_do() {
    if !has_keys("a_bucket_that_cannot_be_used_is_refused_with_what_to_do") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let refused = |endpoint: &str, bucket: &str, expected: &str| {
        let place = BucketPlace {
            endpoint: endpoint.into(),
            bucket: bucket.into(),
            region: "us-east-1".into(),
            prefix: String::new(),
        };
        let error = Library::create_in_bucket(folder.path(), &place).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("nobody") && !error.contains("ada:"), "{error}");
        assert!(!folder.path().join("library.json").exists());
    };
    refused("ftp://x", "scans", "cannot be used");
    refused("scans.example.org", "scans", "is no address");
    refused("https://ada:pass@s3.example.org", "scans", "keys belong into the environment");
    let Some(server) = Server::start("a bucket that is not there") else { return };
    refused(&server.endpoint, "other", "there is no such bucket");
    server.run("scans.Object('a').put(Body=b'of someone else')");
    refused(&server.endpoint, "scans", "choose another prefix");
}

#[test]
fn a_library_whose_keys_are_missing_says_how_to_give_them() {
    let folder = TempDir::new().unwrap();
    let program = std::env::current_exe().unwrap();
    if std::env::var_os("GANTRY_NO_KEYS").is_none() {
        let status = Command::new(program)
            .args(["a_library_whose_keys_are_missing_says_how_to_give_them", "--exact"])
            .env("GANTRY_NO_KEYS", "1")
            .env("HOME", folder.path())
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SHARED_CREDENTIALS_FILE")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let place = BucketPlace {
        endpoint: "http://127.0.0.1:9".into(),
        bucket: "scans".into(),
        region: "us-east-1".into(),
        prefix: String::new(),
    };
    let error = Library::create_in_bucket(folder.path(), &place).unwrap_err().to_string();
    assert!(error.contains("AWS_SHARED_CREDENTIALS_FILE"), "{error}");
}
