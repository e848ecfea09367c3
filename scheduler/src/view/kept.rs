//! Records by id, with those that rest packed.
//!
//! Owns how a record is held in memory. One that moves, or that somebody has to look
//! after, is held as it is. One that is at rest ([`AtRest`]) is held as compressed
//! JSON, a quarter of its size, and unpacked for whoever reads it, in a few
//! microseconds. The dictionary is trained on the first of the records themselves, by a
//! thread of its own since that takes tens of milliseconds, and lives as long as this
//! process; before it is there, nothing is packed, so a small installation never is.
//! Refuses to judge revisions. Invariant: what is read is what was put in.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::{io, thread};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, ParamSwitch};

use super::records::Entry;

/// Records that a dictionary is trained on.
const SAMPLES: usize = 256;
/// Records from the time before there was a dictionary that are packed with each that
/// comes: all at once would keep those waiting who read.
const AT_ONCE: usize = 4;
/// Bytes of a dictionary.
const DICTIONARY: usize = 8 << 10;
/// zstd's fastest level that codes entropy: ids and digests are hex.
const LEVEL: i32 = 1;
/// How many bytes zstd goes on by where it finds nothing that it had before. A third
/// of the time is saved for three hundredths more bytes.
const STRIDE: u32 = 3;

/// Why a dictionary can be used.
const TRAINED: &str = "a dictionary that was trained is one";

/// A record that may be at rest.
pub trait AtRest: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What is to be known of it without reading all of it.
    type Outline: DeserializeOwned + for<'a> From<&'a Self>;

    /// Whether nobody has to look after it.
    fn rests(outline: &Self::Outline) -> bool;
}

/// A record on its way in, packed if it rests and there is a packer already.
#[derive(Debug)]
pub struct Prepared<T: AtRest> {
    outline: T::Outline,
    form: Form<T>,
}

#[derive(Debug)]
enum Form<T> {
    Whole(T),
    Packed(Box<[u8]>, Arc<Packer>),
}

impl<T: AtRest> Prepared<T> {
    /// A record as it is.
    pub fn new(record: T) -> Self {
        Self { outline: (&record).into(), form: Form::Whole(record) }
    }

    /// Reads a record. With a `packer`, one that rests is packed as it came: only its
    /// outline is read.
    pub fn read(json: &[u8], packer: Option<&Arc<Packer>>) -> serde_json::Result<Self> {
        let Some(packer) = packer else { return Ok(Self::new(serde_json::from_slice(json)?)) };
        let outline: T::Outline = serde_json::from_slice(json)?;
        let form = if T::rests(&outline) {
            Form::Packed(packer.pack(json), packer.clone())
        } else {
            Form::Whole(serde_json::from_slice(json)?)
        };
        Ok(Self { outline, form })
    }

    /// The record, unless it is packed.
    pub const fn whole(&self) -> Option<&T> {
        match &self.form {
            Form::Whole(record) => Some(record),
            Form::Packed(..) => None,
        }
    }

    /// What is to be known of the record.
    pub const fn outline(&self) -> &T::Outline {
        &self.outline
    }
}

/// A record at rest.
#[derive(Debug)]
struct Packed {
    bytes: Box<[u8]>,
    revision: u64,
}

/// Found by ids, which nobody outside chooses: so their hash may be a fast one.
type ById<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Records by id.
#[derive(Debug)]
pub struct Kept<K, T> {
    live: ById<K, Entry<T>>,
    resting: ById<K, Packed>,
    /// Resting records that are not packed.
    samples: HashSet<K>,
    training: Option<JoinHandle<io::Result<Packer>>>,
    packer: Option<Arc<Packer>>,
}

impl<K, T> Default for Kept<K, T> {
    fn default() -> Self {
        let (live, resting) = (ById::default(), ById::default());
        Self { live, resting, samples: HashSet::new(), training: None, packer: None }
    }
}

impl<K: Copy + Eq + Hash, T: AtRest> Kept<K, T> {
    /// A record, unpacked if it is packed.
    pub fn get(&self, id: &K) -> Option<Entry<T>> {
        if let Some(entry) = self.live.get(id) {
            return Some(entry.clone());
        }
        let (packed, packer) = (self.resting.get(id)?, self.packer.as_ref()?);
        let record = serde_json::from_slice(&packer.unpack(&packed.bytes));
        // Its outline was as it should be.
        let record: T = record
            .inspect_err(|error| tracing::warn!(%error, "a record cannot be read and is left out"))
            .ok()?;
        Some(Entry { value: Arc::new(record), revision: packed.revision })
    }

    /// What is to be known of a record.
    pub fn outline(&self, id: &K) -> Option<T::Outline> {
        if let Some(entry) = self.live.get(id) {
            return Some((&*entry.value).into());
        }
        let (packed, packer) = (self.resting.get(id)?, self.packer.as_ref()?);
        let outline = serde_json::from_slice(&packer.unpack(&packed.bytes));
        Some(outline.expect("it was read of the same when it was packed"))
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
        self.catch_up();
        let rests = T::rests(&prepared.outline);
        let record = match prepared.form {
            Form::Whole(record) => record,
            Form::Packed(bytes, by) => {
                let packer = self.packer.get_or_insert_with(|| by.clone());
                let is_own = Arc::ptr_eq(&by, packer);
                let bytes = if is_own { bytes } else { packer.pack(&by.unpack(&bytes)) };
                self.resting.insert(id, Packed { bytes, revision });
                return;
            }
        };
        if let Some(packer) = self.packer.as_ref().filter(|_| rests)
            && let Some(bytes) = packer.pack_record(&record)
        {
            self.resting.insert(id, Packed { bytes, revision });
            return;
        }
        self.live.insert(id, Entry { value: Arc::new(record), revision });
        if rests {
            self.samples.insert(id);
        }
        if self.samples.len() >= SAMPLES && self.packer.is_none() && self.training.is_none() {
            self.train();
        }
    }

