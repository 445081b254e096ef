//! Bytes that nobody meant well: every answer is a value, whatever is claimed.

use corelog_wire::*;
use proptest::prelude::*;

fn frame(operation: Operation, flags: u8, status: u16, body: &[u8]) -> Vec<u8> {
    let header = Header { length: body.len() as u32, flags, status, ..Header::request(operation, 7, 1) };
    [&header.to_bytes()[..], body].concat()
}

fn error(operation: Operation, flags: u8, body: &[u8]) -> FrameError {
    decode_any(&frame(operation, flags, 0, body)).unwrap_err()
}

fn body_error(operation: Operation, body: &[u8]) -> DecodeError {
    match error(operation, 0, body) {
        FrameError::Body { error, .. } => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_length_over_the_limit_is_refused_from_the_header_alone() {
    let header = Header { length: 1001, ..Header::request(Operation::Produce, 7, 1) };
    let refused = Frame::first(&header.to_bytes(), 1000).unwrap_err();
    assert_eq!(refused, FrameTooLarge { header, max: 1000 });
}

#[test]
fn a_frame_is_whole_or_not_there() {
    let whole = frame(Operation::Fetch, 0, 0, &[0; 20]);
    for cut in 0..whole.len() {
        assert_eq!(decode_any(&whole[..cut]), Ok(None), "{cut}");
    }
    let followed = [&whole[..], b"next"].concat();
    assert_eq!(Frame::first(&followed, 20).unwrap().unwrap().size(), whole.len());
}

#[test]
fn a_body_that_ends_early_or_goes_on_is_told_apart() {
    let short = DecodeError::Short { what: "u32", need: 4, have: 3 };
    assert_eq!(body_error(Operation::Fetch, &[0; 19]), short);
    assert_eq!(body_error(Operation::Fetch, &[0; 21]), DecodeError::Trailing(1));
    assert_eq!(body_error(Operation::Ping, &[0]), DecodeError::Trailing(1));
}

#[test]
fn a_count_that_lies_is_refused_before_an_element_is_read() {
    let body = [&[2][..], &u32::MAX.to_le_bytes(), &[1, 0, b'x']].concat();
    let short = DecodeError::Short { what: "list", need: u64::from(u32::MAX) * 2, have: 3 };
    assert_eq!(body_error(Operation::Metadata, &body), short);
}

#[test]
fn a_text_that_lies_or_is_no_text_is_refused() {
    let open = |text: &[u8]| [&[0][..], text, &[0; 4]].concat();
    assert_eq!(body_error(Operation::Open, &open(&[0xff, 0xff])), DecodeError::TextTooLong(65_535));
    assert_eq!(body_error(Operation::Open, &open(&[2, 0, 0xc3, 0x28])), DecodeError::NotUtf8);
    assert_eq!(body_error(Operation::Open, &[0, 9, 0, b'x']), DecodeError::Short { what: "text", need: 9, have: 1 });
    assert_eq!(Text::new(&"x".repeat(4097)), Err(DecodeError::TextTooLong(4097)));
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let long = "ä".repeat(4000);
    assert_eq!(Text::truncated(&long).as_str().len(), TEXT_BYTES_MAX);
    let odd = format!("x{long}");
    assert_eq!(Text::truncated(&odd).as_str().len(), TEXT_BYTES_MAX - 1);
}

#[test]
fn a_choice_nobody_offered_is_refused() {
    let unknown = |what, value| DecodeError::UnknownValue { what, value };
    assert_eq!(body_error(Operation::Open, &[9; 30]), unknown("kind of topic reference", 9));
    assert_eq!(body_error(Operation::ListOffsets, &[9; 9]), unknown("kind of offset query", 9));
    assert_eq!(body_error(Operation::Metadata, &[9]), unknown("kind of selection", 9));
}

#[test]
fn another_protocol_is_known_by_its_magic() {
    assert_eq!(body_error(Operation::Hello, b"HTTP/1.1 and so on"), DecodeError::Magic(*b"HTTP"));
}

#[test]
fn unknown_operations_and_wrong_directions_are_told_apart() {
    let mut unknown = frame(Operation::Ping, 0, 0, &[]);
    unknown[8] = 200;
    assert_eq!(decode_any(&unknown), Err(FrameError::UnknownOperation(200)));
    for (operation, flags) in [
        (Operation::Push, 0),
        (Operation::Goodbye, 0),
        (Operation::Ping, FLAG_SILENT),
        (Operation::Produce, 0x80),
        (Operation::Credit, FLAG_RESPONSE),
    ] {
        let refused = error(operation, flags, &[]);
        assert!(matches!(refused, FrameError::Unexpected { .. }), "{operation:?}: {refused}");
    }
    let with_status = decode_any(&frame(Operation::Ping, 0, 1, &[])).unwrap_err();
    assert!(matches!(with_status, FrameError::Unexpected { status: 1, .. }));
}

#[test]
fn a_hello_may_grow_and_a_detail_may_too() {
    let hello = [b"CLOG", &[1, 0, 9, 0][..], &[0; 8], &[1, 0, b'x'], &[0, 0], b"of version 9"].concat();
    let frame_bytes = frame(Operation::Hello, 0, 0, &hello);
    let Some((_, Message::Request(Request::Hello(hello)))) = decode_any(&frame_bytes).unwrap() else { panic!() };
    assert_eq!(hello.version(), Some(1));

    let range_and_more = [&[1, 17][..], &[0; 17], &[0, 0]].concat();
    let unknown = [77, 3, 1, 2, 3, 0, 0];
    for (body, detail) in
        [(&range_and_more[..], Detail::Range { first: 0, next: 0 }), (&unknown[..], Detail::Unknown { kind: 77 })]
    {
        let bytes = frame(Operation::Fetch, FLAG_RESPONSE, 220, body);
        let Some((_, Message::Response(Response::Failed(failure)))) = decode_any(&bytes).unwrap() else { panic!() };
        assert_eq!(failure.detail, detail);
    }
}

#[test]
fn versions_meet_where_the_ranges_overlap() {
    let hello = |version_min, version_max| Hello {
        magic: Magic,
        version_min,
        version_max,
        features: 0,
        software: Text::default(),
        client_id: Text::default(),
    };
    assert_eq!(hello(1, 1).version(), Some(1));
    assert_eq!(hello(0, 7).version(), Some(VERSION_MAX));
    assert_eq!(hello(2, 7).version(), None);
    assert_eq!(hello(0, 0).version(), None);
    assert_eq!(hello(7, 0).version(), None);
}

/// A header that is believable enough for its body to be looked at.
fn believable() -> impl Strategy<Value = Vec<u8>> {
    let operation = prop::sample::select(Operation::ALL);
    let status = prop_oneof![Just(0u16), any::<u16>()];
    // Small bytes make counts, lengths and kinds that lead further in than random ones do.
    let byte = prop_oneof![4 => 0u8..4, 1 => any::<u8>()];
    (operation, 0u8..2, status, prop::collection::vec(byte, 0..200))
        .prop_map(|(operation, flags, status, body)| frame(operation, flags, status, &body))
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_to_a_value(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_any(&bytes);
    }

    #[test]
    fn what_decodes_is_walked_to_its_end(bytes in believable()) {
        if let Ok(Some((_, message))) = decode_any(&bytes) {
            // Printing visits every element of every list.
            let shown = format!("{message:?}");
            prop_assert!(!shown.is_empty());
            if let Message::Request(Request::Metadata(MetadataRequest { topics: Selection::Named(names) })) = message {
                prop_assert_eq!(names.len(), names.iter().count());
            }
        }
    }
}
