//! The scheduler daemon around the cluster machine: journal, sessions and fan-out.
