//! Many downloads at once.

use std::time::Duration;

use super::{
    Bench,
    server::{Reply, Server},
    settings,
};
use crate::fetch::batch::{DeliveryEvent, Order};

#[test]
fn what_arrived_before_a_deadline_is_there_and_the_rest_has_failed() {
    let server = Server::start(|_, request| match request.target() {
        "/never" => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").then_stall(),
        path => Reply::ok(path),
    });
    let bench = Bench::new(settings());
    let order = |name: &str| Order {
        ownership: None,
        source: server.url(&format!("/{name}")).parse().unwrap(),
        sha256: None,
        destination: format!("/{name}").parse().unwrap(),
    };
    let orders = ["there", "never", "after"].map(order).to_vec();
    let deadlines = &bench.system.host.stop.deadlines;
    let delivered = deadlines.within(Some(Duration::from_hours(1)), "fetch", || {
        let mut pass_after_the_first = |event: DeliveryEvent<'_>| {
            if let DeliveryEvent::Done { index: 0, .. } = event {
                deadlines.leave(Duration::ZERO);
            }
        };
        bench.system.fetcher.deliver(&bench.system.host, orders, Some(1), &mut pass_after_the_first).unwrap()
    });
    assert_eq!(delivered[0].as_ref().unwrap().size, 6);
    for late in &delivered[1..] {
        let told = crate::error::render(late.as_ref().unwrap_err());
        assert!(told.contains("fetch timed out after"), "{told}");
    }
    assert_eq!(bench.system.root().list(&"/".into()).unwrap(), ["there"]);
    assert!(server.requests().len() <= 2);
}
