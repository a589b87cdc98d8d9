//! etcd that does not serve everyone: TLS, client certificates, users and passwords, by flannel's flags.

use anyhow::{Result, ensure};
use netns_tests::certificates::Certificates;
use netns_tests::etcd::{CLIENT, Guard};
use netns_tests::overlay::{wait_reachable, wait_unreachable};
use netns_tests::{Canal, CanalOptions, Etcd, Network, Overlay, Role, Shape, Store, Topology, flannel, wait};
use serde_json::json;

const ROLES: fn() -> [Role; 2] = || [Role::canal(), Role::Kernel];

fn certificates(topology: &Topology) -> Result<Certificates> {
    Certificates::make(&topology.evidence.dir("certificates")?)
}

fn with_password() -> Option<String> {
    Some("of-root".to_owned())
}

/// Joins, forwards, and hears of changes, also after the server went away for a while.
fn lives_behind(guard: impl FnOnce(&Topology) -> Result<Guard>) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let etcd = Etcd::start_guarded(&topology, guard(&topology)?)?;
    let mut overlay = Overlay::on(&topology, etcd, &Network::default(), &ROLES())?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), 62)?;
    overlay.store.stop()?;
    overlay.store.restart()?;
    let to = overlay.pod(1).v4;
    overlay.kernel(1).retire(&overlay.store)?;
    wait_unreachable(overlay.pod(0), to.into())?;
    overlay.kernel(1).publish(&overlay.store)?;
    wait_reachable(overlay.pod(0), to.into())?;
    wait::until("the status is content", wait::SOON, || overlay.canal(0).status().map(|_| true))?;
    topology.pass()
}

/// Does not join, goes on trying, and says why: the log or the status holds one of `words`.
fn stays_outside(
    guard: impl FnOnce(&Topology) -> Result<Guard>,
    options: impl FnOnce(&Topology) -> CanalOptions,
    words: &[&str],
) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let etcd = Etcd::start_guarded(&topology, guard(&topology)?)?;
    etcd.set_net_conf(&flannel::net_conf(false, &json!({})))?;
    let mut canal = Canal::prepare(&topology, 0, &etcd, options(&topology))?;
    canal.launch()?;
    wait::until(&format!("one of {words:?} is said"), wait::SOON, || {
        let (code, text) = canal.status_text()?;
        let said = format!("{text}{}", canal.log_text()).to_lowercase();
        ensure!(code == Some(1) && words.iter().any(|word| said.contains(word)), "{code:?} {said}");
        Ok(true)
    })?;
    ensure!(canal.is_running(), "it goes on trying");
    ensure!(etcd.raw_leases()?.is_empty(), "and has no lease");
    ensure!(!canal.log_text().contains(CLIENT.1), "the password is nobody's business");
    topology.pass()
}

#[test]
fn tls_with_an_authority_only() -> Result<()> {
    lives_behind(|t| Ok(Guard { tls: Some(certificates(t)?), ..Guard::default() }))
}

#[test]
fn tls_with_a_client_certificate() -> Result<()> {
    lives_behind(|t| Ok(Guard { tls: Some(certificates(t)?), client_certificates: true, ..Guard::default() }))
}

#[test]
fn a_user_with_a_password_who_may_do_no_more_than_flannel_needs() -> Result<()> {
    lives_behind(|_| Ok(Guard { root_password: with_password(), ..Guard::default() }))
}

#[test]
fn a_user_with_a_password_over_tls() -> Result<()> {
    lives_behind(|t| {
        Ok(Guard { tls: Some(certificates(t)?), root_password: with_password(), ..Guard::default() })
    })
}

#[test]
fn the_password_may_come_from_the_environment() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let guard = Guard { root_password: with_password(), untold: true, ..Guard::default() };
    let etcd = Etcd::start_guarded(&topology, guard)?;
    etcd.set_net_conf(&flannel::net_conf(false, &json!({})))?;
    let options = CanalOptions {
        env: vec![("FLANNELD_ETCD_PASSWORD".to_owned(), CLIENT.1.to_owned())],
        ..CanalOptions::with(&[&format!("--etcd-username={}", CLIENT.0)])
    };
    let canal = Canal::start(&topology, 0, &etcd, options)?;
    ensure!(canal.lease(&etcd)?.backend.as_deref() == Some("vxlan"), "it has joined");
    topology.pass()
}

#[test]
fn an_authority_that_did_not_sign_the_server_is_not_enough() -> Result<()> {
    stays_outside(
        |t| Ok(Guard { tls: Some(certificates(t)?), ..Guard::default() }),
        |t| {
            let stranger = t.evidence.work().join("certificates/stranger.crt");
            CanalOptions::with(&[&format!("--etcd-cafile={}", stranger.display())])
        },
        &["certificate", "unknownissuer", "tls", "handshake"],
    )
}

#[test]
fn a_client_without_the_certificate_that_is_asked_for_stays_outside() -> Result<()> {
    stays_outside(
        |t| {
            let tls = Some(certificates(t)?);
            Ok(Guard { tls, client_certificates: true, untold: true, ..Guard::default() })
        },
        |_| CanalOptions::default(),
        &["certificate", "tls", "handshake"],
    )
}

#[test]
fn a_wrong_password_is_said() -> Result<()> {
    stays_outside(
        |_| Ok(Guard { root_password: with_password(), ..Guard::default() }),
        |_| CanalOptions::with(&["--etcd-password=guessed"]),
        &["password", "authentication"],
    )
}

#[test]
fn a_user_that_was_not_named_is_said() -> Result<()> {
    stays_outside(
        |_| Ok(Guard { root_password: with_password(), untold: true, ..Guard::default() }),
        |_| CanalOptions::default(),
        &["user name is empty"],
    )
}
