//! Plain lines on standard output, for pipes and files.

use std::io::{self, BufWriter, Stdout, Write as _};

use console::style;
use slipway_domain::LogEvent;

use super::{Happening, Screen, context_line, job_line};

/// The screen of a pipe.
#[derive(Debug)]
pub struct Plain {
    /// What was last said about the job, so that it is not said twice.
    said: Option<String>,
    /// A line of the log would otherwise be a write of its own.
    out: BufWriter<Stdout>,
}

impl Plain {
    pub fn new() -> Self {
        Self { said: None, out: BufWriter::new(io::stdout()) }
    }
}

impl Screen for Plain {
    fn show(&mut self, happening: &Happening<'_>) -> io::Result<()> {
        if let Happening::Entry(entry) = happening {
            return match &entry.event {
                LogEvent::Line { text, .. } => writeln!(self.out, "{text}"),
                LogEvent::Step(_) | LogEvent::End { .. } => Ok(()),
            };
        }
        // What goes to standard error comes after what was said before.
        self.out.flush()?;
        self.show_rare(happening)?;
        self.out.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Plain {
    /// Everything but the log.
    fn show_rare(&mut self, happening: &Happening<'_>) -> io::Result<()> {
        let out = &mut self.out;
        match happening {
            Happening::Packing(_) | Happening::Uploading { .. } => Ok(()),
            Happening::ContextChanged => {
                writeln!(out, "context: it changed meanwhile, packing it once more")
            }
            Happening::ContextReady { packed, is_known } => {
                writeln!(out, "{}", context_line(packed, *is_known))
            }
            Happening::Submitted(snapshot) => {
                writeln!(out, "submitted: snapshot {} ({})", snapshot.name, snapshot.id)
            }
            Happening::Detached(snapshot) => writeln!(out, "{}", snapshot.id),
            Happening::Job(job) => {
                match job_line(job).filter(|line| self.said.as_ref() != Some(line)) {
                    Some(line) => {
                        writeln!(out, "{line}")?;
                        self.said = Some(line);
                        Ok(())
                    }
                    None => Ok(()),
                }
            }
            Happening::Attempt(number) => writeln!(out, "starting again: attempt {number}"),
            Happening::Entry(_) => Ok(()),
            Happening::Reconnecting { pause } => {
                eprintln!("connection lost, trying again in {:.1} s", pause.as_secs_f64());
                Ok(())
            }
            Happening::Finished(report) if report.is_success() => {
                write!(out, "\n{}", report.summary())
            }
            Happening::Finished(report) => {
                let (headline, details) = report.failure();
                let label = style("error:").for_stderr().red().bold();
                eprint!("\n{label} {headline}\n{details}");
                Ok(())
            }
        }
    }
}
