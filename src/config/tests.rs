use canal_control::datastore::etcd::{ClientCertificate, EtcdOptions, TlsFiles, parse_endpoints};

use super::*;

fn machine() -> Machine {
    Machine { hostname: "Node-1\n".into(), cores: 8, variables: vec![] }
}

fn parse_with(line: &str, environment: &[(&str, &str)]) -> Result<Command, ConfigError> {
    let environment =
        |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Config::parse(line.split_whitespace().map(str::to_owned), environment, &machine())
}

fn config_with(line: &str, environment: &[(&str, &str)]) -> Config {
    match parse_with(line, environment).unwrap_or_else(|error| panic!("{line}: {error}")) {
        Command::Run(config) => *config,
        Command::Version => panic!("{line}: version"),
    }
}

fn config(line: &str) -> Config {
    config_with(line, &[])
}

fn refusal(line: &str) -> String {
    parse_with(line, &[]).expect_err(line).to_string()
}

#[test]
fn nothing_given_means_a_single_host_on_its_own_directory() {
    let expected = Config {
        node_name: "node-1".into(),
        wanted: Wanted::default(),
        datastore: DatastoreChoice::Dir("/etc/canal".into()),
        prefix: Prefix::default(),
        subnet_file: "/run/flannel/subnet.env".into(),
        renew_margin: RenewMargin::default(),
        ip_masq: false,
        healthz: None,
        log_policy: LogPolicy { denied: false, denied_rate: 10 },
        metrics: None,
        port: PortChoices::all(PortChoice::Auto),
        busy_poll: None,
        workers: 4,
        flows_per_worker: 262_144,
        flow_quota: Quota { workload: 32_768, node: 131_072 },
        flow_pickup: Duration::from_secs(60),
        device: "canal0".into(),
        gateways: vec![],
        gateway_announce: false,
        settings: Settings::default(),
        policy: PolicyMode::Auto,
        felix: Local::default(),
        run_dir: "/run/canal".into(),
        state_dir: "/var/lib/canal".into(),
        log_level: LogLevel::Info,
        log_format: LogFormat::Text,
        notes: vec![],
    };
    assert_eq!(config(""), expected);
}

#[test]
fn gateway_interfaces_are_named_one_by_one_or_together() {
    let named = config("--gateway-iface eth2 --gateway-iface eth1,eth3,eth2").gateways;
    assert_eq!(named, ["eth1", "eth2", "eth3"]);
    assert!(refusal("--gateway-iface eth1/0").starts_with("--gateway-iface is \"eth1/0\""));
}

#[test]
fn interfaces_go_together_or_are_refused() {
    for (line, expected) in [
        ("--iface eth0 --gateway-iface eth1,eth0", "--gateway-iface eth0 is the interface of --iface, too"),
        ("--iface eth0 --gateway-iface eth1 --port eth1=udp", "--port eth1=udp: eth1 is a gateway interface"),
        ("--iface eth0 --port tap,eth9=af-xdp", "--port speaks of eth9, which is neither"),
        ("--iface eth0 --iface eth1 --gateway-iface eth2 --port eth3=tap", "--port speaks of eth3"),
    ] {
        let text = refusal(line);
        assert!(text.starts_with(expected), "{text}");
    }
    // Which interface an address, a pattern or the default route means is not known yet.
    for line in [
        "--iface eth0 --iface eth1 --gateway-iface eth1",
        "--iface eth0 --gateway-iface eth1 --port eth0=udp,eth1=tap",
        "--iface eth0 --gateway-iface eth1 --port udp",
        "--iface 192.0.2.1 --port eth9=af-xdp",
        "--iface eth0 --iface-regex ^eth --port eth9=af-xdp",
        "--iface eth0 --iface-can-reach 192.0.2.1 --gateway-iface eth0 --port eth9=af-xdp",
        "--port eth9=af-xdp",
    ] {
        config(line);
    }
}

