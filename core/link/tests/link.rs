//! Real QUIC with mutual TLS on loopback: who gets in, who does not, and what a peer notices.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gantry_link::{
    Authority, Identity, IdentityKind, LinkError, Own, Server, Term, Times, connect, join, token,
};
use gantry_model::{At, JobId, Millis};
use gantry_wire::{Greeting, JoinReply, JoinRequest, Peer, RenewRequest, Reply, Request, Verdict};
use tempfile::TempDir;

struct Cluster {
    folder: TempDir,
    authority: Authority,
    server: Server,
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn cluster() -> Cluster {
    let folder = TempDir::new().unwrap();
    let authority = Authority::create(folder.path(), "test").unwrap();
    let identity = authority.issue(IdentityKind::Scheduler, "scheduler").unwrap();
    let server = Server::bind(loopback(), &identity, folder.path()).unwrap();
    Cluster { folder, authority, server }
}

async fn welcome_one(server: &Server) -> Result<(gantry_link::Connection, Greeting), LinkError> {
    let incoming = server.accept().await.unwrap();
    let (connection, greeting, mut sender, _receiver) = incoming.handshake().await?;
    sender.send(&Verdict::Welcome { version: 1, cluster: "test".into(), at: At(7) }).await?;
    Ok((connection, greeting))
}

#[tokio::test]
async fn a_peer_is_known_and_messages_arrive() {
    let cluster = cluster();
    let identity = cluster.authority.issue(IdentityKind::Operator, "ada").unwrap();
    let address = cluster.server.local_address();
    let serve = async {
        let (connection, greeting) = welcome_one(&cluster.server).await.unwrap();
        assert_eq!(greeting.peer, Peer::Console);
        assert_eq!(connection.peer().kind, Some(IdentityKind::Operator));
        assert_eq!(connection.peer().name, "ada");
        let (mut sender, mut receiver) = connection.accept().await.unwrap();
        let Request::Job { job } = receiver.expect().await.unwrap() else { panic!() };
        sender.send(&Reply::Submitted(job)).await.unwrap();
        sender.delivered().await;
    };
    let call = async {
        let session = connect(address, &identity, Peer::Console).await.unwrap();
        assert_eq!((session.cluster.as_str(), session.at), ("test", At(7)));
        let (mut sender, mut receiver) = session.connection.open().await.unwrap();
        sender.send(&Request::Job { job: JobId(3) }).await.unwrap();
        assert_eq!(receiver.expect::<Reply>().await.unwrap(), Reply::Submitted(JobId(3)));
    };
    tokio::join!(serve, call);
}

#[tokio::test]
async fn a_peer_without_the_right_certificate_is_not_heard() {
    let cluster = cluster();
    let address = cluster.server.local_address();
    let elsewhere = TempDir::new().unwrap();
    let foreign = Authority::create(elsewhere.path(), "other").unwrap();
    let of = |authority: &Authority, kind, name: &str| authority.issue(kind, name).unwrap();
    let cases = [
        ("agent as console", of(&cluster.authority, IdentityKind::Agent, "a"), Peer::Console),
        ("operator as agent", of(&cluster.authority, IdentityKind::Operator, "a"), Peer::Agent),
        ("foreign operator", of(&foreign, IdentityKind::Operator, "a"), Peer::Console),
        ("scheduler as agent", of(&cluster.authority, IdentityKind::Scheduler, "s"), Peer::Agent),
    ];
    let count = cases.len();
    let serve = async {
        for _ in 0..count {
            assert!(welcome_one(&cluster.server).await.is_err());
        }
    };
    let call = async {
        for (what, identity, peer) in cases {
            let error = connect(address, &identity, peer).await.unwrap_err();
            let expected = matches!(error, LinkError::Refused(_) | LinkError::Connect { .. });
            assert!(expected, "{what}: {error}");
        }
    };
    tokio::join!(serve, async {
        tokio::select! { () = call => (), () = tokio::time::sleep(Duration::from_secs(30)) => panic!("stuck") }
    });
}

async fn sign_one(cluster: &Cluster) -> Result<(), LinkError> {
    let incoming = cluster.server.accept().await.unwrap();
    let (connection, greeting, mut sender, mut receiver) = incoming.handshake().await?;
    assert_eq!((greeting.peer, connection.peer().kind), (Peer::Joining, None));
    sender.send(&Verdict::Welcome { version: 1, cluster: "test".into(), at: At(7) }).await?;
    let request: JoinRequest = receiver.expect().await?;
    let signed = cluster.authority.sign(
        IdentityKind::Agent,
        &request.node,
        Term::long(),
        &request.request_der,
    )?;
    let authority_der = cluster.authority.certificate_der();
    sender.send(&JoinReply::Joined { node: None, certificate_der: signed, authority_der }).await?;
    sender.delivered().await;
    Ok(())
}

#[tokio::test]
async fn a_node_joins_with_a_token_and_then_comes_as_itself() {
    let cluster = cluster();
    let address = cluster.server.local_address();
    let token = token::mint(&cluster.authority.fingerprint());
    let (signed, identity) = tokio::join!(sign_one(&cluster), join(address, &token.text, "cpu-1"));
    signed.unwrap();
    let folder = TempDir::new().unwrap();
    identity.unwrap().save(folder.path(), "agent").unwrap();
    let identity = Identity::load(folder.path(), "agent").unwrap();
    let (welcomed, session) =
        tokio::join!(welcome_one(&cluster.server), connect(address, &identity, Peer::Agent));
    assert_eq!(welcomed.unwrap().0.peer().name, "cpu-1");
    session.unwrap();
}

#[tokio::test]
async fn an_identity_is_renewed_in_its_folder_and_keeps_its_key() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::create(folder.path(), "test").unwrap();
    let scheduler = authority.issue(IdentityKind::Scheduler, "scheduler").unwrap();
    // The scheduler's clock is two hours ahead: what counts for one hour has ended there.
    let day = Millis::from_seconds(86_400);
    let hour = Millis::from_seconds(3600);
    // Certificates know whole seconds.
    let here = At(Term::long().from.0 / 1000 * 1000);
    let times = Times::new(move || here.after(hour).after(hour), day);
    let server =
        Server::bind_by(loopback(), &scheduler, &authority.trust(), folder.path(), times).unwrap();
    let old = authority
        .issue_for(IdentityKind::Agent, "cpu-1", Term { from: here, valid: hour })
        .unwrap();
    old.save(folder.path(), "agent").unwrap();
    let key = std::fs::read(folder.path().join("agent.key")).unwrap();
    let mut own = Own::load(server.local_address(), folder.path(), "agent").unwrap();
    let due = own.identity().peer().unwrap().due();
    assert_eq!(due.since(here), Millis(hour.0 / 3 * 2));
    let serve = async {
        // As an agent it is told that its certificate has ended; then it renews, and is heard.
        assert!(welcome_one(&server).await.unwrap_err().to_string().contains("ended 1h ago"));
        let incoming = server.accept().await.unwrap();
        let (connection, greeting, mut sender, mut receiver) = incoming.handshake().await.unwrap();
        assert_eq!((greeting.peer, connection.peer().name.as_str()), (Peer::Renewing, "cpu-1"));
        sender
            .send(&Verdict::Welcome { version: 1, cluster: "test".into(), at: At(7) })
            .await
            .unwrap();
        let request: RenewRequest = receiver.expect().await.unwrap();
        let term = Term { from: here.after(hour).after(hour), valid: day };
        let certificate_der =
            authority.sign(IdentityKind::Agent, "cpu-1", term, &request.request_der).unwrap();
        let authority_der = authority.certificate_der();
        let joined = JoinReply::Joined { node: None, certificate_der, authority_der };
        sender.send(&joined).await.unwrap();
        sender.delivered().await;
        let (connection, _) = welcome_one(&server).await.unwrap();
        assert_eq!(connection.peer().issued, term.from);
        connection
    };
    let (_kept, session) = tokio::join!(serve, own.connect(Peer::Agent));
    session.unwrap();
    let renewed = Identity::load(folder.path(), "agent").unwrap();
    assert!(renewed.validity().unwrap().1 > old.validity().unwrap().1);
    assert_eq!(std::fs::read(folder.path().join("agent.key")).unwrap(), key);
    let left = std::fs::read_dir(folder.path()).unwrap();
    let part = |name: &std::ffi::OsString| name.to_string_lossy().ends_with(".part");
    assert_eq!(left.map(|entry| entry.unwrap().file_name()).filter(part).count(), 0);
}

