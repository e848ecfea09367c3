//! `slipway snapshot create`: context, request, and the view of the build.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fs, io};

use slipway_api::Client;
use slipway_api::client::Error as ApiError;
use slipway_api::types::{CreateBuildInfo, CreateSnapshot, Snapshot};
use slipway_domain::LogSeq;

use super::args::Create;
use super::error::Error;
use super::follow::follow;
use super::interrupt::Interrupt;
use super::report::Report;
use super::screen::{self, Happening, Screen};
use super::{context, dockerfile_path};

/// Runs the command.
pub async fn run(client: &Client, args: Box<Create>) -> Result<(), Error> {
    let begun = Instant::now();
    let mut screen = screen::choose(args.json);
    let interrupt = Interrupt::install();
    // Cancel-safe: until then nothing exists on the server but its context.
    let wanted = tokio::select! {
        wanted = prepare(client, &args, screen.as_mut()) => wanted?,
        () = interrupt.pressed() => {
            screen.close();
            let advice = Some("interrupted; nothing was submitted".to_owned());
            return Err(Error::Interrupted { advice });
        }
    };
    // Not given up on Ctrl-C, as the answer tells whether there is a build.
    let submitted = submit(client, &wanted).await?;
    screen.show(&Happening::Submitted(&submitted))?;
    if args.detach {
        return Ok(screen.show(&Happening::Detached(&submitted))?);
    }
    let job = submitted.job_id.clone().ok_or_else(|| Error::NoJob(args.name.clone()))?;
    let events = client.job_events(&job, LogSeq::ZERO, true)?;
    let ending = follow(events, screen.as_mut(), &interrupt).await;
    let ending = ending.map_err(|error| going_on(error, &args))?;
    let report = Report::collect(client, &submitted, &job, ending, begun.elapsed()).await?;
    screen.show(&Happening::Finished(&report))?;
    if report.is_success() { Ok(()) } else { Err(Error::BuildFailed) }
}

/// Everything until the request can be made: the context is on the server.
async fn prepare(
    client: &Client,
    args: &Create,
    screen: &mut dyn Screen,
) -> Result<CreateSnapshot, Error> {
    let wanted = CreateSnapshot {
        name: args.name.clone(),
        cpu: args.cpu,
        gpu: args.gpu,
        gpu_type: args.gpu_type.clone().map(|kind| vec![kind]),
        replace: args.replace,
        memory: args.memory,
        disk: args.disk,
        region_id: args.region.clone(),
        ..CreateSnapshot::default()
    };
    if let Some(image) = &args.image {
        let words = |text: &String| text.split_whitespace().map(str::to_owned).collect();
        let entrypoint = args.entrypoint.as_ref().map(words);
        return Ok(CreateSnapshot { image_name: Some(image.clone()), entrypoint, ..wanted });
    }
    let path = dockerfile_path(args);
    let content = read_dockerfile(path.clone()).await;
    let content = content.map_err(|source| Error::Dockerfile { path: path.clone(), source })?;
    let mut build = build_info(args, content)?;
    // A Dockerfile from standard input lies nowhere, so nothing lies beside it.
    let beside = (path != Path::new("-")).then_some(path.as_path());
    let digest = context::provide(client, &args.context, beside, screen).await?;
    build.context_hashes = vec![digest.hex()];
    Ok(CreateSnapshot { build_info: Some(build), ..wanted })
}

async fn submit(client: &Client, wanted: &CreateSnapshot) -> Result<Snapshot, Error> {
    client.create_snapshot(wanted).await.map_err(|error| match error {
        source @ (ApiError::Interrupted { .. } | ApiError::Malformed { .. }) => {
            Error::Unknown { name: wanted.name.clone(), source }
        }
        error => Error::Api(error),
    })
}

/// What to build, but for the context, so that mistakes show before any work.
fn build_info(args: &Create, dockerfile_content: String) -> Result<CreateBuildInfo, Error> {
    let labels = args.labels.iter().map(|label| match label.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(bad("--label", label, "KEY=VALUE")),
    });
    Ok(CreateBuildInfo {
        dockerfile_content,
        build_args: build_args(&args.build_args, |name| std::env::var(name).ok())?,
        target: args.target.clone(),
        no_cache: args.no_cache,
        labels: labels.collect::<Result<_, _>>()?,
        context_filtered: true,
        ..CreateBuildInfo::default()
    })
}

/// On a thread of its own: standard input may never end.
async fn read_dockerfile(path: PathBuf) -> io::Result<String> {
    let read = tokio::task::spawn_blocking(move || {
        if path == Path::new("-") {
            io::read_to_string(io::stdin())
        } else {
            fs::read_to_string(path)
        }
    });
    read.await.map_err(io::Error::other)?
}

/// `KEY=VALUE`, or `KEY` for the value in the environment; like Docker, a key
/// that the environment lacks is left out.
fn build_args(
    given: &[String],
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut values = BTreeMap::new();
    for argument in given {
        let (key, value) = match argument.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (argument.as_str(), lookup(argument)),
        };
        if key.is_empty() {
            return Err(bad("--build-arg", argument, "KEY=VALUE or KEY"));
        }
        if let Some(value) = value {
            values.insert(key.to_owned(), value);
        }
    }
    Ok(values)
}

fn bad(option: &'static str, argument: &str, form: &'static str) -> Error {
    Error::BadArgument { option, argument: argument.to_owned(), form }
}

/// The work does not end with the view of it.
fn going_on(error: Error, args: &Create) -> Error {
    let (name, work) = (&args.name, if args.image.is_some() { "pull" } else { "build" });
    match error {
        Error::Interrupted { .. } => Error::Interrupted {
            advice: Some(format!(
                "interrupted, but the {work} goes on in the server\n  \
                 follow it: slipway snapshot logs -f {name}\n  \
                 stop it:   slipway snapshot delete {name}"
            )),
        },
        error => error,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::build_args;

    #[test]
    fn build_args_come_from_the_command_line_or_the_environment() {
        let given = ["A=1", "B=x=y", "C=", "HOME", "UNSET"].map(str::to_owned);
        let lookup = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let args = build_args(&given, lookup).unwrap();
        let args: Vec<_> = args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(args, ["A=1", "B=x=y", "C=", "HOME=/root"]);
        assert!(build_args(&["=x".to_owned()], |_| None).is_err());
    }
}
