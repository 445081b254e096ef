//! Frames that break the protocol: each gets its typed answer, and nobody else notices.

use crate::harness::*;
use corelog_net::limits::Limits;
use corelog_wire::*;
use std::time::Duration;

fn limits(change: impl FnOnce(&mut Limits)) -> Setup {
    let mut setup = Setup::default();
    change(&mut setup.limits);
    setup
}

#[test]
fn an_unknown_operation_is_answered_and_the_connection_goes_on() {
    run_default(|client| async move {
        let mut wire = client.connect().await;
        let mut bytes = frame(Operation::Ping, 77, 0, 0, b"whatever");
        bytes[8] = 200;
        wire.send(&bytes).await;
        let answer = wire.answer(77).await;
        assert_eq!((answer.header.operation, answer.status()), (200, Status::UnknownOperation));
        assert_eq!(wire.call(Operation::Ping, 0, &()).await.response(), Response::Ping);
    });
}

#[test]
fn without_a_common_version_the_servers_range_is_told() {
    run_default(|client| async move {
        let mut wire = client.dial().await;
        let answer = wire.call(Operation::Hello, 0, &hello(VERSION_MAX + 1, VERSION_MAX + 9)).await;
        assert_eq!(answer.status(), Status::UnsupportedVersion);
        assert_eq!(answer.failure().detail, Detail::Versions { min: VERSION_MIN, max: VERSION_MAX });
        wire.assert_ends().await;
        client.assert_server_is_well().await;
    });
}

#[test]
fn a_hello_comes_first_and_once() {
    run_default(|client| async move {
        let mut wire = client.dial().await;
        assert_eq!(wire.call(Operation::Ping, 0, &()).await.status(), Status::HelloRequired);
        wire.assert_ends().await;

        let mut wire = client.connect().await;
        let again = wire.call(Operation::Hello, 0, &hello(1, 1)).await;
        assert_eq!(again.status(), Status::UnexpectedOperation);
        wire.assert_ends().await;
        client.assert_server_is_well().await;
    });
}

#[test]
fn features_nobody_knows_are_not_in_force() {
    run_default(|client| async move {
        let mut wire = client.dial().await;
        let answer = wire.call(Operation::Hello, 0, &hello(0, 9)).await;
        let Response::Hello(welcome) = answer.response() else { panic!("{answer:?}") };
        assert_eq!((welcome.version, welcome.features & !FEATURES), (VERSION_MAX, 0));
    });
}

#[test]
fn a_frame_over_the_limit_is_refused_with_the_limit() {
    run(limits(|limits| limits.body_bytes_max = 1000), |client| async move {
        let mut wire = client.connect().await;
        let fits = wire.produce(1, &[0; 1000]).await;
        assert_eq!(fits.status(), Status::UnknownHandle);
        let refused = wire.produce(1, &[0; 1001]).await;
        assert_eq!(refused.status(), Status::FrameTooLarge);
        assert_eq!(refused.failure().detail, Detail::Limit { actual: 1001, max: 1000 });
        wire.assert_ends().await;
        client.assert_server_is_well().await;
    });
}

#[test]
fn before_the_hello_a_connection_may_hold_16_kib() {
    run_default(|client| async move {
        let mut wire = client.dial().await;
        let length = HELLO_BODY_BYTES_MAX + 1;
        let header = Header { length, ..Header::request(Operation::Hello, 5, 0) };
        wire.send(&header.to_bytes()).await;
        let refused = wire.answer(5).await;
        assert_eq!(refused.status(), Status::FrameTooLarge);
        assert_eq!(refused.failure().detail, Detail::Limit { actual: length.into(), max: HELLO_BODY_BYTES_MAX.into() });
        wire.assert_ends().await;

        // A hello of a later version may be as long as fits.
        let mut wire = client.dial().await;
        let mut body = Vec::new();
        corelog_wire::Wire::put(&hello(1, 1), &mut body);
        body.resize(HELLO_BODY_BYTES_MAX as usize, 0xee);
        wire.send(&frame(Operation::Hello, 6, 0, 0, &body)).await;
        assert!(matches!(wire.answer(6).await.response(), Response::Hello(_)));
    });
}

#[test]
fn a_body_that_is_no_message_ends_the_connection_after_what_was_asked_before() {
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        let produce = wire.ask_produce(handles[0], 0, &batch(&["kept"])).await;
        wire.send(&frame(Operation::Fetch, 900, handles[0], 0, &[0; 7])).await;
        let answers = [wire.next().await.unwrap(), wire.next().await.unwrap()];
        let of = |correlation| answers.iter().find(|answer| answer.header.correlation == correlation).unwrap();
        assert_eq!(of(900).status(), Status::Malformed);
        assert_eq!(of(produce).response(), Response::Produce(Produced { base: 0, last: 0, log_append_time: -1 }));
        wire.assert_ends().await;
        client.assert_server_is_well().await;
    });
}

#[test]
fn flags_and_directions_that_have_no_place_end_the_connection() {
    run_default(|client| async move {
        for (operation, flags) in
            [(Operation::Push, 0), (Operation::Goodbye, 0), (Operation::Ping, FLAG_RESPONSE), (Operation::Ping, 0x40)]
        {
            let mut wire = client.connect().await;
            wire.send(&frame(operation, 3, 0, flags, &[])).await;
            assert_eq!(wire.answer(3).await.status(), Status::UnexpectedOperation, "{operation:?}");
            wire.assert_ends().await;
        }
        client.assert_server_is_well().await;
    });
}

