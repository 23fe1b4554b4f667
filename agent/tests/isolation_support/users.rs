//! Commands that run as the user who submitted them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use gantry_config::{CgroupPlace, IsolationSettings, RunAs, Umask};
use gantry_model::{Exit, JobId, Launch, Order, TryId};

use super::{BTreeMap, agent, operation, run, script, start};

fn as_submitter(isolation: &mut IsolationSettings, folder: &Path) {
    isolation.cgroup = CgroupPlace::Nowhere;
    isolation.run_as = RunAs::Submitter;
    isolation.scratch_folder = Some(folder.join("scratch"));
    isolation.umask = Umask(0o027);
    isolation.pids_max = Some(500);
}

/// Number and first group of an account, as the system's own program has it.
fn account(name: &str) -> (u32, u32) {
    let id = |what: &str| {
        let output = std::process::Command::new("id").args([what, name]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (id("-u"), id("-g"))
}

pub(crate) async fn commands_run_as_their_submitter() {
    let (bench, agent, mut session) = agent(as_submitter).await;
    for (number, user) in [(1, "nobody"), (2, "daemon")] {
        let (uid, gid) = account(user);
        let look = "id -u; id -g; id -G; umask; pwd; touch $TMPDIR/mine $GANTRY_CHECKPOINT/kept; \
                    stat -c %a:%u $TMPDIR/mine; grep NoNewPrivs /proc/self/status; \
                    grep 'Max processes' /proc/self/limits; grep ^CapEff /proc/self/status; env";
        let mut launch = script(number, user, look);
        launch.environment = BTreeMap::from([("OWN".to_owned(), "job".to_owned())]);
        let lines = run(&mut session, launch).await;
        let groups = std::process::Command::new("id").args(["-G", user]).output().unwrap();
        let groups = String::from_utf8(groups.stdout).unwrap().trim().to_owned();
        assert_eq!(lines[..4], [uid.to_string(), gid.to_string(), groups, "0027".into()]);
        assert_eq!(lines[5], format!("640:{uid}"));
        assert_eq!(lines[6], "NoNewPrivs:\t1");
        assert!(lines[7].contains(" 500 "), "{}", lines[7]);
        assert_eq!(lines[8], "CapEff:\t0000000000000000");
        clean(&lines[9..], user);
        let checkpoint = bench.folder().join(format!("checkpoints/{}/0", JobId(number)));
        assert_eq!(checkpoint.metadata().unwrap().uid(), uid);
    }
    assert_eq!(fs::read_dir(bench.folder().join("scratch")).unwrap().count(), 0);
    // A program with root's rights gives none.
    let cannot = "cat /etc/shadow || su -c true || echo refused";
    let lines = run(&mut session, script(3, "nobody", cannot)).await;
    assert_eq!(lines.last().unwrap(), "refused");
    // Nor does a job get at the node's key, at what others have printed, or at what the agent knows.
    let reads = "agent=$(dirname $GANTRY_AGENT); \
                 for file in $agent/agent.key $GANTRY_AGENT/j2/* $agent/tries/* /proc/$PPID/environ /proc/$PPID/mem; do \
                 head -c 1 $file > /dev/null 2>&1 && echo read $file; done; echo over";
    assert_eq!(run(&mut session, script(4, "nobody", reads)).await, ["over"]);
    // It can be stopped, and its folder may be one that it may not enter.
    start(&mut session, script(5, "nobody", "echo up; sleep 1000")).await;
    session.lines(5, 1).await;
    session.order(Order::Stop { try_id: TryId(5) }).await;
    assert_eq!(session.end(5).await, Exit::Signal(15));
    let secret = bench.folder().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).unwrap();
    let mut launch = script(6, "nobody", "true");
    if let gantry_model::TaskWork::Command { folder, .. } = &mut launch.work {
        *folder = Some(secret.display().to_string());
    }
    start(&mut session, launch).await;
    let Exit::NotStarted { code: 126, sentence } = session.end(6).await else { panic!() };
    assert!(sentence.starts_with("nobody cannot go to the folder"), "{sentence}");
    agent.stop().await;
}

/// Nothing of the agent's environment but what a command needs.
fn clean(lines: &[String], user: &str) {
    let known = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "OWN", "PWD"];
    for line in lines {
        let name = line.split('=').next().unwrap();
        let fine = known.contains(&name)
            || name.starts_with("GANTRY_")
            || ["CUDA_VISIBLE_DEVICES", "OLDPWD", "SHLVL", "_"].contains(&name);
        assert!(fine, "{line}");
    }
    for expected in [format!("USER={user}"), format!("LOGNAME={user}"), "OWN=job".into()] {
        assert!(lines.contains(&expected), "{lines:?} lacks {expected}");
    }
}

