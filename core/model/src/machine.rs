//! The one shape of everything that decides.

use crate::units::At;

/// A pure state machine: events in, effects out, nothing else.
///
/// A machine never reads a clock, never fails and never performs an effect itself. It can refuse
/// an event, and then says so by an effect. The same events in the same order always give the
/// same state and the same effects: that is what makes a journal a complete record.
pub trait Machine {
    /// What happened in the world.
    type Event;
    /// What the world shall do now.
    type Effect;

    /// Takes one event that happened at `at` and appends the effects it calls for.
    fn apply(&mut self, at: At, event: Self::Event, effects: &mut Vec<Self::Effect>);

    /// Proves the machine's invariants, or says which one is broken.
    fn check(&self) -> Result<(), String>;
}
