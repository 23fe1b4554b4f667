//! What a console watches: one whole picture after another, whatever of each was sent.

use gantry_link::{Connection, LinkError, Receiver, Sender};
use gantry_wire::{Request, Scope, Step, Update};

/// A watch of one scope. It ends with this value.
pub(crate) struct Watched {
    /// Its end would be the watch's.
    _sender: Sender,
    receiver: Receiver,
    shown: Update,
}

impl Watched {
    /// Begins to watch.
    pub(crate) async fn open(connection: &Connection, scope: Scope) -> Result<Self, LinkError> {
        let (mut sender, receiver) = connection.open().await?;
        sender.send(&Request::Watch { scope }).await?;
        Ok(Self { _sender: sender, receiver, shown: Update::default() })
    }

    /// The next picture; nothing where the scheduler has ended the watch.
    pub(crate) async fn next(&mut self) -> Result<Option<Box<Update>>, LinkError> {
        let Some(step) = self.receiver.receive::<Step>().await? else { return Ok(None) };
        self.shown.take(step)?;
        Ok(Some(Box::new(self.shown.clone())))
    }
}
