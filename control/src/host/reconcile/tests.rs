use std::sync::Mutex;

use nix::errno::Errno;
use tokio::sync::Notify;

use super::*;
use crate::host::delta::Change;
use crate::host::desired::Route;
use crate::host::fake::{self, FakeKernel};

fn desired() -> Desired {
    Desired {
        device: "canal0".into(),
        mtu: 1450,
        up: true,
        noarp: true,
        addresses: vec!["10.244.3.0/32".parse().unwrap()],
        routes: vec![Route {
            dst: "10.244.0.0/16".parse().unwrap(),
            src: "10.244.3.0".parse().ok(),
            metric: 0,
        }],
    }
}

fn host() -> HostView {
    HostView { links: vec![fake::link(2, "eth0"), fake::link(7, "canal0")], ..HostView::default() }
}

#[tokio::test]
async fn once_in_sync_nothing_is_done() {
    let kernel = FakeKernel::new(host());
    let first = reconcile(&kernel, &desired()).await.unwrap();
    assert!(matches!(first, Outcome::InSync { applied: 6 }), "{first:?}");
    assert!(matches!(reconcile(&kernel, &desired()).await.unwrap(), Outcome::InSync { applied: 0 }));
    assert_eq!(kernel.take_obeyed().len(), 6);
}

#[tokio::test]
async fn a_missing_device_is_said_and_left_to_its_maker() {
    let kernel = FakeKernel::default();
    assert!(matches!(reconcile(&kernel, &desired()).await.unwrap(), Outcome::NoDevice));
}

#[tokio::test]
async fn a_route_of_another_device_is_never_replaced() {
    let mut view = host();
    let foreign = Route { src: None, ..desired().routes[0] }.on(2);
    view.routes.push(foreign.clone());
    let kernel = FakeKernel::new(view);
    let Outcome::Degraded { missing } = reconcile(&kernel, &desired()).await.unwrap() else {
        panic!("in sync although the destination is taken");
    };
    let [(op, Some(Error::Refused { errno: Errno::EEXIST, .. }))] = &missing[..] else {
        panic!("{missing:?}");
    };
    assert_eq!(op.change, Change::RouteAdd(desired().routes[0]));
    assert_eq!(kernel.state().routes, [foreign]);
    // The rest has been done nevertheless.
    assert_eq!(kernel.state().addresses_of(7).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_by_hand_is_put_back_and_new_wishes_are_followed() {
    let kernel = FakeKernel::new(host());
    let (wishes, wished) = watch::channel(Arc::new(desired()));
    let (hosts, seen) = watch::channel(Arc::new(host()));
    let outcomes = Mutex::new(Vec::new());
    let heard = Notify::new();
    let report = |outcome: &Result<Outcome, Error>| {
        outcomes.lock().unwrap().push(match outcome {
            Ok(Outcome::InSync { applied }) => *applied,
            other => panic!("{other:?}"),
        });
        heard.notify_one();
    };
    let story = async {
        heard.notified().await;
        kernel.state().addresses.clear();
        kernel.state().routes.clear();
        hosts.send_modify(|_| {});
        heard.notified().await;
        wishes.send_modify(|wish| Arc::make_mut(wish).mtu = 1400);
        heard.notified().await;
        // Nobody says a word: the periodic check finds it.
        kernel.state().routes.clear();
        heard.notified().await;
        drop(wishes);
    };
    tokio::join!(keep(&kernel, wished, seen, report), story);
    assert_eq!(*outcomes.lock().unwrap(), [6, 2, 1, 1]);
    assert_eq!(kernel.state().link_by_index(7).unwrap().mtu, 1400);
}
