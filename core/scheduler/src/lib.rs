//! The scheduler daemon: the shell around the cluster machine.
//!
//! One thread owns the machine and the journal ([`shell`]). It drains what is waiting, appends the
//! events and syncs once, applies each, and carries out the effects in order; nothing that was not
//! durable is ever answered. Around it, tasks on a runtime hold the connections: agents, consoles
//! and nodes that join ([`session`]); they reach the thread through [`core`]. What only screens
//! need (samples, curves) is kept beside the machine ([`board`]) and is gone after a restart; what
//! decides is in the journal ([`store`]), and so is the event log, of which [`notes`] has the newest
//! lines at hand. Who may do what is decided in [`roles`] and [`access`], and what was done is in
//! [`audit`]. What [`webhook`] and [`traces`] tell others goes out through [`outgoing`]. [`backup`] is what
//! brings a scheduler back whose disk is lost.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod agents;
mod alerts;
mod audit;
mod backup;
mod board;
mod clock;
mod core;
mod error;
mod metrics;
mod notes;
mod outgoing;
mod roles;
mod session;
mod settings;
mod shell;
mod signing;
mod store;
mod telemetry;
mod traces;
mod update;
mod watch;
mod webhook;

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_config::SchedulerSettings;
use gantry_link::{Authority, Identity, IdentityKind, Local, Server, Term, Times};
use gantry_model::{Level, Millis, Subject};
use signing::Signing;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

pub use audit::verify as verify_audit;
pub use backup::{BackupReport, backup, copy_stopped, restore};
pub use error::SchedulerError;
pub use store::{JournalReport, check, repair};
use update::Pictures;
use webhook::Webhook;

/// Connections at once, agents and consoles together: each takes about 40 KB.
const CONNECTIONS_MAX: usize = 20_000;

/// Between two looks at whether the scheduler's own certificates are due: they last for a year.
const OWN_EACH: Duration = Duration::from_hours(1);

/// Between two signs of life.
const ALIVE_EACH: Duration = Duration::from_secs(5);

/// Makes a new cluster in a folder: its authority, the scheduler's identity and the first
/// administrator's, whose name is operator.
///
/// # Errors
/// Where the folder already holds a cluster or cannot be written.
pub fn init(folder: &Path, cluster: &str) -> Result<(), SchedulerError> {
    gantry_model::job::check_name("cluster", cluster).map_err(SchedulerError::Refused)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| SchedulerError::file("making", folder, &error))?;
    let authority = Authority::create(folder, cluster)?;
    authority.issue(IdentityKind::Scheduler, "scheduler")?.save(folder, "scheduler")?;
    authority.issue(IdentityKind::Operator, access::FIRST)?.save(folder, access::FIRST)?;
    Ok(())
}

/// Serves a cluster until `stop` is done.
///
/// # Errors
/// Where the folder holds no cluster, another scheduler uses it, the journal is damaged or the
/// address is taken.
pub async fn serve(
    folder: &Path,
    settings: SchedulerSettings,
    stop: impl Future<Output = ()>,
) -> Result<(), SchedulerError> {
    serve_with(folder, settings, stop, Millis(0), |_| {}).await
}

/// The same; `alive` is called once the cluster is served, and then every few seconds for as long as the
/// thread that decides answers.
///
/// # Errors
/// As [`serve`].
pub async fn serve_alive(
    folder: &Path,
    settings: SchedulerSettings,
    stop: impl Future<Output = ()>,
    alive: impl Fn() + Send + 'static,
) -> Result<(), SchedulerError> {
    let with = |core: &core::Core| drop(tokio::spawn(signs(core.clone(), alive)));
    serve_with(folder, settings, stop, Millis(0), with).await
}

/// Gives signs of life until the cluster is there no more.
async fn signs(core: core::Core, alive: impl Fn()) {
    let mut each = tokio::time::interval(ALIVE_EACH);
    each.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        each.tick().await;
        if core.read(|_| ()).await.is_err() {
            return;
        }
        alive();
    }
}

