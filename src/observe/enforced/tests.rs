use std::sync::Mutex;

use canal_control::status::InForce;

use super::*;
use crate::worker_thread::tests::Fake;

/// A control side that does what it is told, and two workers.
struct World {
    status: watch::Sender<Status>,
    workers: Vec<WorkerHandle>,
    fakes: Vec<Fake>,
    asked: Arc<Mutex<Vec<Revision>>>,
    start: Instant,
}

impl World {
    fn new() -> Self {
        let (workers, fakes) = (0..2).map(Fake::new).unzip();
        let status = watch::Sender::new(Status::default());
        Self { status, workers, fakes, asked: Arc::default(), start: Instant::now() }
    }

    fn publish(&self, revision: Revision, complete: Revision, generation: u64) {
        self.status.send_modify(|status| {
            status.heard.advance(revision);
            status.published_generation = generation;
            status.in_force = Some(InForce { revision, complete, generation, since: Instant::now() });
        });
    }

    async fn wait(&self, revision: u64, patience_ms: u64) -> EnforcedView {
        let deadline = Instant::now() + Duration::from_millis(patience_ms);
        let ask = |revision| self.asked.lock().unwrap().push(revision);
        enforced(revision, deadline, self.status.subscribe(), &self.workers, ask).await
    }

    /// Milliseconds since the world began.
    fn clock(&self) -> u128 {
        self.start.elapsed().as_millis()
    }
}

#[tokio::test(start_paused = true)]
async fn a_revision_is_enforced_when_every_worker_has_taken_the_tables_over() {
    let world = World::new();
    world.publish(7, 7, 3);
    world.fakes.iter().for_each(|fake| fake.sees(3));
    let view = world.wait(7, 1000).await;
    assert!(view.enforced, "{view:?}");
    assert_eq!((view.generation, world.clock()), (3, 0));
    assert!(world.wait(6, 0).await.enforced, "an earlier one, too");
    assert!(world.asked.lock().unwrap().is_empty(), "nothing had to be asked");

    // Both sleep with older tables; one is stuck.
    world.publish(8, 8, 4);
    world.fakes[0].answers(4);
    let view = world.wait(8, 1000).await;
    assert_eq!((view.enforced, view.late_workers, world.clock()), (false, vec![1], 1000));
    assert_eq!(view.reasons, ["worker 1 does not use generation 4 yet"]);
    world.fakes[1].answers(4);
    assert!(world.wait(8, 1000).await.enforced);
    assert!((1000..1010).contains(&world.clock()), "{}", world.clock());
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_woken_by_the_publication() {
    let world = World::new();
    world.publish(7, 7, 3);
    world.fakes.iter().for_each(|fake| fake.answers(4));
    let publish = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        world.publish(9, 9, 4);
    };
    let (view, ()) = tokio::join!(world.wait(9, 5000), publish);
    assert!(view.enforced);
    assert!((700..710).contains(&world.clock()), "{}", world.clock());
    assert_eq!(*world.asked.lock().unwrap(), [9; 3], "after 20, 120 and 420 ms, and not again before 1420");
}

#[tokio::test(start_paused = true)]
async fn what_has_been_heard_of_is_asked_about_at_once() {
    let world = World::new();
    world.fakes.iter().for_each(|fake| fake.sees(3));
    world.publish(9, 4, 3);
    let answer = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(*world.asked.lock().unwrap(), [9]);
        world.publish(9, 9, 3);
    };
    let (view, ()) = tokio::join!(world.wait(9, 5000), answer);
    assert!(view.enforced);
    assert_eq!(world.clock(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_says_what_is_missing() {
    let world = World::new();
    let view = world.wait(9, 200).await;
    assert_eq!((view.enforced, view.degraded, world.clock()), (false, false, 200));
    assert_eq!(view.reasons, ["no tables have been published yet"]);
    world.publish(7, 7, 3);
    assert_eq!(world.wait(9, 0).await.reasons, ["the datastore has said nothing beyond revision 7"]);
    world.status.send_modify(|status| assert!(status.heard.advance(9)));
    assert_eq!(world.wait(9, 0).await.reasons, ["revision 7 is in force, 9 has been read"]);
    world.publish(9, 7, 3);
    let reason = "something written after revision 7 may not have been read yet";
    assert_eq!(world.wait(9, 0).await.reasons, [reason]);
}

#[tokio::test(start_paused = true)]
async fn what_hinders_ends_the_wait_unless_it_passes() {
    let world = World::new();
    world.fakes.iter().for_each(|fake| fake.sees(3));
    world.publish(7, 7, 3);
    let away = Reason::DatastoreAway { why: "refused".into() };
    world.status.send_modify(|status| status.degraded = vec![away.clone()]);
    assert!(world.wait(7, 5000).await.enforced, "what has been read stays in force");
    let view = world.wait(8, 5000).await;
    assert_eq!((view.enforced, view.degraded, world.clock()), (false, true, 1000));
    assert_eq!(view.reasons, [away.to_string()]);

    let heal = async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        world.status.send_modify(|status| status.degraded.clear());
        tokio::time::sleep(Duration::from_millis(900)).await;
        world.publish(8, 8, 3);
    };
    assert!(tokio::join!(world.wait(8, 5000), heal).0.enforced);

    let steering = Reason::Steering { why: "cali1: busy".into() };
    world.status.send_modify(|status| status.degraded = vec![Reason::LeaseContended, steering]);
    let view = world.wait(8, 5000).await;
    assert!(view.degraded && !view.enforced, "packets may go past the tables: {view:?}");
    assert_eq!(view.reasons.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn too_many_who_wait_are_answered_at_once() {
    let world = World::new();
    let places = Arc::new(tokio::sync::Semaphore::new(1));
    let patience = Duration::from_secs(5);
    let wait = || {
        let ask = |_: Revision| {};
        wait_in_turn(Arc::clone(&places), 9, patience, world.status.subscribe(), &world.workers, ask)
    };
    let second = async {
        let view = wait().await;
        assert_eq!((view.enforced, world.clock()), (false, 0));
    };
    tokio::join!(wait(), second);
    assert_eq!(world.clock(), 5000);
    wait().await;
    assert_eq!(world.clock(), 10_000, "a place has become free");
}
