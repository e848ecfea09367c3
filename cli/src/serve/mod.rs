//! The subcommands that serve: one role each, and all of them at once.

pub mod dev;
pub mod registry;
pub mod roles;
