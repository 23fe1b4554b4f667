//! A server of S3 on this machine: moto, from `PyPI`.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gantry_library::BucketPlace;
use tempfile::TempDir;

/// Runs the server with a clock of its own: what is put while there is the file that is its last argument
/// is two days old.
const SERVER: &str = "
import datetime, os, sys
import moto.s3.models as models
from moto.server import main
past = sys.argv.pop()
init = models.FakeKey.__init__
def aged(self, *args, **kwargs):
    init(self, *args, **kwargs)
    if os.path.exists(past):
        self.last_modified -= datetime.timedelta(days=2)
models.FakeKey.__init__ = aged
main(sys.argv[1:])
";

/// A server of S3 on this machine, with one bucket.
pub(crate) struct Server {
    child: Child,
    /// Its folder, where the file is that makes what is put old.
    folder: TempDir,
    pub(crate) endpoint: String,
    program: PathBuf,
}

impl Server {
    /// Starts it; says aloud that a test is skipped where there is none.
    pub(crate) fn start(test: &str) -> Option<Self> {
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
        let folder = TempDir::new().unwrap();
        let child = Command::new(&program)
            .args(["-c", SERVER, "-H", "127.0.0.1", "-p", &port.to_string()])
            .arg(folder.path().join("past"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, folder, endpoint: format!("http://127.0.0.1:{port}"), program };
        let begun = Instant::now();
        while ureq::put(&format!("{}/scans", server.endpoint)).send_empty().is_err() {
            assert!(begun.elapsed() < Duration::from_mins(1), "the server does not answer");
        }
        Some(server)
    }

    /// Says whether what is put from now on is two days old.
    pub(crate) fn ages(&self, old: bool) {
        let past = self.folder.path().join("past");
        if old {
            std::fs::write(past, b"").unwrap();
        } else {
            std::fs::remove_file(past).unwrap();
        }
    }

    pub(crate) fn place(&self, prefix: &str) -> BucketPlace {
        BucketPlace {
            endpoint: self.endpoint.clone(),
            bucket: "scans".into(),
            region: "us-east-1".into(),
            prefix: prefix.into(),
        }
    }

    /// Runs a line of Python with `scans`, the bucket; gives what it prints.
    pub(crate) fn run(&self, line: &str) -> String {
        let code = format!(
            "import boto3; scans = boto3.resource('s3', endpoint_url='{}', region_name='us-east-1').Bucket('scans'); {line}",
            self.endpoint
        );
        let output = Command::new(&self.program).args(["-c", &code]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Does something to an object behind the library's back.
    pub(crate) fn meddle(&self, key: &str, what: &str) {
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
pub(crate) fn has_keys(test: &str) -> bool {
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
