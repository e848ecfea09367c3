//! Kinds of GPUs, as Daytona's clients name them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The text is no kind of GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a GPU type. GPU types are: {known}", known = GpuType::ALL.map(GpuType::as_str).join(", "))]
pub struct Error(pub String);

macro_rules! gpu_types {
    ($($variant:ident = $name:literal;)*) => {
        /// A kind of GPU.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum GpuType {
            $(
                #[doc = concat!("`", $name, "`.")]
                #[serde(rename = $name)]
                $variant,
            )*
        }

        impl GpuType {
            /// Every kind.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Its name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

gpu_types! {
    H100 = "H100";
    H200 = "H200";
    B200 = "B200";
    B300 = "B300";
    L40S = "L40S";
    Mi355x = "MI355X";
    RtxPro6000 = "RTX-PRO-6000";
    Rtx4090 = "RTX-4090";
    Rtx5090 = "RTX-5090";
}

impl GpuType {
    /// The kind of a GPU that calls itself so, for example `NVIDIA H100 80GB HBM3`.
    #[must_use]
    pub fn of_device(name: &str) -> Option<Self> {
        let name = name.to_uppercase().replace([' ', '_'], "-");
        Self::ALL.into_iter().find(|kind| name.contains(kind.as_str()))
    }
}

impl fmt::Display for GpuType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for GpuType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| Error(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn devices_are_known_by_their_own_names() {
        for (name, kind) in [
            ("NVIDIA H100 80GB HBM3", Some(GpuType::H100)),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", Some(GpuType::RtxPro6000)),
            ("NVIDIA GeForce RTX 4090", Some(GpuType::Rtx4090)),
            ("Tesla T4", None),
        ] {
            assert_eq!(GpuType::of_device(name), kind, "{name}");
        }
    }

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in GpuType::ALL {
            assert_eq!(kind.as_str().parse::<GpuType>().unwrap(), kind);
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        assert!("h100".parse::<GpuType>().unwrap_err().to_string().contains("RTX-PRO-6000"));
    }
}
