//! What the scheduler asks this worker to do with its identities: try a
//! credential, seal a secret to other keys, make and forget identities.

use std::collections::BTreeSet;
use std::sync::Arc;

use slipway_bus::services::{self, Fault, Offer, Request, Service};
use slipway_bus::{Bus, topology};
use slipway_domain::credential::{
    Recipient, SealedCredential, Tested, VaultAnswer, VaultRequest, VaultVerb,
};
use slipway_domain::message::VERSION;
use slipway_domain::{Region, WorkerId};
use slipway_oci::RepositoryName;
use slipway_runtime::telemetry;
use slipway_seal::KeyRing;
use slipway_source::{Accepted, Client, CredentialError};

use super::Vault;

/// The repository for which a credential of a whole registry is tried. It does
/// not have to exist.
const ANY: &str = "slipway/credential-test";

/// Offers the service until the guard is dropped.
///
/// # Errors
/// It cannot be registered.
pub async fn serve(
    bus: &Bus,
    region: &Region,
    worker: &WorkerId,
    vault: Arc<Vault>,
    registries: Client,
) -> Result<Service, services::Error> {
    let offer = Offer {
        name: topology::VAULT.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        description: "Uses the identities of a worker".to_owned(),
        subject: topology::vault_subject(region, worker),
    };
    bus.serve(offer, move |request: Request<VaultRequest>| {
        let (vault, registries) = (vault.clone(), registries.clone());
        async move { answer(&vault, &registries, request.body).await }
    })
    .await
}

async fn answer(
    vault: &Vault,
    registries: &Client,
    request: VaultRequest,
) -> Result<VaultAnswer, Fault> {
    if request.version != VERSION {
        return Err(Fault::new(400, "the message is of another version"));
    }
    match request.verb {
        VaultVerb::Test { credential } => {
            Ok(VaultAnswer::Tested(test(vault, registries, &credential).await))
        }
        VaultVerb::Reseal { sealed, purpose, recipients } => {
            let secret = vault
                .identities()
                .and_then(|identities| slipway_seal::open(&sealed, &purpose, &identities));
            let sealed = secret
                .and_then(|secret| slipway_seal::seal(&secret, &purpose, &recipients))
                .map_err(|error| fault(&error))?;
            Ok(VaultAnswer::Resealed { sealed })
        }
        VaultVerb::NewIdentity => renew(vault).map_err(|error| fault(&error)),
        VaultVerb::Forget { retired } => {
            let ring = ring(vault).map_err(|error| fault(&error))?;
            ring.forget(&retired).map_err(|error| fault(&error))?;
            Ok(VaultAnswer::Forgotten)
        }
    }
}

fn ring(vault: &Vault) -> Result<&KeyRing, slipway_seal::Error> {
    vault.ring.as_ref().ok_or(slipway_seal::Error::NoIdentity)
}

fn renew(vault: &Vault) -> Result<VaultAnswer, slipway_seal::Error> {
    let old: BTreeSet<Recipient> =
        vault.identities()?.iter().map(slipway_seal::Identity::recipient).collect();
    let new = ring(vault)?.add()?;
    tracing::info!(recipient = %new, "a new identity was made");
    Ok(VaultAnswer::Identity { new, old })
}

/// None of these errors holds a secret.
fn fault(error: &slipway_seal::Error) -> Fault {
    Fault::new(409, telemetry::chain(error))
}

async fn test(vault: &Vault, registries: &Client, sealed: &SealedCredential) -> Tested {
    let host = sealed.url.host();
    let opened = match vault.reveal(sealed).await {
        Ok(opened) => opened,
        Err(CredentialError::Refused(message)) => return Tested { works: false, message },
        Err(error) => {
            let message = format!("this worker cannot open it: {}", telemetry::chain(&error));
            return Tested { works: false, message };
        }
    };
    let path = if opened.path.is_empty() { ANY } else { &opened.path };
    let repository: RepositoryName = match path.parse() {
        Ok(repository) => repository,
        Err(error) => {
            return Tested { works: false, message: telemetry::chain(&error) };
        }
    };
    match registries.check(host, repository, opened.credential).await {
        Ok(Accepted::Credential) => {
            Tested { works: true, message: format!("`{host}` takes the credential") }
        }
        Ok(Accepted::Anybody) => Tested {
            works: true,
            message: format!("`{host}` answers without asking for a credential"),
        },
        Err(error) => Tested { works: false, message: telemetry::chain(&error) },
    }
}
