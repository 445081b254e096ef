//! How connections end.

use crate::harness::*;
use corelog_wire::*;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

#[test]
fn a_server_that_stops_answers_what_it_began_and_says_goodbye() {
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        let mut idle = client.connect().await;
        let produce = wire.ask_produce(handles[0], 0, &batch(&["kept"])).await;
        let fetch = Fetch { offset: 0, bytes_max: 1, bytes_min: 1 << 20, wait_ms: 60_000 };
        let fetch = wire.ask(Operation::Fetch, handles[0], &fetch).await;
        client.sleep(Duration::from_micros(400)).await;
        let server = client.node.servers.borrow_mut()[0].take().unwrap();
        let stopping = client.reactor.spawn(server.stop());
        assert_eq!(idle.next().await.unwrap().status(), Status::ShuttingDown);
        idle.assert_ends().await;
        let mut answers = Vec::new();
        while let Some(answer) = wire.next().await {
            answers.push(answer);
        }
        let of = |correlation| answers.iter().find(|answer| answer.header.correlation == correlation);
        assert!(matches!(of(produce).unwrap().response(), Response::Produce(_)));
        assert!(matches!(of(fetch).unwrap().response(), Response::Fetch(_)));
        assert_eq!(of(0).unwrap().status(), Status::ShuttingDown);
        drop((wire, idle));
        stopping.await;
    });
}

#[test]
fn a_connection_that_vanishes_leaves_nothing_behind() {
    run_default(|client| async move {
        let (mut stays, handles) = client.with_topic("t", 4).await;
        for round in 0..20 {
            let mut wire = client.connect().await;
            let handle = wire.open("t", round % 4).await;
            wire.ask_produce(handle, 0, &batch(&["x"])).await;
            let subscribe = Subscribe { offset: 0, credit: 1 << 20, bytes_max: 1 << 20 };
            wire.ask(Operation::Subscribe, handle, &subscribe).await;
            let fetch = Fetch { offset: 0, bytes_max: 1 << 20, bytes_min: 1 << 20, wait_ms: 60_000 };
            wire.ask(Operation::Fetch, handle, &fetch).await;
            client.sleep(Duration::from_micros(u64::from(round) * 100)).await;
            drop(wire);
        }
        client.sleep(Duration::from_secs(5)).await;
        assert_eq!(client.connections(), 1);
        for handle in handles {
            stays.put(handle, &["y"]).await;
        }
    });
}

#[test]
fn a_server_that_is_dropped_with_its_node_gives_all_memory_back() {
    let kept = Rc::new(RefCell::new(None));
    let keep = kept.clone();
    run_default(move |client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        wire.put(handles[0], &["x"]).await;
        let shards = client.node.shards.borrow();
        *keep.borrow_mut() = shards[0].as_ref().map(|shard| shard.reactor().pool().clone());
    });
    let pool = kept.take().unwrap();
    assert_eq!(pool.free_bytes(), pool.total_bytes());
}
