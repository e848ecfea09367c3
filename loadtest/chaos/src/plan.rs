//! What is done to the system, and when: a pure function of the seed.
//!
//! Invariant: the same seed and the same shape give the same plan, on every
//! machine; a longer plan begins with the shorter one. While nats-server is away
//! for long, only the blows that would bring it back are left out.

use std::fmt;
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// What the system is made of, as far as the plan needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Regions with their workers.
    pub regions: Vec<RegionShape>,
    /// Schedulers.
    pub schedulers: u32,
    /// Whether there is a BuildKit that may be killed.
    pub buildkit: bool,
    /// How long a lease lasts without renewal, in milliseconds.
    pub lease_ms: u64,
    /// How long nats-server stays away, once, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage_ms: Option<u64>,
}

/// A region of the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionShape {
    /// Its name.
    pub name: String,
    /// Workers in it.
    pub workers: u32,
}

impl Shape {
    /// Every process that can be hurt and is connected to NATS.
    #[must_use]
    pub fn clients(&self) -> Vec<Target> {
        let schedulers = (1..=self.schedulers).map(|n| Target::Scheduler { n });
        let workers = self.regions.iter().flat_map(|region| {
            let of = |n| Target::Worker { region: region.name.clone(), n };
            (1..=region.workers).map(of)
        });
        schedulers.chain(workers).collect()
    }
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "process", rename_all = "snake_case")]
pub enum Target {
    /// nats-server.
    Nats,
    /// BuildKit.
    Buildkit,
    /// A scheduler, from 1.
    Scheduler {
        /// Which.
        n: u32,
    },
    /// A worker of a region, from 1.
    Worker {
        /// Where.
        region: String,
        /// Which.
        n: u32,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nats => f.write_str("nats-server"),
            Self::Buildkit => f.write_str("buildkit"),
            Self::Scheduler { n } => write!(f, "scheduler-{n}"),
            Self::Worker { region, n } => write!(f, "worker-{region}-{n}"),
        }
    }
}

/// One blow. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// `kill -9`, and a new process after a while.
    Kill {
        /// Whom.
        target: Target,
        /// How long it stays away.
        down_ms: u64,
    },
    /// `kill -9` of nats-server, which stays away for long.
    Outage {
        /// How long.
        for_ms: u64,
    },
    /// `kill -9` of everything at once, as when the power goes.
    KillAll {
        /// How long everything stays away.
        down_ms: u64,
    },
    /// SIGTERM, and a new process when it has ended.
    Restart {
        /// Whom.
        target: Target,
    },
    /// SIGSTOP, and SIGCONT after a while.
    Pause {
        /// Whom.
        target: Target,
        /// How long.
        for_ms: u64,
    },
    /// Breaks the connections to NATS, once.
    CutOnce {
        /// Whose.
        target: Target,
    },
    /// Breaks the connections to NATS and refuses new ones for a while.
    Cut {
        /// Whose.
        target: Target,
        /// How long.
        for_ms: u64,
    },
    /// Holds all bytes to and from NATS back for a while; connections stay open.
    Freeze {
        /// Whose.
        target: Target,
        /// How long.
        for_ms: u64,
    },
    /// Makes the way to NATS slow for a while.
    Delay {
        /// Whose.
        target: Target,
        /// Each way.
        by_ms: u64,
        /// How long.
        for_ms: u64,
    },
    /// Puts messages of jobs on their queues once more, under new message ids.
    RepeatJobs {
        /// How many.
        count: u32,
        /// Of attempts that are over, instead of the current ones.
        stale: bool,
    },
    /// Stores the last events once more, under new message ids, the newest first.
    RepeatEvents {
        /// How many.
        count: u32,
    },
    /// Lets operations of a region's object store fail for a while.
    StoreFails {
        /// Whose.
        region: String,
        /// How many of a hundred.
        percent: u8,
        /// How long.
        for_ms: u64,
    },
    /// Lets every operation of a region's object store take longer for a while.
    StoreSlow {
        /// Whose.
        region: String,
        /// How much.
        by_ms: u64,
        /// How long.
        for_ms: u64,
    },
}

