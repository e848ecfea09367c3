//! Slots, and who asks for jobs for them.
//!
//! A few doors ask for all slots: every request that waits costs the server a look whenever
//! something happens in the queue, and one that is taken back a good deal more. Each
//! door asks in all classes of the worker at once, and goes on doing so while there are
//! slots. Owns when a request is open. Refuses to know what becomes of a job.
//! Invariant: a door asks only while it holds a slot for what comes; when it holds none,
//! what it asked for is taken back first, and a job that came all the same goes back.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{join_all, select_all};
use serde::de::DeserializeOwned;
use slipway_bus::jobs::{Delivery, Taker};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::intake::Intake;

/// Doors of a worker, if it has as many slots. Each lets in a job for every round trip to NATS.
const DOORS: u32 = 4;

/// The slots of a worker. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    all: u32,
    free: Arc<Semaphore>,
    intake: Intake,
}

/// The use of a slot, until this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    /// So many, which are used while `intake` is open.
    pub(crate) fn new(all: u32, intake: Intake) -> Self {
        Self { all, free: Arc::new(Semaphore::new(all as usize)), intake }
    }

    /// How many doors there should be.
    pub(crate) fn doors(&self) -> u32 {
        self.all.min(DOORS)
    }

    /// Waits until none is in use.
    pub(crate) async fn all_free(&self) {
        // It is never closed.
        let _all = self.free.acquire_many(self.all).await;
    }

    /// One that is free at this moment, if jobs may be taken.
    fn try_take(&self) -> Option<Slot> {
        let free = || self.free.clone().try_acquire_owned().ok();
        self.intake.is_open().then(free)?.map(|permit| Slot { _permit: permit })
    }

    /// The next one that is free; `None` when no job may be taken any more.
    async fn take(&self) -> Option<Slot> {
        while self.intake.opened().await {
            // Cancel-safe: neither loses more than its place.
            tokio::select! {
                permit = self.free.clone().acquire_owned() => {
                    return permit.ok().map(|permit| Slot { _permit: permit });
                }
                () = self.intake.closed() => {}
            }
        }
        None
    }
}

/// Where jobs come in, one after another.
pub(crate) struct Door {
    slots: Slots,
    /// One for each class.
    takers: Vec<Taker>,
}

impl Door {
    /// A door to `slots`; there must be at least one taker.
    pub(crate) fn new(slots: Slots, takers: Vec<Taker>) -> Self {
        Self { slots, takers }
    }

    /// The next job of any class, with a slot for it; `None` when no job may be taken
    /// any more. It is to be called again at once: what was asked for in other classes
    /// stays asked for if there is another slot, and is taken back if not.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Option<(Delivery<T>, Slot)> {
        loop {
            let slot = match self.slots.try_take() {
                Some(slot) => slot,
                None => {
                    join_all(self.takers.iter_mut().map(Taker::give_up)).await;
                    self.slots.take().await?
                }
            };
            let asked = self.takers.iter_mut().map(|taker| taker.next().boxed());
            // Cancel-safe: what arrives meanwhile stays with its taker, to be handed out
            // or back.
            tokio::select! {
                (delivery, ..) = select_all(asked) => return Some((delivery, slot)),
                () = self.slots.intake.closed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
