//! gantry: the full-screen console, every subcommand and the entry points of the daemons.