/// The same by a clock so far `ahead` of the host's; `with` is given the way to the cluster once it is
/// there.
async fn serve_with(
    folder: &Path,
    settings: SchedulerSettings,
    stop: impl Future<Output = ()>,
    ahead: Millis,
    with: impl FnOnce(&core::Core),
) -> Result<(), SchedulerError> {
    let authority = Authority::load(folder).map_err(|error| SchedulerError::NoCluster {
        folder: folder.to_owned(),
        reason: error.to_string(),
    })?;
    let cluster = authority.cluster().to_owned();
    let (decided_by, kept) = (settings::cluster(&settings), settings::retention(&settings));
    let (watch, exporter) =
        traces::start(folder, &cluster, settings.traces_endpoint.as_deref())?.unzip();
    let core::Started { core, ended: mut core_ended, alerts } =
        core::start(folder, decided_by, kept, ahead, watch)?;
    let webhook = Webhook::start(cluster.clone(), settings::webhook(&settings))
        .map_err(|error| SchedulerError::file("starting the webhook of", folder, &error))?;
    {
        let mut board = core.board();
        board.telemetry.limits = (&settings.watch).into();
        board.telemetry.alerts.set(&settings.alert);
        board.notes.outbox = Some(webhook.outbox());
    }
    let said = core.board().telemetry.alerts.restore(core.clock.now(), alerts);
    settings::say(&core, said);
    let (audit, broken) = audit::Audit::start(folder)?;
    if let Some(what) = broken {
        let sentence =
            format!("the audit log is not as it was written: {what}; gantry audit verify");
        tracing::error!("{sentence}");
        core.note(Level::Fail, Subject::Cluster, sentence);
    }
    let identity = own(folder, &authority, &core)?;
    let clock = core.clock;
    let times = Times::new(move || clock.wall(), settings.certificate_grace);
    let trust = authority.trust();
    let server = Server::bind_by(settings.listen, &identity, &trust, folder, times)?;
    let address = server.local_address();
    let address = write_address(folder, address)?;
    tracing::info!(%address, cluster, "serving");
    with(&core);
    let shared = Arc::new(session::Shared {
        cluster,
        folder: folder.to_owned(),
        address,
        signing: Signing::new(folder.to_owned(), authority),
        core,
        settings,
        pictures: Pictures::default(),
        webhook,
        traces: exporter,
        audit,
        guesses: session::Strangers::default(),
        callers: session::Strangers::default(),
        said: session::Strangers::default(),
        turned_away: session::Tallied::default(),
        given_up: session::Tallied::default(),
    });
    let _metrics = metrics::start(&shared).await?;
    let _local = people_of_this_host(&shared)?;
    let mut sessions = JoinSet::new();
    let mut own_due = tokio::time::interval(OWN_EACH);
    own_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    own_due.reset();
    tokio::pin!(stop);
    let result = loop {
        tokio::select! {
            () = &mut stop => break Ok(()),
            ended = &mut core_ended => {
                break Err(ended.unwrap_or_else(|_| SchedulerError::Storage("its thread ended".into())));
            }
            Some(_) = sessions.join_next() => {}
            _ = own_due.tick() => show(folder, &shared, &server),
            () = shared.signing.changed() => show(folder, &shared, &server),
            incoming = server.accept() => {
                let Some(incoming) = incoming else { break Ok(()) };
                if sessions.len() < CONNECTIONS_MAX {
                    sessions.spawn(session::run(shared.clone(), incoming));
                } else {
                    tracing::warn!(CONNECTIONS_MAX, "a connection was refused: too many");
                }
            }
        }
    };
    server.close().await;
    sessions.shutdown().await;
    shared.core.stop().await;
    if let Some(exporter) = &shared.traces {
        exporter.finished().await;
    }
    result
}

/// Shows callers the scheduler's own certificate as it is now, and listens to whom the authority trusts.
fn show(folder: &Path, shared: &session::Shared, server: &Server) {
    let authority = shared.signing.authority();
    let renewed = own(folder, &authority, &shared.core);
    let shown = renewed.and_then(|identity| Ok(server.show(&identity, &authority.trust())?));
    if let Err(error) = shown {
        tracing::error!("the scheduler's own certificate was not renewed: {error}");
    }
}

