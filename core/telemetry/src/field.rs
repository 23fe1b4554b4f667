//! How a field of a sample becomes numbers, counts and texts, and how it comes back.
//!
//! Both directions go through the fields in the same order, so that no number needs a name. Reading
//! checks everything: a layout and numbers from a stranger give a field or [`Malformed`], and no
//! memory that they do not account for.

use gantry_model::{At, JobId, TaskId};

use crate::flat::{Layout, Malformed, NUMBERS_MAX};

/// Something of a sample that can be put into a flat one and taken from it again, in the same order.
pub(crate) trait Field {
    /// Puts it.
    fn put(&self, sink: &mut Sink<'_>);
    /// Becomes what was put.
    fn restore(&mut self, source: &mut Source<'_>) -> Result<(), Malformed>;
}

/// Fields that are there together or not at all. Whether they are is part of the layout.
pub(crate) trait Group: Field + Default {}

/// Where fields are put.
pub(crate) struct Sink<'a> {
    numbers: Vec<u64>,
    lists: Vec<u64>,
    layout: &'a mut Layout,
    /// Counts and texts that were put so far; those behind are left from the sample before.
    counts: usize,
    texts: usize,
}

impl<'a> Sink<'a> {
    /// Puts into this layout, and into numbers whose memory is used again.
    pub(crate) fn new(layout: &'a mut Layout, mut numbers: Vec<u64>, mut lists: Vec<u64>) -> Self {
        numbers.clear();
        lists.clear();
        Self { numbers, lists, layout, counts: 0, texts: 0 }
    }

    /// Forgets what is left from the sample before, and gives the numbers and those of the lists.
    pub(crate) fn finish(self) -> (Vec<u64>, Vec<u64>) {
        self.layout.counts.truncate(self.counts);
        self.layout.texts.truncate(self.texts);
        (self.numbers, self.lists)
    }

    fn number(&mut self, number: u64) {
        self.numbers.push(number);
    }

    fn count(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        match self.layout.counts.get_mut(self.counts) {
            Some(place) => *place = count,
            None => self.layout.counts.push(count),
        }
        self.counts += 1;
    }

    fn text(&mut self, text: &str) {
        match self.layout.texts.get_mut(self.texts) {
            Some(place) if place == text => {}
            Some(place) => text.clone_into(place),
            None => self.layout.texts.push(text.to_owned()),
        }
        self.texts += 1;
    }

    /// Puts a list whose length is a number like any other.
    pub(crate) fn list<T: Field>(&mut self, items: &[T]) {
        std::mem::swap(&mut self.numbers, &mut self.lists);
        self.number(items.len() as u64);
        for item in items {
            item.put(self);
        }
        std::mem::swap(&mut self.numbers, &mut self.lists);
    }
}

/// Where fields are taken from: what is left of it.
pub(crate) struct Source<'a> {
    numbers: &'a [u64],
    lists: &'a [u64],
    counts: &'a [u32],
    texts: &'a [String],
}

impl<'a> Source<'a> {
    pub(crate) fn new(layout: &'a Layout, numbers: &'a [u64], lists: &'a [u64]) -> Self {
        Self { numbers, lists, counts: &layout.counts, texts: &layout.texts }
    }

    /// Whether nothing is left.
    pub(crate) fn is_used_up(&self) -> bool {
        self.numbers.is_empty()
            && self.lists.is_empty()
            && self.counts.is_empty()
            && self.texts.is_empty()
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let (first, rest) = self.numbers.split_first().ok_or(Malformed)?;
        self.numbers = rest;
        Ok(*first)
    }

    fn count(&mut self) -> Result<u64, Malformed> {
        let (first, rest) = self.counts.split_first().ok_or(Malformed)?;
        self.counts = rest;
        Ok(u64::from(*first))
    }

    fn text(&mut self) -> Result<&str, Malformed> {
        let (first, rest) = self.texts.split_first().ok_or(Malformed)?;
        self.texts = rest;
        Ok(first)
    }

    /// Takes so many items. Memory is taken for one after the other, so that a count without
    /// numbers behind it costs nothing.
    fn items<T: Field + Default>(
        &mut self,
        count: u64,
        items: &mut Vec<T>,
    ) -> Result<(), Malformed> {
        let count = usize::try_from(count).map_err(|_| Malformed)?;
        if count > NUMBERS_MAX {
            return Err(Malformed);
        }
        items.truncate(count);
        items.iter_mut().try_for_each(|item| item.restore(self))?;
        items.reserve_exact(count - items.len());
        while items.len() < count {
            let mut item = T::default();
            item.restore(self)?;
            items.push(item);
        }
        Ok(())
    }

