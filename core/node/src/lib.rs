//! A node's decisions as a pure state machine.