#[tokio::test]
async fn a_scheduler_shows_its_next_certificate_to_new_callers_and_keeps_the_others() {
    let cluster = cluster();
    let identity = cluster.authority.issue(IdentityKind::Operator, "ada").unwrap();
    let address = cluster.server.local_address();
    let (first, session) =
        tokio::join!(welcome_one(&cluster.server), connect(address, &identity, Peer::Console));
    let (_first, session) = (first.unwrap(), session.unwrap());
    let next = cluster.authority.issue(IdentityKind::Scheduler, "scheduler").unwrap();
    cluster.server.show(&next, &cluster.authority.trust()).unwrap();
    let (second, other) =
        tokio::join!(welcome_one(&cluster.server), connect(address, &identity, Peer::Console));
    second.unwrap();
    other.unwrap();
    assert!(session.connection.open().await.is_ok());
}

#[tokio::test]
async fn an_authority_is_followed_by_another_one_and_nobody_is_locked_out() {
    let mut cluster = cluster();
    let (address, folder) = (cluster.server.local_address(), cluster.folder.path().to_owned());
    let ada = |authority: &Authority| authority.issue(IdentityKind::Operator, "ada").unwrap();
    let first = ada(&cluster.authority);
    let old_token = token::mint(&cluster.authority.fingerprint());
    let show = |authority: &Authority, server: &Server| {
        let own = authority.issue(IdentityKind::Scheduler, "scheduler").unwrap();
        server.show(&own, &authority.trust()).unwrap();
    };
    let calls = async |server: &Server, identity: &Identity| {
        let (welcomed, session) =
            tokio::join!(welcome_one(server), connect(address, identity, Peer::Console));
        welcomed?;
        session
    };
    assert_eq!(calls(&cluster.server, &first).await.unwrap().follows, None);

    let key = std::fs::read(folder.join("authority.key")).unwrap();
    cluster.authority = cluster.authority.rotate(&folder, Term::long().from).unwrap();
    assert!(cluster.authority.rotate(&folder, Term::long().from).is_err(), "one change at a time");
    assert_ne!(std::fs::read(folder.join("authority.key")).unwrap(), key, "the old key is gone");
    show(&cluster.authority, &cluster.server);
    let since = cluster.authority.rotating_since().unwrap();
    let second = ada(&cluster.authority);
    assert!(first.peer().unwrap().issued < since && since <= second.peer().unwrap().issued);
    // By the one before, by the one that follows, and by a half of each, as after a crash of who renews.
    let half = TempDir::new().unwrap();
    first.save(half.path(), "ada").unwrap();
    std::fs::copy(folder.join("authority.pem"), half.path().join("authority.pem")).unwrap();
    let half = Identity::load(half.path(), "ada").unwrap();
    for identity in [&first, &half, &second] {
        let session = calls(&cluster.server, identity).await.unwrap();
        assert_eq!(session.follows, Some(since));
    }
    // Tokens of both lead to a certificate of the one that follows.
    for token in [&old_token, &token::mint(&cluster.authority.fingerprint())] {
        let (served, joined) =
            tokio::join!(sign_one(&cluster), join(address, &token.text, "cpu-1"));
        served.unwrap();
        joined.unwrap().save(&folder, "agent").unwrap();
        let joined = Identity::load(&folder, "agent").unwrap();
        assert!(joined.peer().unwrap().issued >= since);
    }

    cluster.authority = cluster.authority.finish_rotation(&folder).unwrap();
    assert!(cluster.authority.finish_rotation(&folder).is_err());
    show(&cluster.authority, &cluster.server);
    assert_eq!(calls(&cluster.server, &second).await.unwrap().follows, None);
    let (refused, error) =
        tokio::join!(welcome_one(&cluster.server), connect(address, &first, Peer::Console));
    assert!(refused.is_err());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("join again with a new token"), "{error}");
}

