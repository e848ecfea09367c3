//! Request and reply as NATS services (ADR-32).
//!
//! Owns registering an endpoint, so that `nats micro` finds it and counts its
//! calls, and the form of errors: an empty answer with the headers
//! `Nats-Service-Error-Code` and `Nats-Service-Error`. Replicas of a service
//! share its requests. Invariant: every request is answered, also one that
//! cannot be read.

use std::sync::Arc;
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::service::{self, ServiceExt as _};
use async_nats::{HeaderMap, Message};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::{JoinHandle, JoinSet};

use crate::connection::Bus;
use crate::payload;
use crate::trace::{self, TraceParent};

const ERROR: &str = "Nats-Service-Error";
const ERROR_CODE: &str = "Nats-Service-Error-Code";
/// Requests worked on at the same time; more wait in the subscription.
const CONCURRENT: usize = 256;
/// How long a new service may take to answer itself.
const REGISTRATION: Duration = Duration::from_secs(2);

/// Why a service does not run or a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service was not registered.
    #[error("cannot start service `{name}`")]
    Start {
        /// Its name.
        name: String,
        /// What the client saw.
        #[source]
        source: async_nats::Error,
    },
    /// The request does not serialize.
    #[error("cannot encode the request to `{subject}`")]
    Encode {
        /// The subject.
        subject: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The answer is not what the caller expects.
    #[error("cannot decode the answer of `{subject}`")]
    Decode {
        /// The subject.
        subject: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Nobody offers the service.
    #[error("no service answers on `{subject}`")]
    NoService {
        /// The subject.
        subject: String,
    },
    /// No answer came in time; the request may have been carried out.
    #[error("no answer from `{subject}` in time")]
    NoAnswer {
        /// The subject.
        subject: String,
        /// What the client saw.
        #[source]
        source: async_nats::RequestError,
    },
    /// The service answered that it will not or cannot.
    #[error("`{subject}` answered: {fault}")]
    Fault {
        /// The subject.
        subject: String,
        /// Its words.
        fault: Fault,
    },
}

impl Error {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::NoService { .. } | Self::NoAnswer { .. } => true,
            Self::Fault { fault, .. } => fault.code >= 500,
            Self::Start { .. } | Self::Encode { .. } | Self::Decode { .. } => false,
        }
    }
}

/// A service's "no", with a code that means what the same HTTP status means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Fault {
    /// For example 400, 401, 404, 409, 500.
    pub code: u16,
    /// For the caller; one line.
    pub message: String,
}

impl Fault {
    /// A fault of this code.
    #[must_use]
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A request to a service.
#[derive(Debug, Clone)]
pub struct Request<T> {
    /// What was sent.
    pub body: T,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
    headers: Option<HeaderMap>,
}

impl<T> Request<T> {
    /// A header of the request, such as an authorization.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.as_ref()?.get(name)?.as_str())
    }
}

/// What to offer.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Letters, digits, `-` and `_`; shown by `nats micro`.
    pub name: String,
    /// Semantic version of the service.
    pub version: String,
    /// One line for people.
    pub description: String,
    /// Where it listens, for example [`SUBMIT`](crate::topology::SUBMIT).
    pub subject: String,
}

/// A running service; it stops when this is dropped, in the middle of what it
/// does. [`Service::stop`] lets it finish first.
#[derive(Debug)]
pub struct Service {
    service: Option<service::Service>,
    task: JoinHandle<()>,
}

