//! The scheduler's decisions as a pure state machine.
