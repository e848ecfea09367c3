use slipway_bus::logs::{Item, LogReader};
use slipway_domain::JobId;

use super::{connect, job, region, soon, start, worker};

async fn write(bus: &slipway_bus::Bus, job: JobId, chunks: std::ops::Range<u32>) {
    let (logs, us, w1) = (bus.logs(), region("us"), worker("w1"));
    for n in chunks {
        let id = format!("{job}/{n}");
        soon(logs.publish_chunk(&us, &w1, job, n.to_string().into(), &id)).await.unwrap();
    }
}

async fn read(reader: &mut LogReader, count: usize) -> Vec<u32> {
    let mut chunks = Vec::new();
    while chunks.len() < count {
        match soon(reader.next()).await.unwrap() {
            Item::Chunk(chunk) => {
                chunks.push(std::str::from_utf8(&chunk.bytes).unwrap().parse().unwrap());
            }
            Item::CaughtUp => {}
            Item::Reset => panic!("the log was reset"),
        }
    }
    chunks
}

#[tokio::test]
async fn every_follower_reads_the_whole_log_over_restarts_without_gap_or_duplicate() {
    let (mut server, bus) = start().await;
    let (job, noise) = (job(), job());
    write(&bus, job, 0..40).await;
    let mut tasks = Vec::new();
    let (go, gate) = tokio::sync::watch::channel(0_u32);
    for n in 0..5 {
        let bus = connect(&server).await;
        let mut gate = gate.clone();
        tasks.push(tokio::spawn(async move {
            let mut reader = bus.logs().follow(&region("us"), job);
            let mut chunks = read(&mut reader, 10 * n).await;
            drop(gate.wait_for(|round| *round > 0).await.unwrap());
            chunks.extend(read(&mut reader, 120 - 10 * n).await);
            chunks
        }));
    }
    server.restart().await;
    go.send_replace(1);
    write(&bus, noise, 0..10).await;
    write(&bus, job, 40..80).await;
    server.restart().await;
    write(&bus, job, 80..120).await;
    for task in tasks {
        assert_eq!(soon(task).await.unwrap(), (0..120).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn repeated_chunk_is_stored_once() {
    let (_server, bus) = start().await;
    let job = job();
    write(&bus, job, 0..3).await;
    write(&bus, job, 0..3).await;
    let chunks = soon(bus.logs().read_all(&region("us"), job)).await.unwrap();
    assert_eq!(chunks.len(), 3);
    assert!(chunks.iter().all(|chunk| chunk.worker == worker("w1")));
    assert!(chunks.is_sorted_by_key(|chunk| chunk.stream_seq));
}

#[tokio::test]
async fn reading_all_of_a_log_that_is_not_there_ends_at_once() {
    let (_server, bus) = start().await;
    write(&bus, job(), 0..3).await;
    assert_eq!(soon(bus.logs().read_all(&region("us"), job())).await.unwrap(), []);
    let nowhere = bus.logs().read_all(&region("mars"), job()).await.unwrap_err();
    assert!(!nowhere.is_retryable());
}

#[tokio::test]
async fn first_chunks_of_a_log_come_by_one_request_whoever_wrote_them() {
    let (_server, bus) = start().await;
    let (job, us) = (job(), region("us"));
    assert_eq!(soon(bus.logs().first_chunks(&us, job)).await.unwrap(), []);
    write(&bus, job, 0..2).await;
    let other = bus.logs();
    let w2 = worker("w2");
    soon(other.publish_chunk(&us, &w2, job, "of another".into(), "other")).await.unwrap();
    write(&bus, super::job(), 0..3).await;
    write(&bus, job, 2..100).await;
    let all = soon(bus.logs().read_all(&us, job)).await.unwrap();
    let first = soon(bus.logs().first_chunks(&us, job)).await.unwrap();
    assert_eq!(first, all[..first.len()]);
    assert_eq!((first.len(), &first[2].worker), (64, &w2));
}

#[tokio::test]
async fn purged_log_is_gone_and_others_stay() {
    let (_server, bus) = start().await;
    let (gone, kept, us) = (job(), job(), region("us"));
    write(&bus, gone, 0..3).await;
    write(&bus, kept, 0..2).await;
    assert_eq!(bus.logs().purge(&us, gone).await.unwrap(), 3);
    assert_eq!(bus.logs().read_all(&us, gone).await.unwrap(), []);
    assert_eq!(bus.logs().read_all(&us, kept).await.unwrap().len(), 2);
}

#[tokio::test]
async fn follower_learns_when_it_has_caught_up() {
    let (_server, bus) = start().await;
    let job = job();
    write(&bus, job, 0..2).await;
    let mut reader = bus.logs().follow(&region("us"), job);
    let mut items = Vec::new();
    for _ in 0..3 {
        items.push(soon(reader.next()).await.unwrap());
    }
    assert!(matches!(&items[..], [Item::Chunk(_), Item::Chunk(_), Item::CaughtUp]), "{items:?}");
    write(&bus, job, 2..3).await;
    assert!(matches!(soon(reader.next()).await.unwrap(), Item::Chunk(_)));
}

#[tokio::test]
async fn chunk_above_the_limit_of_the_server_is_refused_at_once() {
    let (_server, bus) = start().await;
    let (us, w1) = (region("us"), worker("w1"));
    let large = vec![b'x'; 2 << 20].into();
    let error = soon(bus.logs().publish_chunk(&us, &w1, job(), large, "large")).await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
}