    /// Takes a list whose length is a number like any other.
    pub(crate) fn list<T: Field + Default>(&mut self, items: &mut Vec<T>) -> Result<(), Malformed> {
        std::mem::swap(&mut self.numbers, &mut self.lists);
        let count = self.number()?;
        self.items(count, items)?;
        std::mem::swap(&mut self.numbers, &mut self.lists);
        Ok(())
    }
}

/// A type that is one number, and the same type where it may be absent.
macro_rules! numbers {
    ($($number:ty),*) => { $(
        impl Field for $number {
            fn put(&self, sink: &mut Sink<'_>) {
                sink.number(u64::from(*self));
            }
            fn restore(&mut self, source: &mut Source<'_>) -> Result<(), Malformed> {
                *self = <$number>::read(source.number()?)?;
                Ok(())
            }
        }

        impl Field for Option<$number> {
            fn put(&self, sink: &mut Sink<'_>) {
                sink.number(self.map_or(0, |value| u64::from(value).wrapping_add(1)));
            }
            fn restore(&mut self, source: &mut Source<'_>) -> Result<(), Malformed> {
                *self = source.number()?.checked_sub(1).map(<$number>::read).transpose()?;
                Ok(())
            }
        }
    )* };
}

numbers!(u32, u64, bool);

/// A type that not every number is a value of.
trait Read: Sized {
    fn read(number: u64) -> Result<Self, Malformed>;
}

impl Read for u64 {
    fn read(number: u64) -> Result<Self, Malformed> {
        Ok(number)
    }
}

impl Read for u32 {
    fn read(number: u64) -> Result<Self, Malformed> {
        Self::try_from(number).map_err(|_| Malformed)
    }
}

impl Read for bool {
    fn read(number: u64) -> Result<Self, Malformed> {
        match number {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }
}

impl Field for At {
    fn put(&self, sink: &mut Sink<'_>) {
        self.0.put(sink);
    }

    fn restore(&mut self, source: &mut Source<'_>) -> Result<(), Malformed> {
        self.0.restore(source)
    }
}

impl Field for TaskId {
    fn put(&self, sink: &mut Sink<'_>) {
        self.job.0.put(sink);
        self.index.put(sink);
    }

    fn restore(&mut self, source: &mut Source<'_>) -> Result<(), Malformed> {
        self.job.0.restore(source)?;
        self.index.restore(source)
    }
}

impl Field for Option<TaskId> {
    fn put(&self, sink: &mut Sink<'_>) {
        self.map(|task| task.job.0).put(sink);
        self.map_or(0, |task| task.index).put(sink);
    }

    fn restore(&mut self, source: &mut Source<'_>) -> Result<(), Malformed> {
        let (mut job, mut index) = (None::<u64>, 0_u32);
        job.restore(source)?;
        index.restore(source)?;
        *self = job.map(|job| TaskId { job: JobId(job), index });
        Ok(())
    }
}

impl Field for String {
    fn put(&self, sink: &mut Sink<'_>) {
        sink.text(self);
    }

    fn restore(&mut self, source: &mut Source<'_>) -> Result<(), Malformed> {
        let text = source.text()?;
        if self != text {
            text.clone_into(self);
        }
        Ok(())
    }
}

impl<T: Field + Default> Field for Vec<T> {
    fn put(&self, sink: &mut Sink<'_>) {
        sink.count(self.len());
        for item in self {
            item.put(sink);
        }
    }

    fn restore(&mut self, source: &mut Source<'_>) -> Result<(), Malformed> {
        let count = source.count()?;
        source.items(count, self)
    }
}

impl<T: Group> Field for Option<T> {
    fn put(&self, sink: &mut Sink<'_>) {
        sink.count(usize::from(self.is_some()));
        if let Some(group) = self {
            group.put(sink);
        }
    }

    fn restore(&mut self, source: &mut Source<'_>) -> Result<(), Malformed> {
        match source.count()? {
            0 => *self = None,
            1 => self.get_or_insert_default().restore(source)?,
            _ => return Err(Malformed),
        }
        Ok(())
    }
}
