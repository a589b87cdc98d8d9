//! IP pools and reservations.

use super::meta::{API_VERSION, KIND, METADATA};
use super::{INTEGER, Shape, TEXT, Type, always, keep, omit, plain, required};
use crate::resource::check::pool;
use crate::resource::text;

pub(super) static IP_POOL: Type = plain(
    "IPPool",
    &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&IP_POOL_SPEC)), keep("status", Shape::Any)],
);

pub(super) static IP_POOL_SPEC: Type = Type {
    name: "IPPoolSpec",
    fields: &[
        required("cidr", Shape::Text(text::NET)),
        omit("vxlanMode", Shape::Text(text::ENCAP_MODE)),
        omit("ipipMode", Shape::Text(text::ENCAP_MODE)),
        omit("natOutgoing", Shape::Bool),
        omit("disabled", Shape::Bool),
        omit("disableBGPExport", Shape::Bool),
        omit("blockSize", INTEGER),
        omit("nodeSelector", Shape::Selector),
        omit("namespaceSelector", Shape::Selector),
        keep("ipip", Shape::Any),
        omit("nat-outgoing", Shape::Bool),
        omit("allowedUses", Shape::List(&Shape::Text(text::POOL_USE))),
        keep("assignmentMode", Shape::Text(text::ASSIGNMENT)),
    ],
    check: pool::pool,
};

pub(super) static IP_RESERVATION: Type = plain(
    "IPReservation",
    &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&IP_RESERVATION_SPEC))],
);

pub(super) static IP_RESERVATION_SPEC: Type =
    plain("IPReservationSpec", &[omit("reservedCIDRs", Shape::List(&Shape::Text(text::CIDR)))]);

/// What BGP passwords point to; also a text, so that a file may not hold the password itself.
pub(super) static SECRET_KEY: Type =
    plain("SecretKeySelector", &[omit("name", TEXT), always("key", TEXT), keep("optional", Shape::Bool)]);