#[test]
fn a_change_of_the_authority_that_was_cut_off_is_ended_by_the_next_start() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let first = Authority::create(folder.path(), "test").unwrap();
    let files = ["authority.pem", "authority.key", "authority-before.pem", "authority-follows.pem"];
    let earlier = files.map(|name| std::fs::read(at(name)).ok());
    // The file with all of both is there before anything is changed, and is removed at the end: it is
    // taken from the change while it is at work, by a folder in which that cannot end.
    std::fs::create_dir(at("authority-follows.pem")).unwrap();
    assert!(first.rotate(folder.path(), At(7)).is_err());
    let next = std::fs::read(at("authority.next")).unwrap();
    std::fs::remove_dir(at("authority-follows.pem")).unwrap();
    let whole = Authority::load(folder.path()).unwrap();
    assert!(!at("authority.next").exists());
    let later = files.map(|name| std::fs::read(at(name)).ok());
    // Whatever was written of it before the cut.
    for written in 0..1_u32 << files.len() {
        for (n, name) in files.iter().enumerate() {
            let text = if written >> n & 1 == 1 { &later[n] } else { &earlier[n] };
            match text {
                Some(text) => std::fs::write(at(name), text).unwrap(),
                None => drop(std::fs::remove_file(at(name))),
            }
        }
        std::fs::set_permissions(at("authority.key"), Permissions::from_mode(0o600)).unwrap();
        std::fs::write(at("authority.next"), &next).unwrap();
        std::fs::set_permissions(at("authority.next"), Permissions::from_mode(0o600)).unwrap();
        let ended = Authority::load(folder.path()).unwrap();
        assert_eq!(ended.fingerprint(), whole.fingerprint(), "{written:b}");
        assert!(ended.rotating_since().is_some() && !at("authority.next").exists());
    }
    assert_ne!(whole.fingerprint(), first.fingerprint());
    std::fs::write(at("authority.next"), "torn").unwrap();
    std::fs::set_permissions(at("authority.next"), Permissions::from_mode(0o600)).unwrap();
    let error = Authority::load(folder.path()).err().unwrap().to_string();
    assert!(error.contains("restore the folder from a backup"), "{error}");
}