impl Fault {
    /// A word for tables.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Kill { target: Target::Nats, .. } => "kill nats-server",
            Self::Kill { target: Target::Buildkit, .. } => "kill buildkit",
            Self::Kill { target: Target::Scheduler { .. }, .. } => "kill scheduler",
            Self::Kill { target: Target::Worker { .. }, .. } => "kill worker",
            Self::Outage { .. } => "outage of nats-server",
            Self::KillAll { .. } => "kill everything",
            Self::Restart { .. } => "restart",
            Self::Pause { .. } => "pause",
            Self::CutOnce { .. } => "cut once",
            Self::Cut { .. } => "cut",
            Self::Freeze { .. } => "freeze",
            Self::Delay { .. } => "delay",
            Self::RepeatJobs { stale: false, .. } => "repeat jobs",
            Self::RepeatJobs { stale: true, .. } => "repeat stale jobs",
            Self::RepeatEvents { .. } => "repeat events",
            Self::StoreFails { .. } => "store fails",
            Self::StoreSlow { .. } => "store slow",
        }
    }
}

/// A blow and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Milliseconds after the beginning.
    pub at_ms: u64,
    /// What happens then.
    #[serde(flatten)]
    pub fault: Fault,
}

/// Shortest and longest pause between two blows.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 200..=2_500;
/// When nats-server goes away for long, if it does.
const OUTAGE_AT_MS: u64 = 10_000;

/// The blows of a run.
#[must_use]
pub fn faults(seed: u64, shape: &Shape, length: Duration) -> Vec<Step> {
    // The two streams of a seed do not disturb each other.
    let mut random = stream(seed, 0);
    let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let mut steps = vec![];
    let mut at_ms = 0;
    loop {
        at_ms += random.random_range(PAUSE_MS);
        let fault = draw(&mut random, shape);
        if at_ms >= length {
            break;
        }
        steps.push(Step { at_ms, fault });
    }
    if let Some(for_ms) = shape.outage_ms {
        let back_ms = OUTAGE_AT_MS + for_ms;
        steps.retain(|step| !step.starts_nats_within(OUTAGE_AT_MS..=back_ms));
        let at = steps.partition_point(|step| step.at_ms < OUTAGE_AT_MS);
        steps.insert(at, Step { at_ms: OUTAGE_AT_MS, fault: Fault::Outage { for_ms } });
    }
    steps
}

impl Step {
    fn starts_nats_within(&self, outage: std::ops::RangeInclusive<u64>) -> bool {
        let (Fault::Kill { target: Target::Nats, down_ms } | Fault::KillAll { down_ms }) =
            self.fault
        else {
            return false;
        };
        self.at_ms <= *outage.end() && self.at_ms + down_ms >= *outage.start()
    }
}

/// Random numbers of a seed, by purpose.
pub(crate) fn stream(seed: u64, purpose: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(purpose);
    random
}

