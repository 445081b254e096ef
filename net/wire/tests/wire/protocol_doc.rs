//! docs/protocol.md and the code say the same: every hex example is encoded and decoded, every table row compared.

use corelog_wire::*;
use std::collections::BTreeMap;
use uuid::uuid;

const DOC: &str = include_str!("../../../../docs/protocol.md");
const HANDLE: u32 = 0x0010_0001;

/// The bytes of each block that begins with "```hex NAME"; what follows a '#' on a line is a comment.
fn examples() -> BTreeMap<&'static str, Vec<u8>> {
    let mut found = BTreeMap::new();
    for block in DOC.split("```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let (lines, _) = rest.split_once("```").unwrap();
        let digits = lines.lines().flat_map(|line| line.split('#').next().unwrap().split_whitespace());
        let bytes = digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        assert!(found.insert(name, bytes).is_none(), "two examples are called {name}");
    }
    found
}

fn text(text: &str) -> Text<'_> {
    Text::new(text).unwrap()
}

fn encoded<'a>(header: Header, body: &impl Wire<'a>, extra: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    header.put(body, extra.len(), &mut out);
    out.extend_from_slice(extra);
    out
}

/// Compares one example with a message, in both directions.
struct Check(BTreeMap<&'static str, Vec<u8>>);

impl Check {
    fn request<'a>(&mut self, name: &str, header: Header, body: &impl Wire<'a>, extra: &[u8], decoded: Request<'_>) {
        self.bytes(name, &encoded(header, body, extra), Message::Request(decoded));
    }

    fn response<'a>(&mut self, name: &str, header: Header, body: &impl Wire<'a>, extra: &[u8], decoded: Response<'_>) {
        self.bytes(name, &encoded(header, body, extra), Message::Response(decoded));
    }

    fn bytes(&mut self, name: &str, encoded: &[u8], message: Message<'_>) {
        let documented = self.0.remove(name).unwrap_or_else(|| panic!("no example is called {name}"));
        assert_eq!(hex(&documented), hex(encoded), "{name}");
        let (header, decoded) = decode_any(&documented).unwrap().unwrap();
        assert_eq!(decoded, message, "{name}");
        assert_eq!(header.length as usize + HEADER_BYTES, documented.len(), "{name}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

fn head(operation: Operation, correlation: u32, handle: u32) -> Header {
    Header::request(operation, correlation, handle)
}

#[test]
fn examples_are_what_the_code_writes_and_reads() {
    let mut check = Check(examples());

    let hello = Hello {
        magic: Magic,
        version_min: 1,
        version_max: 1,
        features: 0,
        software: text("corelog-client/0.1.0"),
        client_id: text("app"),
    };
    check.request("hello", head(Operation::Hello, 1, 0), &hello, &[], Request::Hello(hello));

    let welcome = Welcome {
        magic: Magic,
        version: 1,
        shard: 1,
        features: 0,
        body_bytes_max: 16 << 20,
        requests_max: 1024,
        request_bytes_max: 32 << 20,
        handles_max: 16384,
        subscriptions_max: 1024,
        idle_timeout_ms: 600_000,
        cluster_id: uuid!("6f1c5a1e-2b7d-4c0f-9a53-0e8d4271b6c5"),
        node: 1,
        shards: 2,
        software: text("corelog/0.1.0"),
    };
    let header = head(Operation::Hello, 1, 0).response();
    check.response("hello-response", header, &welcome, &[], Response::Hello(welcome));

    check.request("ping", head(Operation::Ping, 9, 0), &(), &[], Request::Ping);

    let names = [text("clicks")];
    let metadata = MetadataRequest { topics: Selection::Named(List::of(&names)) };
    check.request("metadata", head(Operation::Metadata, 2, 0), &metadata, &[], Request::Metadata(metadata));

    let silent = Failure { detail: Detail::None, message: text("silent") };
    let header = Header { status: 107, ..head(Operation::Goodbye, 0, 0).response() };
    check.response("goodbye", header, &silent, &[], Response::Failed(silent));

    stats(&mut check);
    topics_and_partitions(&mut check);
    records(&mut check);
    assert!(check.0.is_empty(), "examples without a message: {:?}", check.0.keys());
}

fn stats(check: &mut Check) {
    let header = head(Operation::Stats, 8, 0);
    let request = StatsRequest { shard: 1 };
    check.request("stats", header, &request, &[], Request::Stats(request));
    let counts = [Count { name: text("appends"), total: true, value: 3 }];
    let buckets = [Bucket { up_to_ns: 30_143, count: 2 }, Bucket { up_to_ns: 39_999, count: 1 }];
    let stages = [StageTimes { name: text("flush"), sum_ns: 100_000, buckets: List::of(&buckets) }];
    let stats = ShardStats { shard: 1, counts: List::of(&counts), stages: List::of(&stages) };
    check.response("stats-response", header.response(), &stats, &[], Response::Stats(stats));
}

fn topics_and_partitions(check: &mut Check) {
    let settings = [Setting { key: text("retention.ms"), value: text("86400000") }];
    let create = CreateTopic { name: text("clicks"), partitions: 8, settings: List::of(&settings) };
    check.request("create_topic", head(Operation::CreateTopic, 3, 0), &create, &[], Request::CreateTopic(create));

    let open = Open { topic: Topic::Name(text("clicks")), partition: 3 };
    check.request("open", head(Operation::Open, 4, 0), &open, &[], Request::Open(open));

    let opened = Opened {
        topic_id: uuid!("9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"),
        node: 1,
        shard: 1,
        leader_epoch: 0,
        first: 0,
        next: 42,
        high_watermark: 42,
        message_bytes_max: 1 << 20,
    };
    let header = head(Operation::Open, 4, 0).response().with_handle(HANDLE);
    check.response("open-response", header, &opened, &[], Response::Open(opened));

    let at = ListOffsets::At(1_767_225_600_000);
    check.request("list_offsets", head(Operation::ListOffsets, 8, HANDLE), &at, &[], Request::ListOffsets(at));
}

fn records(check: &mut Check) {
    let produce = check.0["produce"].clone();
    let sent = &produce[HEADER_BYTES..];
    let header = head(Operation::Produce, 5, HANDLE);
    check.request("produce", header, &(), sent, Request::Produce { batches: sent, silent: false });

    let produced = Produced { base: 42, last: 42, log_append_time: -1 };
    check.response("produce-response", header.response(), &produced, &[], Response::Produce(produced));

    let header = head(Operation::Fetch, 6, HANDLE);
    let fetch = Fetch { offset: 42, bytes_max: 1 << 20, bytes_min: 1, wait_ms: 500 };
    check.request("fetch", header, &fetch, &[], Request::Fetch(fetch));

    // What is read is what was sent, but for the base offset.
    let mut stored = sent.to_vec();
    stored[7] = 42;
    let batches = Batches { records: Records { high_watermark: 43, first: 0, next: 43 }, bytes: &stored };
    check.response("fetch-response", header.response(), &batches.records, &stored, Response::Fetch(batches));
    let header = head(Operation::Push, 10, HANDLE).response();
    check.response("push", header, &batches.records, &stored, Response::Push(batches));

    let gone = Failure { detail: Detail::Range { first: 100, next: 200 }, message: text("no") };
    let header = Header { status: 220, ..head(Operation::Fetch, 7, HANDLE).response() };
    check.response("fetch-failure", header, &gone, &[], Response::Failed(gone));

    let subscribe = Subscribe { offset: 42, credit: 1 << 20, bytes_max: 256 << 10 };
    let header = head(Operation::Subscribe, 10, HANDLE);
    check.request("subscribe", header, &subscribe, &[], Request::Subscribe(subscribe));

    let credit = Credit { bytes: 256 << 10 };
    check.request("credit", head(Operation::Credit, 11, HANDLE), &credit, &[], Request::Credit(credit));
}

/// The cells of every row between a heading and the next one.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = DOC.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n#").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|'));
    rows.skip(2).map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_table_of_statuses_is_the_one_in_the_code() {
    let documented = rows("Statuses");
    assert_eq!(documented.len(), Status::ALL.len());
    for (row, status) in documented.iter().zip(Status::ALL) {
        let code = (*status as u16).to_string();
        let expected = [&*code, status.name(), status.retry().name(), status.actor().name(), status.meaning()];
        assert_eq!(row[..], expected);
        assert_eq!(Status::from_code(*status as u16), Some(*status));
    }
    assert_eq!(Status::from_code(999), None);
}

#[test]
fn the_group_of_a_status_tells_whether_to_retry() {
    for status in Status::ALL {
        let code = *status as u16;
        assert_eq!(status.retry() == Retry::MayRepeat, code / 100 == 4, "{code}");
        if code / 100 == 3 {
            assert_eq!(status.retry(), Retry::Yes, "{code}");
        }
        if code / 100 == 2 {
            assert_eq!(status.retry(), Retry::No, "{code}");
        }
    }
}

#[test]
fn the_table_of_operations_is_the_one_in_the_code() {
    let documented = rows("Operations");
    assert_eq!(documented.len(), Operation::ALL.len());
    for (row, operation) in documented.iter().zip(Operation::ALL) {
        assert_eq!(row[..2], [&*(*operation as u8).to_string(), operation.name()]);
        assert!(DOC.contains(&format!("\n### {} ({})\n", operation.name(), *operation as u8)), "{operation:?}");
        assert_eq!(Operation::from_code(*operation as u8), Some(*operation));
    }
}
