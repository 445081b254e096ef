//! What any client writes with any codec, all clients and the native one read alike, and as it was written.

use super::a_few_at_once;
use super::programs::{CODECS, Client, clients};
use super::records::{Shown, agreed, expected, lines, read_natively, shown, write_natively};
use corelog_client::Codec;
use corelog_tests::serving::{create_topic, start};

#[test]
fn each_client_reads_what_any_wrote() {
    let clients = clients();
    let (mut node, address) = start();
    let native = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    // What each topic is to hold.
    let mut all = Vec::new();
    for (codec, name) in native.into_iter().zip(CODECS) {
        let (topic, records) = (format!("native-{name}"), agreed(true));
        create_topic(&node, &topic, 3, &[]);
        write_natively(&node, &topic, codec, &records);
        all.push((topic.clone(), expected(&topic, &records)));
    }
    let mut writing = Vec::new();
    for client in &clients {
        let records = agreed(client.writes_null_headers);
        for codec in CODECS {
            let topic = format!("{}-{codec}", client.name);
            create_topic(&node, &topic, 3, &[]);
            all.push((topic.clone(), expected(&topic, &records)));
            writing.push((client, topic, codec, records.clone()));
        }
    }
    a_few_at_once(writing, |(client, topic, codec, records)| {
        client.ask(address, "write", &[&topic, codec], &lines(&records));
    });
    for (topic, expected) in &all {
        same("the native client", &read_natively(&node, topic), expected);
    }
    let topics: Vec<&str> = ["beginning"].into_iter().chain(all.iter().map(|(topic, _)| &**topic)).collect();
    let mut expected: Vec<Shown> = all.iter().flat_map(|(_, records)| records).cloned().collect();
    expected.sort();
    a_few_at_once(&clients, |client| {
        let found = shown(&client.ask(address, "read", &topics, ""));
        same(client.name, &found, &as_read_by(client, &expected));
    });
    node.stop();
}

fn as_read_by(client: &Client, records: &[Shown]) -> Vec<Shown> {
    let mut records = records.to_vec();
    if client.reads_empty_as_null {
        for record in &mut records {
            record.rest = record.rest.replace(" 0:00000000", " -").replace("=0:00000000", "=-");
        }
    }
    records
}

fn same(who: &str, found: &[Shown], expected: &[Shown]) {
    let differ = found.iter().zip(expected).find(|(found, expected)| found != expected);
    assert!(differ.is_none(), "{who}: {differ:#?}");
    assert_eq!(found.len(), expected.len(), "{who}");
}
