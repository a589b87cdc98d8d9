use clap::Parser;

use super::*;
use crate::arguments::{Arguments, Command};

fn parse(line: &str) -> Result<Question, String> {
    let words = format!("canal trace {line}");
    let arguments = Arguments::try_parse_from(words.split(' ')).map_err(|error| error.to_string())?;
    let Command::Trace(trace) = arguments.command else { panic!("{line}") };
    trace.question().map_err(|error| error.to_string())
}

#[test]
fn targets_are_places_with_a_protocol() {
    let reads = |text: &str| target(text).unwrap();
    let expect = |place: &str, protocol| Target { place: place.into(), protocol };
    assert_eq!(reads("10.1.1.1:80/tcp"), expect("10.1.1.1", Protocol::Tcp { port: 80, flags: None }));
    assert_eq!(reads("[fd00::1]:53/UDP"), expect("fd00::1", Protocol::Udp { port: 53 }));
    assert_eq!(reads("default/web:5000/sctp"), expect("default/web", Protocol::Sctp { port: 5000 }));
    assert_eq!(reads("fd00::1/icmp"), expect("fd00::1", Protocol::Icmp { kind: None, code: None }));
    assert_eq!(
        reads("10.1.1.1/icmp:3:1"),
        expect("10.1.1.1", Protocol::Icmp { kind: Some(3), code: Some(1) })
    );
    assert_eq!(
        reads("[fd00::1]/icmp6:128"),
        expect("fd00::1", Protocol::Icmp { kind: Some(128), code: None })
    );
    assert_eq!(reads("default/web/47"), expect("default/web", Protocol::Other(47)));
    for wrong in [
        "10.1.1.1",
        "10.1.1.1/tcp",
        "10.1.1.1:x/tcp",
        "10.1.1.1:70000/udp",
        "10.1.1.1/icmp:300",
        "10.1.1.1/icmp:3:1:1",
        "10.1.1.1/smoke",
        "/icmp",
        "10.1.1.1:80:81/tcp",
        "10.1.1.1:80/tcp:syn",
    ] {
        assert!(target(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn senders_are_workloads_the_host_or_other_nodes() {
    let udp = "--to 10.1.1.1:53/udp";
    let question = parse(&format!("--from a {udp}")).unwrap();
    assert_eq!((question.from, question.source), (From::Workload("a".into()), None));
    let question = parse(&format!("--from a --source 10.9.9.9 {udp}")).unwrap();
    assert_eq!(question.source, Some("10.9.9.9".parse().unwrap()));
    let question = parse(&format!("--host {udp}")).unwrap();
    assert_eq!((question.from, question.source), (From::Host, None));
    let question = parse(&format!("--vxlan-from 192.0.2.2 --from 10.1.2.3 --vni 7 {udp}")).unwrap();
    let node = "192.0.2.2".parse().unwrap();
    assert_eq!(question.from, From::Vxlan { node, vni: Some(7) });
    assert_eq!(question.source, Some("10.1.2.3".parse().unwrap()));
    let question = parse(&format!("--from-gateway eth1 --from 172.16.1.2 {udp}")).unwrap();
    assert_eq!(question.from, From::Gateway("eth1".into()));
    assert_eq!(question.source, Some("172.16.1.2".parse().unwrap()));
    assert_eq!(parse(&format!("--direct --from 10.1.2.3 {udp}")).unwrap().from, From::Direct);
    for wrong in [
        "",
        "--vxlan-from 192.0.2.2",
        "--direct",
        "--host --direct --from 10.1.2.3",
        "--vxlan-from 192.0.2.2 --from a",
        "--from a --vni 7",
        "--host --source 10.9.9.9",
    ] {
        assert!(parse(format!("{wrong} {udp}").trim_start()).is_err(), "{wrong}");
    }
}

#[test]
fn packets_are_described_by_flags() {
    let line = "--from a --to 10.1.1.1:80/tcp --from-port 7 --tcp-flags syn,ack --size 1500 --df --ttl 1 --answering";
    let expected = Question {
        from: From::Workload("a".into()),
        source: None,
        to: "10.1.1.1".into(),
        protocol: Protocol::Tcp { port: 80, flags: Some(TcpFlags::SYN_ACK) },
        source_port: Some(7),
        size: Some(1500),
        dont_fragment: true,
        ttl: Some(1),
        connection: Connection::Answering,
    };
    assert_eq!(parse(line).unwrap(), expected);
    assert_eq!(parse("--from a --to b/icmp --established").unwrap().connection, Connection::Established);
    assert!(parse("--from a --to b/icmp --tcp-flags syn").is_err());
    assert!(parse("--from a --to b/icmp --established --answering").is_err());
}

#[test]
fn offline_options_are_of_no_use_online() {
    assert!(
        parse("--from a --to b/icmp --resources /r --node n --public-ip 192.0.2.1 --underlay-mtu 9000")
            .is_ok()
    );
    for wrong in ["--node n", "--public-ip 192.0.2.1", "--underlay-mtu 9000"] {
        assert!(parse(&format!("--from a --to b/icmp {wrong}")).is_err(), "{wrong}");
    }
}