#[tokio::test]
async fn a_token_of_another_cluster_never_reaches_this_one() {
    let cluster = cluster();
    let token = token::mint(&"00".repeat(32));
    let (served, joined) = tokio::join!(
        sign_one(&cluster),
        join(cluster.server.local_address(), &token.text, "cpu-1")
    );
    assert!(served.is_err());
    let error = joined.unwrap_err().to_string();
    assert!(error.contains("another authority"), "{error}");
}

#[tokio::test]
async fn a_scheduler_that_is_not_there_is_a_sentence() {
    let cluster = cluster();
    let identity = cluster.authority.issue(IdentityKind::Operator, "ada").unwrap();
    let address = cluster.server.local_address();
    cluster.server.close().await;
    drop(cluster.server);
    let error = connect(address, &identity, Peer::Console).await.unwrap_err().to_string();
    assert!(error.contains("check that it runs"), "{error}");
}

const SERVE: &str = "GANTRY_TEST_SERVE";

/// Not a test of its own: the body of the process that the next test kills.
#[tokio::test]
async fn serve_until_killed() {
    let Ok(folder) = std::env::var(SERVE) else { return };
    let folder = Path::new(&folder);
    let address = std::fs::read_to_string(folder.join("address")).unwrap().parse().unwrap();
    let identity = Identity::load(folder, "scheduler").unwrap();
    let server = Server::bind(address, &identity, folder).unwrap();
    let address = server.local_address().to_string();
    std::fs::write(folder.join("address.new"), &address).unwrap();
    std::fs::rename(folder.join("address.new"), folder.join("address")).unwrap();
    println!("\nserving");
    let mut held = Vec::new();
    while let Ok(peer) = welcome_one(&server).await {
        held.push(peer);
    }
}

fn serve_in_a_process(folder: &Path) -> (SocketAddr, Child) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serve_until_killed", "--nocapture"])
        .env(SERVE, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "serving"));
    let address = std::fs::read_to_string(folder.join("address")).unwrap();
    (address.parse().unwrap(), child)
}

#[tokio::test]
async fn a_peer_notices_at_once_that_the_scheduler_was_killed_and_started_again() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::create(folder.path(), "test").unwrap();
    let identity = authority.issue(IdentityKind::Scheduler, "scheduler").unwrap();
    identity.save(folder.path(), "scheduler").unwrap();
    std::fs::write(folder.path().join("address"), loopback().to_string()).unwrap();
    let agent = authority.issue(IdentityKind::Agent, "cpu-1").unwrap();
    let (address, mut first) = serve_in_a_process(folder.path());
    let session = connect(address, &agent, Peer::Agent).await.unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    let (again, mut second) = serve_in_a_process(folder.path());
    assert_eq!(again, address);
    let start = Instant::now();
    // The next packet of the old connection is answered with a reset by the new scheduler.
    let (mut sender, _receiver) = session.connection.open().await.unwrap();
    let _ = sender.send(&Request::Nodes { after: None }).await;
    let reason = session.connection.closed().await;
    println!("noticed after {:?}: {reason}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    connect(address, &agent, Peer::Agent).await.unwrap();
    second.kill().unwrap();
    second.wait().unwrap();
}

#[test]
fn keys_that_others_can_read_are_refused_and_a_second_authority_too() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let authority = Authority::create(folder.path(), "test").unwrap();
    assert!(Authority::create(folder.path(), "again").is_err());
    authority.issue(IdentityKind::Operator, "ada").unwrap().save(folder.path(), "ada").unwrap();
    assert_eq!(Identity::load(folder.path(), "ada").unwrap().name().unwrap(), "ada");
    let key = folder.path().join("ada.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    authority.issue(IdentityKind::Operator, "bob").unwrap().save(folder.path(), "bob").unwrap();
    std::fs::copy(folder.path().join("bob.key"), &key).unwrap();
    let error = Identity::load(folder.path(), "ada").unwrap_err().to_string();
    assert!(error.contains("does not belong"), "{error}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = Identity::load(folder.path(), "ada").unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}
