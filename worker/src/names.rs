//! Under which names clients know the region's registry.
//!
//! Images there are the region's own: they are read from its store, and no
//! credential is asked for them. A name gives no right.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::config::Config;

/// The names that this worker knows by itself. A job brings those of the other
/// workers.
#[derive(Debug, Clone, Default)]
pub(crate) struct RegistryNames(BTreeSet<String>);

impl RegistryNames {
    /// Those of a worker that listens on `address`.
    pub(crate) fn new(config: &Config, address: SocketAddr) -> Self {
        let names = std::iter::once(address.to_string())
            .chain(config.advertise.clone())
            .chain(config.registry_names.iter().cloned());
        names.collect()
    }

    /// Whether `host` is the region's registry, as references name it; `others` are
    /// names that a job brings.
    pub(crate) fn has(&self, host: &str, others: &[String]) -> bool {
        self.0.contains(&host.to_ascii_lowercase())
            || others.iter().any(|other| other.eq_ignore_ascii_case(host))
    }
}

impl FromIterator<String> for RegistryNames {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_host_and_port_in_any_case() {
        let names: RegistryNames = ["Registry.example:5000".to_owned()].into_iter().collect();
        let others = ["127.0.0.1:5101".to_owned()];
        for own in ["registry.example:5000", "REGISTRY.example:5000", "127.0.0.1:5101"] {
            assert!(names.has(own, &others), "{own}");
        }
        for foreign in ["registry.example", "registry.example:5001", "127.0.0.1:5100", ""] {
            assert!(!names.has(foreign, &others), "{foreign}");
        }
    }
}
