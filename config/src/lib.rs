//! Typed settings and the shipped default files.
