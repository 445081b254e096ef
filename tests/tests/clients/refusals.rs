//! What a client sees of a topic that is not there, and of a record that is larger than its topic allows.

use super::a_few_at_once;
use super::programs::clients;
use corelog_tests::serving::{create_topic, start_with};

#[test]
fn each_client_sees_why_it_was_refused() {
    let clients = clients();
    let (mut node, address) = start_with(&["--set", "auto.create.topics.enable=false"]);
    create_topic(&node, "small", 1, &[("max.message.bytes", "65536")]);
    a_few_at_once(&clients, |client| {
        let seen = client.ask(address, "errors", &["nowhere", "small"], "");
        // 10 is MESSAGE_TOO_LARGE.
        assert_eq!(seen, format!("unknown {}\nlarge 10\n", client.unknown_topic), "{}", client.name);
    });
    node.stop();
}
