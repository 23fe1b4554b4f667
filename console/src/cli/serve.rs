//! `gantry serve`: a prediction service, in the foreground. As a job it runs on a server of the
//! cluster: `gantry submit --retries 9 -- gantry serve --model NAME …`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use gantry_agent::serve::{Receiver, ServeSettings, Service};
use tokio::signal::unix::{SignalKind, signal};

use super::completions;
use super::library::Place;
use super::secure::Secure;
use crate::error::{Failure, Outcome};
use crate::output::Format;

/// Series that were asked for and wait, where nothing else is said.
const PLACES: usize = 64;
const PLACES_MAX: usize = 10_000;

/// `gantry serve`.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    place: Place,
    /// The model, by name or id: the one that was approved last is served, and a change of that is
    /// taken over while it runs.
    #[arg(long, add = completions::models())]
    model: String,
    /// Series of this modality only: CT, MR, CR.
    #[arg(long)]
    modality: Option<String>,
    /// Series of this part of the body only, as their files name it: CHEST.
    #[arg(long, value_name = "PART")]
    body_part: Option<String>,
    /// How long nothing new has come for a series that is complete, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    stable: u64,
    /// Send each segmentation to this DICOM receiver.
    #[arg(long, value_name = "HOST:PORT")]
    send: Option<String>,
    /// The receiver's AE title.
    #[arg(long, default_value = "PACS", requires = "send")]
    called: String,
    /// Our AE title.
    #[arg(long, default_value = "GANTRY", requires = "send")]
    calling: String,
    #[command(flatten)]
    secure: Secure,
    /// Answer programs at this address; without a password, so take the loopback or a management
    /// network.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// How many series that programs ask for may wait; more are refused.
    #[arg(long, value_name = "SERIES", default_value_t = PLACES)]
    places: usize,
    /// The service's name, under which the library keeps what is still to be sent.
    #[arg(long, default_value = "serve")]
    name: String,
}

impl Serve {
    /// Carries it out, until it is told to stop.
    ///
    /// # Errors
    /// Where the library cannot be used or the address is taken.
    pub fn run(self, _: Format) -> Outcome {
        if !(1..=PLACES_MAX).contains(&self.places) {
            return Err(Failure::usage(format!("--places is 1 to {PLACES_MAX}")));
        }
        let library = self.place.open()?;
        if self.send.is_none() && self.secure.is_set() {
            return Err(Failure::usage(
                "--tls-authority is for a receiver; name it with --send HOST:PORT",
            ));
        }
        let send = self.send.map(|to| {
            let tls = self.secure.tls(&to)?;
            Ok::<_, Failure>(Receiver { to, called: self.called, calling: self.calling, tls })
        });
        let settings = ServeSettings {
            name: self.name,
            model: self.model,
            modality: self.modality,
            body_part: self.body_part,
            stable: Duration::from_secs(self.stable),
            send: send.transpose()?,
            listen: self.listen,
            places: self.places,
        };
        let service = Service::new(library, settings).map_err(Failure::usage)?;
        let stop = service.stop();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_io()
            .build()
            .map_err(Failure::trouble)?;
        let entered = runtime.enter();
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let (mut heard, stop) = (signal(kind).map_err(Failure::trouble)?, stop.clone());
            runtime.spawn(async move {
                heard.recv().await;
                stop.stop();
            });
        }
        drop(entered);
        service.run(&mut std::io::stdout().lock()).map_err(Failure::trouble)?;
        Ok(0)
    }
}