#[test]
fn a_frame_cut_off_by_the_end_of_the_connection_does_nothing() {
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        let mut cut = client.connect().await;
        let handle = cut.open("t", 0).await;
        let bytes = frame(Operation::Produce, 1, handle, 0, &batch(&["never"]));
        cut.send(&bytes[..bytes.len() - 1]).await;
        cut.stream.shutdown();
        client.sleep(Duration::from_secs(1)).await;
        assert_eq!(wire.put(handles[0], &["first"]).await, 0);
        drop(cut);
        client.sleep(Duration::from_secs(1)).await;
        assert_eq!(client.connections(), 1, "the broken connection is gone");
    });
}

#[test]
fn a_length_that_lies_waits_for_bytes_and_is_ended_in_time() {
    run(limits(|limits| limits.frame_time = Duration::from_secs(5)), |client| async move {
        let mut wire = client.connect().await;
        let header = Header { length: 1 << 20, ..Header::request(Operation::Produce, 1, 1) };
        wire.send(&header.to_bytes()).await;
        wire.send(&[0; 100]).await;
        let goodbye = wire.next().await.unwrap();
        assert_eq!((goodbye.header.operation, goodbye.status()), (Operation::Goodbye as u8, Status::IdleTimeout));
        wire.assert_ends().await;
        client.assert_server_is_well().await;
    });
}

#[test]
fn who_never_says_hello_is_shown_out() {
    run_default(|client| async move {
        let mut silent = client.dial().await;
        let mut slow = client.dial().await;
        slow.send(&frame(Operation::Hello, 1, 0, 0, b"CLOG")[..10]).await;
        for wire in [&mut silent, &mut slow] {
            let goodbye = wire.next().await.unwrap();
            assert_eq!((goodbye.header.correlation, goodbye.status()), (0, Status::HelloTimeout));
            wire.assert_ends().await;
        }
        let waited = client.reactor.now().nanos() / 1_000_000_000;
        assert!((10..15).contains(&waited), "{waited} s");
    });
}

#[test]
fn who_speaks_another_protocol_is_cut_without_an_answer() {
    run_default(|client| async move {
        let http = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let tls = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03, 1, 2, 3, 4, 5, 6, 7];
        let kafka = [0, 0, 0, 0x14, 0, 18, 0, 3, 0, 0, 0, 1, 0, 4, b't', b'e', b's', b't', 0, 0, 0, 0, 0, 0];
        for bytes in [&http[..], &tls, &kafka] {
            let mut wire = client.dial().await;
            wire.send(bytes).await;
            wire.assert_ends().await;
        }
        client.assert_server_is_well().await;
    });
}

#[test]
fn a_wrong_magic_is_malformed() {
    run_default(|client| async move {
        let mut wire = client.dial().await;
        wire.send(&frame(Operation::Hello, 8, 0, 0, b"CLOX\x01\x00\x01\x00")).await;
        let refused = wire.answer(8).await;
        assert_eq!(refused.status(), Status::Malformed);
        assert!(refused.failure().message.as_str().contains("magic"), "{:?}", refused.failure());
        wire.assert_ends().await;
    });
}

#[test]
fn an_idle_connection_is_ended_and_a_ping_keeps_one() {
    run(limits(|limits| limits.idle_time = Duration::from_secs(9)), |client| async move {
        let mut idle = client.connect().await;
        let mut pinging = client.connect().await;
        for _ in 0..10 {
            client.sleep(Duration::from_secs(3)).await;
            assert_eq!(pinging.call(Operation::Ping, 0, &()).await.response(), Response::Ping);
        }
        assert_eq!(idle.next().await.unwrap().status(), Status::IdleTimeout);
        idle.assert_ends().await;
        assert_eq!(client.connections(), 1);
    });
}

#[test]
fn a_writer_of_single_bytes_is_served() {
    run_default(|client| async move {
        let mut wire = client.dial().await;
        let mut hello_body = Vec::new();
        corelog_wire::Wire::put(&hello(1, 1), &mut hello_body);
        let bytes = [frame(Operation::Hello, 1, 0, 0, &hello_body), frame(Operation::Ping, 2, 0, 0, &[])].concat();
        for byte in bytes {
            wire.send(&[byte]).await;
        }
        assert!(matches!(wire.answer(1).await.response(), Response::Hello(_)));
        assert_eq!(wire.answer(2).await.response(), Response::Ping);
    });
}

#[test]
fn random_bytes_never_disturb_the_server() {
    for seed in 0..10 {
        run(Setup { seed, ..Setup::default() }, |client| async move {
            for round in 0..8 {
                let mut wire = if round % 2 == 0 { client.connect().await } else { client.dial().await };
                let mut bytes: Vec<u8> = (0..200).flat_map(|_| client.reactor.random().to_le_bytes()).collect();
                // A believable header leads deeper in.
                let operation = Operation::ALL[client.reactor.random() as usize % Operation::ALL.len()];
                let length = client.reactor.random() as u32 % 64;
                let header = Header { length, ..Header::request(operation, 1, client.reactor.random() as u32 % 3) };
                bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
                let _ = wire.try_send(&bytes).await;
                wire.stream.shutdown();
            }
            client.assert_server_is_well().await;
        });
    }
}
