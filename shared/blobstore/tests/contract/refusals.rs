//! Content that is not what was promised leaves no trace, small or large.

use futures::{StreamExt, stream};
use slipway_blobstore::Error;
use slipway_oci::{Digest, Mismatch, Verifier};

use crate::subject::{LARGE, Subject, blob, chunks, content};

const SIZES: [usize; 2] = [1000, LARGE];

pub async fn a_wrong_digest_leaves_nothing(subject: Subject) {
    for size in SIZES {
        let content = content(size);
        let promised = Digest::sha256("something else");
        let key = slipway_blobstore::ObjectKey::Blob(promised);
        let verifier = Verifier::new(promised).size(size as u64);
        let refused = subject.store.put_stream(&key, chunks(&content), verifier).await;
        let Err(Error::Mismatch { source: Mismatch::Digest { actual, .. }, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(*actual, Digest::sha256(&content));
        subject.assert_no_trace(&key).await;
    }
}

pub async fn a_body_that_is_too_long_leaves_nothing(subject: Subject) {
    for size in SIZES {
        let content = content(size);
        let key = blob(&content);
        let verifier = Verifier::new(Digest::sha256(&content)).size(size as u64);
        // Endless: it is refused at the first byte too many, not at its end.
        let body = chunks(&content).chain(stream::repeat_with(|| Ok("surplus".into())));
        let refused = subject.store.put_stream(&key, body, verifier).await;
        let too_long = Mismatch::TooLong { size: size as u64 };
        assert!(matches!(refused, Err(Error::Mismatch { source, .. }) if source == too_long));
        subject.assert_no_trace(&key).await;
    }
}

pub async fn a_body_that_is_too_short_leaves_nothing(subject: Subject) {
    for size in SIZES {
        let content = content(size);
        let key = blob(&content);
        let verifier = Verifier::new(Digest::sha256(&content)).size(size as u64 + 1);
        let refused = subject.store.put_stream(&key, chunks(&content), verifier).await;
        let error = refused.unwrap_err();
        assert!(!error.is_retryable());
        let short = Mismatch::TooShort { expected: size as u64 + 1, actual: size as u64 };
        assert!(matches!(error, Error::Mismatch { source, .. } if source == short));
        subject.assert_no_trace(&key).await;
    }
}

pub async fn a_body_that_breaks_off_leaves_nothing(subject: Subject) {
    for size in SIZES {
        let content = content(size);
        let key = blob(&content);
        let cut = stream::once(async { Err(std::io::Error::other("connection reset")) });
        let body = chunks(&content).chain(cut);
        let verifier = Verifier::new(Digest::sha256(&content));
        let error = subject.store.put_stream(&key, body, verifier).await.unwrap_err();
        assert!(matches!(error, Error::Body { .. }) && error.is_retryable());
        subject.assert_no_trace(&key).await;
    }
}

pub async fn what_was_there_survives_a_refused_write(subject: Subject) {
    let right = content(LARGE);
    let key = blob(&right);
    let verifier = || Verifier::new(Digest::sha256(&right));
    subject.store.put_stream(&key, chunks(&right), verifier()).await.unwrap();
    let wrong = content(LARGE - 1);
    subject.store.put_stream(&key, chunks(&wrong), verifier()).await.unwrap_err();
    assert_eq!(subject.store.head(&key).await.unwrap().size, LARGE as u64);
    subject.assert_nothing_unfinished().await;
}
