//! `slipway loadtest tenants`.

use clap::Args;
use slipway_loadtest::{Run, tenants};

use super::super::error::Error;
use super::super::interrupt::Interrupt;
use super::nats::Watched;
use super::rate;

pub(super) const HELP: &str = "\
Needs a key that may operate the server (`admin`): it makes organizations called
loadtest-001 and so on, which stay for the next run, lets each hold as many
snapshots as the run makes, and gives each a key, which is revoked at the end.
Every snapshot is deleted at the end, also on Ctrl-C. Which tenant asks for what,
and where, is the same in every run.

Examples:
  slipway loadtest tenants --rate 20 --count 2000
  slipway loadtest tenants --tenants 5 --pulls 0 --region us --region eu
  slipway loadtest tenants --pulls 1 --image registry.example.com/app:v{number}";

/// `slipway loadtest tenants`
#[derive(Debug, Args)]
pub struct Tenants {
    /// Organizations that ask
    #[arg(long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=999))]
    tenants: u16,
    /// Snapshots asked for in all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,
    /// Requests per second, of all tenants together
    #[arg(long, value_name = "PER_SECOND", default_value = "20", value_parser = rate)]
    rate: f64,
    /// Share of the requests that are pulls, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0.5", value_parser = share)]
    pulls: f64,
    /// Image of the pulls; `{number}` in it stands for the number of the request. Real workers need
    /// one that is there, simulated ones ask nobody
    #[arg(long, value_name = "IMAGE", default_value = tenants::IMAGE)]
    image: String,
    /// Region to ask for; may be given several times [default: all that have a worker]
    #[arg(long = "region", value_name = "REGION")]
    regions: Vec<String>,
    #[command(flatten)]
    watched: Watched,
}

impl Tenants {
    pub(super) async fn run(self, run: &Run, interrupt: &Interrupt) -> Result<(), Error> {
        let plan = tenants::Plan {
            tenants: self.tenants.into(),
            count: self.count,
            rate: self.rate,
            pulls: self.pulls,
            image: self.image,
            regions: self.regions,
            limit: self.watched.timeout,
        };
        self.watched.run(run, interrupt, async |bus| tenants::run(run, &bus, plan).await).await
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("not from 0 to 1".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_is_from_zero_to_one() {
        assert_eq!((share("0"), share("1"), share("0.25")), (Ok(0.0), Ok(1.0), Ok(0.25)));
        for bad in ["-0.1", "1.1", "nan", "half"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