#[test]
fn a_flannel_command_line_is_understood_as_it_is() {
    let config = config(
        "-etcd-endpoints=https://10.0.0.1:2379,https://10.0.0.2:2379 -etcd-prefix=/overlay//net/ \
         -etcd-cafile ca.pem -etcd-certfile c.pem -etcd-keyfile k.pem -iface=eth1 -iface eth2 -iface-regex ^10\\. \
         -iface-can-reach=10.9.9.9 -public-ip=192.0.2.1 -public-ipv6=2001:db8::1 -ip-masq -subnet-file=/tmp/s.env \
         -subnet-lease-renew-margin=5 -healthz-ip=127.0.0.1 -healthz-port=8471 -ip-masq-fully-random-disable=true",
    );
    let DatastoreChoice::Etcd(etcd) = config.datastore else { panic!("{:?}", config.datastore) };
    let tls = TlsFiles {
        ca: "ca.pem".into(),
        client: Some(ClientCertificate { certificate: "c.pem".into(), key: "k.pem".into() }),
    };
    let endpoints = parse_endpoints("https://10.0.0.1:2379,https://10.0.0.2:2379").unwrap();
    assert_eq!(etcd, EtcdOptions { tls: Some(tls), ..EtcdOptions::new(endpoints) });
    assert_eq!(config.prefix, Prefix::new("/overlay/net"));
    assert_eq!(
        config.wanted,
        Wanted {
            ifaces: vec!["eth1".into(), "eth2".into()],
            regexes: vec!["^10\\.".into()],
            can_reach: Some("10.9.9.9".parse().unwrap()),
            public_v4: Some("192.0.2.1".parse().unwrap()),
            public_v6: Some("2001:db8::1".parse().unwrap()),
            ..Wanted::default()
        }
    );
    assert_eq!(config.renew_margin, RenewMargin::from_minutes(5).unwrap());
    assert_eq!(config.healthz, Some("127.0.0.1:8471".parse().unwrap()));
    assert!(config.ip_masq);
    assert_eq!(
        config.notes,
        [
            "--ip-masq-fully-random-disable has no effect: nothing is masqueraded yet",
            "--ip-masq is written to the subnet file only: nothing is masqueraded yet",
        ]
    );
}

#[test]
fn any_word_about_etcd_chooses_etcd_and_the_flag_has_the_last_word() {
    let endpoints = |config: Config| match config.datastore {
        DatastoreChoice::Etcd(etcd) => etcd.endpoints.iter().map(|e| e.url().to_owned()).collect::<Vec<_>>(),
        DatastoreChoice::Dir(dir) => panic!("directory {}", dir.display()),
    };
    let standard = ["http://127.0.0.1:4001", "http://127.0.0.1:2379"];
    assert_eq!(endpoints(config("--datastore etcd")), standard);
    assert_eq!(endpoints(config("--etcd-prefix /x")), standard);
    let environment = [("FLANNELD_ETCD_ENDPOINTS", "http://e:2379")];
    assert_eq!(endpoints(config_with("", &environment)), ["http://e:2379"]);
    assert_eq!(endpoints(config_with("--etcd-endpoints http://f:2379", &environment)), ["http://f:2379"]);
    let dir = config_with("--datastore=dir --data-dir /d", &environment);
    assert_eq!(dir.datastore, DatastoreChoice::Dir("/d".into()));
    assert_eq!(dir.notes, ["--etcd-endpoints has no effect: the datastore is a directory"]);
}

#[test]
fn the_environment_stands_for_flags() {
    let environment = [
        ("FLANNELD_IFACE", "eth0"),
        ("FLANNELD_IP_MASQ", "true"),
        ("FLANNELD_HEALTHZ_PORT", "9000"),
        ("FLANNELD_PUBLIC_IP", ""),
        ("CANAL_WORKERS", "2"),
        ("CANAL_PORT", "udp"),
    ];
    let config = config_with("--ip-masq=false", &environment);
    assert_eq!(config.wanted, Wanted { ifaces: vec!["eth0".into()], ..Wanted::default() });
    assert_eq!((config.ip_masq, config.workers, config.port), (false, 2, PortChoices::all(PortChoice::Udp)));
    assert_eq!(config.healthz, Some("0.0.0.0:9000".parse().unwrap()));
}

