//! Lists of an organization's contexts (ListObjectsV2).
//!
//! The store lists in no order and S3 in that of keys, so each page keeps the
//! smallest keys after its token; memory does not grow with what there is.

use std::collections::BTreeMap;

use futures::TryStreamExt as _;
use s3s::S3Result;
use s3s::dto::{CommonPrefix, ListObjectsV2Input, ListObjectsV2Output, Object};
use slipway_blobstore::{Metadata, ObjectKey, Prefix};
use slipway_domain::OrganizationId;

use super::access::denied;
use super::object::mark;
use super::{Door, store_error};

/// Most keys of a page, as S3 has it.
const PAGE: i32 = 1000;

/// What a page shows under one name.
enum Item {
    Object(Metadata),
    Folder,
}

pub(super) async fn list(
    door: &Door,
    organization: OrganizationId,
    input: ListObjectsV2Input,
) -> S3Result<ListObjectsV2Output> {
    let prefix = input.prefix.clone().unwrap_or_default();
    let own = organization.to_string();
    if prefix != own && !prefix.starts_with(&format!("{own}/")) {
        return Err(denied("list with the prefix of the key's organization"));
    }
    let wanted = input.max_keys.unwrap_or(PAGE).clamp(0, PAGE);
    let room = usize::try_from(wanted).unwrap_or_default();
    let after = input.continuation_token.clone().or_else(|| input.start_after.clone());
    let mut page = Page {
        prefix: &prefix,
        delimiter: input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty()),
        after: after.as_deref(),
        room,
        items: BTreeMap::new(),
    };
    page.fill(door, organization).await?;
    let is_truncated = page.items.len() > room;
    if is_truncated {
        page.items.pop_last();
    }
    let next = page.items.last_key_value().map(|(name, _)| name.clone());
    let count = i32::try_from(page.items.len()).ok();
    let (objects, folders) = split(page.items);
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(prefix),
        max_keys: Some(wanted),
        key_count: count,
        continuation_token: input.continuation_token,
        is_truncated: Some(is_truncated),
        next_continuation_token: next.filter(|_| is_truncated),
        contents: Some(objects),
        common_prefixes: Some(folders),
        delimiter: input.delimiter,
        start_after: input.start_after,
        ..ListObjectsV2Output::default()
    })
}

struct Page<'a> {
    prefix: &'a str,
    delimiter: Option<&'a str>,
    after: Option<&'a str>,
    room: usize,
    items: BTreeMap<String, Item>,
}

impl Page<'_> {
    async fn fill(&mut self, door: &Door, organization: OrganizationId) -> S3Result<()> {
        let store = door.contexts.store();
        let failed = |error| store_error(&error);
        // What uploaders ask for before each upload: is there just this one?
        let folder = self.prefix.strip_suffix('/').map(|folder| format!("{folder}/context.tar"));
        let one = folder.unwrap_or_else(|| self.prefix.to_owned());
        if let Ok(key @ ObjectKey::Context { .. }) = ObjectKey::parse(&one) {
            match store.head(&key).await {
                Ok(metadata) => self.add(&one, metadata),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(failed(error)),
            }
            return Ok(());
        }
        let mut entries = store.list(&Prefix::Contexts(*organization.as_uuid()));
        while let Some(entry) = entries.try_next().await.map_err(failed)? {
            self.add(&entry.key.to_string(), entry.metadata);
        }
        Ok(())
    }

    fn add(&mut self, key: &str, metadata: Metadata) {
        let Some(rest) = key.strip_prefix(self.prefix) else { return };
        let folder = self.delimiter.and_then(|delimiter| {
            let end = rest.find(delimiter)? + delimiter.len();
            Some(format!("{}{}", self.prefix, &rest[..end]))
        });
        let (name, item) = match folder {
            Some(folder) => (folder, Item::Folder),
            None => (key.to_owned(), Item::Object(metadata)),
        };
        if self.after.is_some_and(|after| name.as_str() <= after) {
            return;
        }
        self.items.insert(name, item);
        // One more than the page holds tells that there is another.
        if self.items.len() > self.room + 1 {
            self.items.pop_last();
        }
    }
}

fn split(items: BTreeMap<String, Item>) -> (Vec<Object>, Vec<CommonPrefix>) {
    let (mut objects, mut folders) = (vec![], vec![]);
    for (name, item) in items {
        match item {
            Item::Folder => folders.push(CommonPrefix { prefix: Some(name) }),
            Item::Object(metadata) => objects.push(Object {
                key: Some(name),
                e_tag: mark(&metadata),
                size: i64::try_from(metadata.size).ok(),
                last_modified: Some(metadata.modified.into()),
                ..Object::default()
            }),
        }
    }
    (objects, folders)
}