/// The scheduler's own identity, renewed where that is due or the authority is another one; and that of
/// the first administrator beside it, so that whoever reads the authority's key can always give commands.
fn own(
    folder: &Path,
    authority: &Authority,
    core: &core::Core,
) -> Result<Identity, SchedulerError> {
    let now = core.clock.wall();
    let current = |name: &str| -> Result<Identity, SchedulerError> {
        let identity = Identity::load(folder, name)?;
        let peer = identity.peer()?;
        if now < peer.due() && authority.made().is_none_or(|made| made <= peer.issued) {
            return Ok(identity);
        }
        let renewed = authority.reissue(&identity, Term { from: now, valid: Term::LONG })?;
        renewed.save_renewed(folder, name)?;
        tracing::info!(name, "a certificate of the scheduler's folder was renewed");
        Ok(renewed)
    };
    // It may have been moved to another host.
    let there = folder.join(format!("{}.key", access::FIRST)).exists();
    if there
        && !core.access.look(access::Grants::first_is_revoked)
        && let Err(error) = current(access::FIRST)
    {
        tracing::warn!("the first administrator's certificate was not renewed: {error}");
    }
    current("scheduler")
}

/// Answers people of this host, where they are let in by their account. It ends with what is returned.
fn people_of_this_host(shared: &Arc<session::Shared>) -> Result<JoinSet<()>, SchedulerError> {
    let mut serving = JoinSet::new();
    let runtime = std::env::var_os("RUNTIME_DIRECTORY").map(Into::into);
    if let Some(path) = session::local::place(&shared.settings, runtime) {
        let local = Local::bind(&path)?;
        tracing::info!(path = %path.display(), "people of this host can call");
        let shared = shared.clone();
        serving.spawn(async move { match session::local::serve(shared, local).await {} });
    }
    Ok(serving)
}

/// Leaves the address where commands on this host look for it, and gives it.
fn write_address(folder: &Path, mut address: SocketAddr) -> Result<SocketAddr, SchedulerError> {
    if address.ip().is_unspecified() {
        // Commands on this host call loopback; others are told the address by hand.
        let loopback = if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        address.set_ip(loopback);
    }
    let (part, path) = (folder.join("address.part"), folder.join("address"));
    let text = format!("{address}\n");
    // A start on a full disk needs no room for what is there already.
    if std::fs::read_to_string(&path).is_ok_and(|known| known == text) {
        return Ok(address);
    }
    std::fs::write(&part, text)
        .and_then(|()| std::fs::rename(&part, &path))
        .map(|()| address)
        .map_err(|error| SchedulerError::file("writing", &path, &error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gantry_wire::Peer;
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_cluster_that_is_busy_costs_no_connection() {
        let folder = TempDir::new().unwrap();
        let place = folder.path().join("scheduler");
        init(&place, "test").unwrap();
        let (given, core) = tokio::sync::oneshot::channel();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let settings =
            SchedulerSettings { listen: ([127, 0, 0, 1], 0).into(), ..Default::default() };
        let serving = tokio::spawn({
            let place = place.clone();
            async move {
                let stop = async move { drop(ended.await) };
                serve_with(&place, settings, stop, Millis(0), |core| drop(given.send(core.clone())))
                    .await
            }
        });
        let core = core.await.unwrap();
        let address = std::fs::read_to_string(place.join("address")).unwrap();
        let operator = Identity::load(&place, "operator").unwrap();
        let address = address.trim().parse().unwrap();
        let session = gantry_link::connect(address, &operator, Peer::Console).await.unwrap();
        // Its thread does nothing else for longer than a silent connection is kept.
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let busy = tokio::spawn(async move { core.read(move |_| waits.recv().is_ok()).await });
        let closed = session.connection.closed();
        let lost = tokio::time::timeout(Duration::from_secs(5), closed).await;
        assert!(lost.is_err(), "the connection ended: {lost:?}");
        go_on.send(()).unwrap();
        assert!(busy.await.unwrap().unwrap());
        drop(end);
        serving.await.unwrap().unwrap();
    }
}
