//! What the fuzz targets share: inputs that reach every offload, and a pool that lives as long as the process.

use std::cell::RefCell;

use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::limits::SUPER_FRAME_BUFFER;
use canal_dataplane::offload::{Caps, Checksum, Gso, GsoKind, Offload, Tunnel};
use libfuzzer_sys::arbitrary::{self, Arbitrary};

/// Frames of the pool.
pub const FRAMES: usize = 64;

thread_local! {
    static POOL: RefCell<FramePool> = RefCell::new(FramePool::new(FRAMES, SUPER_FRAME_BUFFER));
}

/// Runs `check` with `packet` in a frame; `check` must give back every frame but that one, which it leaves or replaces.
/// Packets that do not fit a frame are not run.
pub fn with_frame(packet: &[u8], check: impl FnOnce(&mut Frame, &mut FramePool)) {
    POOL.with_borrow_mut(|pool| {
        let mut frame = pool.take().expect("the last run gave all frames back");
        if frame.fill(packet) {
            check(&mut frame, pool);
        }
        pool.give(frame);
        assert_eq!(pool.available(), FRAMES, "frames were lost");
    });
}

/// Any state of a checksum.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum AnyChecksum {
    Complete,
    Partial { start: u16, offset: u16 },
    Verified,
}

impl From<AnyChecksum> for Checksum {
    fn from(any: AnyChecksum) -> Self {
        match any {
            AnyChecksum::Complete => Self::Complete,
            AnyChecksum::Partial { start, offset } => Self::Partial { start, offset },
            AnyChecksum::Verified => Self::Verified,
        }
    }
}

/// Any offload, right or wrong.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct AnyOffload {
    checksum: AnyChecksum,
    /// Kind, size and ECN.
    gso: Option<(u8, u16, bool)>,
    /// Outer IPv6, outer transport, inner network, outer checksum.
    tunnel: Option<(bool, u16, u16, bool)>,
}

impl From<AnyOffload> for Offload {
    fn from(any: AnyOffload) -> Self {
        let gso = any.gso.map(|(kind, size, ecn)| {
            let kind = [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp][usize::from(kind % 3)];
            Gso { kind, size, ecn }
        });
        let tunnel = any.tunnel.map(|(outer_v6, outer_transport, inner_network, outer_checksum)| Tunnel {
            outer_v6,
            outer_transport,
            inner_network,
            outer_checksum,
        });
        Self { checksum: any.checksum.into(), gso, tunnel }
    }
}

/// Any capabilities of a port.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct AnyCaps([bool; 4]);

impl From<AnyCaps> for Caps {
    fn from(AnyCaps([checksum, tso, uso, tunnel]): AnyCaps) -> Self {
        Self { checksum, tso, uso, tunnel }
    }
}
