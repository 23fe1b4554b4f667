//! The librarian: fetches what the console wishes from the library on the shared storage, and does
//! there what a person has confirmed.
//!
//! Two threads, so that an image opens while everything is being checked: one for the image that is
//! open, one for records. Both tell the console what they find; neither is waited for.

mod deeds;
mod images;
mod listing;
mod nearest;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use gantry_library::{Library, SeriesId};

use crate::app::Message;
use crate::app::library::{Doing, Told, Wish};

/// Wishes that wait for a thread.
const WISHES_MAX: usize = 64;

/// Where the library is, and who asks.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// Its folder; none is named here where it is absent.
    pub library: Option<PathBuf>,
    /// Who decides, keeps and rejects.
    pub by: String,
}

impl Reader {
    /// What the environment says: `GANTRY_LIBRARY`, and the user's name.
    #[must_use]
    pub fn of_environment() -> Self {
        let library = std::env::var_os("GANTRY_LIBRARY").filter(|path| !path.is_empty());
        Self { library: library.map(PathBuf::from), by: std::env::var("USER").unwrap_or_default() }
    }

    fn open(&self) -> Result<Library, String> {
        let Some(folder) = &self.library else {
            return Err("no library is named here; set GANTRY_LIBRARY to its folder on the shared storage, and open the console again".into());
        };
        Library::open(folder).map_err(|error| error.to_string())
    }

    fn author(&self) -> Result<&str, String> {
        if self.by.is_empty() {
            return Err("nothing is kept without a name; set USER to yours".into());
        }
        Ok(&self.by)
    }
}

/// What tells the console.
type Tell = Arc<dyn Fn(Told) + Send + Sync>;

/// The two threads, as the console reaches them.
#[derive(Debug)]
pub(crate) struct Librarian {
    images: SyncSender<Wish>,
    records: SyncSender<Wish>,
    wanted: Arc<AtomicU64>,
}

impl Librarian {
    /// Starts the threads. They end with the console.
    pub(crate) fn start(reader: Reader, messages: tokio::sync::mpsc::Sender<Message>) -> Self {
        let wanted = Arc::new(AtomicU64::new(0));
        let tell: Tell = Arc::new(move |told| {
            // The console is gone where nobody listens.
            let _ = messages.blocking_send(Message::Library(told));
        });
        let (images, of_images) = sync_channel(WISHES_MAX);
        let (records, of_records) = sync_channel(WISHES_MAX);
        let mut desk = images::Desk::new(reader.clone(), Arc::clone(&tell), Arc::clone(&wanted));
        std::thread::spawn(move || serve(&of_images, |wish| desk.carry_out(wish)));
        let mut records_desk = Records { reader, tell, shown: listing::Shown::default() };
        std::thread::spawn(move || serve(&of_records, |wish| records_desk.carry_out(wish)));
        Self { images, records, wanted }
    }

    /// Hands a wish over; gives what is told at once where it cannot be taken.
    pub(crate) fn wish(&self, wish: Wish) -> Option<Told> {
        match &wish {
            // What is being read for an earlier wish is given up.
            Wish::Open { number, .. } => self.wanted.store(*number, Ordering::Relaxed),
            Wish::Close => self.wanted.store(0, Ordering::Relaxed),
            _ => {}
        }
        let to = match &wish {
            Wish::Open { .. } | Wish::Close | Wish::Grow { .. } => &self.images,
            Wish::Do(doing) if matches!(**doing, Doing::Accept { .. }) => &self.images,
            _ => &self.records,
        };
        let full = "too much is wished of the library at once; wait, and ask again";
        to.try_send(wish).is_err().then(|| Told::Done(Err(full.into())))
    }
}

fn serve(wishes: &Receiver<Wish>, mut carry_out: impl FnMut(Wish)) {
    while let Ok(wish) = wishes.recv() {
        carry_out(wish);
    }
}

/// The desk for records.
struct Records {
    reader: Reader,
    tell: Tell,
    shown: listing::Shown,
}

impl Records {
    fn carry_out(&mut self, wish: Wish) {
        let library = match self.reader.open() {
            Ok(library) => library,
            Err(why) => return (self.tell)(Told::Absent(why)),
        };
        match wish {
            Wish::Look => {
                if let Some(told) = self.shown.look(&library) {
                    (self.tell)(told);
                }
            }
            Wish::Near(id) => {
                let cases = nearest::cases(&library, &id);
                (self.tell)(Told::Near(id, cases.unwrap_or_default()));
            }
            Wish::Do(doing) => {
                let done = deeds::carry_out(&library, &self.reader, *doing, &self.tell);
                self.shown.forget();
                (self.tell)(Told::Done(done));
                if let Some(told) = self.shown.look(&library) {
                    (self.tell)(told);
                }
            }
            Wish::Open { .. } | Wish::Close | Wish::Grow { .. } => {}
        }
    }
}

fn series_id(id: &str) -> Result<SeriesId, String> {
    id.parse().map_err(|error: gantry_library::LibraryError| error.to_string())
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}