impl Service {
    /// Takes no more requests and waits for those being worked on.
    pub async fn stop(mut self) {
        if let Some(service) = self.service.take()
            && let Err(error) = service.stop().await
        {
            tracing::debug!(%error, "the service was gone already");
        }
        // It only fails if it panicked, which was reported then.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Handler =
    Arc<dyn Fn(Message) -> BoxFuture<'static, Result<bytes::Bytes, Fault>> + Send + Sync>;

impl Bus {
    /// Offers a service. `handler` is called for every request that can be read,
    /// for many at the same time; the others are answered with code 400.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub async fn serve<Req, Res, F, Fut>(&self, offer: Offer, handler: F) -> Result<Service, Error>
    where
        Req: DeserializeOwned + Send + 'static,
        Res: Serialize + Send,
        F: Fn(Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, Fault>> + Send + 'static,
    {
        let Offer { name, version, description, subject } = offer;
        let failed = |source| Error::Start { name: name.clone(), source };
        let builder = self.client().service_builder().description(&description);
        let service = builder.start(&name, &version).await.map_err(failed)?;
        let named = service.endpoint_builder().name(&name);
        let endpoint = named.add(&subject).await.map_err(failed)?;
        self.await_registration(&name, &service.info().await.id).await;
        let handler = Arc::new(handler);
        let handler: Handler = Arc::new(move |message| {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                let response = handler(read(&message)?).await?;
                payload::encode(&response).map_err(|error| Fault::new(500, error.to_string()))
            })
        });
        #[expect(clippy::disallowed_methods, reason = "held and aborted by the service")]
        let task = tokio::spawn(answer(endpoint, handler));
        Ok(Service { service: Some(service), task })
    }

    /// Asks the new service whether it is there: the server reads what one
    /// connection sends in order, so that its answer means that the endpoint is
    /// registered, too. Without an answer the service still comes up.
    async fn await_registration(&self, name: &str, id: &str) {
        let ping = async_nats::Request::new().timeout(Some(REGISTRATION));
        if let Err(error) = self.client().send_request(format!("$SRV.PING.{name}.{id}"), ping).await
        {
            tracing::debug!(%error, "the service does not answer itself yet");
        }
    }

    /// Calls a service and waits for its answer until `deadline` has passed.
    ///
    /// # Errors
    /// See [`Error`]; what the service refuses is [`Error::Fault`].
    pub async fn call<Req: Serialize + ?Sized, Res: DeserializeOwned>(
        &self,
        subject: &str,
        request: &Req,
        deadline: Duration,
    ) -> Result<Res, Error> {
        let body = payload::encode(request)
            .map_err(|source| Error::Encode { subject: subject.to_owned(), source })?;
        let mut headers = HeaderMap::new();
        trace::attach(&mut headers);
        let request =
            async_nats::Request::new().headers(headers).payload(body).timeout(Some(deadline));
        let subject = subject.to_owned();
        let answer = match self.client().send_request(subject.clone(), request).await {
            Ok(answer) => answer,
            Err(source) if source.kind() == RequestErrorKind::NoResponders => {
                return Err(Error::NoService { subject });
            }
            Err(source) => return Err(Error::NoAnswer { subject, source }),
        };
        if let Some(fault) = fault(&answer) {
            return Err(Error::Fault { subject, fault });
        }
        serde_json::from_slice(&answer.payload).map_err(|source| Error::Decode { subject, source })
    }
}

async fn answer(mut endpoint: service::endpoint::Endpoint, handler: Handler) {
    // Dropping the set aborts what it holds, so nothing outlives the service.
    let mut running = JoinSet::new();
    while let Some(request) = endpoint.next().await {
        while running.len() >= CONCURRENT {
            running.join_next().await;
        }
        while running.try_join_next().is_some() {}
        let handler = Arc::clone(&handler);
        running.spawn(async move {
            let outcome = handler(request.message.clone()).await.map_err(|fault| {
                let status = fault.message.replace(['\r', '\n'], " ");
                service::error::Error { code: usize::from(fault.code), status }
            });
            if let Err(error) = request.respond(outcome).await {
                tracing::warn!(%error, "a request could not be answered");
            }
        });
    }
    while running.join_next().await.is_some() {}
}

fn read<T: DeserializeOwned>(message: &Message) -> Result<Request<T>, Fault> {
    match serde_json::from_slice(&message.payload) {
        Ok(body) => Ok(Request {
            body,
            trace: trace::extract(message.headers.as_ref()),
            headers: message.headers.clone(),
        }),
        Err(error) => Err(Fault::new(400, format!("the request cannot be read: {error}"))),
    }
}

fn fault(answer: &Message) -> Option<Fault> {
    let headers = answer.headers.as_ref()?;
    let code = headers.get(ERROR_CODE)?.as_str().parse().unwrap_or(500);
    let message = headers.get(ERROR).map(|text| text.as_str()).unwrap_or_default();
    Some(Fault::new(code, message))
}