pub(crate) async fn an_operation_has_the_rights_of_its_submitter() {
    let (bench, agent, mut session) = agent(as_submitter).await;
    let library = bench.folder().join("library");
    gantry_library::Library::open_or_create(&library).unwrap();
    fs::set_permissions(&library, fs::Permissions::from_mode(0o700)).unwrap();
    let text = library.display().to_string();
    for (number, user, expected) in [(1, "nobody", "there is no library"), (2, "root", "root")] {
        start(&mut session, operation(number, user, &text)).await;
        let sentence = session.end(number).await.to_string();
        assert!(sentence.contains(expected), "{user}: {sentence}");
    }
    agent.stop().await;
}

pub(crate) async fn who_has_no_account_is_refused() {
    let (_bench, agent, mut session) = agent(as_submitter).await;
    for (number, user, expected) in [
        (1, "gantry-no-such-user", "gantry-no-such-user has no account on this node"),
        (2, "root", "this node runs nothing as root"),
    ] {
        start(&mut session, script(number, user, "true")).await;
        let Exit::NotStarted { code: 126, sentence } = session.end(number).await else { panic!() };
        assert!(sentence.starts_with(expected), "{sentence}");
    }
    agent.stop().await;
    let allowed = |isolation: &mut IsolationSettings, folder: &Path| {
        as_submitter(isolation, folder);
        isolation.allow_root = true;
    };
    let (_bench, agent, mut session) = self::agent(allowed).await;
    assert_eq!(run(&mut session, script(1, "root", "id -u; echo $HOME")).await, ["0", "/root"]);
    agent.stop().await;
}

pub(crate) async fn an_output_file_is_no_way_around_rights() {
    let (bench, agent, mut session) = agent(as_submitter).await;
    let (uid, _) = account("nobody");
    let open = bench.folder().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let to = |number: u64, path: &Path, text: &str| Launch {
        output: Some(path.display().to_string()),
        ..script(number, "nobody", text)
    };
    let mine = open.join("below/mine");
    assert_eq!(run(&mut session, to(1, &mine, "echo mine")).await, ["mine"]);
    assert_eq!(mine.metadata().unwrap().uid(), uid);
    // Where the user may not write, nothing is made, and nothing is shown.
    let secret = bench.folder().join("secret");
    fs::write(&secret, "root's\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let missing = bench.folder().join("missing");
    for (number, path) in [(2, &secret), (3, &missing)] {
        start(&mut session, to(number, path, "echo more")).await;
        let end = session.end(number).await;
        assert!(matches!(end, Exit::NotStarted { code: 126, .. }), "{end}");
        let (mut sender, mut receiver) = session.connection.open().await.unwrap();
        let request = gantry_wire::NodeRequest::Output { task: JobId(number).task(0), offset: 0 };
        sender.send(&request).await.unwrap();
        if let gantry_wire::NodeReply::Output(output) = receiver.expect().await.unwrap() {
            assert!(output.bytes.is_empty());
        }
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "root's\n");
    assert!(!missing.exists());
    // A file that becomes a link to another's is not read through it.
    let swap = format!("rm {0}; ln -s {1} {0}", mine.display(), secret.display());
    run(&mut session, script(4, "nobody", &swap)).await;
    let (mut sender, mut receiver) = session.connection.open().await.unwrap();
    let request = gantry_wire::NodeRequest::Output { task: JobId(1).task(0), offset: 0 };
    sender.send(&request).await.unwrap();
    let reply = receiver.expect().await.unwrap();
    assert!(matches!(reply, gantry_wire::NodeReply::Refused(_)), "{reply:?}");
    agent.stop().await;
}
