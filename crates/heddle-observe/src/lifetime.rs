//! How long a connection to one of the observer's servers lives at most.

use std::{
    future::Future,
    pin::{Pin, pin},
};

use heddle_runtime::clock;

use crate::limits;

/// Serves a connection as long as one may live, then lets it end in order: `shut_down` begins that.
pub(crate) async fn within_its_lifetime<C: Future>(connection: C, shut_down: fn(Pin<&mut C>)) {
    let mut served = pin!(connection);
    if clock::within(limits::CONNECTION_LIFETIME_MAX, served.as_mut()).await.is_none() {
        shut_down(served.as_mut());
        let _given_up = clock::within(limits::REQUEST_HEAD_TIMEOUT, served).await;
    }
}