fn draw(random: &mut ChaCha8Rng, shape: &Shape) -> Fault {
    let clients = shape.clients();
    let target = clients[random.random_range(0..clients.len())].clone();
    let region = shape.regions[random.random_range(0..shape.regions.len())].name.clone();
    let worker = Target::Worker { region: region.clone(), n: 1 };
    let short = random.random_range(100..=1_500);
    // Now below a lease, now above it.
    let long = random.random_range(shape.lease_ms / 2..=shape.lease_ms * 2);
    match random.random_range(0..100) {
        0..22 => Fault::Kill { target, down_ms: short },
        22..28 => Fault::Kill { target: Target::Nats, down_ms: short },
        28..30 => Fault::KillAll { down_ms: short },
        30..34 if shape.buildkit => Fault::Kill { target: Target::Buildkit, down_ms: short },
        30..34 => Fault::Kill { target: worker, down_ms: short },
        34..40 => Fault::Restart { target },
        40..54 => Fault::Pause { target, for_ms: long },
        54..60 => Fault::CutOnce { target },
        60..66 => Fault::Cut { target, for_ms: long },
        66..71 => Fault::Freeze { target, for_ms: long },
        71..75 => Fault::Delay { target, by_ms: short / 10, for_ms: long },
        75..81 => Fault::RepeatJobs { count: random.random_range(1..=8), stale: false },
        81..85 => Fault::RepeatJobs { count: random.random_range(1..=8), stale: true },
        85..90 => Fault::RepeatEvents { count: random.random_range(1..=20) },
        90..96 => {
            Fault::StoreFails { region, percent: random.random_range(20..=100), for_ms: long }
        }
        _ => Fault::StoreSlow { region, by_ms: short / 3, for_ms: long },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn shape(us: u32, eu: u32, schedulers: u32, buildkit: bool) -> Shape {
        let region = |name: &str, workers| RegionShape { name: name.to_owned(), workers };
        Shape {
            regions: vec![region("us", us), region("eu", eu)],
            schedulers,
            buildkit,
            lease_ms: 2_000,
            outage_ms: None,
        }
    }

    /// Whom a blow hits.
    fn target(fault: &Fault) -> Option<&Target> {
        match fault {
            Fault::Kill { target, .. }
            | Fault::Restart { target }
            | Fault::Pause { target, .. }
            | Fault::CutOnce { target }
            | Fault::Cut { target, .. }
            | Fault::Freeze { target, .. }
            | Fault::Delay { target, .. } => Some(target),
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn a_plan_is_a_function_of_its_seed(
            seed in any::<u64>(), us in 1u32..4, eu in 1u32..4, n in 1u32..4, buildkit in any::<bool>(),
            length in 0u64..120, more in 0u64..60,
        ) {
            let shape = shape(us, eu, n, buildkit);
            let short = faults(seed, &shape, Duration::from_secs(length));
            let long = faults(seed, &shape, Duration::from_secs(length + more));
            prop_assert_eq!(&short[..], &long[..short.len()]);
            prop_assert!(short.is_sorted_by(|a, b| a.at_ms < b.at_ms));
            prop_assert!(short.iter().all(|step| step.at_ms < length * 1_000));
            // Never so long without a blow.
            prop_assert!(short.len() as u64 * 2_500 + 2_500 >= length * 1_000);
            let known: BTreeSet<Target> = shape.clients().into_iter().collect();
            for target in long.iter().filter_map(|step| target(&step.fault)) {
                let other = match target {
                    Target::Nats => true,
                    Target::Buildkit => buildkit,
                    Target::Scheduler { .. } | Target::Worker { .. } => false,
                };
                prop_assert!(other || known.contains(target), "{}", target);
            }
        }
    }

    #[test]
    fn seeds_differ_and_every_kind_of_blow_comes() {
        let shape = shape(2, 1, 2, true);
        let minute = Duration::from_secs(60);
        assert_ne!(faults(1, &shape, minute), faults(2, &shape, minute));
        let names: BTreeSet<&str> = (0..40)
            .flat_map(|seed| faults(seed, &shape, minute))
            .map(|step| step.fault.name())
            .collect();
        assert_eq!(names.len(), 16, "{names:?}");
    }

    #[test]
    fn nothing_brings_nats_back_before_its_outage_is_over() {
        for seed in 0..40 {
            let short = shape(2, 1, 2, false);
            let long = Shape { outage_ms: Some(30_000), ..short.clone() };
            let minute = Duration::from_secs(60);
            let (without, with) = (faults(seed, &short, minute), faults(seed, &long, minute));
            let outage = Step { at_ms: 10_000, fault: Fault::Outage { for_ms: 30_000 } };
            assert!(with.contains(&outage) && with.is_sorted_by_key(|step| step.at_ms));
            let others: Vec<_> = with.iter().filter(|step| **step != outage).cloned().collect();
            let left_out: Vec<_> = without.iter().filter(|step| !others.contains(step)).collect();
            assert_eq!(others.len() + left_out.len(), without.len(), "the rest is the same");
            let is_nats = |step: &Step| {
                matches!(
                    step.fault,
                    Fault::Kill { target: Target::Nats, .. } | Fault::KillAll { .. }
                )
            };
            assert!(left_out.into_iter().all(is_nats));
            let mut meanwhile = others.iter().filter(|step| (8_500..=40_000).contains(&step.at_ms));
            assert!(meanwhile.all(|step| !is_nats(step) || step.at_ms < 10_000));
        }
    }

    #[test]
    fn a_plan_is_the_same_for_ever() {
        let plan = faults(7, &shape(2, 1, 2, false), Duration::from_secs(5));
        let first = serde_json::to_string(&plan[0]).unwrap();
        let known =
            r#"{"at_ms":563,"fault":"kill","target":{"process":"scheduler","n":1},"down_ms":1086}"#;
        assert_eq!(first, known);
    }
}
