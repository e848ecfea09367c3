//! The wire form of log entries: one flat JSON object each.
//!
//! Written and read field by field, since a log may have tens of thousands of
//! lines a second: what serde derives for an enum within a struct goes through a
//! map in memory. Invariant: it is the same form.

use jiff::Timestamp;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{LogEntry, LogEvent, LogSeq, LogSource, Step, StepStatus};

/// A line of text as an entry that owns nothing; on the wire it is the same as a
/// [`LogEntry`] of [`LogEvent::Line`].
#[derive(Debug, Clone, Copy)]
pub struct LineEntry<'a> {
    /// Position; see [`LogSeq`].
    pub seq: LogSeq,
    /// When the worker saw it.
    pub time: Timestamp,
    /// Where it came from.
    pub source: LogSource,
    /// The whole line.
    pub text: &'a str,
}

impl Serialize for LineEntry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("LogEntry", 5)?;
        fields.serialize_field("seq", &self.seq)?;
        fields.serialize_field("time", &self.time)?;
        fields.serialize_field("kind", "line")?;
        fields.serialize_field("source", &self.source)?;
        fields.serialize_field("text", self.text)?;
        fields.end()
    }
}

impl Serialize for LogEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// Every event; rare ones need no haste.
        #[derive(Serialize)]
        struct Any<'a> {
            seq: LogSeq,
            time: Timestamp,
            #[serde(flatten)]
            event: &'a LogEvent,
        }
        let (seq, time) = (self.seq, self.time);
        match &self.event {
            LogEvent::Line { source, text } => {
                LineEntry { seq, time, source: *source, text }.serialize(serializer)
            }
            event @ (LogEvent::Step(_) | LogEvent::End { .. }) => {
                Any { seq, time, event }.serialize(serializer)
            }
        }
    }
}

/// The fields of all events.
#[derive(Deserialize)]
struct Flat {
    seq: LogSeq,
    time: Timestamp,
    kind: Kind,
    source: Option<LogSource>,
    text: Option<String>,
    step: Option<u32>,
    name: Option<String>,
    status: Option<StepStatus>,
    part: Option<String>,
    current: Option<u64>,
    total: Option<u64>,
    state: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Line,
    Step,
    End,
}

impl<'de> Deserialize<'de> for LogEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let flat = Flat::deserialize(deserializer)?;
        let (seq, time) = (flat.seq, flat.time);
        let event = flat.event().map_err(serde::de::Error::missing_field)?;
        Ok(Self { seq, time, event })
    }
}

impl Flat {
    /// The event, or the name of the field that it lacks.
    fn event(self) -> Result<LogEvent, &'static str> {
        Ok(match self.kind {
            Kind::Line => LogEvent::Line {
                source: self.source.ok_or("source")?,
                text: self.text.ok_or("text")?,
            },
            Kind::Step => LogEvent::Step(Step {
                step: self.step.ok_or("step")?,
                name: self.name.ok_or("name")?,
                status: self.status.ok_or("status")?,
                part: self.part,
                current: self.current,
                total: self.total,
            }),
            Kind::End => LogEvent::End { state: self.state.ok_or("state")?, reason: self.reason },
        })
    }
}

/// The position of an entry in its wire form, without the rest of it; `None` if it
/// is no entry.
#[must_use]
pub fn seq_of(entry: &[u8]) -> Option<LogSeq> {
    #[derive(Deserialize)]
    struct Head {
        seq: LogSeq,
    }
    // As this module writes it. Whoever writes it otherwise is read in full.
    let seq = entry.strip_prefix(br#"{"seq":"#).and_then(|rest| {
        let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
        let digits = matches!(rest[end], b',' | b'}').then(|| &rest[..end])?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    });
    seq.or_else(|| serde_json::from_slice(entry).ok().map(|head: Head| head.seq))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::attempt::AttemptNumber;

    fn entry(event: LogEvent) -> LogEntry {
        let seq = LogSeq::new(AttemptNumber::FIRST, 2);
        LogEntry { seq, time: Timestamp::UNIX_EPOCH, event }
    }

    fn step(part: Option<&str>, current: Option<u64>) -> LogEvent {
        let (name, part) = ("[1/2] RUN".to_owned(), part.map(str::to_owned));
        LogEvent::Step(Step { step: 3, name, status: StepStatus::Done, part, current, total: None })
    }

    #[test]
    fn entries_keep_their_wire_form() {
        let line = LogEvent::Line { source: LogSource::Stdout, text: "#1 \"hi\"\t".into() };
        let end = LogEvent::End { state: "failed".into(), reason: None };
        for (event, fields) in [
            (line, r##""kind":"line","source":"stdout","text":"#1 \"hi\"\t""##),
            (step(None, None), r#""kind":"step","step":3,"name":"[1/2] RUN","status":"done""#),
            (
                step(Some("sha256:1"), Some(7)),
                r#""kind":"step","step":3,"name":"[1/2] RUN","status":"done","part":"sha256:1","current":7"#,
            ),
            (end, r#""kind":"end","state":"failed","reason":null"#),
        ] {
            let entry = entry(event);
            let json = format!(r#"{{"seq":4294967298,"time":"1970-01-01T00:00:00Z",{fields}}}"#);
            assert_eq!(serde_json::to_string(&entry).unwrap(), json);
            assert_eq!(serde_json::from_str::<LogEntry>(&json).unwrap(), entry);
            assert_eq!(seq_of(json.as_bytes()), Some(entry.seq));
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let read = |fields: &str| {
            let json = format!(r#"{{"seq":1,"time":"1970-01-01T00:00:00Z",{fields}}}"#);
            serde_json::from_str::<LogEntry>(&json).map_err(|error| error.to_string())
        };
        let refused = read(r#""kind":"line","source":"stdout""#).unwrap_err();
        assert!(refused.starts_with("missing field `text`"), "{refused}");
        assert!(read(r#""kind":"step","step":1,"name":"a""#).is_err());
        assert!(read(r#""kind":"end""#).is_err());
        assert!(read(r#""kind":"other""#).is_err());
        // What a later program adds is no harm.
        assert!(read(r#""kind":"end","state":"x","more":[1]"#).is_ok());
    }

    #[test]
    fn a_position_is_found_wherever_it_stands() {
        assert_eq!(seq_of(br#"{"time":"x","seq":12}"#), Some(LogSeq::from_u64(12)));
        assert_eq!(seq_of(br#"{ "seq": 12 }"#), Some(LogSeq::from_u64(12)));
        assert_eq!(seq_of(br#"{"seq":12}"#), Some(LogSeq::from_u64(12)));
        assert_eq!(seq_of(br#"{"seq":-1}"#), None);
        assert_eq!(seq_of(br#"{"seq":1.5}"#), None);
        assert_eq!(seq_of(b"\n"), None);
    }
}
