//! `canal wait`: a revision is enforced when the packets say so, and only then.

use anyhow::{Result, ensure};
use netns_tests::traffic::Ping;
use netns_tests::{Network, Overlay, Role, Shape, Topology, pod};
use std::time::{Duration, Instant};

const ENFORCED: Option<i32> = Some(0);
const NOT: Option<i32> = Some(1);
const WORKLOADS: &str = "/calico/resources/v3/projectcalico.org/workloadendpoints";

fn overlay(topology: &Topology) -> Result<Overlay<'_>> {
    Overlay::start(topology, &Network::default(), &[Role::canal()])
}

#[test]
fn what_was_waited_for_is_what_the_next_packet_meets() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let overlay = overlay(&topology)?;
    let (canal, first) = (overlay.canal(0), overlay.pod(0));
    // Its interface is known from here on: when the kernel tells of one is no matter of revisions.
    let second = overlay.another_pod(0, 7)?;
    let key = format!("{WORKLOADS}/{}/{}", pod::NAMESPACE, second.endpoint_name());
    for _ in 0..5 {
        overlay.store.delete(&key)?;
        // Somebody else's key: the revision goes on, and nothing else changes.
        let revision = overlay.store.put_at("/elsewhere", "x")?;
        let (code, said) = canal.wait_revision(revision, "10s")?;
        ensure!(code == ENFORCED, "{said}");
        ensure!(!canal.show("endpoints")?.to_string().contains(&second.interface), "it is gone by then");
        let revision = overlay.store.put_at(&key, &second.endpoint().to_string())?;
        let (code, said) = canal.wait_revision(revision, "10s")?;
        ensure!(code == ENFORCED, "{said}");
        Ping::to(second.v4).count(1).expect_all(&first.ns)?;
    }
    // A worker without packets sleeps; who waits wakes it.
    std::thread::sleep(Duration::from_millis(700));
    let revision = overlay.store.put_at("/elsewhere", "y")?;
    let begin = Instant::now();
    ensure!(canal.wait_revision(revision, "10s")?.0 == ENFORCED);
    ensure!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    topology.pass()
}

#[test]
fn what_cannot_be_enforced_is_said_with_its_reason() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let mut overlay = overlay(&topology)?;
    let revision = overlay.store.put_at("/elsewhere", "x")?;
    ensure!(overlay.canal(0).wait_revision(revision, "10s")?.0 == ENFORCED);
    let begin = Instant::now();
    let (code, said) = overlay.canal(0).wait_revision(revision + 1000, "1500ms")?;
    let took = begin.elapsed();
    ensure!(code == NOT && said.contains("is not enforced yet"), "{code:?} {said}");
    ensure!((1500..6000).contains(&took.as_millis()), "{took:?}");

    overlay.store.stop()?;
    let begin = Instant::now();
    let (code, said) = overlay.canal(0).wait_revision(revision + 1000, "60s")?;
    ensure!(code == NOT && said.contains("datastore is away"), "{code:?} {said}");
    ensure!(begin.elapsed() < Duration::from_secs(30), "nobody waits for what does not come");
    let (code, said) = overlay.canal(0).wait_revision(revision, "10s")?;
    ensure!(code == ENFORCED, "what was read stays in force: {said}");
    overlay.store.restart()?;
    let revision = overlay.store.put_at("/elsewhere", "z")?;
    let (code, said) = overlay.canal(0).wait_revision(revision, "30s")?;
    ensure!(code == ENFORCED || said.contains("datastore is away"), "{said}");

    overlay.canal_mut(0).kill()?;
    ensure!(overlay.canal(0).wait_revision(revision, "1s")?.0 == Some(2), "nobody answers");
    topology.pass()
}
