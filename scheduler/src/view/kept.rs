//! Records by id, with those that rest packed.
//!
//! Owns how a record is held in memory. One that moves, or that somebody has to look
//! after, is held as it is. One that is at rest ([`AtRest`]) is held as compressed
//! JSON, a quarter of its size, and unpacked for whoever reads it, in a few
//! microseconds. The dictionary is trained on the first of the records themselves, and
//! lives as long as this process; before it is, nothing is packed, so a small
//! installation never is. Refuses to judge revisions. Invariant: what is read is what
//! was put in.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use super::records::Entry;

/// Records that a dictionary is trained on.
const SAMPLES: usize = 256;
/// Bytes of a dictionary.
const DICTIONARY: usize = 16 << 10;
/// zstd's fastest level that codes entropy: ids and digests are hex.
const LEVEL: i32 = 1;

/// A record that may be at rest.
pub trait AtRest: Serialize + DeserializeOwned {
    /// Whether nobody has to look after it.
    fn rests(&self) -> bool;
}

/// A record on its way in, packed if it rests and there is a packer already.
#[derive(Debug, Clone)]
pub struct Prepared<T> {
    record: T,
    packed: Option<(Box<[u8]>, Arc<Packer>)>,
}

impl<T: AtRest> Prepared<T> {
    /// Packs a record with `packer`, if it rests.
    pub fn new(record: T, packer: Option<&Arc<Packer>>) -> Self {
        let packer = packer.filter(|_| record.rests());
        let packed = packer.and_then(|packer| Some((packer.pack(&record)?, packer.clone())));
        Self { record, packed }
    }

    /// The record.
    pub const fn record(&self) -> &T {
        &self.record
    }
}

/// A record at rest.
#[derive(Debug)]
struct Packed {
    bytes: Box<[u8]>,
    revision: u64,
}

/// Records by id.
#[derive(Debug)]
pub struct Kept<K, T> {
    live: HashMap<K, Entry<T>>,
    resting: HashMap<K, Packed>,
    /// Resting records that are not packed.
    samples: HashSet<K>,
    packer: Option<Arc<Packer>>,
}

impl<K, T> Default for Kept<K, T> {
    fn default() -> Self {
        let (live, resting) = (HashMap::new(), HashMap::new());
        Self { live, resting, samples: HashSet::new(), packer: None }
    }
}

impl<K: Copy + Eq + Hash, T: AtRest> Kept<K, T> {
    /// A record, unpacked if it is packed.
    pub fn get(&self, id: &K) -> Option<Entry<T>> {
        if let Some(entry) = self.live.get(id) {
            return Some(entry.clone());
        }
        let (packed, packer) = (self.resting.get(id)?, self.packer.as_ref()?);
        let value = packer.unpack(&packed.bytes);
        Some(Entry { value: Arc::new(value), revision: packed.revision })
    }

    /// A record that is not packed. All that do not rest are not.
    pub fn live(&self, id: &K) -> Option<&Entry<T>> {
        self.live.get(id)
    }

    /// The revision of a record.
    pub fn revision(&self, id: &K) -> Option<u64> {
        let live = self.live.get(id).map(|entry| entry.revision);
        live.or_else(|| self.resting.get(id).map(|packed| packed.revision))
    }

    /// Whether there is such a record.
    pub fn has(&self, id: &K) -> bool {
        self.live.contains_key(id) || self.resting.contains_key(id)
    }

    /// What packs these records, for those who do so ahead.
    pub fn packer(&self) -> Option<Arc<Packer>> {
        self.packer.clone()
    }