#[test]
fn our_own_flags_are_read() {
    let config = config(
        "--port tap,eth1=af-xdp --busy-poll 20 --workers 3 --flows 3001 --device can1 --outer-df --dscp uniform --outer-checksum=true \
         --allow-encap-from-workloads --endpoint-to-host drop --established revalidate --run-dir /r --state-dir /s --nodename N.1 --metrics-addr :9091 \
         --log-level debug --log-format json --flow-pickup 5 --tcp-loose --flow-timeout tcp-established=7200,udp=10 \
         --flow-timeout generic=60 --flows-per-workload 3000",
    );
    let timeouts = Timeouts { tcp_established: 7200, udp: 10, generic: 60, ..Timeouts::default() };
    assert_eq!(config.flow_quota, Quota { workload: 1000, node: 1024 });
    assert_eq!(config.flow_pickup, Duration::from_secs(5));
    assert_eq!(
        config.settings,
        Settings {
            outer_df: true,
            dscp: DscpMode::Uniform,
            outer_checksum_v4: true,
            tcp_loose: true,
            timeouts,
            established: Established::Revalidate,
            ..Settings::default()
        }
    );
    assert_eq!((config.port.of("eth0"), config.port.of("eth1")), (PortChoice::Tap, PortChoice::AfXdp));
    assert_eq!((config.busy_poll, config.workers), (Some(Duration::from_micros(20)), 3));
    assert_eq!(config.flows_per_worker, 1001);
    assert_eq!((config.node_name.as_str(), config.device.as_str()), ("N.1", "can1"));
    assert_eq!(config.metrics, Some("0.0.0.0:9091".parse().unwrap()));
    assert_eq!((config.log_level, config.log_format), (LogLevel::Debug, LogFormat::Json));
    let said: Vec<_> =
        config.felix.flags.iter().map(|given| (given.setting, given.flag, given.value.as_str())).collect();
    let expected = [
        ("DefaultEndpointToHostAction", "endpoint-to-host", "Drop"),
        ("AllowVXLANPacketsFromWorkloads", "allow-encap-from-workloads", "true"),
        ("AllowIPIPPacketsFromWorkloads", "allow-encap-from-workloads", "true"),
        ("LogSeverityScreen", "log-level", "Debug"),
        ("PrometheusMetricsEnabled", "metrics-addr", "true"),
        ("PrometheusMetricsHost", "metrics-addr", "0.0.0.0"),
        ("PrometheusMetricsPort", "metrics-addr", "9091"),
    ];
    assert_eq!(said, expected);
    let effective =
        canal_control::felix::Config::of(&config.felix, "N.1", &canal_control::state::Calico::default());
    assert_eq!(effective.complaints().count(), 0, "each flag says something that is understood");
}

#[test]
fn felixs_variables_are_kept_and_name_the_node() {
    let variables = [("FELIX_FELIXHOSTNAME", "other"), ("FELIX_HEALTHENABLED", "true"), ("HOME", "/")];
    let machine = Machine {
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        ..machine()
    };
    let parse = |line: &str| {
        let args = line.split_whitespace().map(str::to_owned);
        match Config::parse(args, |_| None, &machine).unwrap() {
            Command::Run(config) => *config,
            Command::Version => panic!("version"),
        }
    };
    let config = parse("");
    assert_eq!((config.node_name.as_str(), config.felix.value("HealthEnabled")), ("other", Some("true")));
    assert_eq!(parse("--nodename mine").node_name, "mine", "a flag goes first");
}

#[test]
fn flags_without_meaning_here_are_taken_with_a_sentence_each() {
    let config = config(
        "--iptables-resync=5 --iptables-forward-rules=false --ip-blackhole-route -v=10 --vmodule=a=1 \
         --log_backtrace_at=x:1 --net-config-path=/n --set-node-network-unavailable=true --kube-subnet-mgr=false",
    );
    assert_eq!(config.notes.len(), 8);
    assert_eq!(config.notes[0], "--iptables-resync has no effect: canal-fwd writes no iptables rule");
    assert_eq!(config.notes[5], "--v has no effect: use --log-level");
}

