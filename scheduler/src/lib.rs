//! API, dispatch, reconcilers
