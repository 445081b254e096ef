//! The console tools that come with Kafka, each once: how it ended, and what it printed.

use super::a_few_at_once;
use super::programs::{clients, java, run};
use corelog_tests::process::scratch;
use corelog_tests::serving::{create_topic, start};
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;

const RECORDS: usize = 100;

#[test]
fn the_console_tools_do_what_they_say() {
    // They come with the client.
    if !clients().iter().any(|client| client.name == "java") {
        return;
    }
    let (mut node, address) = start();
    for topic in ["grouped", "measured", "verified"] {
        create_topic(&node, topic, 2, &[]);
    }
    let tools = Tools { address };
    let stories: [fn(&Tools); 4] = [topics, records_and_groups, measured, verified];
    a_few_at_once(stories, |story| story(&tools));
    node.stop();
}

fn topics(tools: &Tools) {
    let topics = |arguments: &str| tools.run("TopicCommand", &format!("--bootstrap-server SERVER {arguments}"), "");
    says(&topics("--create --topic made --partitions 2 --config retention.ms=86400000"), "Created topic made.");
    let described = topics("--describe --topic made");
    says(&described, "PartitionCount: 2\tReplicationFactor: 1\tConfigs: retention.ms=86400000");
    topics("--alter --topic made --partitions 4");
    says(&topics("--describe --topic made"), "PartitionCount: 4");
    configs(tools);
    says(&topics("--list"), "made\n");
    topics("--delete --topic made");
    assert!(!topics("--list").contains("made"), "a deleted topic is not listed");
}

fn configs(tools: &Tools) {
    let configs = |arguments: &str| {
        tools.run_class("kafka.admin.ConfigCommand", &format!("--bootstrap-server SERVER {arguments}"), "")
    };
    configs("--alter --entity-type topics --entity-name made --add-config max.message.bytes=100000");
    configs("--alter --entity-type topics --entity-name made --delete-config retention.ms");
    let described = configs("--describe --entity-type topics --entity-name made");
    says(&described, "max.message.bytes=100000");
    assert!(!described.contains("retention.ms"), "{described}");
    says(&configs("--describe --entity-type brokers --entity-name 256 --all"), "num.partitions=");
}

fn records_and_groups(tools: &Tools) {
    let lines = (0..RECORDS).fold(String::new(), |mut lines, number| {
        let _ = writeln!(lines, "k{number}:v{number}");
        lines
    });
    let keyed = "--property parse.key=true --property key.separator=:";
    tools.run("ConsoleProducer", &format!("--bootstrap-server SERVER --topic grouped {keyed}"), &lines);
    let until = format!("--from-beginning --max-messages {RECORDS}");
    let shown = "--group readers --property print.key=true --property key.separator=:";
    let consumer = format!("--bootstrap-server SERVER --topic grouped {until} {shown}");
    let printed = tools.run("consumer.ConsoleConsumer", &consumer, "");
    assert_eq!(sorted(&printed), sorted(&lines));

    let groups = |arguments: &str| {
        let arguments = format!("--bootstrap-server SERVER {arguments}");
        tools.run("consumer.group.ConsumerGroupCommand", &arguments, "")
    };
    says(&groups("--list"), "readers");
    assert_eq!(lags(&groups("--describe --group readers")), 0);
    groups("--reset-offsets --group readers --topic grouped --to-earliest --execute");
    assert_eq!(lags(&groups("--describe --group readers")), RECORDS);
    says(&groups("--delete --group readers"), "Deletion of requested consumer groups ('readers') was successful.");
    assert!(!groups("--list").contains("readers"), "a deleted group is not listed");
    offsets(tools);
}

/// The lags of a described group together.
fn lags(described: &str) -> usize {
    let lines = described.lines().filter(|line| line.starts_with("readers "));
    lines.map(|line| line.split_whitespace().nth(5).and_then(|lag| lag.parse::<usize>().ok()).expect("a lag")).sum()
}

fn offsets(tools: &Tools) {
    let offsets = |time: &str| {
        let arguments = format!("--bootstrap-server SERVER --topic grouped --time {time}");
        let printed = tools.run("GetOffsetShell", &arguments, "");
        let offset = |line: &str| line.rsplit(':').next().and_then(|word| word.parse::<usize>().ok());
        printed.lines().map(|line| offset(line).expect("an offset")).collect::<Vec<_>>()
    };
    assert_eq!(offsets("latest").iter().sum::<usize>(), RECORDS);
    let directory = scratch();
    let file = directory.path().join("delete.json");
    let delete = r#"{"partitions": [{"topic": "grouped", "partition": 1, "offset": 7}], "version": 1}"#;
    fs::write(&file, delete).expect("writes the file");
    let arguments = format!("--bootstrap-server SERVER --offset-json-file {}", file.display());
    says(&tools.run("DeleteRecordsCommand", &arguments, ""), "partition: grouped-1\tlow_watermark: 7");
    assert_eq!(offsets("earliest"), [0, 7]);
    let described = tools.run("LogDirsCommand", "--bootstrap-server SERVER --describe --topic-list grouped", "");
    says(&described, r#""partition":"grouped-0""#);
    says(&described, r#""partition":"grouped-1""#);
}

fn measured(tools: &Tools) {
    let versions = tools.run("BrokerApiVersionsCommand", "--bootstrap-server SERVER", "");
    // Both shards.
    assert_eq!(versions.matches("Produce(0): ").count(), 2, "{versions}");
    let load = "--topic measured --num-records 20000 --record-size 100 --throughput -1";
    let sent = tools.run("ProducerPerformance", &format!("{load} --producer-props bootstrap.servers=SERVER"), "");
    says(&sent, "20000 records sent");
    let arguments = "--bootstrap-server SERVER --topic measured --messages 20000 --timeout 30000";
    says(&tools.run("ConsumerPerformance", arguments, ""), ", 20000, ");
    says(&tools.run("EndToEndLatency", "SERVER measured 100 all 100", ""), "Percentiles: 50th = ");
}

fn verified(tools: &Tools) {
    let arguments = format!("--bootstrap-server SERVER --topic verified --max-messages {RECORDS}");
    let sent = tools.run("VerifiableProducer", &arguments, "");
    says(&sent, &format!(r#""sent":{RECORDS},"acked":{RECORDS}"#));
    let read = tools.run("VerifiableConsumer", &format!("{arguments} --group-id verifiers"), "");
    says(&read, "\"name\":\"records_consumed\"");
    says(&read, "\"success\":true");
}

/// The tools, and the server that they are for.
struct Tools {
    address: SocketAddr,
}

impl Tools {
    /// What a tool prints that ends well, with SERVER in its arguments replaced.
    fn run(&self, class: &str, arguments: &str, input: &str) -> String {
        self.run_class(&format!("org.apache.kafka.tools.{class}"), arguments, input)
    }

    fn run_class(&self, class: &str, arguments: &str, input: &str) -> String {
        let mut command = java(class);
        command.args(arguments.replace("SERVER", &self.address.to_string()).split_whitespace());
        let ended = run(&command, input);
        let [printed, complaint] =
            [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(ended.status.success(), "{class} {arguments}: {}\n{printed}\n{complaint}", ended.status);
        printed
    }
}

fn says(printed: &str, expected: &str) {
    assert!(printed.contains(expected), "{expected:?} is not in:\n{printed}");
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}