#[test]
fn kubernetes_mode_is_refused_with_what_to_do() {
    for line in [
        "--kube-subnet-mgr",
        "--kube-subnet-mgr=true",
        "--kube-api-url=http://k",
        "--kubeconfig-file /k",
        "--kube-annotation-prefix=p",
    ] {
        let text = refusal(line);
        let flag = line.split([' ', '=']).next().unwrap();
        assert!(text.starts_with(flag) && text.contains("Leave the flag out"), "{text}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    for (line, expected) in [
        ("--workers 0", "--workers is 0, which is not between 1 and 64; give a number in that range."),
        ("--workers 65", "--workers is 65, which is not between 1 and 64; give a number in that range."),
        ("--flows 1", "--flows is 1, which is not between 1024 and 67108864; give a number in that range."),
        (
            "--subnet-lease-renew-margin 1440",
            "--subnet-lease-renew-margin is 1440, which is not between 1 and 1439; give a number in that range.",
        ),
        (
            "--flows-per-workload 0",
            "--flows-per-workload is 0, which is not between 1 and 1048576; give a number in that range.",
        ),
        (
            "--flow-timeout udp",
            "--flow-timeout is \"udp\", which is not NAME=SECONDS with the name of a timeout and at least one second, for example tcp-established=86400.",
        ),
        (
            "--flow-timeout sctp=9",
            "--flow-timeout is \"sctp=9\", which is not NAME=SECONDS with the name of a timeout and at least one second, for example tcp-established=86400.",
        ),
        (
            "--flow-timeout udp=0",
            "--flow-timeout is \"udp=0\", which is not NAME=SECONDS with the name of a timeout and at least one second, for example tcp-established=86400.",
        ),
        ("--public-ip ::1", "--public-ip is \"::1\", which is not an IPv4 address."),
        ("--public-ipv6 x", "--public-ipv6 is \"x\", which is not an IPv6 address."),
        ("--iface-can-reach x", "--iface-can-reach is \"x\", which is not an IP address."),
        ("--healthz-ip x", "--healthz-ip is \"x\", which is not an IP address."),
        (
            "--metrics-addr 9091",
            "--metrics-addr is \"9091\", which is not an address and port such as 127.0.0.1:9091 or :9091.",
        ),
        (
            "--etcd-endpoints 10.0.0.1:2379",
            "--etcd-endpoints: etcd endpoint \"10.0.0.1:2379\" has no scheme: write http://10.0.0.1:2379 or \
             https://10.0.0.1:2379.",
        ),
        (
            "--etcd-endpoints https://e:1",
            "--etcd-endpoints: https etcd endpoints need a CA file to check the server's certificate with.",
        ),
        (
            "--etcd-endpoints http://e:1 --etcd-cafile c",
            "--etcd-endpoints: TLS files are given but no etcd endpoint is https.",
        ),
        (
            "--etcd-endpoints https://e:1 --etcd-certfile c --etcd-keyfile k",
            "--etcd-certfile needs --etcd-cafile, too.",
        ),
        ("--etcd-certfile c", "--etcd-certfile needs --etcd-keyfile, too."),
        ("--etcd-keyfile k", "--etcd-keyfile needs --etcd-certfile, too."),
        ("--etcd-username u", "--etcd-username needs --etcd-password, too."),
        ("--etcd-password p", "--etcd-password needs --etcd-username, too."),
        (
            "--device sixteen-letters-",
            "--device is \"sixteen-letters-\", which is not an interface name: 1 to 15 letters, digits, dashes, \
             underscores.",
        ),
        (
            "--nodename a/b",
            "--nodename is \"a/b\", which is not a node name: 1 to 253 letters, digits, dots, dashes and underscores.",
        ),
    ] {
        assert_eq!(refusal(line), expected);
    }
    assert!(refusal("--port xdp").contains("possible values: auto, tap, udp"));
    assert!(refusal("--nonsense").contains("unexpected argument '--nonsense'"));
    assert!(refusal("stray").contains("unexpected argument 'stray'"));
}

#[test]
fn version_comes_before_everything_else() {
    assert!(matches!(parse_with("-version --workers=0", &[]), Ok(Command::Version)));
}

#[test]
fn secrets_are_not_printed() {
    let config = config("--etcd-username u --etcd-password hush");
    let text = format!("{config:?}");
    assert!(text.contains("\"u\"") && !text.contains("hush"), "{text}");
}

#[test]
fn the_manual_names_every_flag() {
    use clap::CommandFactory;
    let manual = include_str!("../../docs/configuration.md");
    for arg in flags::Flags::command().get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)) {
        if arg != "help" {
            assert!(manual.contains(&format!("`--{arg}`")), "docs/configuration.md does not name --{arg}");
        }
    }
}

#[test]
fn felix_health_checks_are_asked_for_by_its_own_variables_and_by_flags() {
    let health = |line: &str, variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let machine = Machine { variables: variables.collect(), ..machine() };
        let args = line.split_whitespace().map(str::to_owned);
        let Ok(Command::Run(config)) = Config::parse(args, |_| None, &machine) else { panic!("{line}") };
        let calico = canal_control::state::Calico::default();
        canal_control::felix::Config::of(&config.felix, "n", &calico).values.health()
    };
    let manifest = [("FELIX_HEALTHENABLED", "true")];
    assert_eq!(health("", &manifest), Some("127.0.0.1:9099".parse().unwrap()));
    let elsewhere =
        [("FELIX_HEALTHENABLED", "Yes"), ("FELIX_HEALTHHOST", "0.0.0.0"), ("FELIX_HEALTHPORT", "9199")];
    assert_eq!(health("", &elsewhere), Some("0.0.0.0:9199".parse().unwrap()));
    assert_eq!(health("--health-enabled=false", &elsewhere), None, "the flag wins");
    let flags = "--health-enabled --health-host ::1 --health-port 80";
    assert_eq!(health(flags, &elsewhere), Some("[::1]:80".parse().unwrap()));
    assert!(refusal("--health-enabled --health-host nonsense").contains("localhost"));
    assert!(refusal("--health-enabled --health-port 0").contains("between 1 and 65535"));
}

#[test]
fn refused_connections_are_logged_on_demand() {
    let config = config("--log-denied on --log-denied-rate 3");
    assert_eq!(config.log_policy, LogPolicy { denied: true, denied_rate: 3 });
    assert!(refusal("--log-denied-rate 0").contains("between 1 and 10000"));
}
