//! What every object store must do, run on memory, on a local folder and on an
//! S3 server.
#![allow(clippy::unwrap_used)]

mod read_write;
mod refusals;
mod subject;
mod unfinished;

/// Runs each behaviour on each kind of store, as a test of its own.
macro_rules! contract {
    ($($module:ident :: $behaviour:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $behaviour() {
                crate::$module::$behaviour(crate::subject::Subject::memory()).await;
            })*
        }
        mod folder {
            $(#[tokio::test]
            async fn $behaviour() {
                crate::$module::$behaviour(crate::subject::Subject::folder()).await;
            })*
        }
        mod s3 {
            $(#[tokio::test]
            async fn $behaviour() {
                crate::$module::$behaviour(crate::subject::Subject::s3().await).await;
            })*
        }
    };
}

contract! {
    read_write::small_objects_come_back_whole,
    read_write::large_objects_come_back_whole,
    read_write::an_empty_object_exists,
    read_write::ranges_bring_their_bytes,
    read_write::a_second_write_replaces_the_first,
    read_write::deleting_twice_is_no_error,
    read_write::a_list_has_what_lies_below_its_prefix,
    read_write::objects_above_the_limit_are_not_read_into_memory,
    read_write::check_finds_nothing_wrong,
    read_write::a_signed_url_reads_one_object,
    refusals::a_wrong_digest_leaves_nothing,
    refusals::a_body_that_is_too_long_leaves_nothing,
    refusals::a_body_that_is_too_short_leaves_nothing,
    refusals::a_body_that_breaks_off_leaves_nothing,
    refusals::what_was_there_survives_a_refused_write,
    unfinished::a_writer_shows_nothing_before_its_commit,
    unfinished::a_dropped_writer_leaves_nothing,
    unfinished::an_abandoned_stream_leaves_nothing,
    unfinished::an_upload_that_is_given_up_as_it_begins_leaves_nothing,
    unfinished::an_upload_gets_its_name_at_the_end,
    unfinished::two_writers_of_one_key_both_succeed,
}