    /// Forgets a record.
    pub fn remove(&mut self, id: &K) {
        if self.resting.remove(id).is_none() {
            self.live.remove(id);
            self.samples.remove(id);
        }
    }

    /// Begins to make a packer of the records that rest so far.
    fn train(&mut self) {
        let records = self.samples.iter().filter_map(|id| self.live.get(id));
        let records: Vec<Arc<T>> = records.map(|entry| entry.value.clone()).collect();
        let training = thread::Builder::new().name("train".to_owned());
        match training.spawn(move || Packer::train(records.iter().map(|record| &**record))) {
            Ok(training) => self.training = Some(training),
            Err(error) => self.give_up(&error),
        }
    }

    /// Takes over the packer if it is made, and packs a few of those that wait for it.
    fn catch_up(&mut self) {
        if let Some(made) = self.training.take_if(|training| training.is_finished()) {
            match made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                Ok(packer) => drop(self.packer.get_or_insert_with(|| Arc::new(packer))),
                Err(error) => self.give_up(&error),
            }
        }
        let Some(packer) = &self.packer else { return };
        let waiting: Vec<K> = self.samples.iter().take(AT_ONCE).copied().collect();
        for id in waiting {
            self.samples.remove(&id);
            let Some(entry) = self.live.get(&id) else { continue };
            if let Some(bytes) = packer.pack_record(&*entry.value) {
                self.resting.insert(id, Packed { bytes, revision: entry.revision });
                self.live.remove(&id);
            }
        }
    }

    /// Leaves what rests as it is; others may make a better sample.
    fn give_up(&mut self, error: &io::Error) {
        tracing::debug!(%error, "records are not packed yet");
        self.samples.clear();
    }
}

/// Packs and unpacks records of one kind.
pub struct Packer {
    dictionary: Vec<u8>,
    /// Contexts of zstd at leisure: making one takes longer than using it.
    compressors: Mutex<Vec<Packing>>,
    decompressors: Mutex<Vec<Decompressor<'static>>>,
}

/// What packs, with room for what comes of it.
struct Packing {
    compressor: Compressor<'static>,
    room: Vec<u8>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("dictionary", &self.dictionary.len()).finish_non_exhaustive()
    }
}

impl Packer {
    fn train<'a, T: Serialize + 'a>(records: impl Iterator<Item = &'a T>) -> io::Result<Self> {
        let samples: Result<Vec<Vec<u8>>, _> = records.map(serde_json::to_vec).collect();
        let dictionary = zstd::dict::from_samples(&samples?, DICTIONARY)?;
        Ok(Self { dictionary, compressors: Mutex::default(), decompressors: Mutex::default() })
    }

    /// The packed form of a record; nothing if it has none, and is held as it is.
    fn pack_record<T: Serialize>(&self, record: &T) -> Option<Box<[u8]>> {
        serde_json::to_vec(record).ok().map(|json| self.pack(&json))
    }

    /// The packed form of a record's JSON.
    fn pack(&self, json: &[u8]) -> Box<[u8]> {
        let idle = lock(&self.compressors).pop();
        let mut packing = idle.unwrap_or_else(|| self.packing());
        packing.room.clear();
        packing.room.reserve(zstd::zstd_safe::compress_bound(json.len()));
        let packed = packing.compressor.compress_to_buffer(json, &mut packing.room);
        packed.expect("there is room for whatever comes of it");
        // In a piece of its own size: one that is shrunk leaves a gap behind it.
        let packed = Box::from(&packing.room[..]);
        lock(&self.compressors).push(packing);
        packed
    }

    fn packing(&self) -> Packing {
        let compressor = Compressor::with_dictionary(LEVEL, &self.dictionary);
        let mut compressor = compressor.expect(TRAINED);
        let parameters = [
            // Every packed record has the one dictionary.
            CParameter::DictIdFlag(false),
            CParameter::TargetLength(STRIDE),
            // Which such a stride would end.
            CParameter::LiteralCompressionMode(ParamSwitch::Enable),
        ];
        for parameter in parameters {
            compressor.set_parameter(parameter).expect("zstd knows these values");
        }
        Packing { compressor, room: vec![] }
    }

    /// The JSON of a packed record.
    fn unpack(&self, bytes: &[u8]) -> Vec<u8> {
        let whole = "what was packed in this process unpacks in it";
        let size = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten().expect(whole);
        let idle = lock(&self.decompressors).pop();
        let mut decompressor = idle
            .map_or_else(|| Decompressor::with_dictionary(&self.dictionary), Ok)
            .expect(TRAINED);
        let size = usize::try_from(size).expect(whole);
        let json = decompressor.decompress(bytes, size).expect(whole);
        lock(&self.decompressors).push(decompressor);
        json
    }
}

fn lock<T>(idle: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
