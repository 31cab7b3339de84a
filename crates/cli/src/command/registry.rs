//! `ponton login`, `logout` and `search`.

mod login;
mod search;

pub(crate) use login::{LOGIN, LOGOUT};
pub(crate) use search::SEARCH;