    /// Takes in a record in place of what was there.
    pub fn insert(&mut self, id: K, prepared: Prepared<T>, revision: u64) {
        self.remove(&id);
        let Prepared { record, packed } = prepared;
        let rests = record.rests();
        let packed = match (packed, self.packer.as_ref().filter(|_| rests)) {
            (Some((bytes, by)), Some(packer)) if Arc::ptr_eq(&by, packer) => Some(bytes),
            (_, Some(packer)) => packer.pack(&record),
            (_, None) => None,
        };
        if let Some(bytes) = packed {
            self.resting.insert(id, Packed { bytes, revision });
            return;
        }
        self.live.insert(id, Entry { value: Arc::new(record), revision });
        if rests && self.packer.is_none() {
            self.samples.insert(id);
            if self.samples.len() >= SAMPLES {
                self.train();
            }
        }
    }

    /// Forgets a record.
    pub fn remove(&mut self, id: &K) {
        if self.resting.remove(id).is_none() {
            self.live.remove(id);
            self.samples.remove(id);
        }
    }

    /// Makes a packer of the records that rest so far, and packs them.
    fn train(&mut self) {
        let samples = std::mem::take(&mut self.samples);
        let records = samples.iter().filter_map(|id| self.live.get(id));
        let packer = match Packer::train(records.map(|entry| &*entry.value)) {
            Ok(packer) => Arc::new(packer),
            Err(error) => {
                // These stay as they are, and others may make a better sample.
                tracing::debug!(%error, "records are not packed yet");
                return;
            }
        };
        for id in samples {
            let Some(entry) = self.live.get(&id) else { continue };
            if let Some(bytes) = packer.pack(&*entry.value) {
                self.resting.insert(id, Packed { bytes, revision: entry.revision });
                self.live.remove(&id);
            }
        }
        self.packer = Some(packer);
    }
}

/// Packs and unpacks records of one kind.
pub struct Packer {
    dictionary: Vec<u8>,
    /// Contexts of zstd at leisure: making one takes longer than using it.
    compressors: Mutex<Vec<Compressor<'static>>>,
    decompressors: Mutex<Vec<Decompressor<'static>>>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("dictionary", &self.dictionary.len()).finish_non_exhaustive()
    }
}

impl Packer {
    fn train<'a, T: Serialize + 'a>(records: impl Iterator<Item = &'a T>) -> std::io::Result<Self> {
        let samples: Result<Vec<Vec<u8>>, _> = records.map(serde_json::to_vec).collect();
        let dictionary = zstd::dict::from_samples(&samples?, DICTIONARY)?;
        Ok(Self { dictionary, compressors: Mutex::default(), decompressors: Mutex::default() })
    }

    /// The packed form; nothing if there is none, and the record is held as it is.
    fn pack<T: Serialize>(&self, record: &T) -> Option<Box<[u8]>> {
        let json = serde_json::to_vec(record).ok()?;
        let idle = lock(&self.compressors).pop();
        let mut compressor = idle.map_or_else(|| self.compressor(), Ok).ok()?;
        let packed = compressor.compress(&json).ok()?;
        lock(&self.compressors).push(compressor);
        // In a piece of its own size: one that is shrunk leaves a gap behind it.
        Some(Box::from(&packed[..]))
    }

    fn compressor(&self) -> std::io::Result<Compressor<'static>> {
        let mut compressor = Compressor::with_dictionary(LEVEL, &self.dictionary)?;
        // Every packed record has the one dictionary.
        compressor.set_parameter(CParameter::DictIdFlag(false))?;
        Ok(compressor)
    }

    fn unpack<T: DeserializeOwned>(&self, bytes: &[u8]) -> T {
        let whole = "what was packed in this process unpacks in it";
        let size = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten().expect(whole);
        let idle = lock(&self.decompressors).pop();
        let mut decompressor = idle
            .map_or_else(|| Decompressor::with_dictionary(&self.dictionary), Ok)
            .expect("a dictionary that was trained is one");
        let size = usize::try_from(size).expect(whole);
        let json = decompressor.decompress(bytes, size).expect(whole);
        lock(&self.decompressors).push(decompressor);
        serde_json::from_slice(&json).expect(whole)
    }
}

fn lock<T>(idle: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
